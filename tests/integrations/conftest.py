"""What every test of a training loop needs."""

import gc

import pytest


@pytest.fixture(scope="module", autouse=True)
def cheap_collections():
    """Trainers collect garbage at every start: a second, each, over the objects of the libraries alone."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
