"""Rows and weights to gradients."""

import pytest
import torch

from mtlweights.gradients import write_grad


@pytest.mark.parametrize("batch", [1, 10, 1 << 20])
def test_many_parameters_are_combined_as_one_by_one(batch, monkeypatch):
    """Small ones that every row reaches, a part of them at a time, and the rest as ever."""
    monkeypatch.setattr(write_grad, "SMALL", 12)
    monkeypatch.setattr(write_grad, "BATCH", batch)
    torch.manual_seed(0)
    rows = [[torch.randn(k + 1, 3) for k in range(5)] for _ in range(3)]
    rows[1][2] = None
    weights, expected = [0.5, -2.0, 3.0], [list(row) for row in rows]
    found = write_grad.combine_alike(rows, range(5), weights)
    assert set(found) == {0, 1, 3}
    assert all(row[k] is None for row in rows for k in found)
    for k, part in found.items():
        torch.testing.assert_close(part, write_grad.combine(expected, k, weights))
    assert write_grad.combine_alike(expected, [2], weights) == {}
