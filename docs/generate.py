"""Text made from the registry and from the committed comparison, for the READMEs and the documentation.

``python docs/generate.py`` rewrites the headline of README.md and README.zh.md and its figure; tests compare them.
"""

from __future__ import annotations

from pathlib import Path

import headline

from mtlweights.strategies import get
from mtlweights.strategies.catalogue import strategies

ROOT = Path(__file__).parents[1]
READMES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh.md"}
BEGIN, END = "<!-- verdicts -->\n", "<!-- end of verdicts -->\n"


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


def replaced(text: str, language: str) -> str:
    """A README's ``text`` with the headline between the two markers made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + headline.table(language) + END + after


if __name__ == "__main__":
    headline.FIGURE.write_text(headline.figure(), encoding="utf-8")
    for language, path in READMES.items():
        path.write_text(replaced(path.read_text(encoding="utf-8"), language), encoding="utf-8")
