"""The paper of a strategy as BibTeX, read from the citation in its docstring.

The docstring is the only place where a paper's authors and title stand:
``A. Author, B. Other, "Title of the Paper", VENUE 2020, https://...``.
"""

from __future__ import annotations

import inspect
import re

from .base import Strategy
from .hyperparameters import shown

_NAME = r"(?:[A-Z]\.[- ]?)+(?:(?:van|den|der|de|El) )*[A-Z][\w-]+"
_CITATION = re.compile(
    rf"(?P<authors>{_NAME}(?:, {_NAME})*(?: et al\.)?),(?: and)? "
    r'"(?P<title>[^"]+)",? (?:(?P<venue>[A-Z][^"]*?),? )??(?:(?P<year>(?:19|20)\d\d)(?: \([^)]*\))?, )?'
    r"(?P<url>https?://\S+?)[.;:,)]*(?=\s|$)"
)
_JOURNAL = re.compile(r"\b(TMLR|Transactions|Journal|Computer Methods|Comptes Rendus)\b")
_ARXIV = re.compile(r"arxiv\.org/abs/(\S+)")
_SMALL = {"a", "an", "and", "as", "for", "from", "in", "of", "on", "the", "to", "towards", "when", "with"}


def bibtex(name: str, strategy: type[Strategy]) -> str:
    """An entry for what ``strategy.paper`` names, with a comment that says which strategy it is of.

    Raises:
        ValueError: the class names no paper.
    """
    # by paragraph: a sentence that ends in "T." must not lend its letter to the author after it
    texts = [" ".join(part.split()) for part in (inspect.getdoc(strategy) or "").split("\n\n")]
    address = re.search(r"https?://\S+", strategy.paper)
    if not strategy.paper or address is None:
        raise ValueError(f"strategy {name!r} names no paper: there is nothing to cite.")
    found = [match for text in texts for match in _CITATION.finditer(text)]
    match = next((m for m in found if m["url"] == address[0]), found[0] if found else None)
    own = "rule is ours" in strategy.paper
    lines = [f"% {name}: {'the rule is of mtlweights itself; what it builds on' if own else strategy.paper}"]
    if match is None:
        return "\n".join([*lines, f"@misc{{{name},", f"  title = {{{strategy.paper}}}", "}"])
    return "\n".join([*lines, *_entry(match, strategy.paper, address[0])])


def _entry(match: re.Match[str], paper: str, url: str) -> list[str]:
    authors = [part.strip() for part in match["authors"].removesuffix(" et al.").split(", ")]
    year = match["year"] or _year(paper)
    venue = (match["venue"] or "").strip(" ,")
    kind, place = "misc", ""
    if venue:
        kind, place = ("article", "journal") if _JOURNAL.search(venue) else ("inproceedings", "booktitle")
    fields = {
        "title": f"{{{match['title']}}}",
        "author": " and ".join([*authors, *(["others"] if "et al." in match["authors"] else [])]),
        place: venue,
        "year": year,
        "url": url,
    }
    if arxiv := _ARXIV.search(url):
        fields |= {"eprint": arxiv[1], "archiveprefix": "arXiv"}
    body = [f"  {key} = {{{value}}}," for key, value in fields.items() if key and value]
    return [f"@{kind}{{{_key(authors[0], year, match['title'])},", *body, "}"]


def _key(author: str, year: str, title: str) -> str:
    """As ``yu2020gradient``: surname, year, the title's first word that says something."""
    words = re.findall(r"[a-z0-9]+", title.lower())
    first = next((word for word in words if word not in _SMALL), "")
    surname = re.sub(r"[^a-z]", "", author.rpartition(". ")[2].rpartition(" ")[2].lower())
    return f"{surname}{year}{first}"


def _year(paper: str) -> str:
    found = re.search(r"\b(?:19|20)\d\d\b", paper)
    if found is None:
        raise ValueError(f"paper should name a year, found {shown(paper)}.")
    return found[0]
