"""The forms in which tasks share an encoder: by value against other people's code, and who reaches what."""

import pytest
import torch
from torch import nn

from mtlweights.problems import Task, load
from mtlweights.problems.models import MLP, BiLSTM, MultiTaskModel, Pair, Sharing, Transformer, WordInputs
from mtlweights.problems.models.sharing.stack import Parallel
from tests.tiny import bert_config

WORDS = Task("pos", "tokens", ("accuracy",), ("NOUN", "VERB", "X"))
KIND = Task("kind", "classification", ("accuracy",), ("a", "b"))
SIZE = Task("size", "regression", ("rmse",), mean=5.0, std=2.0, untrained=2.0, target=0.0)
TABLE, TEXT = [KIND, SIZE], [WORDS, KIND, SIZE]
FORMS = {
    "agnostic": {},
    "task_dependent": {"private": [1]},
    "joint": {},
    "mmoe": {"experts": 3},
    "ple": {"experts": 2, "own_experts": 1, "levels": 2},
    "cross_stitch": {},
    "mtan": {},
}
X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def mlp(tasks=TABLE, form="agnostic", hidden=(8, 8), seed=0, **options):
    torch.manual_seed(seed)
    return MultiTaskModel(Sharing(form, options).around(MLP(5, hidden), tasks), tasks).eval()


def states(model):
    return {task: own.pooled for task, own in model.encoder({"x": X}).items()}


def linears(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def copy_linears(source, target):
    pairs = list(zip(linears(source), linears(target), strict=True))
    with torch.no_grad():
        for theirs, ours in pairs:
            theirs.weight.copy_(ours.weight)
            theirs.bias.copy_(0.0 * theirs.bias if ours.bias is None else ours.bias)


def without_norm(module):
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d):
            setattr(module, name, nn.Identity())
        else:
            without_norm(child)


def features():
    from torch_rechub.basic.features import DenseFeature

    return [DenseFeature(name) for name in "abcde"]


def assert_same_states(model, theirs):
    """What their towers are given is what our heads are."""
    theirs.towers = theirs.predict_layers = nn.ModuleList([nn.Identity()] * 2)
    found = theirs(dict(zip("abcde", X.T, strict=True)))
    torch.testing.assert_close(torch.cat([*states(model).values()], 1), found)


def expert(layers, number):
    return nn.ModuleList(copies[number] for copies in layers)


def test_mmoe_is_that_of_torch_rechub():
    from torch_rechub.models.multi_task.mmoe import MMOE

    model = mlp(form="mmoe", experts=3)
    own = model.encoder
    towers = [{"dims": []}, {"dims": []}]
    theirs = MMOE(features(), ["regression"] * 2, 3, {"dims": [8, 8]}, towers).eval()
    without_norm(theirs)
    for number, other in enumerate(theirs.experts):
        copy_linears(other, expert(own.layers, number))
    copy_linears(theirs.gates, own.gates)
    assert_same_states(model, theirs)


@pytest.mark.parametrize("levels", [1, 2])
def test_ple_is_that_of_torch_rechub(levels):
    from torch_rechub.models.multi_task.ple import PLE

    model = mlp(form="ple", experts=2, own_experts=3, levels=levels, hidden=(8,) * 2)
    own = model.encoder
    dims = [8] * (2 // levels)
    theirs = PLE(features(), ["regression"] * 2, levels, 3, 2, {"dims": dims}, [{"dims": []}] * 2).eval()
    without_norm(theirs)
    for number, level in enumerate(theirs.cgc_layers):
        layers = [own.layers[k] for k in own.levels[number]]
        for k, other in enumerate([*level.experts_specific, *level.experts_shared]):
            copy_linears(other, expert(layers, k))
        copy_linears(level.gates_specific, own.gates[number])
        if number < levels - 1:
            copy_linears(level.gate_shared, own.shared_gates[number])
    assert_same_states(model, theirs)


def test_mtan_is_that_of_its_authors():
    """The flow of their MTANDeepLabv3.forward, over 1 x 1 images, without batch normalisation."""
    model = mlp(form="mtan")
    own = model.encoder

    def convolved(layers, x):
        for layer in layers:
            is_linear = isinstance(layer, nn.Linear)
            x = torch.conv2d(x, layer.weight[..., None, None], layer.bias) if is_linear else layer(x)
        return x

    def attended(att_i, x):
        return torch.sigmoid(convolved([att_i[0], nn.ReLU(), att_i[2]], x))

    u_1_b = X[..., None, None]
    u_1_t = convolved(own.layers[0][0], u_1_b)
    u_2_b, u_2_t = u_1_t, convolved(own.layers[1][0], u_1_t)
    a_1 = [attended(att_i, u_1_b) * u_1_t for att_i in own.masks[0]]
    a_1 = [convolved(own.passed_on[0], a_1_i) for a_1_i in a_1]
    seen = [torch.cat((u_2_b, a_1_i), dim=1) for a_1_i in a_1]
    a_2_mask = [attended(att_i, x) for x, att_i in zip(seen, own.masks[1], strict=True)]
    a_2 = [a_2_mask_i * u_2_t for a_2_mask_i in a_2_mask]
    for found, expected in zip(states(model).values(), a_2, strict=True):
        torch.testing.assert_close(found, expected.flatten(1))


def test_cross_stitch_mixes_behind_every_layer():
    model = mlp(form="cross_stitch")
    own = model.encoder
    assert own.stitches[0][0].tolist() == pytest.approx([0.9, 0.1])
    with torch.no_grad():
        for rows in own.stitches:
            for row in rows:
                row.uniform_(-1, 1)
    a = b = X
    for copies, (first, second) in zip(own.layers, own.stitches, strict=True):
        a, b = copies[0](a), copies[1](b)
        a, b = first[0] * a + first[1] * b, second[0] * a + second[1] * b
    found = states(model)
    torch.testing.assert_close(found["kind"], a)
    torch.testing.assert_close(found["size"], b)


@pytest.mark.parametrize("private", [[1], [2], [1, 2]])
def test_task_dependent_layers_are_each_tasks_own(private):
    own = mlp(form="task_dependent", private=private).encoder
    for number, task in enumerate(["kind", "size"]):
        x = X
        for k, copies in enumerate(own.layers, 1):
            x = copies[number if k in private else 0](x)
        torch.testing.assert_close(own({"x": X}, [task])[task].pooled, x)
    assert [len(copies) for copies in own.layers] == [2 if k in private else 1 for k in (1, 2)]


def test_joint_is_a_shared_encoder_whose_outputs_are_one_layer():
    joint, plain = mlp(form="joint"), mlp()
    output = joint.encoder.of_examples
    assert output.out_features == 3 and not [*joint.heads.parameters()]
    plain.encoder.load_state_dict(joint.encoder.encoder.state_dict())
    with torch.no_grad():
        for task, columns in (("kind", slice(0, 2)), ("size", slice(2, 3))):
            plain.heads[task].output.weight.copy_(output.weight[columns])
            plain.heads[task].output.bias.copy_(output.bias[columns])
    for task, found in joint({"x": X}).outputs.items():
        torch.testing.assert_close(found, plain({"x": X}).outputs[task])


def reached(model, inputs):
    """Parameter -> tasks whose output depends on it."""
    found = {}
    for task, output in model(inputs).outputs.items():
        grads = torch.autograd.grad(output.sum(), [*model.parameters()], retain_graph=True, allow_unused=True)
        for (name, _), grad in zip(model.named_parameters(), grads, strict=True):
            found.setdefault(name, set()).update([task] if grad is not None else [])
    return found


@pytest.mark.parametrize(
    ("form", "options", "own"),
    [
        ("task_dependent", {}, {"encoder.layers.1.0": "kind", "encoder.layers.1.1": "size"}),
        ("mmoe", {}, {"encoder.gates.0": "kind", "encoder.gates.1": "size"}),
        ("ple", {"own_experts": 1}, {"encoder.layers.0.0": "kind", "encoder.layers.1.1": "size"}),
        ("ple", {"own_experts": 2}, {"encoder.layers.0.1": "kind", "encoder.gates.0.1": "size"}),
        ("ple", {"own_experts": 1, "levels": 2}, {"encoder.layers.1.0": "kind", "encoder.gates.1.1": "size"}),
        ("cross_stitch", {}, {"encoder.stitches.1.0": "kind", "encoder.stitches.1.1": "size"}),
        ("mtan", {}, {"encoder.masks.0.0": "kind", "encoder.masks.1.1": "size"}),
        ("joint", {}, {}),
    ],
)
def test_what_serves_one_task_is_reached_by_it_alone(form, options, own):
    found = reached(mlp(form=form, **options), {"x": X})
    assert all(found.values()), [name for name, tasks in found.items() if not tasks]
    for prefix, task in own.items():
        inside = [tasks for name, tasks in found.items() if name.startswith(prefix)]
        assert inside and all(tasks == {task} for tasks in inside), prefix
    assert {"kind", "size"} in found.values()


SENTENCES = [["The", "dog", "barks"], ["A"], ["Dogs", "bark", "at", "the", "cats", "!"], []]


def bilstm(form, pair=False, tasks=TEXT, layers=2):
    inputs = WordInputs.fit(SENTENCES)
    small = {"word_dim": 6, "char_dim": 4, "char_filters": 4, "hidden": 5, "layers": layers}
    torch.manual_seed(0)
    encoder = BiLSTM(inputs.n_words, inputs.n_chars, **small)
    own = Sharing(form, FORMS[form]).around(Pair(encoder) if pair else encoder, tasks)
    return inputs, MultiTaskModel(own, tasks).eval()


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_nothing(form):
    inputs, model = bilstm(form)
    batch = inputs(SENTENCES)
    together = model(batch).outputs
    if form not in ("agnostic", "joint"):
        assert all(not own.tokens[~batch["mask"]].any() for own in model.encoder(batch).values())
    for row, sentence in enumerate(SENTENCES):
        alone = model(inputs([sentence])).outputs
        torch.testing.assert_close(together["pos"][row, : len(sentence)], alone["pos"][0, : len(sentence)])
        torch.testing.assert_close(together["size"][row], alone["size"][0])


@pytest.mark.parametrize("form", FORMS)
def test_a_task_alone_has_the_outputs_it_has_among_others(form):
    inputs, model = bilstm(form)
    batch = inputs(SENTENCES)
    together, size = model(batch).outputs, torch.zeros(4)
    torch.testing.assert_close(model(batch, {"size": size}).outputs["size"], together["size"])
    assert sorted(together) == ["kind", "pos", "size"]


@pytest.mark.parametrize("form", FORMS)
def test_a_pair_is_read_twice_by_the_same(form):
    tasks = [KIND, SIZE]
    inputs, model = bilstm(form, pair=True, tasks=tasks)
    batch = {"a": inputs(SENTENCES[:2]), "b": inputs(SENTENCES[1:3])}
    found = model(batch).outputs
    same = model({"a": batch["a"], "b": batch["a"]}).outputs
    assert found["kind"].shape == (2, 2) and not torch.allclose(found["size"], same["size"])


@pytest.mark.parametrize("form", ["task_dependent", "mmoe", "ple"])
def test_copies_of_a_transformers_blocks_start_from_the_pretrained_ones(form):
    torch.manual_seed(0)
    plain = Transformer(bert_config(num_hidden_layers=3)).eval()
    batch = {
        "input_ids": torch.randint(1, 50, (2, 5)),
        "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2]),
    }
    batch |= {"first": torch.tensor([[1, 3], [1, 0]]), "mask": torch.tensor([[True, True], [True, False]])}
    expected = plain(batch)
    options = {**FORMS[form], "private": [2]} if form == "task_dependent" else FORMS[form]
    own = Sharing(form, options, blocks=2).around(plain, TEXT).eval()
    for found in own(batch).values():  # a mixture of equal experts is one of them
        torch.testing.assert_close(found.tokens, expected.tokens)
        torch.testing.assert_close(found.pooled, expected.pooled)
    assert all(isinstance(copies, Parallel) for copies in own.layers) and len(own.layers) == 2
    assert all(len({*map(id, copies)}) == len(copies) for copies in own.layers)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("breast_cancer:sharing=mmo", "no form of sharing 'mmo'; did you mean 'mmoe'"),
        ("breast_cancer:experts=3", "sharing=agnostic has no option 'experts', which is one of mmoe, ple"),
        ("breast_cancer:sharing=mmoe,experts=0", "experts should be an integer of at least 1, found 0"),
        ("breast_cancer:sharing=mmoe,experts=two", "experts should be an integer of at least 1, found 'two'"),
        ("breast_cancer:sharing=mmoe,blocks=1", "has no option 'blocks', which is one of a transformer"),
        ("breast_cancer:sharing=ple,levels=3", "levels should be at most the 2 hidden layers, found 3"),
        (
            "breast_cancer:sharing=task_dependent,private=[1,3]",
            r"numbers of the 2 hidden.*found \[1, 3\]",
        ),
        ("tagging:sharing=task_dependent,private=2", "numbers of the 1 hidden layers"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_problem_is_loaded(spec, said):
    with pytest.raises(ValueError, match=said):
        load(spec)


def test_a_transformer_that_is_not_like_bert_or_has_too_few_blocks_is_refused():
    from transformers import GPT2Config

    with pytest.raises(ValueError, match="blocks should be from 1 to 1 of the model's 2, found 2"):
        Sharing("mmoe", {}, blocks=2).around(Transformer(bert_config()), TEXT)
    small = GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=20)
    with pytest.raises(ValueError, match="transformer like BERT apart, found GPT2Model"):
        Sharing("mmoe", {}).around(Transformer(small), TEXT)


def test_the_form_is_the_problems_and_no_draw_is_lost_by_trying_it():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    problem = load("breast_cancer:sharing=mmoe,experts=2,hidden=8,dropout=0.4")
    assert torch.equal(torch.rand(1), expected)
    assert (problem.sharing.form, problem.sharing.options) == ("mmoe", {"experts": 2})
    alone = problem.only("radius").build()
    assert len(alone.encoder.gates) == 1 and len(alone.encoder.layers[0]) == 2
    dropped = [part.p for part in alone.encoder.layers.modules() if isinstance(part, nn.Dropout)]
    assert dropped == [0.4] * 2 * len(alone.encoder.layers)
