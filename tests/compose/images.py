"""The images that compose.yaml and the Dockerfile name. Stand-ins are made for missing ones."""

import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.compose.engine import CommandError, UnavailableError, docker, run

ROOT = Path(__file__).parents[2]
LABEL = "org.millstream.double"  # on every image that is made here
_DEBIAN = "millstream-double/debian"
_SUITE = "bookworm"  # the Debian release with Python 3.11, as the Dockerfile wants
_SERVERS = ("redis", "postgres", "qdrant", "tei", "proxy")
_CONTEXT = ("pyproject.toml", "requirements.lock", "requirements.model.lock", "local", "shared")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_DISTRIBUTED = Path("/usr/share/ca-certificates")


def wanted() -> dict[str, str]:
    """Names of the images that are not ours, by the stage of images/Dockerfile that stands in."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    names = {
        server: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", services[server]["image"])
        for server in _SERVERS
    }
    base = re.search(r"^FROM (python:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base
    return {"python": base[1], **names}


def own_image() -> str:
    """The name of the image that the Dockerfile builds."""
    return str(yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["migrate"]["image"])


def make_missing(log: Path) -> list[str]:
    """Make a stand-in for each image that is not here; returns their names."""
    missing = {stage: name for stage, name in wanted().items() if not exists(name)}
    if missing and not exists(_DEBIAN):
        _make_debian(log)
    context = _context() if missing else b""
    for stage, name in missing.items():
        arguments = ["--target", stage, "--tag", name, "--label", f"{LABEL}={stage}"]
        command = [
            "docker",
            "build",
            "--force-rm",
            "--file",
            "images/Dockerfile",
            *arguments,
            *build_arguments(),
            "-",
        ]
        run(command, stdin=context, environ=os.environ | build_environment(), log=log)
    return list(missing.values())


def stand_ins() -> list[str]:
    """Names among the wanted images that are stand-ins."""
    return [name for name in wanted().values() if exists(name) and _is_stand_in(name)]


def exists(name: str) -> bool:
    return bool(docker("image", "ls", "--quiet", name).strip())


def sizes(name: str) -> list[tuple[str, str]]:
    """Size and instruction of each layer that is not empty, the base first."""
    lines = docker(
        "history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", name
    ).splitlines()
    layers = [
        (size, re.sub(r"\s+", " ", command))
        for size, command in (line.split("\t") for line in lines)
    ]
    return [layer for layer in reversed(layers) if layer[0] != "0B"]


def build_arguments() -> list[str]:
    """`--build-arg NAME` for each variable of `build_environment`, which Docker then reads."""
    return [word for name in build_environment() for word in ("--build-arg", name)]


def build_environment() -> dict[str, str]:
    """Variables with the certificates and package indexes that a build on this machine needs."""
    found = {
        name: os.environ[name]
        for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")
        if os.environ.get(name)
    }
    certificates = os.environ.get("CA_CERTIFICATES") or "\n".join(_local_certificates())
    return found | ({"CA_CERTIFICATES": certificates} if certificates else {})


def untagged() -> set[str]:
    """Ids of images without a name: stages of builds."""
    return set(docker("image", "ls", "--quiet", "--no-trunc", "--filter", "dangling=true").split())


def remove(names: list[str], untagged_before: set[str]) -> None:
    """Remove images by name, the Debian base, and build stages that were not there before."""
    for name in [*names, _DEBIAN]:
        if exists(name):
            docker("image", "rm", name)
    while stages := untagged() - untagged_before:  # a stage may be the parent of another
        removed = [each for each in stages if _can_remove(each)]
        if not removed:
            return


def _can_remove(image: str) -> bool:
    try:
        docker("image", "rm", image)
    except CommandError:
        return False
    return True


def _is_stand_in(name: str) -> bool:
    return bool(
        docker(
            "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', name
        ).strip()
    )


def _make_debian(log: Path) -> None:
    if shutil.which("debootstrap") is None:
        raise UnavailableError(
            "images cannot be made here: install debootstrap, or pull the images of compose.yaml"
        )
    if os.geteuid() != 0:
        raise UnavailableError(
            "images cannot be made here: debootstrap needs root; or pull the images of compose.yaml"
        )
    with tempfile.TemporaryDirectory(prefix="millstream-debian-") as directory:
        root = Path(directory) / "root"
        run(
            [
                "debootstrap",
                "--variant=minbase",
                _SUITE,
                str(root),
                # Without one, debootstrap takes the mirror that it knows.
                *filter(None, [os.environ.get("DEBIAN_MIRROR")]),
            ],
            log=log,
        )
        archive = Path(directory) / "root.tar"
        without = [
            "--exclude=./var/cache/apt/archives/*.deb",
            "--exclude=./usr/share/doc/*",
            "--exclude=./dev/*",
        ]
        run(
            ["tar", "--create", "--file", str(archive), "--directory", str(root), *without, "."],
            log=log,
        )
        docker("import", "--change", f"LABEL {LABEL}=debian", str(archive), _DEBIAN)


def _context() -> bytes:
    """The build context of images/Dockerfile as a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in _CONTEXT:
            archive.add(ROOT / name, name, filter=_normalised)
        archive.add(Path(__file__).parent / "images", "images", filter=_normalised)
    return stream.getvalue()


def _normalised(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _local_certificates() -> Iterator[str]:
    """Certificates that were added to this Debian, for example of a proxy that inspects TLS."""
    if not (_BUNDLE.exists() and _DISTRIBUTED.exists()):
        return
    brought = {
        _body(text)
        for path in _DISTRIBUTED.rglob("*.crt")
        for text in _CERTIFICATE.findall(path.read_text())
    }
    yield from (
        text for text in _CERTIFICATE.findall(_BUNDLE.read_text()) if _body(text) not in brought
    )


def _body(certificate: str) -> str:
    return "".join(certificate.split())
