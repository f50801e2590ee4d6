"""YAML whose every value knows the line it came from, so that an error can name it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


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
            raise self.error(f"{what} should be a mapping (key: value), found {self.plain()!r}.")
        return self.value

    def items(self, what: str) -> list[Located]:
        """The value as a list, or an error that says what it is of."""
        if not isinstance(self.value, list):
            raise self.error(f"{what} should be a list ([a, b]), found {self.plain()!r}.")
        return self.value

    def plain(self) -> Any:
        """The value as ordinary Python objects."""
        if isinstance(self.value, dict):
            return {key.plain(): value.plain() for key, value in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; people mean the number."""


_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_yaml(path: str | Path) -> Located:
    """Read a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not text, not YAML, empty, or a key given twice; the message holds the line.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; give the path of a suite in YAML.")
    try:
        loader = _Loader(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            raise ValueError(f"{file} is empty.")
        return _locate(node, loader, file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise ValueError(f"{file}{where}: not valid YAML: {problem}.") from None


def _locate(node: yaml.Node, loader: _Loader, file: Path) -> Located:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return Located([_locate(item, loader, file) for item in node.value], file, line)
    if not isinstance(node, yaml.MappingNode):
        return Located(loader.construct_object(node), file, line)
    found: dict[Located, Located] = {}
    seen = set()
    for key_node, value_node in node.value:
        key = _locate(key_node, loader, file)
        if isinstance(key.value, (list, dict)) or key.value in seen:
            raise key.error(f"key {key.plain()!r} is given twice or is no plain name.")
        seen.add(key.value)
        found[key] = _locate(value_node, loader, file)
    return Located(found, file, line)
