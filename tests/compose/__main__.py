"""`make compose-test`: runs compose.yaml on a Docker engine, disturbs it, and looks for losses.

Missing images are made from Debian packages and the embedded servers, and removed at the end.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tests.compose.deployment import deployed
from tests.compose.engine import CommandError, UnavailableError, compose_command, docker, run
from tests.compose.images import exists, make_missing, own_image, remove, stand_ins, untagged
from tests.compose.report import DOCUMENT, record
from tests.compose.scenario import Figures, run_scenario


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="keep the images: the next run starts in seconds"
    )
    parser.add_argument(
        "--record", action="store_true", help=f"put the figures into {DOCUMENT.name}"
    )
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="millstream-compose-"))
    try:
        figures = _run(compose_command(), directory, keep=options.keep)
    except UnavailableError as error:
        shutil.rmtree(directory)
        _say(f"compose-test was not run: {error}")
        return 2
    except (AssertionError, CommandError) as error:
        _say(f"compose-test failed: {error}\nAll output: {directory}")
        return 1
    shutil.rmtree(directory)
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    if options.record:
        record(figures)
    return 0


def _run(compose: tuple[str, ...], directory: Path, *, keep: bool) -> Figures:
    untagged_before, had_image = untagged(), exists(own_image())
    figures = Figures(
        compose=run([*compose, "version", "--short"]).strip(),
        engine=docker("version", "--format", "{{.Server.Version}}").strip(),
    )
    try:
        started = time.monotonic()
        made = make_missing(directory / "images.log")
        _say(f"{len(made)} images made in {time.monotonic() - started:.0f} s")
        figures.stand_ins = stand_ins()
        with deployed(compose, directory) as deployment:
            run_scenario(deployment, figures, _say)
        _say("nothing left behind")
    finally:
        if not keep:
            remove([*stand_ins(), *([] if had_image else [own_image()])], untagged_before)
    return figures


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
