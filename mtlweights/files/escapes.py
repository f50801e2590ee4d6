"""Text of strangers (names of columns, messages of plugins) made harmless where it is shown."""

from __future__ import annotations

import re

#: control characters but line feed and tab, line separators, changes of direction, halves of characters
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MARKUP = re.compile(r"([\\`*_\[\]#|~])")


def visible(text: str) -> str:
    """The text with every character that a terminal would obey, or no file can hold, written out."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """`visible`, with line feeds and tabs written out too: a name stays in its cell."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def message_of(error: BaseException) -> str:
    """An error's message on one line, without a full stop; its type where it has none."""
    return visible(" ".join(str(error).split())).rstrip(".") or type(error).__name__


def markdown(text: str) -> str:
    """The text as Markdown that shows it as it is, on one line."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", text)
