"""Spec strings, ``name:key=value,key=value``: how a problem or a strategy is written in one piece of text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

_OPTIONS = re.compile(r"(?P<name>.+?):(?P<options>[A-Za-z_]\w*=.*)", re.DOTALL)
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "none": None}
_SPECIAL = set(",[]'\"")


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``"cagrad:c=0.4,rescale=true"`` into ``("cagrad", {"c": 0.4, "rescale": True})``.

    The name may hold ``:`` itself (``pkg.mod:Class:c=1``, ``csv:/x/y.csv``): the options start after the
    first ``:`` that a ``key=`` follows, and without one the whole text is the name. Values are read as int,
    float, ``true``, ``false``, ``none``, a list ``[a,b]``, else as text; quotes keep a value as text and
    protect the commas inside it, where the same quote is written twice.

    Raises:
        ValueError: no name, or an option that is not ``key=value``, or a key given twice.
    """
    text = text.strip()
    match = _OPTIONS.fullmatch(text)
    name = match["name"] if match else text
    if not name or name.startswith(":") or name.endswith(":"):
        raise ValueError(f"expected name:key=value,key=value, found {text!r}.")
    options: dict[str, Any] = {}
    for part in _split(match["options"], text) if match else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key.isidentifier() and equals and value):
            raise ValueError(f"expected key=value between the commas of {text!r}, found {part!r}.")
        if key in options:
            raise ValueError(f"option {key!r} is given twice in {text!r}.")
        options[key] = _value(value, text)
    return name, options


def parse_way(what: str, text: str, known: Mapping[str, Iterable[str]]) -> tuple[str, dict[str, Any]]:
    """`parse_spec` of a setting's value that names one of some ways, each with options of its own.

    Args:
        what: the setting, for messages.
        known: way -> names of its options.

    Raises:
        ValueError: another way, or an option that it has not.
    """
    way, options = parse_spec(text)
    if way not in known:
        ways = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
        raise ValueError(f"{what} should be {ways}, found {way!r}.")
    for key in options:
        if key not in known[way]:
            raise ValueError(f"{what}={way} has no option {key!r}; {suggest(key, known[way])}")
    return way, options


def format_spec(name: str, options: Mapping[str, Any]) -> str:
    """Write a name and options so that :func:`parse_spec` reads them back."""
    if not options:
        return name
    return name + ":" + ",".join(f"{key}={_text(value)}" for key, value in options.items())


def _split(text: str, whole: str) -> Iterable[str]:
    """Split at the commas that stand outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    if depth or quote:
        raise ValueError(f"a bracket or a quote is not closed in {whole!r}.")
    return parts


def _value(text: str, whole: str) -> Any:
    if text[0] in "'\"" and text[-1] == text[0] and len(text) > 1:
        return text[1:-1].replace(2 * text[0], text[0])
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip(), whole) for part in _split(text[1:-1], whole) if part.strip()]
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(item) for item in value) + "]"
    if isinstance(value, str):
        plain = value and value == value.strip() and not _SPECIAL & set(value)
        plain = plain and _value(value, value) == value
        quote = "'" if '"' in value else '"'
        return value if plain else quote + value.replace(quote, 2 * quote) + quote
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def did_you_mean(name: object, known: Iterable[str], form: str = " ({})", cutoff: float = 0.6) -> str:
    """``did you mean 'x'?`` in that form, x the nearest known name; nothing if none is near."""
    names = list(known)
    same = [each for each in names if _letters(each) == _letters(str(name))]  # CAGrad, Nash-MTL, as in papers
    close = same[:1] or difflib.get_close_matches(str(name), names, n=1, cutoff=cutoff)
    return form.format(f"did you mean {close[0]!r}?") if close else ""


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def nearest(name: object, known: Iterable[str]) -> str:
    """End of an error message on an unknown name: the closest known one, else all of them."""
    names = list(known)
    return did_you_mean(name, names, "{}") or f"expected one of {', '.join(names)}."


def suggest(word: str, known: Iterable[str]) -> str:
    """End of an error message on an unknown name: the closest known one, and all of them."""
    names = [str(name) for name in known]
    return f"{did_you_mean(word, names, '{} ', 0.5)}known: {', '.join(names) or 'none'}."
