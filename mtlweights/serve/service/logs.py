"""Logs: a JSON object a line, without anything of what clients sent but the path and their address."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

LOGGER = logging.getLogger("mtlweights.serve")


class Lines(logging.Formatter):
    """JSON of a record; the fields of a message that is a dict, else the message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        row: dict[str, object] = {"time": when, "level": record.levelname.lower()}
        row |= record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
        if record.exc_info and record.exc_info[0]:
            # not the message: an error of a library may quote the text it failed on
            row["error"] = record.exc_info[0].__name__
            row["at"] = _where(record)
        return json.dumps(row)


def _where(record: logging.LogRecord) -> list[str]:
    """Files and lines of the traceback, innermost last."""
    found, at = [], record.exc_info[2] if record.exc_info else None
    while at is not None:
        found.append(f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}")
        at = at.tb_next
    return found[-8:]


def start(level: str) -> None:
    """Send our lines, and those of uvicorn, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Lines())
    for name in ("mtlweights.serve", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        inner = name == "uvicorn.error"  # whose lines go up to uvicorn's
        logger.handlers, logger.propagate = [] if inner else [handler], inner
        logger.setLevel(level.upper())
