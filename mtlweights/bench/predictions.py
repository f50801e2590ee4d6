"""What every run predicted on the test split: compressed, beside the results, for whoever scores it anew."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files import atomic
from ..problems.task import MISSING, NUMBERS

if TYPE_CHECKING:
    from ..problems import Problem
    from ..train.scoring import Outputs

PREDICTIONS = "predictions"  #: the folder, and the key of a result that is not written yet
LARGEST = 256 << 20  #: bytes of a file
_TASKS = "tasks"


@dataclass(frozen=True)
class Predictions:
    """Of one task: its labelled items, one example's after the other's.

    Attributes:
        predicted: label ids or numbers [N].
        expected: the same.
        sizes: labelled items of every example of the split [E]; their sum is N.
    """

    predicted: NDArray[Any]
    expected: NDArray[Any]
    sizes: NDArray[np.int64]


def pack(problem: Problem, outputs: Mapping[str, Outputs]) -> dict[str, Predictions]:
    """The predictions in what `train.outputs_of` gave."""
    examples = len(problem.splits["test"])
    found = {}
    for task in problem.tasks:
        if task.kind == "sequence":  # no label an item
            continue
        sizes = np.zeros(examples, dtype=np.int64)
        sides: tuple[list[Any], list[Any]] = ([], [])
        for start, output, target in outputs[task.name]:
            number = task.kind in NUMBERS
            labelled = ~target.isnan() if number else target != MISSING
            sizes[start : start + len(target)] = labelled.reshape(len(target), -1).sum(1)
            for side, values in zip(sides, (output if number else output.argmax(-1), target), strict=True):
                side.append(values[labelled].numpy())
        kind = np.float32 if task.kind in NUMBERS else np.int16
        predicted, expected = (np.concatenate(side or [np.zeros(0)]).astype(kind) for side in sides)
        found[task.name] = Predictions(predicted, expected, sizes)
    return found


def path_of(run: str, folder: str | Path) -> Path:
    """Where the predictions of a run are kept."""
    return Path(folder) / PREDICTIONS / f"{run}.npz"


def keep(found: Mapping[str, Predictions] | None, run: str, folder: str | Path) -> None:
    """Write them to ``folder/predictions/RUN.npz``; None writes nothing.

    Raises:
        OSError: it cannot be written.
    """
    if found is None:
        return
    path = path_of(run, folder)
    path.parent.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {_TASKS: np.array(json.dumps(list(found)))}
    for place, own in enumerate(found.values()):
        arrays |= {f"{place}.{name}": value for name, value in vars(own).items()}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    with atomic.replacing(path) as file:
        file.write(packed.getvalue())


def read(run: str, folder: str | Path) -> dict[str, Predictions] | None:
    """The predictions of a run; None where there are none, or the file is none of ours."""
    path = path_of(run, folder)
    try:
        if path.stat().st_size > LARGEST:
            return None
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            names = json.loads(str(arrays[_TASKS]))
            found = {
                name: Predictions(*(arrays[f"{place}.{key}"] for key in ("predicted", "expected", "sizes")))
                for place, name in enumerate(names)
            }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    sound = all(len(p.predicted) == len(p.expected) == p.sizes.sum() for p in found.values())
    return found if sound else None
