"""Nonsense given to a Balancer, at random: refused in one line of ours, with nothing touched, or it works."""

import inspect
import math
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import mtlweights
from mtlweights import Balancer, strategies
from mtlweights.strategies.registry import STRATEGIES
from tests.toys import assert_same_state

PACKAGE = Path(mtlweights.__file__).parent
TASKS = ["a", "b", "c"]
CALLED = [
    "equal",
    "uw",
    "dwa",
    "famo",
    "geometric",
    "imtl_l",
    "slaw",
    "stch_mtl",
    "igb",
    "pcgrad",
    "mgda",
    "nash_mtl",
    "imtl_g",
    "imtl",
    "gradnorm",
    "cagrad",
    "modo",
    "sdmgrad",
    "auto_lambda",
    "graddrop",
    "db_mtl",
    "adatask",
]


class Odd:
    """Of no use for anything."""


class Lines(Odd):
    def __repr__(self):
        return "two\nlines" * 100


ODD = [
    None,
    Odd(),
    Odd,
    Lines(),
    {},
    {"a": 1},
    set(),
    {1.0, 2.0},
    (),
    [],
    [[]],
    1j,
    b"1",
    "x",
    "",
    "\n",
    lambda: 1,
]
NUMBERS = [
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    -(10**400),
    -1,
    -1e-9,
    0,
    1,
    2.5,
    0.5,
    1e-320,
    1e308,
    True,
    False,
]
ARRAYS = [np.nan, np.float32(0.5), np.int64(1), np.array([1.0, 2.0, 3.0]), np.array("x"), torch.tensor(1.0)]
ARRAYS += [
    torch.ones(3),
    torch.ones(2, 2),
    torch.ones((), device="meta"),
    [1, "x", None],
    [1, [2], 3],
    [math.nan] * 3,
]
ANY = [*ODD, *NUMBERS, *ARRAYS]
FEATURES = "features"
OWN = ("shared", "gradients", "features", "heads", "every", "smoothing", "accumulation", "accumulation_steps")
OWN += ("process_group", "weight_lr", "seed", "model", "tasks", "strategy")
OWN_GOOD = {
    "heads": ["plain", "weighted"],
    "gradients": ["rows", "gramian", FEATURES],
    "accumulation": ["window"],
    "accumulation_steps": [1, 2],
    "every": [1, 2],
    "smoothing": [0.5],
    "tasks": [{"a": 1, "b": 2, "c": 3}, iter("abc"), dict.fromkeys("abc").keys(), ("a", "b", "c")],
    "strategy": [
        strategies.Strategy,
        strategies.GramStrategy,
        strategies.get("uw")(3),
        strategies.get("mgda")(2),
    ],
    "shared": [
        [nn.Linear(2, 2)],
        lambda name: True,
        "1",
        "encoder",
        ["weight"],
        [torch.ones(2, requires_grad=True) * 2],
    ],
    "seed": [0, 2**63, "0"],
}  # and bad ones that look good


class Model(nn.Module):
    """Of three tasks."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in TASKS)

    def losses(self, x):
        hidden = torch.tanh(self.trunk(x))
        return {
            t: (head(hidden) - 1).square().mean() + 0.1 for t, head in zip(TASKS, self.heads, strict=True)
        }


def describe(value):
    return " ".join(repr(value).split())[:60]


def raw(error):
    """Why this is no error of ours in one line, or None."""
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if not isinstance(error, ValueError):
        return f"{type(error).__name__}: {describe(str(error))}"
    if PACKAGE not in last.parents:
        return f"raised by {last.name}: {describe(str(error))}"
    if "\n" in str(error) or len(str(error)) > 600:
        return f"not one line: {describe(str(error))}"
    return None


def step(balancer, model, x, optimizer):
    """A good step, with all that the strategy asks for; returns what is wrong with it."""
    parts = 2 * balancer.strategy.batches
    balancer.validate(lambda: model.losses(x))
    for _ in range(parts):
        (balancer(model.losses(x), dict.fromkeys(TASKS, 5)) / parts).backward()
    gradients = [p.grad for p in model.parameters()]
    optimizer.step()
    optimizer.zero_grad()
    if any(g is None for g in gradients):
        return "no gradient"
    if not all(bool(g.isfinite().all()) for g in gradients):
        return "a gradient that is not finite"
    return None


def draw(rng, name):
    """A strategy's name, with arguments of which at least one is odd."""
    options, arguments = {}, [*inspect.signature(STRATEGIES[name]).parameters][1:]
    for key in rng.choices([*arguments * 3, *OWN], k=rng.choice([1, 1, 2])):
        options[key] = rng.choice(OWN_GOOD[key] if key in OWN_GOOD and rng.random() < 0.4 else ANY)
    if rng.random() < 0.05:
        options[rng.choice(["weights", "Alpha", "lr", "shard", "every_", "n_task"])] = rng.choice(ANY)
    return options


def one_constructor(rng, name):
    """What is wrong with one drawn call, or None."""
    options = draw(rng, name)
    torch.manual_seed(0)
    model, x = Model(), torch.randn(5, 3)
    arguments = {"strategy": name, "tasks": TASKS, "model": model, **options}
    if options.get("gradients") is FEATURES:
        arguments.setdefault("features", model.trunk)
    shown = ", ".join(f"{key}={describe(value)}" for key, value in options.items())
    try:
        balancer = Balancer(**arguments)
    except Exception as error:
        wrong = raw(error)
        return wrong and f"Balancer({name}, {shown}): {wrong}"
    window = balancer.options.accumulation == "window"
    if balancer.tasks != tuple(TASKS) or arguments["model"] is not model or window:
        return None  # of other tasks, or of no model: sound, but not of use here
    if callable(options.get("shared")) or isinstance(options.get("shared"), list):
        return None  # of another model
    try:
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        wrong = next((wrong for _ in range(2) if (wrong := step(balancer, model, x, optimizer))), None)
    except Exception as error:
        wrong = f"{type(error).__name__}: {describe(str(error))}"
    if any(isinstance(value, float) and value > 1e30 for value in options.values()):
        return None  # a rate that is a number, and makes every step overflow
    return wrong and f"Balancer({name}, {shown}) is taken, then: {wrong}"


def bad_losses(rng, losses):
    """Losses of which one is wrong in a way that has to be refused."""
    task, good = rng.choice(TASKS), losses
    value = good[task]
    wrong = [
        None,
        0,
        0.0,
        1.5,
        True,
        "1",
        [value],
        (value,),
        np.float64(1),
        Odd(),
        value.reshape(1),
        value.expand(3),
    ]
    wrong += [
        value.new_zeros(0).requires_grad_(),
        value.to(torch.complex64),
        torch.tensor(1),
        torch.tensor(True),
    ]
    wrong += [torch.tensor(1.0, device="meta", requires_grad=True), value.detach().to("meta")]
    wrong += [torch.ones(()).to(torch.float8_e4m3fn), torch.ones(2, 2).to_sparse()]
    wrong += [torch.quantize_per_tensor(torch.tensor(1.0), 0.1, 0, torch.qint8)]
    wrong += [torch.nested.nested_tensor([torch.ones(2)])]
    whole = [
        None,
        [],
        [value],
        value,
        3,
        "losses",
        {},
        {"z": value},
        {**good, "z": value},
        {**good, 3: value},
    ]
    whole += [
        {**good, None: value},
        iter(good.items()),
        {task: value.detach() for task, value in good.items()},
    ]
    return rng.choice(whole) if rng.random() < 0.25 else {**good, task: rng.choice(wrong)}


def bad_counts(rng):
    """Counts that have to be refused."""
    wrong = [
        None,
        "1",
        "abc",
        [2],
        (2,),
        {},
        1j,
        -1,
        -0.5,
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        True,
        False,
        Odd(),
    ]
    wrong += [
        torch.ones(1),
        torch.ones(2),
        torch.tensor(True),
        torch.tensor(1j),
        torch.tensor(-1),
        torch.tensor(math.nan),
    ]
    wrong += [torch.ones((), device="meta"), np.array([1, 2]), np.nan, b"3", torch.tensor(math.inf)]
    whole = [3, "abc", [1, 2], torch.ones(3), {"z": 1}, {1: 1}, dict.fromkeys(TASKS, 0), Odd(), {"a"}]
    return rng.choice(whole) if rng.random() < 0.25 else {rng.choice(TASKS): rng.choice(wrong)}


def bad_call(rng, balancer, model, x):
    """One bad call of one of the methods: a name for it, and the function that makes it."""
    losses, junk = model.losses(x), [v for v in ANY if v is not None]
    gradient = rng.choice([v for v in [*junk, torch.ones(1), torch.tensor(1)] if not is_scalar(v)])
    scores = {
        rng.choice([*TASKS, "z"]): rng.choice([math.inf, "1", None, [1], torch.ones(2), 1j, True, Odd()])
    }
    kind = rng.choice(
        [
            "losses",
            "losses",
            "losses",
            "counts",
            "counts",
            "gradient",
            "features",
            "scores",
            "load",
            "closure",
        ]
    )
    given = {
        "losses": lambda: bad_losses(rng, losses),
        "counts": lambda: bad_counts(rng),
        "gradient": lambda: gradient,
        "features": lambda: rng.choice(junk),
        "scores": lambda: rng.choice([scores, 3, "abc", [1], {"z": 1.0}, {1: 1.0}]),
        "load": lambda: odd_state(rng, balancer),
        "closure": lambda: rng.choice([None, 3, "abc", {}, {"a": 1}, losses]),
    }[kind]()
    whole = rng.random() < 0.5
    calls = {
        "losses": lambda: (balancer.backward if whole else balancer)(given),
        "counts": lambda: (balancer.backward if whole else balancer)(losses, given),
        "gradient": lambda: balancer.backward(losses, gradient=given),
        "features": lambda: balancer(losses, features=given),
        "scores": lambda: balancer.end_epoch(given),
        "load": lambda: balancer.load_state_dict(given),
        "closure": lambda: (balancer.validate if whole else balancer.after_step)(given),
    }
    return f"{kind} {describe(given)}", calls[kind]


def is_scalar(value):
    fine = isinstance(value, torch.Tensor) and value.dim() == 0 and value.is_floating_point()
    return fine and value.device.type != "meta"


def odd_state(rng, balancer):
    """A state that another balancer may have given, with one part changed; or none at all."""
    if rng.random() < 0.2:
        other = Balancer("gradvac" if rng.random() < 0.5 else "cov", TASKS)
        return rng.choice([None, 3, "abc", [], {}, {"tasks": TASKS}, other.state_dict()])
    state = balancer.state_dict()
    inner = [("", state), *((k, v) for k, v in state.items() if isinstance(v, dict) and v)]
    at, part = rng.choice(inner)
    key = rng.choice(list(part))
    junk = [
        None,
        3,
        "abc",
        [5],
        {"x": 1},
        torch.ones(7),
        torch.ones(2, 2, 2),
        torch.tensor(1j),
        torch.ones(3, device="meta"),
    ]
    if rng.random() < 0.3:
        del part[key]
        return state if at != "reach" and (at, key) != ("", "reach") else {}
    part[key] = rng.choice(junk[:-6] if key in ("reach", "rows") else junk)
    return state


def one_call(rng, name):
    """What is wrong with one drawn bad call, or None."""
    torch.manual_seed(0)
    model, x = Model(), torch.randn(5, 3)
    window = {"accumulation": "window", "accumulation_steps": 2 * STRATEGIES[name].batches}
    balancer = Balancer(name, TASKS, model, **(window if rng.random() < 0.3 else {}))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    if rng.random() < 0.8:
        step(balancer, model, x, optimizer)
    before = balancer.state_dict()
    what, call = bad_call(rng, balancer, model, x)
    try:
        call()
    except Exception as error:
        wrong = raw(error)
    else:
        wrong = "taken"
    try:
        assert_same_state(balancer.state_dict(), before)
        if any(p.grad is not None for p in model.parameters()):
            wrong = wrong or ".grad was touched"
    except Exception:
        wrong = wrong or "state was touched"
    try:
        wrong = wrong or step(balancer, model, x, optimizer)
    except Exception as error:
        wrong = f"a good step fails afterwards, {type(error).__name__}: {describe(str(error))}"
    return wrong and f"{name}, {what}: {wrong}"


def test_constructor(attack):
    """A Balancer made of odd arguments: refused in one line, or two steps with it are right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        for index, rng in enumerate(attack.draws(200)):
            with attack.trial(f"draw {index}"):
                assert (wrong := one_constructor(rng, list(STRATEGIES)[index % len(STRATEGIES)])) is None, (
                    wrong
                )


def test_calls(attack):
    """Bad losses, counts, scores or states in a call: one line, nothing touched, and a good step follows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, rng in enumerate(attack.draws(200)):
            with attack.trial(f"draw {index}"):
                wrong = one_call(rng, CALLED[index % len(CALLED)])
                assert wrong is None, wrong
