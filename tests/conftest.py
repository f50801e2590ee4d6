"""What every test shares: one thread, a fixed seed, and the folder of real data."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same state of every generator."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch):
    """What another test's Accelerator left in the process must not decide where a window ends."""
    state = sys.modules.get("accelerate.state")
    for kind in () if state is None else (state.AcceleratorState, state.GradientState, state.PartialState):
        monkeypatch.setattr(kind, "_shared_state", {})


@pytest.fixture
def data_dir():
    """The folder of real data files."""
    if "MTLWEIGHTS_DATA" not in os.environ:
        pytest.skip("MTLWEIGHTS_DATA is not set")
    return Path(os.environ["MTLWEIGHTS_DATA"])
