"""Text made from the registry and from the committed comparison.

``python docs/generate.py`` rewrites the READMEs' headline, its figure and the table in docs/strategies.md;
a test compares them.
"""

from __future__ import annotations

from pathlib import Path

import headline

from mtlweights.strategies.catalogue import strategies

ROOT = Path(__file__).parents[1]
READMES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh.md"}
STRATEGIES = ROOT / "docs" / "strategies.md"


def table() -> str:
    """The strategies as a Markdown table."""
    lines = ["| strategy | what it does | backward passes | paper |", "|---|---|---|---|"]
    for row in strategies():
        lines.append(f"| `{row['name']}` | {row['summary']} | {row['backward']} | {row['paper']} |")
    return "\n".join(lines) + "\n"


def between(text: str, what: str, made: str) -> str:
    """``text`` with ``made`` between the two markers of that name."""
    begin, end = f"<!-- {what} -->\n", f"<!-- end of {what} -->\n"
    before, found, rest = text.partition(begin)
    _, also, after = rest.partition(end)
    if not (found and also):
        raise ValueError(f"expected the markers {begin!r} and {end!r}.")
    return before + begin + made + end + after


def made() -> dict[Path, str]:
    """Every file that is made in part or whole, and what it should hold."""
    files = {
        path: between(path.read_text(encoding="utf-8"), "verdicts", headline.table(language))
        for language, path in READMES.items()
    }
    files[headline.FIGURE] = headline.figure()
    files[STRATEGIES] = between(STRATEGIES.read_text(encoding="utf-8"), "strategies", table())
    return files


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
