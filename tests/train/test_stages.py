"""Stage by stage: one run, in which the tasks of a cascade are taken up one after the other."""

from dataclasses import replace

import pytest
import torch
from test_resume import Stop, outcome, stopping
from test_train import CPU, pair, toy

from mtlweights.train import fit
from mtlweights.train.stages import Stages

STAGED = replace(toy(), cascade=("size", "colour"), staged=True)
FOUR = replace(CPU, epochs=4, lr=0.01)


def run(strategy="equal", settings=FOUR, kind=None, **options):
    model, balancer = pair(STAGED, strategy, **({"kind": kind} if kind else {}))
    history = fit(model, balancer, STAGED, settings, progress=False, **options)
    return model, balancer, history


@pytest.mark.parametrize("strategy", ["equal", "uw", "pcgrad", "graddrop", "modo"])
def test_a_task_is_not_trained_before_its_stage(strategy):
    model, balancer = pair(STAGED, strategy)
    head, seen = model.heads["colour"].output.weight.detach().clone(), []

    def after_epoch(history):
        seen.append(history.rows[-1]["seen"])
        if len(history.rows) == 2:
            assert torch.equal(model.heads["colour"].output.weight, head)

    history = fit(model, balancer, STAGED, FOUR, progress=False, after_epoch=after_epoch)
    assert [row["colour"] for row in seen] == [0, 0, 60, 60] and [row["size"] for row in seen] == [60] * 4
    assert not torch.equal(model.heads["colour"].output.weight, head)
    assert history.best_epoch > 2


def test_patience_does_not_end_it_before_the_last_stage():
    _, _, history = run(settings=replace(FOUR, epochs=8, lr=1e-30, patience=1))
    assert len(history.rows) == 6 and history.best_epoch == 5


def test_resumes_bit_for_bit(tmp_path):
    model, balancer, history = run("uw")
    whole = outcome(model, balancer, history)
    with pytest.raises(Stop):
        run("uw", kind=stopping(2), folder=tmp_path)
    assert outcome(*run("uw", folder=tmp_path)) == whole


def test_epochs_are_dealt_out():
    stages = Stages(STAGED, 5)
    assert [stages.number(epoch) for epoch in range(1, 6)] == [1, 1, 1, 2, 2]
    assert [stages.begins(epoch) for epoch in range(1, 6)] == [True, False, False, True, False]
    with pytest.raises(ValueError, match=r"an epoch at least for each of 2 tasks, found epochs=1"):
        Stages(STAGED, 1)
