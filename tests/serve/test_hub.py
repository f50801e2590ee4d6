"""Push and pull over HTTP, against a hub on this machine."""

import pytest

from mtlweights.serve import TrainedModel
from tests.serve import small
from tests.serve.fake_hub import hub

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_a_model_comes_back_from_the_hub(tmp_path, monkeypatch):
    model = small.model("tagger", tmp_path)
    with hub(monkeypatch, tmp_path / "cache") as server:
        assert model.push_to_hub("someone/small", token="hf_secret") == f"{server.address}/someone/small"
        assert {"README.md", "config.json", "model.safetensors", "vocabulary.json"} <= server.files.keys()
        assert set(server.tokens) == {"Bearer hf_secret"}
        again = TrainedModel.from_pretrained("someone/small")
    assert again.predict(small.EXAMPLES["tagger"]) == model.predict(small.EXAMPLES["tagger"])


def test_a_hub_that_has_no_such_model(tmp_path, monkeypatch):
    with hub(monkeypatch, tmp_path / "cache"), pytest.raises((FileNotFoundError, ValueError)) as caught:
        TrainedModel.from_pretrained("someone/nothing")
    assert "\n" not in str(caught.value)
