"""Tables against numbers worked out by hand, and a page that stands alone."""

import base64
import hashlib
import json
import math
import os
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from mtlweights.bench import Protocol, RunSpec
from mtlweights.bench.report import markdown_tables, text_tables, verdicts, write_page
from mtlweights.bench.report.comparison import compare, estimate
from mtlweights.bench.report.figures import validation_curves, weight_trajectories
from mtlweights.bench.report.table import in_words
from mtlweights.bench.statistics import VERDICTS
from mtlweights.train import Settings

TASKS = {
    "ner": {
        "kind": "tokens",
        "metrics": ["span_f1", "accuracy"],
        "higher_is_better": {"span_f1": True, "accuracy": True},
    },
    "age": {"kind": "regression", "metrics": ["rmse"], "higher_is_better": {"rmse": False}},
}


def made(arm, seed, only=None, status="ok", epochs=3, **test):
    """A result with these test scores; ``ner=0.5`` sets both its metrics."""
    spec = RunSpec("toy", arm, only, Settings(seed=seed, epochs=epochs))
    tasks = {name: task for name, task in TASKS.items() if name in test}
    scores = {name: dict.fromkeys(task["metrics"], test[name]) for name, task in tasks.items()}
    history = [
        {"epoch": e, "dev": scores, "weight": dict.fromkeys(tasks, 1 / e), "train": {}, "score": 0.0}
        for e in range(1, epochs + 1)
    ]
    error = {
        "type": "FloatingPointError",
        "message": "loss of 'ner' is NaN\nin epoch 2",
        "traceback": "<b>trace</b>",
    }
    if status == "failed":
        return spec.result(error=error)
    return spec.result(status="ok", tasks=tasks, test=scores, dev=scores, history=history, seconds=60.0)


SINGLE_NER, SINGLE_AGE = (0.50, 0.52, 0.54), (2.0, 2.1, 2.2)
MULTI_NER, MULTI_AGE = (0.53, 0.56, 0.56), (1.9, 2.2, 1.9)


def results(seeds=3):
    found = []
    for s in range(seeds):
        found += [made("equal", s, "ner", ner=SINGLE_NER[s]), made("equal", s, "age", age=SINGLE_AGE[s])]
        found.append(made("pcgrad", s, ner=MULTI_NER[s], age=MULTI_AGE[s]))
    return found


def rows(found):
    (comparison,) = compare(found)
    return {row.arm: row for row in comparison.rows}, comparison


def test_interval_of_a_mean():
    value = estimate([1.0, 2.0, 3.0])
    assert (value.mean, value.n) == (2.0, 3)
    assert value.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert estimate([1.0]).half is None and estimate([]) is None


def test_change_is_paired_by_seed_and_plus_is_better():
    pcgrad = rows(results())[0]["pcgrad"]
    for task, multi, single, sign in (("ner", MULTI_NER, SINGLE_NER, 1), ("age", MULTI_AGE, SINGLE_AGE, -1)):
        interval = stats.ttest_rel(multi, single).confidence_interval(0.95)
        change = pcgrad.change[task]
        assert change.mean == pytest.approx(sign * (interval.low + interval.high) / 2)
        assert change.half == pytest.approx((interval.high - interval.low) / 2)
    assert pcgrad.change["ner"].mean == pytest.approx(0.03)
    assert pcgrad.change["age"].mean == pytest.approx(0.1)


def test_delta_m_is_the_mean_relative_change():
    delta = rows(results())[0]["pcgrad"].delta
    per_seed = [
        50 * ((multi - single) / 0.52 + (old - new) / 2.1)
        for multi, single, old, new in zip(MULTI_NER, SINGLE_NER, SINGLE_AGE, MULTI_AGE, strict=True)
    ]
    assert delta.mean == pytest.approx(sum(per_seed) / 3)
    assert delta.half == pytest.approx(estimate(per_seed).half)
    assert delta.mean == pytest.approx(50 * (0.03 / 0.52 + 0.1 / 2.1))


def verdict(comparison, arm, against, what):
    found = comparison.verdict(arm, against, what)
    return found.verdict, found.interval.mean


def test_verdicts_are_paired_and_in_per_cent_of_single_task_training():
    alone = {"ner": (0.5, 0.51, 0.49, 0.5), "age": (2.0, 2.02, 1.98, 2.0)}
    found = [made("equal", s, task, **{task: alone[task][s]}) for s in range(4) for task in alone]
    found += [made("equal", s, ner=0.5, age=2.0 + s / 1000) for s in range(4)]
    found += [made("pcgrad", s, ner=0.52 + s / 1000, age=2.2 + s / 1000) for s in range(4)]
    _, comparison = rows(found)
    assert verdict(comparison, "pcgrad", "equal", "ner") == ("better", pytest.approx(100 * 0.0215 / 0.5))
    assert verdict(comparison, "pcgrad", "equal", "age") == ("worse", pytest.approx(-100 * 0.2 / 2))
    assert verdict(comparison, "pcgrad", "equal", "Δm") == ("worse", pytest.approx(4.3 / 2 - 5))
    text = text_tables(found)
    assert "pcgrad against equal: better on ner, worse on age; its Δm averages the two." in text
    assert re.search(r"^pcgrad +-2\.85 \[.*\] +worse +0\.0\d\d .*▲ .*▼$", text, re.MULTILINE)


def test_the_uncertainty_of_single_task_training_is_in_a_change_against_it():
    """As a bootstrap of the seeds has it; the spread of the arm alone would be a third of that."""
    rng = np.random.default_rng(0)
    alone, own = rng.normal(0.5, 0.03, size=200), rng.normal(0.6, 0.01, size=200)
    found = [made("equal", s, "ner", ner=alone[s]) for s in range(200)]
    found += [made("pcgrad", s, ner=own[s]) for s in range(200)]
    _, comparison = rows(found)
    interval = comparison.verdict("pcgrad", "single", "ner").interval
    seeds = rng.integers(200, size=(4_000, 200))
    drawn = 100 * (own[seeds].mean(1) / alone[seeds].mean(1) - 1)
    assert interval.mean == pytest.approx(100 * (own.mean() / alone.mean() - 1))
    assert interval.half / 1.972 == pytest.approx(drawn.std(), rel=0.06)


def test_a_run_that_diverged_counts_as_the_worst():
    found = [made("equal", s, ner=0.5 + s / 100) for s in range(3)]
    found += [made("equal", s, "ner", ner=0.5 + s / 100) for s in range(3)]
    found += [made("pcgrad", 0, ner=0.6), made("pcgrad", 1, ner=0.6), made("pcgrad", 2, status="failed")]
    _, comparison = rows(found)
    _, mean = verdict(comparison, "pcgrad", "equal", "ner")
    assert mean == pytest.approx(100 * (0.1 + 0.09 + 0.5 - 0.52) / 3 / 0.51)
    killed = {**found[-1], "error": {"type": "Killed", "message": "", "traceback": ""}}
    _, comparison = rows([*found[:-1], killed])
    assert comparison.verdict("pcgrad", "equal", "ner").interval.n == 2


def test_verdicts_as_json_are_those_of_the_table():
    found = [made("equal", s, t, **{t: v + s / 9}) for s in range(3) for t, v in (("ner", 0.5), ("age", 2.0))]
    found += [made(arm, s, ner=0.6 + s / 7, age=1.0 + s / 8) for s in range(3) for arm in ("equal", "uw")]
    printed = json.loads(json.dumps(verdicts(found, Protocol({"toy": 3.0})), allow_nan=False))
    (own,) = [v for v in printed if (v["arm"], v["against"], v["what"]) == ("uw", "equal", "Δm")]
    assert own["verdict"] == "equal" and own["mean"] == 0 and own["seeds"] == 3 and own["more_seeds"] == 0
    assert {(v["arm"], v["against"]) for v in printed} == {
        ("equal", "single"),
        ("uw", "single"),
        ("single", "equal"),
        ("uw", "equal"),
    }


def test_two_seeds_have_no_mark_and_say_why():
    found = [made("equal", s, t, **{t: v}) for s in range(2) for t, v in (("ner", 0.5), ("age", 2.0))]
    found += [made("pcgrad", s, ner=0.6 + s / 1000, age=1.0 + s / 1000) for s in range(2)]
    text = text_tables(found)
    assert not re.search(r"\d [▲▼]", text)
    assert "2 seeds are too few, and so no verdict: run 3 or more." in text


def test_a_verdict_in_words():
    """For somebody who has not read what a verdict is."""
    found = {key: [] for key in VERDICTS}
    assert (
        in_words(found | {"equal": ["uw"]}, "equal weights")
        == "Nothing is shown to do better than equal weights."
    )
    some = found | {"better": ["uw"], "worse": ["dwa"], "unresolved": ["famo", "mgda"]}
    expected = "1 of 4 did better than equal; of 2 it takes more seeds to tell (--until-resolved)."
    assert in_words(some, "equal") == expected


def test_text_table_line_by_line():
    lines = text_tables(results()).splitlines()
    assert lines[:2] == ["toy", "==="]
    single = next(line for line in lines if line.startswith("single"))
    assert re.split(r"  +", single) == ["single", "52.00 ± 4.97", "52.00 ± 4.97", "2.100 ± 0.248", "6", "0"]
    multi = [line for line in lines if line.startswith("pcgrad")]
    assert re.split(r"  +", multi[0]) == ["pcgrad", "55.00 ± 4.30", "55.00 ± 4.30", "2.000 ± 0.430", "3", "0"]
    assert re.split(r"  +", multi[1])[2:] == ["+3.00 ± 2.48 ▲", "+0.100 ± 0.497"]
    assert "span F1 %" in lines[6] and "RMSE ↓" in lines[6]


def test_one_seed_has_no_interval_and_no_verdict():
    text = text_tables(results(seeds=1))
    assert text.count("± n/a") == 3 + 3 + 3
    assert "± 0" not in text and not re.search(r"\d [▲▼]", text)
    assert "One seed gives no interval" in text


def test_failed_runs_are_counted_shown_and_averaged_nowhere():
    found = results()
    found[2] = made("pcgrad", 0, status="failed")
    row = rows(found)[0]["pcgrad"]
    assert (row.ok, row.failed, row.delta.n) == (2, 1, 2)
    text = text_tables(found)
    assert re.search(r"\d \(n=2\)", text)  # the notes mention it as well
    assert "FAILED toy-pcgrad-s0-" in text and "FloatingPointError: loss of 'ner' is NaN in epoch 2" in text
    assert "Failed runs:\n\n- toy-pcgrad-s0-" in markdown_tables(found)


def test_an_arm_that_only_failed_stays_in_the_table():
    found = [*results(), made("mgda", 0, status="failed")]
    line = next(line for line in text_tables(found).splitlines() if line.startswith("mgda"))
    assert line.split() == ["mgda", "n/a", "n/a", "n/a", "0", "1"]


def test_a_seed_only_one_side_has_is_no_pair():
    found = [result for result in results() if not (result["only"] == "age" and result["seed"] == 2)]
    row = rows(found)[0]["pcgrad"]
    assert (row.change["ner"].n, row.change["age"].n, row.delta.n) == (3, 2, 2)


def test_a_score_that_is_not_a_number_is_left_out():
    found = results()
    found[2]["test"]["age"]["rmse"] = None
    row, comparison = rows(found)
    (age,) = [column for column in comparison.columns if column.task == "age"]
    assert row["pcgrad"].scores[age].n == 2


def test_without_single_task_runs_there_is_no_change():
    found = [result for result in results() if result["only"] is None]
    text = text_tables(found)
    before = text.split("Mean over seeds")[0]
    assert "no arm can be compared" in text and "+" not in before and "Change against" not in before


def test_settings_are_kept_apart():
    found = [*results(), *(made("pcgrad", s, epochs=9, ner=0.9, age=1.0) for s in range(3))]
    first, second = compare(found)
    assert [len(first.results), len(second.results)] == [9, 3]
    text = text_tables(found)
    assert "toy (epochs=3)\n" in text and "toy (epochs=9)\n" in text
    assert "90.00 ± 0.00" in text and "55.00 ± 4.30" in text


def test_the_same_run_twice_or_none_at_all():
    with pytest.raises(ValueError, match="given twice"):
        compare([*results(), results()[0]])
    with pytest.raises(ValueError, match="no results"):
        text_tables([])


def test_large_and_small_units_keep_four_digits():
    found = [made("equal", s, "age", age=54321.123 + s) for s in range(2)]
    assert "54322 ± 6" in text_tables(found)
    found = [made("equal", s, "age", age=0.0123 + s) for s in range(2)]
    assert "0.512 ± 6.353" in text_tables(found)


def test_markdown_is_a_table():
    lines = markdown_tables(results()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| arm | ner span F1 % | ner accuracy % | age RMSE ↓ | runs | failed |"
    assert table[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert table[3] == "| `pcgrad` | 55.00 ± 4.30 | 55.00 ± 4.30 | 2.000 ± 0.430 | 3 | 0 |"
    assert all(line.count("|") == table[0].count("|") for line in table[:4])


def test_curves_end_where_the_first_seed_stopped():
    short, long = made("uw", 0, epochs=3, ner=0.4, age=1.0), made("uw", 1, epochs=3, ner=0.6, age=1.0)
    long["history"] = long["history"] * 2
    (comparison,) = compare([short, long])
    from mtlweights.bench.report.figures import _curve

    curve = _curve(comparison.results, lambda row: row["dev"]["ner"]["span_f1"], 100)
    epochs, mean, low, high = curve
    assert epochs == [1, 2, 3]
    assert (
        mean == pytest.approx([50] * 3) and low == pytest.approx([40] * 3) and high == pytest.approx([60] * 3)
    )


def test_figures_show_every_arm_but_single():
    found = [*results(), made("mgda", 0, status="failed"), made("random", 0, ner=0.5, age=2.0)]
    for row in found[-1]["history"]:
        row["weight"] = {}
    (comparison,) = compare(found)
    assert list(validation_curves(comparison)) == ["random", "pcgrad"]
    assert list(weight_trajectories(comparison)) == ["pcgrad"]


class Page(HTMLParser):
    """The page's tables as cell counts, its ids, and everything it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.ids, self.fetched, self.tags = [], [], [], Counter()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags[tag] += 1
        if "id" in values:
            self.ids.append(values["id"])
        links = [values[key] for key in ("src", "href", "xlink:href", "srcset", "data") if values.get(key)]
        self.fetched += [link for link in links if not link.startswith("#")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += int(values.get("colspan", 1))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    found = [*results(), made("<i>mgda</i>", 0, status="failed")]
    return write_page(found, tmp_path_factory.mktemp("page") / "new" / "page.html", title="A & B").read_text()


def test_the_page_needs_nothing_else(page):
    found = Page(page)
    assert not found.fetched and found.tags["script"] == 1 and not found.tags["link"]
    digest = base64.b64encode(
        hashlib.sha256(re.search("<script>(.*?)</script>", page, re.S)[1].encode()).digest()
    )
    assert (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest.decode()}'; img-src data:"
        in page
    )
    assert (
        "http:" not in page
        and "https:" not in page
        and "@import" not in page
        and not re.search(r"url\((?!#)", page)
    )


def test_ids_are_unique_and_references_lead_somewhere(page):
    found = Page(page)
    assert [name for name, n in Counter(found.ids).items() if n > 1] == []
    references = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', page))
    assert references and references <= set(found.ids)


def test_tables_are_rectangular(page):
    scores, changes, *_ = Page(page).tables
    # two header rows: arm, runs and failed span both
    assert scores[0] == 6 and scores[1] == 3 and set(scores[2:]) == {6}
    assert changes[0] == 4 and changes[1] == 2 and set(changes[2:]) == {4}


def test_text_is_escaped(page):
    assert "<title>A &amp; B</title>" in page
    assert "<i>" not in page and "&lt;i&gt;mgda" in page
    assert "&lt;b&gt;trace" in page


def test_figures_take_the_colours_of_the_page(page):
    assert "var(--accent)" in page and "currentColor" in page
    assert not re.search(r"#0000[01]\d", page)


def test_the_page_says_what_was_run_and_what_failed(page):
    for text in (
        "1 failed",
        "55.00 ± 4.30",
        "+3.00 ± 2.48",
        "epochs=3",
        "0, 1, 2, the same",
        "10.0 minutes"[3:],
    ):
        assert text in page
    assert page.count('role="img"') == 4 and 'aria-label="Weights of pcgrad"' in page


def test_the_same_results_give_the_same_page(page, tmp_path):
    found = [*results(), made("<i>mgda</i>", 0, status="failed")]
    assert write_page(found, tmp_path / "page.html", title="A & B").read_text() == page
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "figures", "tables"}


def test_the_page_of_one_run_speaks_of_that_alone(tmp_path):
    text = write_page([results()[2]], tmp_path / "page.html").read_text()
    assert "1 run: 1 problem, 1 arm, 1 seed." in text and "Change against" not in text
    for absent in ("single</code>", "other arms", 'class="key alone"', 'class="key band"'):
        assert absent not in text


def test_a_page_where_everything_failed(tmp_path):
    text = write_page([made("uw", 0, status="failed")], tmp_path / "page.html").read_text()
    assert "1 failed" in text and "<svg" not in text


NASTY = [
    "$\\frac{$",
    "cost ($) and fee ($)",
    "_hidden",
    "a|b`c",
    "<script>x",
    "\x1b[31mred\x07",
    "two\nlines",
    "\udc80",
]


def nasty():
    """`results` with strange names in the place of "ner"."""
    found = results()
    for result in found:
        rows = [row[key] for row in result["history"] for key in ("dev", "weight")]
        for part in (result["tasks"], result["test"], *rows):
            if "ner" in part:
                part |= dict.fromkeys(NASTY, part.pop("ner"))
    return found


def test_names_of_strangers_are_shown_as_they_are(tmp_path):
    text = write_page(nasty(), tmp_path / "page.html").read_text(encoding="utf-8")
    for shown in (
        "$\\frac{$",
        "cost ($) and fee ($)",
        "_hidden",
        "\\x1b[31mred\\x07",
        "two\\nlines",
        "\\udc80",
    ):
        assert len(re.findall(rf"<text[^>]*>[^<]*{re.escape(shown)}</text>", text)) >= 1, (
            shown
        )  # in a figure's legend
    assert "\x1b" not in text and Page(text).tags["script"] == 1


def test_nothing_a_terminal_obeys_reaches_it():
    text = text_tables(nasty())
    assert "\\x1b[31mred\\x07" in text and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    text.encode()
    assert "two\\nlines" in text.splitlines()[5]


def test_markdown_of_strange_names_is_a_table_of_text():
    lines = [line for line in markdown_tables(nasty()).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]}) == 1
    assert "&lt;script&gt;x" in lines[0] and "a\\|b\\`c" in lines[0] and "<" not in lines[0]


def test_other_data_are_kept_apart():
    old, new = results(), [{**result, "data": "b" * 32} for result in results()]
    one = [{**result, "data": "a" * 32} for result in old[:3]] + old[3:]  # some from before data were kept
    assert len(compare(one)) == 1 and "data" not in compare(one)[0].settings
    renamed = [{**result, "id": result["id"] + "x"} for result in new]
    assert {c.settings.get("data") for c in compare(one + renamed)} == {"aaaaaaaa", "bbbbbbbb", "unknown"}
    assert "toy (data=bbbbbbbb)" in text_tables(one + renamed)


def test_a_full_disk_leaves_no_half_page(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write the page to .*: No space left"):
        write_page(results(), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the page to .*page\.html"):
        write_page(results(), tmp_path / "file" / "page.html")
