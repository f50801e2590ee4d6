"""The page in a browser, and its parts as files."""

import csv
import html
import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from debian import program
from test_budget import in_process, knows  # noqa: F401 (the fixture is used by itself)

from mtlweights.bench import run_suite
from mtlweights.bench.report.chosen import expected_best
from mtlweights.bench.report.comparison import compare
from mtlweights.bench.report.panels import pairwise, stress
from mtlweights.bench.report.proof import FILE as PROOF
from mtlweights.bench.report.proof import proof_of
from mtlweights.bench.selection import labelled, read_choices
from mtlweights.bench.suite import Suite
from mtlweights.cli.main import main

PROBE = """
<iframe id="page" src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>
<pre id="probe"></pre>
<script>
const frame = document.getElementById("page");
frame.addEventListener("load", () => {{
  const page = frame.contentDocument, errors = frame.contentWindow.problems || [];
  const tables = Array.from(page.querySelectorAll("table"));
  const table = tables.find(t => t.caption.textContent.startsWith("Test"));
  const arms = () => Array.from(table.tBodies[0].rows).map(r => r.cells[0].textContent);
  const before = arms();
  const head = Array.from(table.tHead.rows[1].cells)[0].querySelector("button");
  head.click();
  const down = Array.from(table.tBodies[0].rows).map(r => parseFloat(r.cells[1].textContent));
  head.click();
  const up = Array.from(table.tBodies[0].rows).map(r => parseFloat(r.cells[1].textContent));
  const filter = page.getElementById("filter");
  filter.value = "cagrad";
  filter.dispatchEvent(new Event("input"));
  const left = Array.from(table.tBodies[0].rows).filter(r => !r.hidden).map(r => r.cells[0].textContent);
  document.getElementById("probe").textContent = JSON.stringify({{
    width: page.documentElement.clientWidth, scroll: page.documentElement.scrollWidth, before, down, up, left,
    errors, requests: performance.getEntriesByType("resource").map(e => e.name),
  }});
}});
</script>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A results folder under a budget with a scaled problem, and its page."""
    from mtlweights.bench import schedule
    from mtlweights.bench.results import write_result

    path = tmp_path_factory.mktemp("page")
    names = {"breast_cancer": {}, "breast_cancer@radius*100": {}}
    suite = replace(Suite("s", names, ("uw", "cagrad"), (0,), {}, front=4).under("tuned8"), seeds=(0, 1, 2))
    patch = pytest.MonkeyPatch()

    def run_pool(specs, folder, **_):
        for spec in specs:
            write_result(knows(spec), folder)

    patch.setattr(schedule, "run_pool", run_pool)
    run_suite(suite, path, progress=False)
    patch.undo()
    table = {
        "caption": "No difference",
        "heads": ["noise", "false"],
        "rows": [["normal", "3 of 100"]],
        "good": True,
    }
    (path / PROOF).write_text(json.dumps({"tables": [table]}))
    assert main(["report", str(path)]) == 0
    return path


def comparisons(folder):
    from mtlweights.bench import read_results

    choices = read_choices(folder)
    return compare(labelled(read_results(folder), choices), None, choices)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(folder, width):
    browser = program("chromium", "chromium")
    page = (folder / "page.html").read_text()
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    heard = "<script>window.problems = []; window.onerror = m => { window.problems.push(m) }</script><style>"
    place = folder / f"at{width}"
    place.mkdir()
    (place / "page.html").write_text(page.replace("<style>", heard, 1))
    (place / "probe.html").write_text(PROBE.format(width=width))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    flags += [f"--user-data-dir={place}/profile", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run(
        [browser, *flags, f"file://{place}/probe.html"], capture_output=True, text=True, timeout=120
    )
    found = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert found["errors"] == []
    assert all(name.startswith("file:") for name in found["requests"])
    assert width - 20 <= found["width"] <= width and found["scroll"] <= found["width"]
    assert found["down"] == sorted(found["down"], reverse=True) and found["up"] == sorted(found["up"])
    assert len(set(found["up"])) > 2 and found["before"][0] == "single"
    assert sorted(found["left"]) == ["cagrad", "equal", "single"]


def test_every_figure_and_table_is_a_file_of_its_own(folder):
    svgs = sorted((folder / "figures").glob("*.svg"))
    kinds = {path.stem.split("breast-cancer")[1].split("-", 1)[-1] for path in svgs}
    assert {"verdicts", "trade-off", "tuning-cagrad"} <= {kind.removeprefix("radius-100-") for kind in kinds}
    for path in svgs:
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and float(root.get("width")) > 100
        assert "var(" not in path.read_text()
    (chosen,) = (folder / "tables").glob("problem-1*-what-every-arm-is-run*.csv")
    rows = list(csv.reader(chosen.read_text().splitlines()))
    assert rows[0] == [
        "arm",
        "strategy",
        "learning rate",
        "validation score default",
        "validation score best",
    ]
    assert [row[0] for row in rows[1:3]] == ["single: diagnosis", "single: radius"]
    stems = {
        suffix: {p.stem for p in (folder / "tables").glob(f"*.{suffix}")} for suffix in ("csv", "md", "tex")
    }
    assert stems["csv"] == stems["md"] == stems["tex"] and len(stems["csv"]) >= 12
    for path in (folder / "tables").glob("*.tex"):
        body = path.read_text()
        assert body.count(r"\\") == len(list(csv.reader(path.with_suffix(".csv").read_text().splitlines())))
        assert "scale\\_invariant" in body and "±" not in body


def test_the_figures_of_the_proof_are_on_the_page(folder, tmp_path):
    page = (folder / "page.html").read_text()
    assert "How far the verdicts can be trusted" in page and "3 of 100" in page
    wrong = tmp_path / PROOF
    wrong.write_text('{"tables": [{"caption": 3}]}')
    with pytest.raises(ValueError, match=r"holds no figures of benchmarks/proof: the file\.tables\[0\]"):
        proof_of(tmp_path)


def test_the_expected_best_of_n_trials():
    assert expected_best([0.0, 1.0]) == [0.5, 1.0]
    assert expected_best([3.0, 1.0, 2.0]) == pytest.approx([2.0, 8 / 3, 3.0])
    assert expected_best([]) == []


def test_wins_and_stress(folder):
    plain, scaled = comparisons(folder)
    wins = pairwise(plain)
    names = [arm for arm, _ in wins.rows]
    for i, (_, row) in enumerate(wins.rows):
        assert row[i].text == ""
        for j, cell in enumerate(row):
            if i != j:
                ours, of = map(int, cell.text.split("/"))
                theirs = int(wins.rows[j][1][i].text.split("/")[0])
                assert of == 3 and ours + theirs <= 3
    assert names[0] == "uw"  # better by construction
    assert stress(plain, [plain, scaled]) is None
    moved = stress(scaled, [plain, scaled])
    assert "the loss of radius by 100 multiplied" in moved.caption
    assert all(cells[2].text in ("+0.00", "-0.00") for _, cells in moved.rows)
