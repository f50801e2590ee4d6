"""Adding seeds until every arm is resolved, with runs that take no time."""

import json
from dataclasses import replace

import pytest

from mtlweights.bench import Protocol, Suite, read_protocol, run_until_resolved
from mtlweights.bench.protocol import FILE, settle
from mtlweights.bench.resolve import unresolved

NOISE = [0.3, -0.2, 0.1, 0.25, -0.3, 0.05, -0.1, 0.2, -0.25, 0.15]


def instant(spec):
    """A run of a strategy whose effect is known: uw is far better, dwa the same, random a little better."""
    seed, noise = spec.seed, NOISE[(7 * spec.seed + len(spec.strategy)) % 10] / 10
    effect = {"equal": 0.0, "uw": 0.2, "dwa": 0.0, "random": 0.001}[spec.strategy]
    names = ["diagnosis", "radius"] if spec.only is None else [spec.only]
    value = {"diagnosis": 0.8 + effect, "radius": 2.0 * (1 - effect)}
    shift = noise if spec.strategy in ("uw", "random") else NOISE[seed % 10] / 1000
    tasks = {
        "diagnosis": {
            "kind": "classification",
            "metrics": ["accuracy"],
            "higher_is_better": {"accuracy": True},
        },
        "radius": {"kind": "regression", "metrics": ["rmse"], "higher_is_better": {"rmse": False}},
    }
    test = {n: {tasks[n]["metrics"][0]: value[n] + shift} for n in names}
    known = {n: tasks[n] for n in names}
    return spec.result(status="ok", tasks=known, test=test, dev=test, history=[], best_epoch=1, seconds=0.1)


SUITE = Suite("s", {"breast_cancer": {}}, ("equal", "uw", "dwa", "random"), (0,), {}, {"breast_cancer": 0.6})


def seeds_of(results):
    found = {}
    for result in results:
        found.setdefault(result["strategy"] if result["only"] is None else "single", set()).add(
            result["seed"]
        )
    return {arm: len(seeds) for arm, seeds in found.items()}


def test_only_arms_that_are_not_resolved_get_more_seeds(tmp_path):
    results = run_until_resolved(SUITE, tmp_path, max_seeds=13, progress=False, runner=instant, jobs=2)
    found = seeds_of(results)
    assert found["dwa"] < found["random"] == found["equal"] == found["single"] == 13
    assert found["uw"] < 13
    protocol = read_protocol(tmp_path)
    assert protocol.design == "until-resolved" and protocol.worth_of("breast_cancer") == 0.6
    again = run_until_resolved(SUITE, tmp_path, max_seeds=13, progress=False, runner=None, jobs=2)
    assert seeds_of(again) == found  # nothing was left to run
    assert unresolved(results, protocol) == ["random"]


@pytest.mark.parametrize(
    ("suite", "options", "message"),
    [
        (replace(SUITE, strategies=("uw",)), {}, "judges every arm against equal"),
        (SUITE, {"max_seeds": 2}, "max_seeds should be at least 3, found 2"),
    ],
)
def test_what_is_refused(suite, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_until_resolved(suite, tmp_path, runner=instant, **options)
    assert not list(tmp_path.iterdir())


def test_what_was_settled_first_stays_and_is_said(tmp_path):
    assert settle(Protocol({"a": 1.0}), tmp_path) == []
    assert settle(Protocol({"a": 1.0, "b": 2.0}), tmp_path) == []  # a problem that is new
    (line,) = settle(Protocol({"a": 9.0}, design="until-resolved"), tmp_path)
    assert "was settled before these runs and stays" in line
    assert read_protocol(tmp_path) == Protocol({"a": 1.0, "b": 2.0})


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"worth": {}, "alpha": 2, "design": "fixed"}', '{"worth": {"a": "x"}}', '{"worth": 1}'],
)
def test_a_file_that_is_no_protocol_is_one_line(content, tmp_path):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=FILE) as caught:
        read_protocol(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_protocol_reads_back(tmp_path):
    settle(Protocol({"a": 0.25}, alpha=0.1, design="until-resolved"), tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["worth"] == {"a": 0.25}
    assert read_protocol(tmp_path) == Protocol({"a": 0.25}, 0.1, "until-resolved")
