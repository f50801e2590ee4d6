"""What `mtlweights problems` says of each problem is what it is."""

import json
import re

import pytest

from mtlweights import problems
from mtlweights.cli import main
from mtlweights.problems.catalogue import catalogue
from tests.tiny import ROOT

ROWS = {row["name"]: row for row in catalogue()}


def test_every_problem_is_listed(capsys):
    assert main(["problems", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == problems.problems()
    assert main(["problems"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ROWS) + 1 and not any("-  " in line for line in lines)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "census"])
def test_its_tasks_and_metrics_are_those_of_the_problem(name, data_dir):
    tasks = problems.load(name).tasks
    said = ROWS[name]["tasks"]
    assert {task.metrics[0] for task in tasks} == set(re.findall(r"\((\w+)\)", said))
    if count := re.match(r"\d+", said):
        assert len(tasks) == int(count[0])
    else:
        assert [task.name for task in tasks] == re.findall(r"\w+", re.sub(r"\(\w+\)", "", said))


def test_the_page_has_every_problem():
    page = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
    for name in ROWS:
        assert f"`{name}`" in page or (name.startswith("mulan:") and f"`{name.partition(':')[2]}`" in page), (
            name
        )
