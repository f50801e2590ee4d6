"""Products and norms by blocks, in float64."""

import pytest
import torch

from mtlweights.strategies.jacobian import blockwise
from tests.strategies.jacobian.helpers import Run, near, random_jacobians

NAMES = ["db_mtl", "metabalance", "adatask", "moco", "excess_mtl", "graddrop", "trimmed_mean"]


every = pytest.mark.parametrize("name", NAMES)


@every
def test_pieces_do_not_matter(name, monkeypatch):
    g = random_jacobians(3, p=23)
    whole = Run(name, 3, sizes=[11, 12])
    expected = [whole.step(x) for x in g]
    monkeypatch.setattr(blockwise, "PIECE", 4)
    monkeypatch.setattr(blockwise, "BLOCK", 5)
    cut = Run(name, 3, sizes=[11, 12])
    for x, d in zip(g, expected, strict=True):
        assert cut.step(x) == near(d)


def test_rows_products_and_norms_in_float64():
    """Float32 alone is off by more than 1e-6 here, inside blocks alone by 1e-9."""
    torch.manual_seed(0)
    jacobian = torch.rand(3, 300_000) * torch.tensor([[1.0], [1e-3], [1e3]])
    exact = jacobian.double() @ jacobian.double().T
    size = exact.diagonal().sqrt()
    assert ((blockwise.gramian(jacobian) - exact).abs() / size / size[:, None]).max() < 1e-12
    found = blockwise.norms(jacobian, [100_000, 200_000])
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.square().sum(1).sqrt(), size, rtol=1e-12, atol=0)
    tiny = blockwise.norms(torch.full((1, 4), 1e-30), [4])
    assert tiny.item() == pytest.approx(2e-30, rel=1e-6)
