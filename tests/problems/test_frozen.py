"""Cached states of a frozen transformer: the real MiniLM, which is a development requirement."""

import json
import pickle
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from mtlweights.problems.models import (
    BiLSTM,
    FrozenInputs,
    FrozenStates,
    WordInputs,
    frozen,
    load_tokenizer,
    pretrained,
)
from mtlweights.problems.models.transformer import load_model

SENTENCES = [["The", "dog", "barks", "unbelievably"], ["Hi"], [], ["The", "\u200d", "cat", "2024"]]

SCRIPT = """
import sys
from mtlweights.problems.models import FrozenStates, frozen
ran = []
run = frozen.load_model
frozen.load_model = lambda name: ran.append(name) or run(name)
states = FrozenStates("minilm", [["a", "dog"], ["cats"]], sys.argv[1])
print(len(ran), states.path.name, float(states.lookup([["a", "dog"]]).float().abs().sum()))
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A cache folder with the states of SENTENCES. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("cache")
    FrozenStates("minilm", SENTENCES, folder)
    return folder


@pytest.fixture
def cache(built, tmp_path):
    return shutil.copytree(built, tmp_path / "cache")


@pytest.fixture
def runs(monkeypatch):
    """The times the transformer was loaded."""
    calls = []
    monkeypatch.setattr(frozen, "load_model", lambda name: calls.append(name) or load_model(name))
    return calls


def test_states_are_the_transformers_own(cache):
    states = FrozenStates("minilm", SENTENCES, cache)
    found = states.lookup([SENTENCES[0], SENTENCES[1], []])
    assert found.shape == (3, 4, states.n_layers, states.dim) == (3, 4, 7, 384)
    assert found.dtype == torch.float16
    encoding = load_tokenizer("minilm")([SENTENCES[0]], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        layers = load_model("minilm").eval()(**encoding, output_hidden_states=True).hidden_states
    for word in range(4):
        first = encoding.word_ids().index(word)
        expected = torch.stack([layer[0, first] for layer in layers])
        assert torch.allclose(found[0, word].float(), expected, atol=5e-3)
    assert found[1, 0].any() and not found[1, 1:].any() and not found[2].any()


def test_a_word_the_tokenizer_drops_is_zero(cache):
    found = FrozenStates("minilm", SENTENCES, cache).lookup([SENTENCES[3]])[0]
    assert found.float().abs().sum((1, 2)).gt(0).tolist() == [True, False, True, True]


def test_built_once(cache, runs):
    first = FrozenStates("minilm", SENTENCES, cache)
    assert runs == [], "the transformer ran although its states are there"
    assert isinstance(first._states, np.memmap)
    again = FrozenStates("minilm", [*reversed(SENTENCES), ["Hi"]], cache)
    assert runs == [] and again.path == first.path, "order and repetition make no difference"


def test_two_processes_at_once(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "new" / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(output[0] for output in outputs) == ["0", "1"], "exactly one ran the transformer"
    assert outputs[0][1:] == outputs[1][1:]
    names = sorted(path.suffix for path in (tmp_path / "new" / "cache").iterdir())
    assert names == [".json", ".lock", ".npy"]


def test_other_sentences_or_another_model_are_kept_apart(cache, tmp_path, runs):
    path = FrozenStates("minilm", SENTENCES, cache).path
    assert FrozenStates("minilm", SENTENCES[:2], cache).path != path
    other = shutil.copytree(pretrained("minilm"), tmp_path / "model")
    assert FrozenStates(str(other), SENTENCES, cache).path == path, "the files count, not the folder"
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert FrozenStates(str(other), SENTENCES, cache).path != path
    assert len(runs) == 2


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (flip, "damaged"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.with_suffix(".json").write_text("{"), "cannot be read"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "cannot be read"),
    ],
    ids=["cut", "empty", "flipped", "gone", "json", "other json"],
)
def test_damage_is_found_and_repaired(cache, runs, damage, message):
    states = FrozenStates("minilm", SENTENCES, cache)
    expected = states.lookup(SENTENCES)
    damage(states.path)
    with pytest.warns(UserWarning, match=message) as caught:
        again = FrozenStates("minilm", SENTENCES, cache)
    assert "\n" not in str(caught[0].message) and len(caught) == 1
    assert len(runs) == 1 and torch.equal(again.lookup(SENTENCES), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FrozenStates("minilm", SENTENCES, cache)


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch, runs):
    def interrupted(*args):
        yield torch.ones(1, 7, 384)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(frozen, "_hidden_states", interrupted)
        FrozenStates("minilm", [["Hi"]], tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}
    assert FrozenStates("minilm", [["Hi"]], tmp_path).lookup([["Hi"]]).any() and len(runs) == 1


def test_pickle_carries_no_states(cache):
    states = FrozenStates("minilm", SENTENCES, cache)
    pickled = pickle.dumps(states)
    assert len(pickled) < 5000 < states._states.nbytes
    assert torch.equal(pickle.loads(pickled).lookup(SENTENCES), states.lookup(SENTENCES))


def test_errors_are_one_line(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    states = FrozenStates("minilm", SENTENCES, cache)
    with pytest.raises(ValueError, match=r"No states were computed for 'never seen': give") as unseen:
        states.lookup([["never", "seen"]])
    with pytest.raises(FileNotFoundError, match=r"'no-one/no-model' is no folder") as unknown:
        FrozenStates("no-one/no-model", SENTENCES, cache)
    with pytest.raises(ValueError, match="expects sentences with words, found none") as nothing:
        FrozenStates("minilm", [[]], cache)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot write to the cache folder.*MTLWEIGHTS_CACHE") as unwritable:
        FrozenStates("minilm", SENTENCES, tmp_path / "file" / "cache")
    for error in (unseen, unknown, nothing, unwritable):
        assert "\n" not in str(error.value)


def test_feeding_a_bilstm(cache):
    states = FrozenStates("minilm", SENTENCES, cache)
    inputs = FrozenInputs(WordInputs.fit(SENTENCES), states)
    encoder = BiLSTM(
        inputs.words.n_words, inputs.words.n_chars, features=(states.n_layers, states.dim)
    ).eval()
    batch = pickle.loads(pickle.dumps(inputs))(SENTENCES)
    together = encoder(batch)
    for row, sentence in enumerate(SENTENCES):
        alone = encoder(inputs([sentence]))
        assert torch.allclose(
            alone.tokens[0, : len(sentence)], together.tokens[row, : len(sentence)], atol=1e-5
        )
        assert torch.allclose(alone.pooled[0], together.pooled[row], atol=1e-5)
    together.pooled.sum().backward()
    assert encoder.mix.weights.grad.abs().sum() > 0, "the mix of layers is learned"


def test_pretrained_names(monkeypatch):
    assert pretrained("bert-base-cased") == "bert-base-cased"
    assert pretrained("minilm").endswith("model")
    monkeypatch.setattr("mtlweights.problems.models.transformer.find_spec", lambda name: None)
    assert pretrained("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
