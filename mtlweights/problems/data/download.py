"""The public data files: where they are on this machine, where they come from, and what they must hold."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from ...files.atomic import replacing
from ...files.escapes import message_of

HOST = "https://raw.githubusercontent.com"
TIMEOUT = 60  #: seconds without an answer
LONGEST = 600.0  #: seconds for a whole file
LARGEST = 64 << 20  #: bytes; the largest file here has 2 MB

_TWEEBANK = "social-machines/TweebankNLP/442697870da961db2b3c5a9442ca17beb5fdbfd9"
_UD = f"{_TWEEBANK}/twitter-stanza/data/extern_data/ud2/en_tweet"
_NER = f"{_TWEEBANK}/Tweebank-NER-v1.0"
_SICK = "FTAsr/STS/07fd4720cf00c9c78733718bd032fba7d92efc3a/data/SICK"
_ABALONE = "jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f"


class Source(NamedTuple):
    """Where a file comes from (path below `HOST`: repository, commit, path) and its SHA-256."""

    url: str
    sha256: str


FILES: dict[str, Source] = {
    "tweebank/en_tweet-ud-train.conllu": Source(
        f"{_UD}/en_tweet-ud-train.conllu", "ff92d8947dabd41850057dd3a05b32f48610b2e084be4991162b79ea1be8f46d"
    ),
    "tweebank/en_tweet-ud-dev.conllu": Source(
        f"{_UD}/en_tweet-ud-dev.conllu", "3950416f04a540f72b5252d3db354171860831c197c2c04b40c33325a476fa35"
    ),
    "tweebank/en_tweet-ud-test.conllu": Source(
        f"{_UD}/en_tweet-ud-test.conllu", "64b32264bc6475049335178f6d51be1d2be0cf86b8636022471a796e59305c41"
    ),
    "tweebank/tweebank-ner-train.bio": Source(
        f"{_NER}/train.bio", "d5928a7e2af0abb0b7a0e035481094aad1bad5ad87df9694109a78efa21df425"
    ),
    "tweebank/tweebank-ner-dev.bio": Source(
        f"{_NER}/dev.bio", "bb6629ee2e753b4e179852150d6f9429fd9d41fab37731dbf68c71b2919a539b"
    ),
    "tweebank/tweebank-ner-test.bio": Source(
        f"{_NER}/test.bio", "418fa8e75b3d875ec71dbb65098f93c1f865db92b7a02aaea2d265ffdfe66e9e"
    ),
    "sick/SICK_train.txt": Source(
        f"{_SICK}/SICK_train.txt", "266cf8047149bd1d68138dd30439f3122bff30069740ac6705bb6197d9f1b48e"
    ),
    "sick/SICK_trial.txt": Source(
        f"{_SICK}/SICK_trial.txt", "5a88cfb62f8c6bd2a3cce0f2421ba2cb8c2be5ab4a800f6f01e2c64aafb7db56"
    ),
    "sick/SICK_test_annotated.txt": Source(
        f"{_SICK}/SICK_test_annotated.txt", "2b8aa806658d6fc23c6824c83776c2d4fee7556000817b5ec0f982861413b7d0"
    ),
    "abalone/abalone.csv": Source(
        f"{_ABALONE}/abalone.csv", "eb2de13be807e9bb9ec4128b9c89b98ab23d7739121cfd17b7dde69b46ba7bf6"
    ),
}


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
    folders = [cache_folder()]
    if given := os.environ.get("MTLWEIGHTS_DATA"):
        folders.insert(0, Path(given).expanduser())
    for folder in folders:
        path = folder / name
        if path.is_file():
            _verify(path.read_bytes(), name, f"{path}")
            return path
    return _download(name, cache_folder() / name)


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
