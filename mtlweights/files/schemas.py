"""What a result and a checkpoint must look like: files come from strangers, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

NUMBER = (int, float)
LARGEST = 1e150


class Each(NamedTuple):
    """A mapping from names to values of one shape."""

    shape: Any


class Maybe(NamedTuple):
    """The shape, or None."""

    shape: Any


_SCORES = Each(Each(Maybe(NUMBER)))
_PLAIN = Maybe((str, int, float, bool))
_ROW: dict[str, Any] = {"dev": _SCORES, "weight": Each(Maybe(NUMBER)), "train?": Each(Maybe(NUMBER))}
_ROW |= {f"{name}?": Maybe(NUMBER) for name in ("epoch", "score", "lr", "seconds")} | {"seen?": Each(int)}

#: a key that ends in ``?`` may be missing
RESULT: dict[str, Any] = {
    "schema": int,
    "id": str,
    "problem": str,
    "strategy": str,
    "only": Maybe(str),
    "seed": int,
    "settings": Each(_PLAIN),
    "data?": Maybe(str),
    "code?": Maybe(str),
    "status": str,
    "error": Maybe({"type": str, "message": str, "traceback": str}),
    "tasks": Each({"kind": str, "metrics": [str], "higher_is_better": Each(bool)}),
    "test": _SCORES,
    "last?": _SCORES,
    "resampled?": Each([NUMBER]),
    "library?": Maybe(Each(str)),
    "dev": _SCORES,
    "history": [_ROW],
    "best_epoch": Maybe(int),
    "steps": int,
    "seconds": Maybe(NUMBER),
    "environment": Each(_PLAIN),
    "checksum?": str,
}

CHECKPOINT: dict[str, Any] = {
    "format": int,
    "run": dict,
    "model": Each(object),
    "best": Each(Tensor),
    "optimizer": {"state": dict, "param_groups": list},
    "schedule": dict,
    "scaler": Maybe(dict),
    "rng": {"torch": Tensor, "numpy": Sequence, "python": Sequence},
    "history": {
        "rows": [{**_ROW, "epoch": int, "score": float, "seconds": float}],
        "best_epoch": int,
        "best_score": float,
        "steps": int,
        "seconds": float,
    },
}


def check(value: Any, shape: Any, where: str = "it") -> None:
    """Refuse a value that is not of the shape; ``where`` names it in the message. Numbers are NaN or below
    `LARGEST`.

    Raises:
        ValueError: what differs first, in one line.
    """
    if isinstance(shape, Maybe):
        if value is not None:
            check(value, shape.shape, where)
    elif isinstance(shape, Each):
        _expect(isinstance(value, Mapping) and all(isinstance(key, str) for key in value), value, dict, where)
        for key, item in value.items():
            check(item, shape.shape, f"{where}.{key[:40]}")
    elif isinstance(shape, dict):
        _expect(isinstance(value, Mapping), value, dict, where)
        lacks = [key for key in shape if not key.endswith("?") and key not in value]
        if lacks:
            raise ValueError(f"{where} lacks {', '.join(lacks)}")
        for key, item in shape.items():
            if key.removesuffix("?") in value:
                check(value[key.removesuffix("?")], item, f"{where}.{key.removesuffix('?')}")
    elif isinstance(shape, list):
        _expect(isinstance(value, list), value, list, where)
        for index, item in enumerate(value):
            check(item, shape[0], f"{where}[{index}]")
    else:
        _expect(_is(value, shape), value, shape, where)


def alike(value: Any, own: Any, where: str = "it") -> None:
    """Refuse a value that is not built as ``own`` is: keys, lengths, types, shapes. None stands for any type.

    Raises:
        ValueError: what differs first, in one line.
    """
    if isinstance(own, dict) and isinstance(value, dict) and value.keys() == own.keys():
        for key in own:
            alike(value[key], own[key], f"{where}.{key}")
    elif isinstance(own, (list, tuple)) and isinstance(value, (list, tuple)) and len(value) == len(own):
        for index, (item, mine) in enumerate(zip(value, own, strict=True)):
            alike(item, mine, f"{where}[{index}]")
    elif isinstance(own, Tensor) and isinstance(value, Tensor):
        if (value.shape, value.dtype) != (own.shape, own.dtype):
            expected = f"{list(own.shape)} {own.dtype}"
            raise ValueError(f"{where} should be {expected}, found {list(value.shape)} {value.dtype}")
    elif value is not None and own is not None:
        same = type(value) is type(own) and not isinstance(own, (dict, list, tuple))
        _expect(same, value, type(own), where)


def _is(value: Any, kinds: Any) -> bool:
    if isinstance(value, bool):
        return kinds is object or bool in (kinds if isinstance(kinds, tuple) else (kinds,))
    # squares and sums of them are taken
    small = not isinstance(value, NUMBER) or math.isnan(value) or abs(value) < LARGEST
    return isinstance(value, kinds) and small


def _expect(fits: bool, value: Any, kinds: Any, where: str) -> None:
    if not fits:
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        shown = str(type(value).__name__) if isinstance(value, (dict, list, Tensor)) else repr(value)[:60]
        raise ValueError(f"{where} should be {names}, found {shown}")
