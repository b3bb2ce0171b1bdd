"""A service without any work, run as a script: `tiny_service.py NAME [JOURNAL]`.

It responds to /readyz on the port of its setting with its instance id, and to /environment with its
environment. It writes its name into the journal when it is asked to stop. TINY_<NAME>_EXIT makes it
end with that status at once, TINY_<NAME>_SILENT makes it respond with 503. With TINY_<NAME>_WAIT it
waits until that file exists before it listens.
"""

import http.server
import json
import os
import signal
import sys
import time
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_silent = f"TINY_{sys.argv[1].upper()}_SILENT" in os.environ
        self.send_response(503 if is_silent else 200)
        self.end_headers()
        body = dict(os.environ) if self.path == "/environment" else {"instance": INSTANCE}
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


INSTANCE = f"host:{os.getpid()}:tiny"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def wait_for_file(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def main() -> None:
    name = sys.argv[1]
    say(f"{name} says hello")
    if status := os.environ.get(f"TINY_{name.upper()}_EXIT"):
        say("this cannot work")
        sys.exit(int(status))
    if path := os.environ.get(f"TINY_{name.upper()}_WAIT"):
        wait_for_file(Path(path))

    def stop(*_: object) -> None:
        if len(sys.argv) > 2:
            with Path(sys.argv[2]).open("a") as journal:
                journal.write(f"{time.monotonic()} {name}\n")
        say(f"{name} says goodbye")
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    port = int(os.environ[f"WEBHOOK_{name.upper()}_PORT"])
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
