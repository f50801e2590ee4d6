"""The digest of a problem's data: what tells a run on one table from a run on another of the same name."""

from __future__ import annotations

import hashlib
import json
import pickle
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..problem import Problem

_BLOCK = 1024  #: examples that are text at a time


def digest(problem: Problem) -> str:
    """32 hexadecimal digits that follow from the tasks' labels and from every example of every split."""
    found = hashlib.sha256()
    for task in sorted(problem.tasks, key=lambda task: task.name):
        found.update(json.dumps([task.name, task.kind, task.labels], default=_plain).encode())
    for part, examples in problem.splits.items():
        found.update(f"{part} {len(examples)}".encode())
        rest = iter(examples)
        while block := list(islice(rest, _BLOCK)):
            found.update(json.dumps(block, default=_plain, sort_keys=True).encode())
    return found.hexdigest()[:32]


def _plain(value: Any) -> Any:
    """An input that JSON has no word for: an array by its bytes, else as pickle writes it."""
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return [str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
    return hashlib.sha256(pickle.dumps(value, protocol=4)).hexdigest()
