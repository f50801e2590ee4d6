"""From examples to tensors."""

import pickle

import numpy as np
import pytest
import torch

from mtlweights.problems.models import PairInputs, SubwordInputs, TableInputs, WordInputs, load_tokenizer
from mtlweights.problems.models.inputs import MAX_CHARS


@pytest.fixture
def tokenizer(tmp_path):
    from transformers import BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "cat", "play", "##ing", "##s"]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(vocabulary))
    return BertTokenizerFast(str(path))


def test_words_and_characters():
    inputs = WordInputs.fit([["Dog", "dog", "A1"], ["cat"]])
    assert (inputs.n_words, inputs.n_chars) == (2 + 3, 2 + 9)  # a0 cat dog; 1 A D a c d g o t
    batch = inputs([["DOG", "bird"], ["a7"], []])
    assert batch["words"].tolist() == [[4, 1], [2, 0], [0, 0]]
    assert batch["mask"].tolist() == [[True, True], [True, False], [False, False]]
    assert batch["chars"].shape == (3, 2, 4) and batch["chars"].dtype == torch.int64
    assert batch["chars"][0, 0].tolist() == [4, 1, 1, 0]  # D known, O and G are not in capitals
    assert (batch["chars"][0, 1] > 0).all() and not batch["chars"][2].any()


def test_min_count_and_long_words():
    inputs = WordInputs.fit([["a", "a", "b"]], min_count=2)
    assert inputs([["a"], ["b"]])["words"].tolist() == [[2], [1]]
    assert inputs([["a" * 100]])["chars"].shape == (1, 1, MAX_CHARS)


@pytest.mark.parametrize("sentences", [[], [[]], [[""]]])
def test_nothing_to_read(sentences):
    batch = WordInputs.fit([["a"]])(sentences)
    assert batch["words"].shape == (len(sentences), 1) and batch["chars"].shape == (len(sentences), 1, 1)


def test_subwords_align_with_words(tokenizer):
    batch = SubwordInputs(tokenizer)([["dogs", "playing", "cat"], ["zebra"], []])
    assert batch["first"].tolist() == [[1, 3, 5], [1, 0, 0], [0, 0, 0]]
    assert batch["mask"].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    firsts = tokenizer.convert_ids_to_tokens(batch["input_ids"][0, batch["first"][0]].tolist())
    assert firsts == ["dog", "play", "cat"]
    assert batch["attention_mask"].sum(1).tolist() == [7, 3, 2]


def test_truncation_masks_the_lost_words(tokenizer):
    batch = SubwordInputs(tokenizer, max_length=4)([["dogs", "playing", "cat"], ["cat"]])
    assert batch["input_ids"].shape == (2, 4) and batch["first"].shape == (2, 3)
    assert batch["mask"].tolist() == [[True, False, False], [True, False, False]]
    split = SubwordInputs(tokenizer, max_length=5)([["dogs", "playing", "cat"]])
    assert split["mask"].tolist() == [[True, True, False]], "a word whose first sub-word is there is kept"
    assert SubwordInputs(tokenizer, max_length=2)([["dog"]])["mask"].tolist() == [[False]]


def test_the_models_own_limit_holds(tokenizer):
    tokenizer.model_max_length = 4
    assert SubwordInputs(tokenizer, max_length=100)([["dog"] * 9])["input_ids"].shape == (1, 4)


def test_a_word_the_tokenizer_drops_has_no_state(tokenizer):
    batch = SubwordInputs(tokenizer)([["dog", "\u200d", "", "cat"]])
    assert batch["mask"].tolist() == [[True, False, False, True]]
    assert batch["first"][0, 3] == 2


def test_pairs_encoded_together(tokenizer):
    batch = SubwordInputs(tokenizer)([(["dogs"], ["cat", "playing"]), (["cat", "dog"], [])])
    # [CLS] dog ##s [SEP] cat play ##ing [SEP]
    assert batch["first"].tolist() == [[1, 4, 5], [1, 2, 0]]
    assert batch["mask"].tolist() == [[True, True, True], [True, True, False]]
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_pair_inputs_and_pickle():
    words = WordInputs.fit([["dog", "cat"]])
    inputs = pickle.loads(pickle.dumps(PairInputs(words)))
    batch = inputs([(["dog"], ["cat", "cat"])])
    assert torch.equal(batch["a"]["words"], words([["dog"]])["words"])
    assert torch.equal(batch["b"]["words"], words([["cat", "cat"]])["words"])


def test_subword_inputs_pickle(tokenizer):
    inputs = SubwordInputs(tokenizer, max_length=6)
    again = pickle.loads(pickle.dumps(inputs))
    sentences = [["dogs", "playing"], ["cat"]]
    assert all(torch.equal(value, again(sentences)[key]) for key, value in inputs(sentences).items())


def test_slow_tokenizers_are_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match="expects a fast tokenizer, found BertTokenizer"):
        SubwordInputs(tokenizer)


def test_table_is_standardised():
    rows = np.array([[1.0, 7.0], [3.0, 7.0]])
    inputs = pickle.loads(pickle.dumps(TableInputs.fit(rows)))
    assert inputs(rows)["x"].tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert inputs([[5.0, 8.0]])["x"].dtype == torch.float32 and inputs.n_inputs == 2


def test_a_model_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"'no-one/no-model' is no folder.*check the name") as caught:
        load_tokenizer("no-one/no-model")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"'not a name!' is no folder"):
        load_tokenizer("not a name!")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        load_tokenizer(str(tmp_path))
