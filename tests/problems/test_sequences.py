"""Sequence to sequence through an encoder-decoder, beside tasks of every other kind."""

import copy

import pytest
import torch

from mtlweights import Balancer
from mtlweights.problems import MISSING, Problem, Task
from mtlweights.problems.metrics import exact_match, piece_f1
from mtlweights.problems.models import EncoderDecoder, MultiTaskModel, make_head
from mtlweights.problems.models.sequences import _answers
from mtlweights.train import Settings, evaluate, fit
from tests.tiny import bert_config

END, WORDS = 1, 8
TASKS = (
    Task("answer", "sequence", ("exact_match", "piece_f1")),
    Task("tag", "tokens", ("accuracy",), ("low", "high")),
    Task("kind", "classification", ("accuracy",), ("low", "high")),
    Task("length", "regression", ("rmse",), untrained=1.0, target=0.0, mean=3.0),
)
NAMES = [task.name for task in TASKS]


def t5():
    from transformers import T5Config

    small = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    return T5Config(vocab_size=16, decoder_start_token_id=0, **small)


def bart():
    from transformers import BartConfig

    sizes = {
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 32))
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": END, "decoder_start_token_id": 2}
    return BartConfig(
        vocab_size=16, d_model=16, dropout=0.0, forced_eos_token_id=None, **sizes, **heads, **ids
    )


def read(sentences):
    """As SubwordInputs has them, a piece a word."""
    width = max(map(len, sentences))
    ids = torch.tensor([[*s, *[0] * (width - len(s))] for s in sentences])
    seen = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sentences])
    return {
        "input_ids": ids,
        "attention_mask": seen,
        "first": torch.arange(width).expand_as(ids),
        "mask": seen > 0,
    }


def rows(n, seed):
    """Sentences of ids 3 to 10; the answer is the first word, then whether it is high."""
    g = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n):
        words = torch.randint(
            3, 3 + WORDS, (int(torch.randint(2, 5, (), generator=g)),), generator=g
        ).tolist()
        high = [int(word > 6) for word in words]
        targets = {
            "answer": [words[0], 12 + high[0], END],
            "tag": high,
            "kind": high[0],
            "length": float(len(words)),
        }
        found.append({"input": words, "targets": targets})
    return found


@pytest.fixture(scope="module")
def problem():
    splits = {"train": rows(160, 0), "dev": rows(30, 1), "test": rows(30, 2)}
    return Problem("answers", TASKS, splits, read, lambda: EncoderDecoder(t5(), longest=4))


@pytest.mark.parametrize("config", [t5, bart])
def test_every_kind_of_task_beside_the_sequence(problem, config):
    """The gradients of each are those of the plain sum, and the decoder's own serve one task."""
    torch.manual_seed(0)
    model = MultiTaskModel(EncoderDecoder(config()), TASKS)
    plain, batch = copy.deepcopy(model), problem.collate(problem.splits["train"][:8])
    batch["targets"]["answer"][3:] = MISSING
    losses = model(batch["inputs"], batch["targets"]).losses
    Balancer("pcgrad", NAMES, model)(losses).backward()
    sum(plain(batch["inputs"], batch["targets"]).losses.values()).backward()
    for (name, found), expected in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None), name
        if ".decoder." in name and "embed" not in name:
            torch.testing.assert_close(found.grad, expected.grad)  # its task's own
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if name.startswith("heads.answer")] and len(names) == len({*names})


def test_the_loss_is_that_of_the_library(problem):
    torch.manual_seed(0)
    model = MultiTaskModel(EncoderDecoder(t5()), TASKS).eval()
    batch = problem.collate(problem.splits["train"][:6])
    given = {key: batch["inputs"][key] for key in ("input_ids", "attention_mask")}
    expected = model.encoder.model(**given, labels=batch["targets"]["answer"]).loss
    torch.testing.assert_close(model(batch["inputs"], batch["targets"]).losses["answer"], expected)
    assert batch["counts"]["answer"] == 18


def test_the_loss_of_the_answer_goes_back_to_the_encoder(problem):
    torch.manual_seed(0)
    model = MultiTaskModel(EncoderDecoder(t5()), TASKS)
    batch = problem.collate(problem.splits["train"][:6])
    loss = model(batch["inputs"], batch["targets"]).losses["answer"]
    layers = [*model.encoder.model.get_encoder().block.parameters()]
    assert all(float(row.abs().max()) > 0 for row in torch.autograd.grad(loss, layers))


@pytest.mark.parametrize("longest", [2, 5])
def test_an_answer_without_an_end_is_as_long_as_was_said(problem, longest):
    torch.manual_seed(0)
    model = MultiTaskModel(EncoderDecoder(t5(), longest=longest), TASKS).eval()
    model.encoder.model.generation_config.suppress_tokens = [END]
    assert model(read([[3, 4, 5], [6]])).outputs["answer"].shape == (2, longest)


def test_it_learns_to_answer(problem):
    torch.manual_seed(0)
    model = problem.build()
    before = evaluate(model, problem, "test")["answer"]
    settings = Settings(epochs=10, batch_size=16, lr=1e-2, clip=None)
    history = fit(model, Balancer("uw", NAMES, model), problem, settings, progress=False)
    scores = evaluate(model, problem, "test")
    assert scores["answer"]["exact_match"] > before["exact_match"] + 0.2, history.rows[-1]
    assert scores["answer"]["exact_match"] <= scores["answer"]["piece_f1"]
    assert set(model(read([[3, 4]])).outputs) == set(NAMES)


def test_an_answer_ends_with_its_end_piece():
    ids = torch.tensor([[5, END, 7, END], [5, 6, 7, 8], [END, 0, 0, 0]])
    assert _answers(ids, END).tolist() == [[5, END, -100, -100], [5, 6, 7, 8], [END, -100, -100, -100]]
    assert _answers(ids[:, :0], END).shape == (3, 0)


def test_scores_of_answers_of_any_length():
    task = TASKS[0]
    outputs = [torch.tensor([[5.0, 1.0], [6.0, 1.0]]), torch.tensor([[7.0, 8.0, 1.0]])]
    targets = [torch.tensor([[5, 1, -100], [5, 6, 1]]), torch.tensor([[-100, -100]])]
    assert task.score(outputs, targets) == {"exact_match": 0.5, "piece_f1": pytest.approx((1 + 0.8) / 2)}
    assert exact_match([[1]], [[1]]) == 1 and piece_f1([[]], [[2]]) == 0


def test_what_has_no_decoder_is_refused():
    from mtlweights.problems.models import MLP

    with pytest.raises(ValueError, match="MLP has no decoder: use an EncoderDecoder"):
        make_head(TASKS[0], MLP(3))
    with pytest.raises(ValueError, match="sequence takes no labels, found 2"):
        Task("x", "sequence", ("exact_match",), ("a", "b"))
    with pytest.raises(ValueError):
        EncoderDecoder(bert_config())
