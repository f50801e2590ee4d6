"""What a step costs beside plain training."""

import torch

from mtlweights import Balancer, problems
from mtlweights.bench.runspec import RunSpec
from mtlweights.bench.tune.cost import ROUNDS, Cost
from mtlweights.train import Settings


def test_a_step_of_a_strategy_that_is_validated_includes_its_validation(monkeypatch):
    """Its passes were left out, and its warning that nobody validated it came in their place."""
    calls, validate = [], Balancer.validate

    def counted(self, closure):
        calls.append(type(self.strategy).__name__)
        return validate(self, closure)

    monkeypatch.setattr(Balancer, "validate", counted)
    cost, settings = Cost(problems.load), Settings(epochs=1, batch_size=8, device="cpu")
    before = torch.get_rng_state()
    assert cost.ratio(RunSpec("toy", "auto_lambda", None, settings), "time") > 0
    assert calls == ["AutoLambda"] * ROUNDS
    assert torch.equal(torch.get_rng_state(), before)
