"""Settings of torch's around a step."""

import pytest
import torch

from mtlweights import Balancer
from tests.gradients.kinds import Plain, Probe, T, assert_gram, build, losses_of
from tests.toys import names


@pytest.mark.parametrize("mode", ["rows", "gramian"])
def test_products_are_in_full_precision_under_the_caller_s_autocast(mode):
    """Backward inside autocast, and float32 products set to low precision: the Gramian does not care."""
    found = []
    for low in (False, True):
        model = build(Plain)
        balancer = Balancer(Probe, names(T), model, gradients=mode)
        losses = losses_of(model)
        torch.set_float32_matmul_precision("medium" if low else "highest")
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                balancer(losses).backward()
            assert torch.get_float32_matmul_precision() == ("medium" if low else "highest")
            assert balancer.strategy.precision == ("highest", False)
        finally:
            torch.set_float32_matmul_precision("highest")
        found.append(balancer.strategy.seen)
    assert_gram(*found)
