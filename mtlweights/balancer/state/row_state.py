"""State of the size of the gradients: what a JacobianStrategy keeps per task and parameter element.

The strategy sees rows over the parameters of this step; here they are kept by parameter name, so they
survive a shared set that grows, a checkpoint, and another order of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...strategies import JacobianStrategy, Strategy


class RowStore:
    """A flat tensor [T, P] per name in ``row_state``, [T, n] in ``tensor_state``, [T or 1, P] in ``memory``.

    Args:
        strategy: The strategy whose state this is; of another kind than Jacobian, nothing is kept.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.names: tuple[str, ...] = ()
        self.per_tensor: tuple[str, ...] = ()
        self.whole: Mapping[str, bool] = {}
        if isinstance(strategy, JacobianStrategy):
            self.per_tensor, self.whole = strategy.tensor_state, strategy.memory
            self.names = (*strategy.row_state, *self.per_tensor, *self.whole)
        self.layout: dict[str, int] = {}  #: parameter name -> its elements, in the order of the columns
        self.flat: dict[str, Tensor] = {}
        self.apart: dict[str, dict[str, Tensor]] = {}  #: rows of parameters that the last step did not have
        self.gone: Callable[[str], bool] | None = None  #: whether a parameter of this name is no more

    def give(self, present: Sequence[int], layout: Mapping[str, int], like: Tensor) -> None:
        """Give the strategy its rows [m, P] of the tasks ``present``, in the order of ``layout``."""
        assert isinstance(self.strategy, JacobianStrategy)
        self.strategy.sizes = list(layout.values())
        if self.names and (list(layout.items()) != list(self.layout.items()) or not self.flat):
            self._arrange(dict(layout), like)
        if any(flat.device != like.device for flat in self.flat.values()):  # loaded from a file
            self.flat = {key: flat.to(like.device) for key, flat in self.flat.items()}
        whole = len(present) == self.strategy.n_tasks
        every = {k: whole or k in self.whole for k in self.flat}
        self.strategy.rows = {k: x if every[k] else x[list(present)] for k, x in self.flat.items()}

    def _arrange(self, layout: dict[str, int], like: Tensor) -> None:
        """Keep the rows in another order, with zeros for parameters that are new or of another size.

        Those of parameters that are not in it, as a layer that sits this step out, wait in ``apart``.
        """
        old = self._by_name()
        for key in self.names:
            pieces = old.get(key, {})
            kept = []
            for name, n in layout.items():
                blank = like.new_zeros(self.height(key), self._width(key, n))
                piece = pieces.pop(name, blank)
                kept.append(piece.to(blank) if piece.shape == blank.shape else blank)
            self.apart[key] = {
                name: piece.clone() for name, piece in pieces.items() if not (self.gone and self.gone(name))
            }
            self.flat[key] = torch.cat(kept, 1)
        self.layout = layout

    def height(self, key: str) -> int:
        """Rows of a state: T, or one for all tasks."""
        return self.strategy.n_tasks if self.whole.get(key, True) else 1

    def _width(self, key: str, elements: int) -> int:
        return 1 if key in self.per_tensor else elements

    def _by_name(self) -> dict[str, dict[str, Tensor]]:
        """All rows, those apart too, by state and parameter."""
        out = {}
        for key, flat in self.flat.items():
            pieces = flat.split([self._width(key, n) for n in self.layout.values()], 1)
            out[key] = {**self.apart.get(key, {}), **dict(zip(self.layout, pieces, strict=True))}
        return out

    def take(self) -> dict[str, Tensor]:
        """What the strategy made of its rows, name -> [m, P].

        Raises:
            ValueError: a row has another shape than the one given.
        """
        assert isinstance(self.strategy, JacobianStrategy)
        rows, self.strategy.rows = self.strategy.rows, {}
        for key in self.names:
            columns, found = self.flat[key].shape[1], rows[key].shape[1:]
            if tuple(found) != (columns,):
                raise ValueError(
                    f"{type(self.strategy).__name__} should leave rows[{key!r}] with {columns} columns, "
                    f"found {tuple(found)}."
                )
        return {key: rows[key].detach() for key in self.names}

    def write(self, rows: Mapping[str, Tensor], present: Sequence[int], ok: Tensor) -> None:
        """Keep proposed rows where ``ok`` []."""
        everyone = len(present) == self.strategy.n_tasks
        for key, new in rows.items():
            flat, whole = self.flat[key], everyone or key in self.whole
            before = flat if whole else flat[list(present)]
            kept = torch.where(ok.to(new.device), new, before)
            if whole:
                self.flat[key] = kept
            else:
                flat[list(present)] = kept

    def state_dict(self) -> dict[str, Any]:
        """State's name -> parameter's name -> [T, elements]."""
        return {key: {n: x.clone() for n, x in by.items()} for key, by in self._by_name().items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            KeyError: it holds other states than this strategy's.
        """
        if state and set(state) != set(self.names):
            raise KeyError(f"rows of {', '.join(state)}, expected {', '.join(self.names) or 'none'}")
        self.layout, self.flat, self.apart = {}, {}, {}
        for key, by_name in state.items():
            if key not in self.per_tensor:
                self.layout = {name: piece.shape[1] for name, piece in by_name.items()}
            self.flat[key] = torch.cat([piece.clone() for piece in by_name.values()], 1)
        if state and not self.layout:  # all per tensor: sizes are not known, and not needed to cut
            self.layout = dict.fromkeys(next(iter(state.values())), 1)
