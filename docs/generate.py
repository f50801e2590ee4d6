"""Text made from the registry: the README's table and the documentation's list of strategies.

``python docs/generate.py`` rewrites the table in README.md; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path

from mtlweights.strategies import get
from mtlweights.strategies.catalogue import strategies

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- strategies -->\n", "<!-- end of strategies -->\n"


def table() -> str:
    """The strategies as a Markdown table."""
    lines = ["| strategy | what it does | backward passes | paper |", "|---|---|---|---|"]
    for row in strategies():
        lines.append(f"| `{row['name']}` | {row['summary']} | {row['backward']} | {row['paper']} |")
    return "\n".join(lines) + "\n"


def sections() -> str:
    """A section per strategy, with its class's docstring, for the documentation."""
    parts = []
    for row in strategies():
        cls = get(row["name"])
        facts = f"{row['family'].capitalize()}; backward passes per step: {row['backward']}"
        facts += f"; state: {row['state']}." if row["state"] else "."
        if row["needs"]:
            facts += f" It needs `Balancer.{row['needs']}`."
        source = f"```{{eval-rst}}\n.. autoclass:: {cls.__module__}.{cls.__qualname__}\n```"
        parts.append(f"## {row['name']}\n\n{facts}\n\n{source}\n")
    return "\n".join(parts)


def replaced(text: str) -> str:
    """``text`` with the table between the two markers made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(encoding="utf-8")), encoding="utf-8")
