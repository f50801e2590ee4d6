"""The table of what was made: size, latency, and the quality of each task with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .quality import Quality


class Row(NamedTuple):
    """One model."""

    name: str
    size: int | None  #: bytes of its folder, of the first its weights; None: it has none
    alone: float  #: milliseconds of one example alone
    batched: float  #: milliseconds of one example in a batch
    quality: dict[str, Quality]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        half = {
            task: found.half if math.isfinite(found.half) else None for task, found in self.quality.items()
        }
        return {
            **{key: getattr(self, key) for key in ("name", "size", "alone", "batched")},
            "quality": {
                task: {"score": found.score, "difference": found.difference, "half": half[task]}
                for task, found in self.quality.items()
            },
        }


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table's lines, the header first."""
    tasks = [*rows[0].quality]
    lines = [["model", "size", "one, ms", "in a batch, ms", *tasks]]
    for row in rows:
        size = "" if row.size is None else f"{row.size / 1e6:.2f} MB"
        line = [row.name, size, f"{row.alone:.2f}", f"{row.batched:.3f}"]
        lines.append(line + [_quality(row.quality[task], row is rows[0]) for task in tasks])
    return lines


def _quality(found: Quality, first: bool) -> str:
    return (
        f"{found.score:.4f}" if first else f"{found.score:.4f} ({found.difference:+.4f} ± {found.half:.4f})"
    )


def text_table(rows: Sequence[Row]) -> str:
    """For a terminal."""
    lines = cells(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def markdown_table(rows: Sequence[Row], note: str) -> str:
    """With a line on what the numbers are."""
    lines = cells(rows)
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(1, "|---" * len(lines[0]) + "|")
    about = (
        "The score of each task; in brackets the difference from the first line with its 95 % interval over "
        "the examples. Processor time of one thread, from the example to the answer."
    )
    return "\n".join([*text, "", note, about, ""])
