"""Files that were damaged or made by a stranger: one line, or the same content as before."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from test_pool import pretend, some_specs
from test_resume import SETTINGS, Stop, run, stopping, toy
from test_train import pair

from mtlweights.bench import load_suite
from mtlweights.bench.report import markdown_tables, text_tables, write_page
from mtlweights.bench.results import read_result, runs_folder, write_result
from mtlweights.train import checkpoint, fit

ODD = [None, True, -1, 0, 2**70, 1e300, math.nan, math.inf, "", "x", "\x1b[1m\udc80", [], {}, [[]], {"": {}}]
ODD += [["x"], {"ner": None}, "a" * 5000, "ok", "failed", [None] * 3]


def places(value, path=()):
    """The path of every item in nested lists and dicts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutate(value, draw):
    """A copy with one to three items replaced, deleted, renamed or moved into themselves."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        *path, last = draw.choice(list(places(value)) or [("x",)])
        owner = value
        for key in path:
            owner = owner[key]
        kind = draw.choice(["odd", "odd", "odd", "delete", "rename", "wrap"])
        if kind == "odd" or last not in (owner if isinstance(owner, dict) else range(len(owner))):
            owner[last] = copy.deepcopy(draw.choice(ODD))
        elif kind == "delete":
            del owner[last]
        elif kind == "wrap":
            owner[last] = [owner[last]] if draw.random() < 0.5 else {"x": owner[last]}
        elif isinstance(owner, dict):
            owner[draw.choice(["", "x", "ner", "\u202e"])] = owner.pop(last)
    return value


@pytest.fixture
def good(tmp_path):
    """A result that was written, and its path."""
    runs_folder(tmp_path)
    spec = some_specs("pcgrad", seeds=1)[-1]
    return write_result(pretend(spec), tmp_path)


def flip_bits(attack, refusal, few, path, read):
    """Single bits of a file turned: each is noticed by ``read``, or it gives what it gave before."""
    whole, before = path.read_bytes(), repr(read(path))
    for draw in attack.draws(few):
        place = draw.randrange(8 * len(whole))
        with attack.trial(f"bit {place}"):
            content = bytearray(whole)
            content[place // 8] ^= 1 << place % 8
            path.write_bytes(content)
            assert refusal(read, path) or repr(read(path)) == before


def test_bit_flips_in_a_result(attack, refusal, good):
    """Bit flips in a result: noticed, or nothing has changed."""
    flip_bits(attack, refusal, 60, good, read_result)


def test_results_of_strangers(attack, refusal, good, tmp_path):
    """Damaged results: left out in one line, or a report can be made of them."""
    result = {**read_result(good), "schema": 1}
    others = [pretend(spec) for spec in some_specs("equal", seeds=1)]
    for index, draw in enumerate(attack.draws(25)):
        changed = mutate(result, draw)
        with attack.trial(json.dumps(changed)[:200]):
            good.write_text(json.dumps(changed))
            if refusal(read_result, good) is None:
                found = [*others, read_result(good)]
                text_tables(found).encode()
                markdown_tables(found).encode()
                if index % 5 == 0:
                    write_page(found, tmp_path / "page.html")


@pytest.fixture
def saved(tmp_path):
    """The checkpoint of a run of one epoch out of five."""
    with pytest.raises(Stop):
        run(toy(), "uw", stopping(2), folder=tmp_path)
    return tmp_path / checkpoint.FILE


def test_bit_flips_in_a_checkpoint(attack, refusal, saved):
    """Bit flips in a checkpoint: noticed, or nothing has changed."""
    flip_bits(attack, refusal, 40, saved, checkpoint.load)


def test_checkpoints_of_strangers(attack, refusal, saved):
    """Odd checkpoints: refused in one line, or the run ends as it should."""
    problem, state = toy(), checkpoint.load(saved)
    state["run"]["epochs"] = 3
    settings = replace(SETTINGS, epochs=3)

    def resume():
        model, balancer = pair(problem, "uw")
        history = fit(model, balancer, problem, settings, folder=saved.parent, progress=False)
        assert len(history.rows) == 3

    for draw in attack.draws(12):
        changed = mutate(state, draw)
        with attack.trial(", ".join(map(str, changed))[:200]):
            torch.save(changed, saved)
            refusal(resume)


SUITE = """\
problems:
  tagging: {epochs: 3, lr: 1e-3}
  csv:houses.csv:regress=price,classify=kind:
strategies: [equal, 'fixed:alpha=0.3', pcgrad, single]
seeds: [0, 1, 2]
settings: &all {batch_size: 8, clip: null, schedule: cosine}
"""
TOKENS = [
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "- ",
    "&a ",
    "*a",
    "*all",
    "!!bool ",
    "!!python/name:os ",
    "? ",
    "|",
    ">",
    "'",
]
TOKENS += [
    "\t",
    "\n",
    "\0",
    "%",
    "@",
    "<<: *all",
    "~",
    "1e999",
    ".nan",
    "0x",
    "0o",
    "2020-01-01",
    "\ud7ff",
    "=",
    "#",
]


def test_suites_with_typos(attack, refusal, tmp_path):
    """Suites with typos and stray YAML: read, or one line."""
    for draw in attack.draws(60):
        text = SUITE
        for _ in range(draw.randint(1, 4)):
            start = draw.randrange(len(text))
            end = min(len(text), start + draw.choice([0, 0, 1, 1, 5, 30]))
            text = text[:start] + draw.choice([*TOKENS, text[end : end + 20]]) + text[end:]
        with attack.trial(repr(text)):
            (tmp_path / "suite.yaml").write_text(text, encoding="utf-8")
            refusal(load_suite, tmp_path / "suite.yaml")
