"""The public data files: found on this machine or downloaded, and checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from ...files.atomic import replacing
from ...files.escapes import message_of
from .sources import FILES

HOST = "https://raw.githubusercontent.com"
TIMEOUT = 60  #: seconds without an answer
LONGEST = 600.0  #: seconds for a whole file
LARGEST = 64 << 20  #: bytes; the largest file here has 2 MB


def cache_folder() -> Path:
    """``MTLWEIGHTS_CACHE``, else ``~/.cache/mtlweights``."""
    return Path(os.environ.get("MTLWEIGHTS_CACHE") or "~/.cache/mtlweights").expanduser()


def data_file(name: str) -> Path:
    """A file of `FILES`, its checksum verified.

    Looked for in ``MTLWEIGHTS_DATA``, then in the cache, then downloaded into the cache.

    Raises:
        ValueError: its content is not the expected one.
        OSError: it is not there and cannot be downloaded or written.
    """
    return local_file(name) or _download(name, cache_folder() / name)


def local_file(name: str) -> Path | None:
    """A file of `FILES` on this machine, its checksum verified; None where it would be downloaded.

    Raises:
        ValueError: its content is not the expected one.
        OSError: it cannot be read.
    """
    folders = [cache_folder()]
    if given := os.environ.get("MTLWEIGHTS_DATA"):
        folders.insert(0, Path(given).expanduser())
    for folder in folders:
        path = folder / name
        if path.is_file():
            _verify(path.read_bytes(), name, f"{path}")
            return path
    return None


def _verify(content: bytes, name: str, where: str) -> None:
    found, expected = hashlib.sha256(content).hexdigest(), FILES[name].sha256
    if found != expected:
        raise ValueError(
            f"{where} is not the expected file: SHA-256 {found}, expected {expected}; "
            f"delete it, or set MTLWEIGHTS_DATA to a folder that holds {name}."
        )


def _download(name: str, path: Path) -> Path:
    url, given = f"{HOST}/{FILES[name].url}", os.environ.get("MTLWEIGHTS_DATA") or "not set"
    try:
        content = _fetch(url)
    except OSError as error:
        reason = message_of(error)[:200]
        raise OSError(
            f"{name} is not in MTLWEIGHTS_DATA ({given}) nor at {path}, and {url} failed ({reason}): "
            f"set MTLWEIGHTS_DATA to a folder that holds {name}, SHA-256 {FILES[name].sha256}."
        ) from error
    _verify(content, name, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
    return path


def _fetch(url: str) -> bytes:
    """What is at the address.

    Raises:
        OSError: it cannot be had, is too large or takes too long.
    """
    found: list[bytes | Exception] = []

    def fetch() -> None:
        try:
            found.append(_read(url))
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            found.append(error)

    # a server that sends a byte now and then keeps every timeout of a socket from passing
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(LONGEST)
    if not found:
        raise OSError(f"not done after {LONGEST:g} seconds")
    if isinstance(found[0], Exception):
        raise OSError(str(found[0]) or type(found[0]).__name__) from found[0]
    return found[0]


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        content: bytes = response.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(f"more than {LARGEST >> 20} MiB")
    return content
