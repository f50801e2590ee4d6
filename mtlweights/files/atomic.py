"""Files that appear whole or not at all, and claims that end with the process that made them."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be deleted there, which serves as well
    fcntl = None  # type: ignore[assignment]


def prepare(folder: str | os.PathLike[str]) -> Path:
    """Make ``folder``, clear what killed processes left in it, and try a file, before any work.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for kind in ("tmp", "claim"):
            _sweep(path, f".*.{kind}")
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write to {folder}: {reason}; choose another folder.") from None
    return path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write; it replaces ``path`` at the end of the block, and is gone if the block raises.

    A reader sees the old content or the new, flushed to the disk. What a killed writer of the same path left
    behind is deleted.

    Raises:
        OSError: the folder is missing, cannot be written or is full; it names ``path``.
    """
    path = Path(path)
    _sweep(path.parent, f".{path.name}.*.tmp")
    file, part = _begin(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], text: str) -> Path:
    """Write a whole file as UTF-8, as `replacing` does.

    Raises:
        OSError: as there.
    """
    with replacing(path) as file:
        file.write(text.encode())
    return Path(path)


def _begin(path: Path) -> tuple[BinaryIO, Path]:
    """A new hidden file beside ``path``, locked for as long as it is open."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        file = open(part, "xb")  # noqa: SIM115 (the caller closes it)
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks: what a kill leaves there stays
                fcntl.flock(file, fcntl.LOCK_EX)
        if part.exists():  # else another process took it, not locked yet, for one that a kill left
            return file, part
        file.close()


def _sweep(folder: Path, pattern: str) -> None:
    """Delete the unfinished files and claims whose process is gone: the kernel drops its locks."""
    for part in folder.glob(pattern):
        with suppress(OSError), open(part, "rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


class Claim:
    """A right to do something that one process has at a time; it ends with the process, however that ends."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from filelock import FileLock

        self.path = Path(path)
        self._lock = FileLock(self.path)

    def take(self) -> bool:
        """Whether it is ours now, without waiting.

        Raises:
            OSError: the file of the claim cannot be made.
        """
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        with suppress(OSError):  # the name is for people alone
            self.path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        return True

    def owner(self) -> str:
        """Who has it, for a message."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")[:100].strip() or "another process"
        except OSError:
            return "another process"

    def drop(self) -> None:
        """Give it up and leave no file."""
        if os.name == "posix":  # while it is locked: whoever waits for this file sees that it is gone
            self.path.unlink(missing_ok=True)
        self._lock.release()
