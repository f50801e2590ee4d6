"""GO4Align: groups, and the clustering behind them."""

import numpy as np
import pytest
import torch

from mtlweights.strategies.loss.go4align import cluster_means
from tests.strategies.helpers import loss_weights, make


def test_go4align_without_groups():
    strategy = make("go4align", 3, groups=3)
    loss_weights(strategy)
    assert strategy.p.tolist() == pytest.approx([0.333433, 0.333383, 0.333183], abs=1e-6)


def test_go4align_groups_share_a_weight():
    assert loss_weights(make("go4align", 3))[1] == pytest.approx([7.0021, 1.0938, 1.0938], abs=5e-5)
    assert loss_weights(make("go4align", 3, groups=1))[1] == pytest.approx([3.06323] * 3, abs=5e-5)


def test_clusters_are_the_best_of_all():
    def cost(x, labels):
        return sum(((x[labels == g] - x[labels == g].mean()) ** 2).sum() for g in set(labels))

    rng = np.random.default_rng(0)
    for _ in range(30):
        m, k = rng.integers(3, 7), rng.integers(1, 4)
        x = rng.exponential(size=m) * 10.0 ** rng.integers(-6, 6)
        labels = np.stack(np.unravel_index(np.arange(k**m), (k,) * m), 1)
        best = min(cost(x, row) for row in labels)
        means = cluster_means(torch.tensor(x), int(k)).numpy()
        assert len(np.unique(means)) <= k
        assert ((x - means) ** 2).sum() == pytest.approx(best, rel=1e-9, abs=1e-12 * x.max() ** 2)
