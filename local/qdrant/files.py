"""Files and directories that must survive a crash: written, renamed or removed as one step."""

import os
import shutil
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file; after a crash there is the old one or the new one. Blocks for two fsyncs."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def move_into(path: Path, folder: Path) -> Path:
    """Move a file or directory into `folder` under its own name and the first free number."""
    folder.mkdir(exist_ok=True)
    number = 1
    while (target := folder / f"{path.name}.{number}").exists():
        number += 1
    path.rename(target)
    sync_directory(path.parent)
    return target


def remove(path: Path, trash: Path) -> None:
    """Remove a directory so that a crash leaves it whole or gone (the rest of it in `trash`)."""
    shutil.rmtree(move_into(path, trash))


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
