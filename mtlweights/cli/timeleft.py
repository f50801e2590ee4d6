"""How long a command still takes, on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_SOON = 5.0  #: seconds within which nobody asks


def shown(items: Iterable[Item], total: int, unit: str) -> Iterator[Item]:
    """The items, with a bar under what is printed for them: how many of ``total``, and the time left.

    It appears after five seconds, where standard error is a terminal and tqdm is installed, which the base
    install does not have.
    """
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        yield from items
        return
    with tqdm(total=total, unit=unit, disable=None, delay=_SOON, leave=False, dynamic_ncols=True) as bar:
        for item in items:
            bar.clear()
            yield item
            bar.update()
