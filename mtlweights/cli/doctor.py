"""What there is on this machine: versions, devices, data, and what the extras lack, with what installs it.

The exit status is 1 where a package of the base install is missing or of a version that is not supported, or
a data file is damaged; an extra that is not installed is no fault.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from importlib import metadata
from typing import Any

import torch

from .. import __version__
from ..files.escapes import visible

NAME = "doctor"
HELP = "versions, devices, data found, extras missing and how to install them"
RESUME = "nothing was lost"
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?:\[[^]]*\])?(?P<range>[^;]*)(?:;.*extra == [\"'](?P<extra>[\w-]+))?"
)
_DEVELOPERS = ("dev", "docs")
_OPERATORS = {">=": lambda a, b: a >= b, "<": lambda a, b: a < b, "==": lambda a, b: a == b}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Look, and print; 1 if something is wrong."""
    base, extras = packages()
    found: dict[str, Any] = {
        "mtlweights": __version__,
        "python": platform.python_version(),
        "base": base,
        "extras": extras,
        "devices": devices(),
        "data": data(),
    }
    found["faults"] = [f"{name}: {of['fault']}" for name, of in base.items() if of["fault"]]
    found["faults"] += [of for of in found["data"].values() if of.startswith("damaged")]
    print(json.dumps(found, indent=2) if args.json else visible(_text(found)))
    return int(bool(found["faults"]))


def packages() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, dict[str, Any]]]]:
    """What the base install wants, and what each extra wants: name -> version, range and what is wrong."""
    base: dict[str, dict[str, Any]] = {}
    extras: dict[str, dict[str, dict[str, Any]]] = {}
    for line in metadata.requires("mtlweights") or ():
        match = _REQUIREMENT.match(line)
        if match is None or match["extra"] in _DEVELOPERS:
            continue
        into = base if match["extra"] is None else extras.setdefault(match["extra"], {})
        into[match["name"]] = _package(match["name"], match["range"].strip())
    return base, extras


def _package(name: str, wanted: str) -> dict[str, Any]:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return {"version": None, "range": wanted, "fault": "not installed"}
    fault = None if within(version, wanted) else f"is {version}, and should be {wanted}"
    return {"version": version, "range": wanted, "fault": fault}


def within(version: str, wanted: str) -> bool:
    """Whether a version is of a range such as ``<3,>=2.6``, by its release number alone.

    The library for this, packaging, is no part of the base install.
    """
    for part in filter(None, (part.strip() for part in wanted.split(","))):
        match = re.fullmatch(r"(>=|<|==)\s*([\d.]+)", part)
        if match is not None and not _OPERATORS[match[1]](_release(version), _release(match[2])):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else [0]
    return tuple(parts + [0] * (4 - len(parts)))


def devices() -> dict[str, str]:
    """The devices that torch sees, by name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"cpu": f"{cores} cores, torch uses {torch.get_num_threads()}"}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        of = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{of.name}, {of.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def data() -> dict[str, str]:
    """Of each public data set: where it is, or that it would be downloaded."""
    from ..problems.data.download import cache_folder, local_file
    from ..problems.data.sources import FILES

    groups: dict[str, list[str]] = {}
    for name in FILES:
        groups.setdefault("/".join(name.split("/")[:-1][:2]), []).append(name)
    found = {}
    for group, names in groups.items():
        try:
            paths = [local_file(name) for name in names]
        except (OSError, ValueError) as error:
            found[group] = f"damaged: {error}"
            continue
        here = [path for path in paths if path is not None]
        missing = f"{len(paths) - len(here)} of {len(paths)} files are downloaded at first use"
        found[group] = str(here[0].parent) if len(here) == len(paths) else f"{missing}, to {cache_folder()}"
    return found


def _text(found: dict[str, Any]) -> str:
    lines = [f"mtlweights {found['mtlweights']}, Python {found['python']}, {platform.platform()}"]
    for name, of in found["base"].items():
        lines.append(f"  {name:<12} {of['version'] or '-':<14} {of['fault'] or 'ok'}")
    lines += ["devices", *(f"  {name:<12} {what}" for name, what in found["devices"].items())]
    lines.append("extras")
    for extra, of in found["extras"].items():
        lacks = [f"{name} {each['fault']}" for name, each in of.items() if each["fault"]]
        lines.append(f"  {extra:<12} {'ok' if not lacks else '; '.join(lacks)}")
        if lacks:
            lines.append(f'  {"":<12} pip install "mtlweights[{extra}]"')
    lines += ["data", *(f"  {name:<16} {where}" for name, where in found["data"].items())]
    wrong = found["faults"]
    return "\n".join([*lines, "", *(f"wrong: {what}" for what in wrong)] if wrong else lines)
