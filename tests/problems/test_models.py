"""Encoders, heads and the multi-task model."""

import json
import pickle

import pytest
import torch

from mtlweights.problems import Task
from mtlweights.problems.models import (
    MLP,
    BiLSTM,
    MultiTaskModel,
    Pair,
    PairInputs,
    SubwordInputs,
    TableInputs,
    Transformer,
    WordInputs,
    make_head,
)
from mtlweights.problems.models.transformer import load_model

SENTENCES = [
    ["The", "dog", "barks"],
    ["A", "cat"],
    ["Unbelievable", "dogs", "bark", "at", "the", "cats", "!"],
    [],
]
TAGS = Task("pos", "tokens", ("accuracy",), ("NOUN", "VERB", "X"))
SPANS = Task("ner", "tokens", ("span_f1",), ("O", "B-A", "I-A"))
KIND = Task("kind", "classification", ("accuracy",), ("a", "b"))
SIZE = Task("size", "regression", ("rmse",), mean=5.0, std=2.0, untrained=2.0, target=0.0)
ALL = [TAGS, SPANS, KIND, SIZE]


@pytest.fixture
def tokenizer(tmp_path):
    from transformers import BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "cat", "bark", "##s", "a", "un"]
    vocabulary += ["##believ", "##able", "at", "!"]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(vocabulary))
    return BertTokenizerFast(str(path))


@pytest.fixture
def config(tokenizer):
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )


class WithFeatures:
    """Word inputs with features that depend on the word alone."""

    def __init__(self, words):
        self.words = words

    def __call__(self, sentences):
        inputs = self.words(sentences)
        vectors = torch.randn(self.words.n_words, 3, 8, generator=torch.Generator().manual_seed(1))
        return {**inputs, "features": (vectors[inputs["words"]] * inputs["mask"][..., None, None]).half()}


@pytest.fixture(params=["bilstm", "two layers", "features", "transformer"])
def text(request):
    """(encoder, inputs) for sentences."""
    if request.param == "transformer":
        tokenizer = request.getfixturevalue("tokenizer")
        return Transformer(request.getfixturevalue("config")), SubwordInputs(tokenizer)
    words = WordInputs.fit(SENTENCES)
    if request.param == "features":
        return BiLSTM(words.n_words, words.n_chars, features=(3, 8)), WithFeatures(words)
    return BiLSTM(words.n_words, words.n_chars, layers=1 + (request.param == "two layers")), words


def targets_for(n_words):
    tags = torch.full((4, n_words), -100)
    for row, sentence in enumerate(SENTENCES):
        tags[row, : len(sentence)] = torch.arange(len(sentence)) % 3
    tags[:, 5:] = -100
    return {
        "pos": tags,
        "ner": tags,
        "kind": torch.tensor([0, 1, -100, 1]),
        "size": torch.tensor([4.0, 5.0, float("nan"), 7.0]),
    }


def test_padding_changes_nothing(text):
    encoder, inputs = text
    encoder.eval()
    with torch.no_grad():
        together = encoder(inputs(SENTENCES))
        for row, sentence in enumerate(SENTENCES):
            alone = encoder(inputs([sentence]))
            n = len(sentence)
            assert together.mask[row, :n].all() and not together.mask[row, n:].any()
            assert torch.allclose(alone.tokens[0, :n], together.tokens[row, :n], atol=1e-5)
            assert torch.allclose(alone.pooled[0], together.pooled[row], atol=1e-5)
            assert not together.tokens[row, n:].any()
    assert together.tokens.shape == (4, 7, encoder.token_dim)
    assert together.pooled.shape == (4, encoder.pooled_dim)
    assert together.tokens[0].std() > 0.01 and not torch.allclose(
        together.pooled[0], together.pooled[1], atol=1e-3
    )


def test_every_task_reaches_the_whole_encoder(text):
    encoder, inputs = text
    model = MultiTaskModel(encoder, ALL)
    losses = model(inputs(SENTENCES), targets_for(7)).losses
    assert list(losses) == ["pos", "ner", "kind", "size"]
    reached = set()
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
        shared = {f"encoder.{n}" for n, _ in encoder.named_parameters()}
        assert with_gradient == shared | {
            f"heads.{name}.{n}" for n, _ in model.heads[name].named_parameters()
        }
        reached |= with_gradient
    assert reached == {n for n, _ in model.named_parameters()}


def test_all_examples_empty(text):
    encoder, inputs = text
    model = MultiTaskModel(encoder, ALL)
    batch = inputs([[], []])
    targets = {"pos": torch.full((2, 1), -100), "kind": torch.tensor([0, 1])}
    losses = model(batch, targets).losses
    sum(losses.values()).backward()
    assert losses["pos"].item() == 0 and losses["kind"].item() > 0
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_bf16_autocast(text):
    encoder, inputs = text
    model = MultiTaskModel(encoder, ALL).eval()
    batch, targets = inputs(SENTENCES), targets_for(7)
    exact = model(batch, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch, targets)
    sum(rough.losses.values()).backward()
    for name in exact.outputs:
        assert rough.outputs[name].dtype == rough.losses[name].dtype == torch.float32
        assert torch.allclose(exact.outputs[name], rough.outputs[name], atol=0.1)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_seed_and_pickle(text):
    encoder, inputs = text
    copy = pickle.loads(pickle.dumps(encoder))
    batch = pickle.loads(pickle.dumps(inputs))(SENTENCES)
    torch.manual_seed(3)
    first = encoder(batch).pooled
    torch.manual_seed(3)
    assert torch.equal(first, copy(batch).pooled)
    assert not torch.equal(first, encoder(batch).pooled), "no dropout in training mode"
    encoder.eval()
    assert torch.equal(encoder(batch).pooled, encoder(batch).pooled)


def test_tasks_in_targets_decide_what_runs(text):
    encoder, inputs = text
    model = MultiTaskModel(encoder, ALL).eval()
    batch, targets = inputs(SENTENCES), targets_for(7)
    everything = model(batch)
    assert everything.losses == {} and list(everything.outputs) == ["pos", "ner", "kind", "size"]
    one = model(batch, {"kind": targets["kind"]})
    assert list(one.outputs) == list(one.losses) == ["kind"]
    assert torch.allclose(one.outputs["kind"], everything.outputs["kind"], atol=1e-6)
    assert torch.allclose(
        one.losses["kind"], KIND.loss(everything.outputs["kind"], targets["kind"]), atol=1e-6
    )
    assert everything.outputs["pos"].shape == (4, 7, 3) and everything.outputs["size"].shape == (4,)


def test_words_cut_off_do_not_count(tokenizer, config):
    model = MultiTaskModel(Transformer(config), [TAGS]).eval()
    inputs = SubwordInputs(tokenizer, max_length=5)(SENTENCES)  # [CLS], 3 sub-words, [SEP]
    seen = targets_for(7)["pos"]
    seen[0, 2] = 2  # whatever the lost word's label is
    loss = model(inputs, {"pos": seen}).losses["pos"]
    assert inputs["mask"].sum(1).tolist() == [3, 2, 1, 0]
    other = seen.clone()
    other[2, 1:5] = (other[2, 1:5] + 1) % 3
    assert model(inputs, {"pos": other}).losses["pos"] == loss
    other[2, 0] = (other[2, 0] + 1) % 3
    assert model(inputs, {"pos": other}).losses["pos"] != loss


def test_transformer_takes_the_first_subword_and_the_mean(tokenizer, config):
    encoder = Transformer(config).eval()
    inputs = SubwordInputs(tokenizer)([["Unbelievable", "dogs", "bark"], ["cat"]])
    states = encoder(inputs)
    hidden = encoder.model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    # [CLS] un ##believ ##able dog ##s bark [SEP]
    assert torch.allclose(states.tokens[0], hidden[0, [1, 4, 6]], atol=1e-6)
    assert torch.allclose(states.pooled[0], hidden[0].mean(0), atol=1e-6)
    assert torch.allclose(states.pooled[1], hidden[1, :3].mean(0), atol=1e-6)


def test_transformer_reads_a_folder(tokenizer, config, tmp_path):
    first = Transformer(config)
    first.model.save_pretrained(tmp_path / "model")
    again = Transformer(str(tmp_path / "model"))
    inputs = SubwordInputs(tokenizer)(SENTENCES)
    assert torch.equal(first.eval()(inputs).pooled, again.eval()(inputs).pooled)


def damage(folder, what):
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if what == "fewer weights than layers":
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    elif what == "another width":
        (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    elif what == "code of its own":
        (folder / "own.py").write_text("raise SystemExit('it ran')")
        own = {
            **config,
            "model_type": "own",
            "auto_map": {"AutoModel": "own.Own", "AutoConfig": "own.Config"},
        }
        (folder / "config.json").write_text(json.dumps(own))
    else:
        content = {"no config": (folder / "config.json", "{"), "cut": (weights, "x" * 20)}[what]
        content[0].write_text(content[1])


@pytest.mark.parametrize(
    "what", ["fewer weights than layers", "another width", "code of its own", "no config", "cut"]
)
def test_a_folder_that_cannot_be_loaded_is_one_line(config, tmp_path, what):
    load_model(config).save_pretrained(tmp_path)
    damage(tmp_path, what)
    with pytest.raises(
        ValueError, match=r"Model folder .* (has no weights for|holds no model that)"
    ) as error:
        load_model(str(tmp_path))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_pair_is_siamese(text):
    encoder, inputs = text
    pair = Pair(encoder).eval()
    both = PairInputs(inputs)([(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], SENTENCES[3])])
    states = pair(both)
    u, v = encoder(inputs(SENTENCES[0::2])).pooled, encoder(inputs(SENTENCES[1::2])).pooled
    assert states.tokens is None and states.mask is None
    assert torch.allclose(states.pooled, torch.cat([u, v, (u - v).abs(), u * v], 1), atol=1e-5)
    model = MultiTaskModel(pair, [KIND, SIZE])
    losses = model(both, {"kind": torch.tensor([0, 1]), "size": torch.tensor([1.0, 2.0])}).losses
    losses["size"].backward()
    assert all(p.grad is not None for p in pair.parameters())


def test_pairs_can_be_encoded_at_once(tokenizer, config):
    model = MultiTaskModel(Transformer(config), [KIND, SIZE]).eval()
    inputs = SubwordInputs(tokenizer)
    one, other = model(inputs([(["dog"], ["a", "cat"])])), model(inputs([(["a", "cat"], ["dog"])]))
    assert one.outputs["kind"].shape == (1, 2) and not torch.allclose(
        one.outputs["kind"], other.outputs["kind"]
    )


def test_word_dropout_spares_no_word_and_only_in_training():
    words = WordInputs.fit(SENTENCES)
    encoder = BiLSTM(words.n_words, words.n_chars, word_dropout=1.0, dropout=0.0)
    batch = words([["The", "dog"]])
    unknown = {**batch, "words": torch.ones_like(batch["words"])}
    assert torch.equal(encoder(batch).tokens, encoder(unknown).tokens)
    encoder.eval()
    assert not torch.equal(encoder(batch).tokens, encoder(unknown).tokens)


def test_characters_tell_unknown_words_apart():
    words = WordInputs.fit(SENTENCES)
    encoder = BiLSTM(words.n_words, words.n_chars).eval()
    states = encoder(words([["dogsbark"], ["catsbark"]]))
    assert (words([["dogsbark"], ["catsbark"]])["words"] == 1).all()
    assert not torch.allclose(states.pooled[0], states.pooled[1], atol=1e-4)


def test_the_mix_of_layers_starts_even_and_learns():
    words = WordInputs.fit(SENTENCES)
    encoder = BiLSTM(words.n_words, words.n_chars, features=(3, 8)).eval()
    layers = torch.randn(5, 3, 8)
    assert torch.allclose(encoder.mix(layers), layers.mean(1), atol=1e-6)
    with torch.no_grad():
        encoder.mix.weights.copy_(torch.tensor([0.0, 50.0, 0.0]))
        encoder.mix.gain.fill_(2.0)
    assert torch.allclose(encoder.mix(layers.half()), 2 * layers[:, 1], atol=1e-2)
    with pytest.raises(ValueError, match="FrozenInputs"):
        encoder(words(SENTENCES))


def test_table_with_classification_and_regression():
    rows = [[1.0, 200.0], [2.0, 100.0], [3.0, 400.0]]
    inputs = TableInputs.fit(rows)
    model = MultiTaskModel(MLP(inputs.n_inputs, (8,)), [KIND, SIZE])
    output = model(inputs(rows), {"kind": torch.tensor([0, 1, 1]), "size": torch.tensor([3.0, 5.0, 9.0])})
    sum(output.losses.values()).backward()
    assert model.encoder.pooled_dim == 8
    assert all(p.grad is not None for p in model.parameters())


def test_regression_head_speaks_raw_units():
    encoder = MLP(2, (4,))
    head = make_head(SIZE, encoder)
    torch.nn.init.zeros_(head.output.weight)
    torch.nn.init.ones_(head.output.bias)
    assert head(encoder({"x": torch.randn(3, 2)})).tolist() == [7.0, 7.0, 7.0]  # mean 5 + std 2 * 1


def test_names_pytorch_refuses():
    tasks = [
        Task(n, "classification", ("accuracy",), ("a", "b")) for n in ("type", "a.b", "keys", "training")
    ]
    model = MultiTaskModel(MLP(2), tasks)
    output = model({"x": torch.randn(1, 2)}, {"a.b": torch.tensor([1])})
    assert list(output.losses) == ["a.b"]
    assert list(model({"x": torch.randn(1, 2)}).outputs) == ["type", "a.b", "keys", "training"]


def test_own_heads():
    class Own(torch.nn.Module):
        def forward(self, states):
            return states.pooled[:, :2]

    own = Own()
    model = MultiTaskModel(MLP(2), [KIND, SIZE], heads={"kind": own})
    assert model.heads["kind"] is own and model.heads["size"] is not own


@pytest.mark.parametrize(
    ("encoder", "tasks", "heads", "message"),
    [
        (MLP, [TAGS], {}, "'pos' labels words, but MLP gives none"),
        (MLP, [], {}, "one or more tasks"),
        (MLP, [KIND, KIND], {}, r"different names, found \['kind', 'kind'\]"),
        (MLP, [KIND], {"knd": torch.nn.Identity()}, r"given for \['knd'\], but the tasks are \['kind'\]"),
    ],
)
def test_bad_models(encoder, tasks, heads, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskModel(encoder(2), tasks, heads)


def test_a_target_for_no_task_is_refused():
    with pytest.raises(ValueError, match=r"'knd'.*'kind'"):
        MultiTaskModel(MLP(2), [KIND])({"x": torch.randn(1, 2)}, {"knd": torch.tensor([1])})
