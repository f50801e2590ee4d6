"""Linear complementarity problems with a Gramian: who is held back, and by how much."""

from __future__ import annotations

import numpy as np

#: of the conditions, relative to the multipliers' sum
TOLERANCE = 1e-13
#: m above which a system of each face's own size is worth a call of its own
_SMALL = 48


def block_pivoting(cosines: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """u [k, m] with ``u >= 0, z = M u + q >= 0, u . z = 0``, M the cosines and q a row of ``linear``.

    J. Judice, F. Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear
    complementarity problems", Computers & Operations Research 21, 1994,
    https://doi.org/10.1016/0305-0548(94)90106-6, for all rows at once.

    NaN where it comes to no end: where gradients are dependent its moves may go round in a circle.
    As in the paper F is where u is sought and z = 0, elsewhere u = 0 and z is sought; H are the places
    where what was found is negative; ninf is the smallest number of them so far, and p how many rounds
    without a smaller one are left.
    """
    m = cosines.shape[0]
    # the addition is far below the Gramian's own accuracy; it keeps dependent gradients solvable
    system = cosines + 1e-13 * m * np.eye(m)
    out = np.zeros_like(linear)
    todo = np.flatnonzero((linear < 0).any(axis=1))  # the others have u = 0, z = q
    out[todo] = np.nan
    F = linear[todo] < 0
    ninf, p = np.full(len(todo), m + 1), np.full(len(todo), 3)
    while len(todo):
        u, H = _pivot(system, linear[todo], F)
        count = H.sum(axis=1)
        out[todo[count == 0]] = np.maximum(u[count == 0], 0.0)
        better = count < ninf
        p = np.where(better, 3, p - 1)
        ninf = np.minimum(count, ninf)
        F = F ^ H  # H changes sides, all of it, while that helps
        left = (count > 0) & (p > 0)
        todo, F, ninf, p = todo[left], F[left], ninf[left], p[left]
    return out


def _pivot(system: np.ndarray, linear: np.ndarray, F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u [k, m] with z = 0 in F and u = 0 elsewhere; where u in F or z elsewhere is negative."""
    u = _at_once(system, linear, F) if system.shape[0] <= _SMALL else _one_by_one(system, linear, F)
    z = u @ system + linear
    rounding = TOLERANCE * (1 + np.abs(u).sum(axis=1, keepdims=True))
    return u, np.where(F, u, z) < -rounding


def _at_once(system: np.ndarray, linear: np.ndarray, F: np.ndarray) -> np.ndarray:
    both = F[:, :, None] & F[:, None, :]
    matrix = np.where(both, system, np.eye(system.shape[0]))
    return np.linalg.solve(matrix, np.where(F, -linear, 0.0)[:, :, None])[:, :, 0]


def _one_by_one(system: np.ndarray, linear: np.ndarray, F: np.ndarray) -> np.ndarray:
    u = np.zeros_like(linear)
    for k in np.flatnonzero(F.any(axis=1)):
        face = np.flatnonzero(F[k])
        u[k, face] = solve_positive(system[face[:, None], face], -linear[k, face])
    return u


def solve_positive(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """x [m] with ``matrix @ x = right``, by Cholesky's factors of a positive definite matrix [m, m].

    By LU where rounding has made it indefinite. Raises LinAlgError where it is singular.
    """
    from scipy.linalg.lapack import dposv

    _, x, failed = dposv(matrix, right)
    return np.linalg.solve(matrix, right) if failed else x
