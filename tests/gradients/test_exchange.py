"""Factors exchanged between two processes: the Gramian and the gradients of one process, and fewer bytes."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from mtlweights import Balancer
from mtlweights.gradients import exchange
from tests.gradients import kinds
from tests.gradients.kinds import Plain, Probe, T, assert_gram, build, inputs
from tests.gradients.test_factored import FACTORED
from tests.tiny import on_ranks
from tests.toys import assert_same, assert_same_state, gradients_of, names

STEPS, SIZES = 3, (5, 7)
KINDS = [*FACTORED, kinds.Partly, kinds.Frozen, kinds.Checkpointed]


class Last(Probe):
    """Looks at the last layer alone."""

    measured_at = "last_shared"


#: case -> kind of model, Balancer arguments, tasks of each rank, items of each rank, forward and backward
OPTIONS = {
    "missing": (Plain, {}, (None, (0, 2)), SIZES, {}),
    "apart": (Plain, {}, ((0, 1), (1, 2)), SIZES, {}),
    "not used here": (kinds.Partly, {}, (None, (2,)), SIZES, {}),
    "empty": (kinds.Embedding, {}, (None, None), (12, 0), {}),
    "last layer": (Plain, {"strategy": Last}, (None, (0, 2)), SIZES, {}),
    "groups": (kinds.Attention, {"groups": "layer", "strategy": "pcgrad"}, (None, (0, 2)), SIZES, {}),
    "normalise": (Plain, {"normalise": "l2"}, (None, None), SIZES, {}),
    "weighted heads": (Plain, {"heads": "weighted", "strategy": "mgda"}, (None, (0, 2)), SIZES, {}),
    "every": (Plain, {"every": 2}, (None, None), SIZES, {}),
    "gramian": (Plain, {"gradients": "gramian"}, (None, None), SIZES, {}),
    "shared": (Plain, {"shared": lambda name: name == "trunk.0.weight"}, (None, None), SIZES, {}),
    "factor": (Plain, {}, (None, (0, 2)), SIZES, {"factor": 65536.0}),
    "two backwards": (Plain, {}, (None, (0, 2)), SIZES, {"backwards": 2}),
    "autocast": (kinds.Tied, {}, (None, (0, 2)), SIZES, {"autocast": True}),
    "float64": (kinds.Cell, {}, (None, (0, 2)), SIZES, {"dtype": torch.float64}),
}


def data_of(step, sizes, dtype=torch.float32):
    """Each rank's data."""
    whole = {k: x.to(dtype) if x.is_floating_point() else x for k, x in inputs(sum(sizes), step + 1).items()}
    return [
        dict(zip(whole, part, strict=True))
        for part in zip(*[x.split(sizes) for x in whole.values()], strict=True)
    ]


def found_losses(model, data, only, autocast=False):
    """Task -> mean loss; 0, with a graph, of no items."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = dict(zip(names(T), model(data), strict=True))
    kept = {k: v for k, v in losses.items() if only is None or int(k[1:]) in only}
    return {k: v.nan_to_num() if not len(data["x"]) else v for k, v in kept.items()}


def balancer_of(model, wrapper, options):
    rest = {key: value for key, value in options.items() if key != "strategy"}
    return Balancer(options.get("strategy", Probe), names(T), wrapper, **rest)


def run(case, rank):
    """What some steps find on a rank: gradients, Gramians, state, names of what was kept as factors."""
    kind, options, only, sizes, how = case
    model = build(kind).to(how.get("dtype", torch.float32))
    ddp = DistributedDataParallel(model, find_unused_parameters=True)
    balancer, out = balancer_of(model, ddp, options), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        number = how.get("backwards", 1)
        for k in range(number):
            data = data_of(step * number + k, sizes, how.get("dtype", torch.float32))[rank]
            with ddp.no_sync() if k + 1 < number else nullcontext():
                losses = found_losses(ddp, data, only[rank], how.get("autocast", False))
                counts = dict.fromkeys(losses, torch.tensor(float(sizes[rank])))
                (balancer(losses, counts) * how.get("factor", 1.0)).backward()
        seen = getattr(balancer.strategy, "seen", None)
        kept = sorted(balancer._engine.measure.factored)
        out.append((gradients_of(model), seen, kept))
        if not {"factor", "autocast"} & how.keys():
            optimizer.step()
    return {"steps": out, "balancer": balancer.state_dict()}


def in_one_process(case):
    """The same with each task's mean over the items of the ranks that have it, by rows."""
    kind, options, only, sizes, how = case
    model = build(kind).to(how.get("dtype", torch.float32))
    balancer, out = balancer_of(model, model, options | {"gradients": "rows"}), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        number = how.get("backwards", 1)
        for k in range(number):
            sums, counts = {}, {}
            parts = data_of(step * number + k, sizes, how.get("dtype", torch.float32))
            for data, tasks, size in zip(parts, only, sizes, strict=True):
                for task, loss in found_losses(model, data, tasks, how.get("autocast", False)).items():
                    sums[task] = sums.get(task, 0) + loss * size
                    counts[task] = counts.get(task, 0) + size
            losses = {task: sums[task] / counts[task] for task in sorted(sums)}
            (balancer(losses, counts) * how.get("factor", 1.0)).backward()
        out.append((gradients_of(model), getattr(balancer.strategy, "seen", None)))
        if not {"factor", "autocast"} & how.keys():
            optimizer.step()
    return out


def case_of(name):
    return OPTIONS[name] if name in OPTIONS else (getattr(kinds, name), {}, (None, None), SIZES, {})


CASES = [*(kind.__name__ for kind in KINDS), *OPTIONS]


# what is sent -----------------------------------------------------------------------------------------------


class Wide(nn.Module):
    """A table, a wide layer and one with many more samples than columns."""

    def __init__(self):
        super().__init__()
        self.table, self.up = nn.Embedding(3000, 8), nn.Linear(8, 256)
        self.wide, self.many = nn.Linear(256, 256), nn.Linear(8, 8)
        self.heads = nn.ModuleList([nn.Linear(256, 64) for _ in range(T)])

    def forward(self, ids):
        h = torch.tanh(self.many(self.table(ids))).mean(1)
        h = torch.tanh(self.wide(torch.tanh(self.up(h))))
        return [head(h).square().mean() for head in self.heads]


PLACES = {"allreduce_": 0, "alltoall_base_": 1, "allgather_": 1}  # kind of collective -> its whole input


class Counted(TorchDispatchMode):
    """Notes the bytes of every collective's tensors."""

    def __init__(self):
        super().__init__()
        self.bytes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._opname
        if func.namespace == "c10d" and name != "barrier":
            given = args[PLACES[name]]
            tensors = [given] if isinstance(given, torch.Tensor) else given
            size = sum(x.numel() * x.element_size() for x in tensors)
            self.bytes[name] = self.bytes.get(name, 0) + size
        return func(*args, **(kwargs or {}))


#: case -> items of each rank, in each step
TRAFFIC = {
    "few": [(4, 4)] * 3,
    "uneven": [(2, 9)] * 3,
    "far apart": [(4, 900)] * 3,
    "many": [(900, 900)] * 3,
    "then": [(4, 4), (4, 4), (900, 900)],
}


def traffic(rank, sizes, mode):
    """Of the last step: bytes by kind of collective, gradients, what was kept as factors."""
    torch.manual_seed(0)
    model = Wide()
    ddp = DistributedDataParallel(model)
    balancer = Balancer("mgda", names(T), ddp, gradients=mode)
    for step, each in enumerate(sizes):
        model.zero_grad()
        ids = torch.randint(0, 3000, (sum(each), 6), generator=torch.Generator().manual_seed(step))
        with Counted() as counted:
            losses = dict(zip(names(T), ddp(ids.split(each)[rank]), strict=True))
            balancer(losses, dict.fromkeys(losses, each[rank])).backward()
    return counted.bytes, gradients_of(model), sorted(balancer._engine.measure.factored)


def rank_main(rank, folder):
    out = {}
    for key, sizes in TRAFFIC.items():
        out[key] = {mode: traffic(rank, sizes, mode) for mode in ("auto", "rows")}
    with pytest.MonkeyPatch.context() as patch:  # factors whatever they cost
        patch.setattr(exchange, "LEAST", -1)
        patch.setattr(exchange, "sent", lambda *arguments: 0)
        patch.setattr(exchange, "WORD", 0)
        for name in CASES:
            out[name] = run(case_of(name), rank)
    torch.save(out, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda path, load=torch.load: load(path, weights_only=False))
        return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name, ranks):
    first, second = (rank[name] for rank in ranks)
    assert_same_state(first["balancer"], second["balancer"])
    how = case_of(name)[-1]
    for mine, theirs, (gradients, gram) in zip(
        first["steps"], second["steps"], in_one_process(case_of(name)), strict=True
    ):
        assert_same_state(mine[0], theirs[0])
        if "autocast" in how:
            for key, gradient in gradients.items():
                assert (mine[0][key] - gradient).norm() <= 0.02 * gradient.norm(), key
            continue
        assert_same(mine[0], gradients, 3e-6 * how.get("factor", 1.0))
        if gram is not None:
            assert_gram(mine[1], gram)
            assert (mine[1] == theirs[1]).all()


@pytest.mark.parametrize("kind", FACTORED)
def test_which_weights_are_exchanged(kind, ranks):
    """Those that one process can keep as factors; all else is rows, as is everything in the first step."""
    for rank in ranks:
        first, *later = [set(kept) for _, _, kept in rank[kind.__name__]["steps"]]
        assert not first and all(kept == FACTORED[kind] for kept in later)


def test_a_weight_that_a_rank_lacks_is_exchanged_all_the_same(ranks):
    every, some = (set(rank["not used here"]["steps"][-1][2]) for rank in ranks)
    assert every - some == {"extra.weight"} and "trunk.0.weight" in some


LEAVES = {"table": 24_000, "up": 2048, "wide": 65_536, "heads": T * (256 * 64 + 64)}
ROWS = 256 + 256 + 64 + 8  # the biases of "up" and "wide", and "many"


def sent_of(counts):
    """Bytes that a ring sends, times W / (W - 1): all-reduce twice, else once to each."""
    return 2 * counts["allreduce_"] + counts.get("alltoall_base_", 0) + 2 * counts.get("allgather_", 0)


@pytest.mark.parametrize("case", ["few", "uneven"])
def test_what_is_sent(case, ranks):
    """Factors are exchanged, with what is weighted first; the rest is rows."""
    sizes = TRAFFIC[case][-1]
    for rank, n in zip(ranks, sizes, strict=True):
        counts, gradients, kept = rank[case]["auto"]
        plain, expected, none = rank[case]["rows"]
        assert kept == ["table.weight", "up.weight", "wide.weight"] and not none
        shares, table = 2 * 8 * T, 6 * n * (4 * 8 * T + 2 * 8)
        layers = n * 4 * ((256 * T + 2 * 8) + (256 * T + 2 * 256))
        assert abs(counts["alltoall_base_"] - shares - table - layers) < 64  # padding
        assert counts["allreduce_"] == pytest.approx(4 * (sum(LEAVES.values()) + T * ROWS), rel=0.01)
        assert counts["allgather_"] < 1000
        assert plain == {"allreduce_": pytest.approx(4 * T * (sum(LEAVES.values()) + ROWS), rel=0.01)}
        assert sent_of(counts) < 0.4 * sent_of(plain)
        assert_same(gradients, expected, 1e-6)


def test_rows_where_factors_are_not_smaller(ranks):
    for rank in ranks:
        counts, gradients, kept = rank["many"]["auto"]
        plain, expected, _ = rank["many"]["rows"]
        assert not kept
        assert "alltoall_base_" not in counts
        assert sent_of(counts) <= sent_of(plain)
        assert_same(gradients, expected, 1e-6)


def test_a_step_with_many_samples_goes_back_to_rows(ranks):
    for rank in ranks:
        (_, gradients, kept), (_, expected, _) = rank["then"]["auto"], rank["then"]["rows"]
        assert not kept
        assert_same(gradients, expected, 1e-6)


def test_the_sizes_of_all_ranks_decide(ranks):
    """Here one rank alone would exchange every weight, and the other none."""
    for rank in ranks:
        (counts, gradients, kept), (_, expected, _) = rank["far apart"]["auto"], rank["far apart"]["rows"]
        assert kept == ["table.weight"] and "alltoall_base_" in counts
        assert_same(gradients, expected, 1e-6)
