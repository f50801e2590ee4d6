"""What the attacks share: a budget, a count of trials and failures, and the table they end in.

``MTLWEIGHTS_ATTACK`` multiplies every budget (1 takes seconds); ``MTLWEIGHTS_ATTACK_TABLE`` names a page
whose table, between two comments, is written anew.
"""

import os
import random
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

TIMES = float(os.environ.get("MTLWEIGHTS_ATTACK", "1"))


class Attack:
    """One kind of attack: its draws, and what came of them."""

    times = TIMES

    def __init__(self, name):
        self.name, self.trials, self.failures = name, 0, []

    def draws(self, few):
        """A generator of its own for each of ``few`` trials, times the budget."""
        for index in range(max(1, round(few * TIMES))):
            yield random.Random(f"{self.name} {index}")

    @contextmanager
    def trial(self, what):
        """One trial: whatever is raised in it is a failure, and the next one follows."""
        self.trials += 1
        try:
            yield
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {str(error)[:300]}")


@pytest.fixture
def attack(request):
    """An `Attack` by the first line of the test's docstring; the test fails if one of its trials does."""
    made = Attack(request.function.__doc__.partition("\n")[0].rstrip("."))
    yield made
    request.node.user_properties.append(("attack", (made.name, made.trials, len(made.failures))))
    assert made.trials and not made.failures, "\n".join(made.failures[:10])


@pytest.fixture
def refusal():
    """A function that gives the one line of a call's refusal, or None if there was none."""
    return _refusal


def _refusal(call, *args):
    try:
        call(*args)
    except (ValueError, OSError, FloatingPointError) as error:  # what the command line shows as a line
        message = str(error)
        assert message and "\n" not in message, f"more than one line: {message[:200]!r}"
        return message
    return None


def pytest_terminal_summary(terminalreporter):
    """The table, on the terminal and in the page; the attacks may have run in several processes."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    ended = [report for report in reports if getattr(report, "when", "") == "teardown"]
    found = [(r.location, *value) for r in ended for key, value in r.user_properties if key == "attack"]
    if not found:
        return
    lines = ["| attack | trials | failures |", "|---|---:|---:|"]
    lines += [f"| {name} | {trials:,} | {failures} |" for _, name, trials, failures in sorted(found)]
    terminalreporter.write_line("\n".join(lines))
    if page := os.environ.get("MTLWEIGHTS_ATTACK_TABLE"):
        text = Path(page).read_text(encoding="utf-8")
        table = "<!-- figures -->\n" + "\n".join(lines) + "\n<!-- end -->"
        text, n = re.subn(r"<!-- figures -->.*?<!-- end -->", lambda _: table, text, flags=re.DOTALL)
        assert n == 1, f"{page} has no place for the table"
        Path(page).write_text(text, encoding="utf-8")
