"""The results of several folders, made by shards of one bench on machines of their own, in one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from .costs import keep_costs, read_costs
from .predictions import PREDICTIONS
from .protocol import read_protocol, settle
from .results import RUNS, read_results, runs_folder, write_result
from .selection import keep, read_choices

_OUTCOME = ("status", "test", "dev", "best_epoch", "steps", "data", "library")


def in_shard(key: str, shard: tuple[int, int]) -> bool:
    """Whether what has this key belongs to shard i of n, counted from 1: every key to exactly one."""
    number, of = shard
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") % of == number - 1


def read_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` as (2, 8).

    Raises:
        ValueError: it is no such text.
    """
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return int(number), int(of)
    raise ValueError(f"--shard takes i/n with i from 1 to n, as in 2/8; found {text!r}.")


def merge(folders: Sequence[str | Path], out: str | Path) -> list[dict[str, Any]]:
    """Copy the results, predictions and choices of ``folders`` into ``out``, which may hold some already.

    Of a run that is in several the first that ended well is taken.

    Raises:
        FileNotFoundError: a folder is missing or has no result.
        ValueError: two folders were settled under different protocols, or one run came out differently in
            two of them: nothing is copied then.
        OSError: ``out`` cannot be written.
    """
    there = [out] if Path(out, RUNS).is_dir() and any(Path(out, RUNS).glob("[!.]*.json")) else []
    sources = [Path(folder) for folder in (*there, *folders)]
    found = _joined((source, result) for source in sources for result in read_results(source))
    protocols = {str(source): read_protocol(source) for source in sources}
    settled = {name: protocol for name, protocol in protocols.items() if protocol is not None}
    for name, protocol in settled.items():
        first = next(iter(settled))
        if protocol != settled[first]:
            raise ValueError(f"{name} was settled under another protocol than {first}: not one bench.")
    path = runs_folder(out).parent
    for source, result in found.values():
        _copy(source / PREDICTIONS / f"{result['id']}.npz", path / PREDICTIONS)
        write_result(result, path)
    for protocol in list(settled.values())[:1]:
        settle(protocol, path)
    keep([choice for source in sources for choice in read_choices(source)], path)
    keep_costs({key: cost for source in sources for key, cost in read_costs(source).items()}, path)
    return [result for _, result in found.values()]


def _joined(results: Iterable[tuple[Path, dict[str, Any]]]) -> dict[str, tuple[Path, dict[str, Any]]]:
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for source, result in results:
        before_source, before = found.get(result["id"], (source, result))
        other = [key for key in _OUTCOME if before.get(key) != result.get(key)]
        if other and before["status"] == result["status"] == "ok":
            differ = f"run {result['id']} differs between {before_source} and {source} in {', '.join(other)}"
            raise ValueError(f"{differ}: of other data, code or machines, which no table may mix.")
        if result["id"] not in found or (before["status"] != "ok" and result["status"] == "ok"):
            found[result["id"]] = (source, result)
    return found


def _copy(file: Path, folder: Path) -> None:
    if file.is_file() and file.parent.resolve() != folder.resolve():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / file.name)
