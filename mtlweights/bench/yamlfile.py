"""YAML whose every value knows the line it came from, so that an error can name it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LARGEST = 256 << 10  #: bytes
MOST = 20_000  #: values
DEEPEST = 20  #: lists and mappings in each other


@dataclass(frozen=True, eq=False)
class Located:
    """A value and its place: a scalar, a list of Located, or a dict from Located to Located."""

    value: Any
    file: Path = field(repr=False)
    line: int = field(repr=False)

    def error(self, message: str) -> ValueError:
        """A ValueError that starts with file and line."""
        return ValueError(f"{self.file}, line {self.line}: {message}")

    def mapping(self, what: str) -> dict[Located, Located]:
        """The value as a mapping, or an error that says what it is of."""
        if not isinstance(self.value, dict):
            raise self.error(f"{what} should be a mapping (key: value), found {self.shown()}.")
        return self.value

    def items(self, what: str) -> list[Located]:
        """The value as a list, or an error that says what it is of."""
        if not isinstance(self.value, list):
            raise self.error(f"{what} should be a list ([a, b]), found {self.shown()}.")
        return self.value

    def plain(self) -> Any:
        """The value as ordinary Python objects."""
        if isinstance(self.value, dict):
            return {key.plain(): value.plain() for key, value in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def shown(self) -> str:
        """The value for a message: its first characters."""
        text = repr(self.plain())
        return text if len(text) <= 100 else f"{text[:97]}..."


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; people mean the number."""


_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_yaml(path: str | Path) -> Located:
    """Read a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not text, not YAML, empty, too large or too deep, or a key given twice; the message holds
            the line.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; give the path of a YAML file.")
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"{file} is larger than {LARGEST >> 10} KiB, which no suite is.")
        loader = _Loader(content.decode("utf-8"))
        node = loader.get_single_node()
        if node is None:
            raise ValueError(f"{file} is empty.")
        return _Reading(loader, file).locate(node)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8: {error}.") from None
    except RecursionError:
        raise ValueError(f"{file} is nested too deep for a suite.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(f"{file}{where}: not valid YAML: {problem}.") from None


class _Reading:
    """One pass over a file's nodes; aliases are written out, as far as a file of this size may go."""

    def __init__(self, loader: _Loader, file: Path) -> None:
        self.loader, self.file, self.left = loader, file, MOST

    def locate(self, node: yaml.Node, depth: int = 0) -> Located:
        """The node as it is, and everything in it."""
        line = node.start_mark.line + 1
        self.left -= 1
        if self.left < 0 or depth > DEEPEST:
            what = f"more than {MOST} values" if self.left < 0 else f"more than {DEEPEST} levels"
            raise ValueError(f"{self.file}, line {line}: {what}, with its aliases (*) written out.")
        if isinstance(node, yaml.SequenceNode):
            return Located([self.locate(item, depth + 1) for item in node.value], self.file, line)
        if isinstance(node, yaml.MappingNode):
            return Located(self._mapping(node, depth + 1), self.file, line)
        try:
            return Located(self.loader.construct_object(node), self.file, line)
        except yaml.YAMLError:
            raise
        except Exception as error:  # a tag on what is none of its kind raises whatever its reader raises
            reason = f"{node.value[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise ValueError(f"{self.file}, line {line}: {reason}.") from error

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[Located, Located]:
        found: dict[Located, Located] = {}
        seen = set()
        for key_node, value_node in node.value:
            key = self.locate(key_node, depth)
            if isinstance(key.value, (list, dict)) or key.value in seen:
                raise key.error(f"key {key.shown()} is given twice or is no plain name.")
            seen.add(key.value)
            found[key] = self.locate(value_node, depth)
        return found
