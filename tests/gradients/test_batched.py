"""The gradients of a trunk in one batched pass: what a pass per task gives, and only where that is known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mtlweights import Balancer
from mtlweights.gradients import batched
from mtlweights.gradients.batched import SAFE, Batched, one_by_one
from mtlweights.gradients.graph import Graph
from tests.tiny import bert_config

GPU = {n for n in SAFE if n.startswith("ScaledDotProduct") and "Cpu" not in n}
SQUARE, IMAGE = (4, 4), (2, 4, 6, 6)
OPERATIONS = {
    "AbsBackward0": torch.abs,
    "AddBackward0": lambda x: x + x[0],
    "AddmmBackward0": lambda x: torch.addmm(x, x, x.T),
    "AliasBackward0": torch.ops.aten.alias,
    "AmaxBackward0": lambda x: x.amax(1),
    "BaddbmmBackward0": lambda x: torch.baddbmm(x[None], x[None], x[None].mT),
    "BmmBackward0": lambda x: torch.bmm(x[None], x[None]),
    "CatBackward0": lambda x: torch.cat([x, x.sin()], 1),
    "ClampBackward1": lambda x: x.clamp(-0.5, 0.5),
    "CloneBackward0": torch.clone,
    "CosBackward0": torch.cos,
    "CumsumBackward0": lambda x: x.cumsum(0),
    "DivBackward0": lambda x: x / (2 + x[0]),
    "DotBackward0": lambda x: torch.dot(x[0], x[1]),
    "EluBackward0": F.elu,
    "EmbeddingBackward0": lambda x: F.embedding(torch.tensor([0, 2, 2, 3]), x, padding_idx=3),
    "ErfBackward0": torch.erf,
    "ExpBackward0": torch.exp,
    "ExpandBackward0": lambda x: x.expand(3, 4, 4),
    "GatherBackward0": lambda x: x.gather(1, torch.tensor([[0, 0], [3, 1], [2, 2], [1, 0]])),
    "GeluBackward0": F.gelu,
    "HardswishBackward0": F.hardswish,
    "HardtanhBackward0": F.relu6,
    "IndexBackward0": lambda x: x[torch.tensor([0, 0, 3])],
    "IndexSelectBackward0": lambda x: x.index_select(1, torch.tensor([2, 2])),
    "LeakyReluBackward0": F.leaky_relu,
    "LinalgVectorNormBackward0": lambda x: torch.linalg.vector_norm(x, dim=1),
    "Log1PBackward0": lambda x: x.square().log1p(),
    "LogBackward0": lambda x: (x.square() + 1).log(),
    "LogSoftmaxBackward0": lambda x: x.log_softmax(1),
    "LogsumexpBackward0": lambda x: x.logsumexp(1),
    "MaskedFillBackward0": lambda x: x.masked_fill(torch.eye(4).bool(), -1.0),
    "MaximumBackward0": lambda x: torch.maximum(x, x.T),
    "MeanBackward0": lambda x: x.mean(),
    "MeanBackward1": lambda x: x.mean(1),
    "MishBackward0": F.mish,
    "MmBackward0": lambda x: x @ x,
    "MulBackward0": lambda x: x * x[0],
    "MulBackward1": lambda x: torch.ops.aten.mul.Scalar(x, 3.0),
    "MvBackward0": lambda x: x @ x[0],
    "NativeDropoutBackward0": lambda x: torch.native_dropout(x, 0.5, True)[0],
    "NativeLayerNormBackward0": lambda x: F.layer_norm(x, (4,), x[0], x[1]),
    "NegBackward0": torch.neg,
    "PermuteBackward0": lambda x: x.permute(1, 0),
    "PowBackward0": lambda x: x**3,
    "ReciprocalBackward0": lambda x: (x.square() + 1).reciprocal(),
    "ReluBackward0": torch.relu,
    "RepeatBackward0": lambda x: x.repeat(2, 1),
    "ReshapeAliasBackward0": lambda x: torch.ops.aten._reshape_alias(x, [2, 8], [8, 1]),
    "RsqrtBackward0": lambda x: (x.square() + 1).rsqrt(),
    "RsubBackward1": lambda x: 1 - x,
    "SafeSoftmaxBackward0": lambda x: torch._safe_softmax(x, 1),
    "SelectBackward0": lambda x: x.select(1, 2),
    "SigmoidBackward0": torch.sigmoid,
    "SiluBackward0": F.silu,
    "SinBackward0": torch.sin,
    "SliceBackward0": lambda x: x[:, 1:3],
    "SoftmaxBackward0": lambda x: x.softmax(1),
    "SoftplusBackward0": F.softplus,
    "SplitBackward0": lambda x: x.split(2)[1],
    "SplitWithSizesBackward0": lambda x: x.split([1, 3])[1],
    "SqrtBackward0": lambda x: (x.square() + 1).sqrt(),
    "SqueezeBackward0": lambda x: x[:1].squeeze(),
    "SqueezeBackward1": lambda x: x[:1].squeeze(0),
    "StackBackward0": lambda x: torch.stack([x, x.sin()]),
    "SubBackward0": lambda x: x - x[0],
    "SumBackward0": lambda x: x.sum(),
    "SumBackward1": lambda x: x.sum(1, keepdim=True),
    "TBackward0": torch.t,
    "TanhBackward0": torch.tanh,
    "ToCopyBackward0": torch.Tensor.double,
    "TransposeBackward0": lambda x: x.transpose(0, 1),
    "UnbindBackward0": lambda x: x.unbind()[1],
    "UnsafeViewBackward0": lambda x: torch.ops.aten._unsafe_view(x, [2, 8]),
    "UnsqueezeBackward0": lambda x: x.unsqueeze(1),
    "VarBackward0": lambda x: x.var(1),
    "ViewBackward0": lambda x: x.view(2, 8),
    "WhereBackward0": lambda x: torch.where(torch.eye(4).bool(), x, x.sin()),
}
ON_IMAGES = {
    "AdaptiveAvgPool2DBackward0": lambda x: F.adaptive_avg_pool2d(x, 2),
    "AvgPool2DBackward0": lambda x: F.avg_pool2d(x, 2),
    "ConvolutionBackward0": lambda x: F.conv2d(x, x[:1, :, :3, :3].sin(), x[0, :1, 0, 0], padding=1),
    "MaxPool2DWithIndicesBackward0": lambda x: F.max_pool2d(x, 2),
    "NativeBatchNormBackward0": lambda x: F.batch_norm(x, None, None, x[0, :, 0, 0], x[1, :, 0, 0], True),
    "NativeGroupNormBackward0": lambda x: F.group_norm(x, 2, x[0, :, 0, 0], x[1, :, 0, 0]),
    "ScaledDotProductFlashAttentionForCpuBackward0": lambda x: F.scaled_dot_product_attention(
        x, x.sin(), x.cos()
    ),
}


@pytest.fixture
def small(monkeypatch):
    """Any trunk is worth it."""
    monkeypatch.setattr(batched, "FEW_NODES", 1)


@pytest.fixture
def passes(monkeypatch):
    """Counts the passes that are batched."""
    grad, found = torch.autograd.grad, []

    def counted(*args, **options):
        found.append(options.get("is_grads_batched", False))
        return grad(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return found


def three(value):
    """A loss of each of three tasks, behind one operation of its own."""
    torch.manual_seed(2)
    return [(value * torch.randn(value.shape, dtype=value.dtype)).sum() for _ in range(3)]


def by_both(losses, inputs):
    """The gradients by a pass per task, and by `Batched`."""
    seeds = [torch.ones_like(loss) for loss in losses]
    apart = one_by_one(losses, inputs, seeds, True)
    graph = Graph(losses, lambda node, output: None)
    return apart, Batched()(graph, losses, inputs, seeds, False)


@pytest.mark.parametrize("name", sorted(OPERATIONS | ON_IMAGES))
def test_an_operation_that_is_known(name, small, passes):
    """Each entry of `SAFE`, with what a task per pass gives."""
    operation = (OPERATIONS | ON_IMAGES)[name]
    torch.manual_seed(0)
    x = torch.randn(IMAGE if name in ON_IMAGES else SQUARE, requires_grad=True)
    losses = three(operation(x.sin()))
    kind = batched.trunk(Graph(losses, lambda node, output: None)).kind
    assert name in kind and kind <= SAFE, sorted(kind)
    apart, together = by_both(losses, [x])
    assert any(passes)
    for (one,), (other,) in zip(apart, together, strict=True):
        torch.testing.assert_close(other, one)


def test_every_known_operation_is_tried():
    assert OPERATIONS.keys() | ON_IMAGES.keys() | GPU == SAFE


TASKS = ["t0", "t1", "t2", "t3"]


class Net(nn.Module):
    """A trunk of two layers and four heads, which enter it in a way of several."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.first, self.second = way, nn.Linear(6, 8), nn.Linear(8, 8)
        self.heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(4))
        self.scale, self.beside = nn.Parameter(torch.ones(8)), nn.Linear(6, 8)
        self.hooks = {}

    def forward(self, x, last=1.0):
        early = self.first(x).tanh()
        late = self.second(early).tanh() * last
        for value, name in ((early, "early"), (late, "late")):
            if name in self.hooks:
                value.register_hook(self.hooks[name])
        match self.way:
            case "two edges":
                each = [z + self.beside(x) for z in (late, early, late, early)]
            case "an edge behind another":
                each = [late + k * early for k in range(4)]
            case "one without the trunk":
                each = [late] * 3 + [self.beside(x)]
            case "a weight in trunk and heads":
                each = [F.linear(late, self.second.weight * k) for k in range(4)]
            case "a weight of the heads alone":
                each = [late * self.scale for _ in range(4)]
            case "two of the four share more":
                more = self.beside(x) * late
                each = [late, late, more.sin(), more.cos()]
            case "values of one operation":
                each = [F.pad(piece, (0, 6)) for piece in late.split(2, 1)]
            case _:
                each = [late] * 4
        losses = {
            f"t{k}": head(z).square().mean() for k, (head, z) in enumerate(zip(self.heads, each, strict=True))
        }
        if self.way == "a loss of another's":
            losses |= {f"t{k}": losses["t0"] * k for k in (1, 2, 3)}
        return dict.fromkeys(losses, losses["t0"]) if self.way == "one loss for all" else losses


WAYS = {  # and whether a pass is batched
    "one edge": True,
    "two edges": True,
    "an edge behind another": False,
    "one without the trunk": False,
    "a weight in trunk and heads": False,
    "a weight of the heads alone": True,
    "two of the four share more": True,
    "values of one operation": False,
    "a loss of another's": False,
    "one loss for all": False,
}


def gradients(net, losses, mode, strategy="mgda"):
    """``.grad`` of every parameter from a balancer of its own, and what that says of itself."""
    net.zero_grad()
    balancer = Balancer(strategy, list(losses), net, gradients=mode)
    balancer.backward(losses)
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}, balancer.explain()


@pytest.mark.parametrize("mode", ["auto", "gramian"])
@pytest.mark.parametrize("way", WAYS)
def test_ways_into_the_trunk(way, mode, small, passes):
    net, x = Net(way), torch.randn(5, 6)
    expected, _ = gradients(net, net(x), "rows")
    assert not any(passes), "gradients='rows' is a pass per task"
    found, said = gradients(net, net(x), mode)
    assert any(passes) == WAYS[way]
    assert ("one through it for all at once" in said) == WAYS[way]
    torch.testing.assert_close(found, expected)
    assert found.keys() == expected.keys()


class Bert(nn.Module):
    """A BERT and four heads."""

    def __init__(self, **options):
        from transformers import BertModel

        super().__init__()
        torch.manual_seed(0)
        self.bert = BertModel(bert_config(**options), add_pooling_layer=False)
        self.heads = nn.ModuleList(nn.Linear(16, 3) for _ in range(4))

    def forward(self, ids):
        states = self.bert(ids).last_hidden_state
        return {
            f"t{k}": F.cross_entropy(head(states[:, k]), ids[:, 0] % 3) for k, head in enumerate(self.heads)
        }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("elements", [1 << 17, 5200])
def test_a_transformer(attention, elements, passes, monkeypatch):
    """By itself worth it, in one pass or in several; with dropout, and with half precision."""
    monkeypatch.setitem(batched.ELEMENTS, "cpu", elements)
    net, ids = Bert(attn_implementation=attention, hidden_dropout_prob=0.1), torch.randint(50, (6, 9))
    for kind in (torch.float32, torch.bfloat16):
        found = {}
        for mode in ("rows", "auto", "gramian"):
            torch.manual_seed(1)
            with torch.autocast("cpu", kind, enabled=kind != torch.float32):
                losses = net(ids)
            passes.clear()
            found[mode], _ = gradients(net, losses, mode)
            assert sum(passes) == {"rows": 0}.get(mode, 1 if elements > 5200 else 2)
        tolerance = {} if kind == torch.float32 else {"rtol": 0.05, "atol": 1e-3}
        torch.testing.assert_close(found["auto"], found["rows"], **tolerance)
        torch.testing.assert_close(found["gramian"], found["rows"], **tolerance)


def test_a_second_backward(small):
    """The graph is kept where it is asked for, and freed elsewhere, from the second call of a kind on."""
    net, x = Net("one edge"), torch.randn(5, 6)
    balancer = Balancer("mgda", TASKS, net)
    for _ in range(2):
        losses = net(x)
        net.zero_grad()
        balancer(losses).backward(retain_graph=True)
        first = net.first.weight.grad.clone()
        balancer(losses).backward()
        torch.testing.assert_close(net.first.weight.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        balancer(losses).backward()


@pytest.mark.parametrize("value", ["early", "late"])
def test_hooks_on_values(value, small, passes):
    """One that changes a gradient does so once for each task; one that reads a number gets a task at a time.

    Inside the trunk, and where the tasks enter it.
    """
    x, read = torch.randn(5, 6), []
    for hook in (lambda g: g * 3, lambda g: read.append(g.norm().item())):
        net = Net("one edge")
        net.hooks[value] = hook

        def run(balancer, net=net):
            net.zero_grad()
            balancer.backward(net(x))
            return [p.grad for p in net.parameters() if p.grad is not None]

        expected, balancer = run(Balancer("mgda", TASKS, net, gradients="rows")), Balancer("mgda", TASKS, net)
        for _ in range(2):
            passes.clear()
            read.clear()
            torch.testing.assert_close(run(balancer), expected)
        assert any(passes) == (not read)
    assert len(read) == 4, "the second time it is not tried again"


def test_hooks_of_leaves_wait(small):
    """They are for the gradient in the end, also of a weight right behind the edge into the trunk."""
    net, x, seen = Net("one edge"), torch.randn(5, 6), []
    last = nn.Parameter(torch.ones(8))
    last.register_hook(lambda g: seen.append(g.clone()))
    shared = net(x, last=last)
    Balancer("mgda", TASKS).backward(shared)
    assert len(seen) == 1 and torch.equal(seen[0], last.grad)


class StopModule(nn.Module):
    def forward(self, x):
        return Stop.apply(x)


class Stop(torch.autograd.Function):
    """A value whose gradient is not there."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return None


def test_a_task_that_stops_its_gradient(small, passes):
    net, x = Net("one edge"), torch.randn(5, 6)
    net.heads[3] = nn.Sequential(StopModule(), net.heads[3])
    expected, _ = gradients(net, net(x), "rows")
    found, said = gradients(net, net(x), "auto")
    torch.testing.assert_close(found, expected)
    assert not any(passes) and "for all at once" not in said


def test_checkpoints(small):
    """What is computed again is the same, dropout and all."""
    for p in (0.0, 0.5):
        net, x = Net("one edge"), torch.randn(5, 6)
        block = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(p), nn.Linear(6, 6))
        whole = nn.ModuleList([net, block])
        found = {}
        for mode in ("rows", "auto", "auto "):
            torch.manual_seed(3)
            losses = net(checkpoint(block, x, use_reentrant=False))
            found[mode], _ = gradients(whole, losses, mode.strip())
        torch.testing.assert_close(found["auto"], found["rows"])
        torch.testing.assert_close(found["auto "], found["rows"])


def test_an_error_is_not_hidden(small):
    """What raises in a pass of its own raises."""

    def fail(gradient):
        raise RuntimeError("not this one")

    net, x = Net("one edge"), torch.randn(5, 6)
    balancer = Balancer("mgda", TASKS, net)
    balancer.backward(net(x))
    handle = net.first.register_forward_hook(lambda *a: a[2].register_hook(fail) and None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not this one"):
            balancer.backward(net(x))
    handle.remove()
