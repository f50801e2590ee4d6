"""Settings of torch's that a step needs otherwise than the caller has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.backends import mkldnn


@contextmanager
def no_autocast(device: torch.device) -> Iterator[None]:
    """Whatever the caller has switched on."""
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    with torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """A strategy's products in the precision of their operands: no TF32, no bfloat16 inside.

    Not for passes through the model, which are the caller's to speed up. torch has an older switch, and since
    2.9 one per backend, after whose use the older may not be read.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        before = "highest"
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    found: list[Any] = [getattr(backend, "matmul", None) for backend in (torch.backends.cuda, mkldnn)]
    switches = [(switch, switch.fp32_precision) for switch in found if hasattr(switch, "fp32_precision")]
    for switch, _ in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        for switch, setting in switches:
            switch.fp32_precision = setting


def keep_compiled_graphs() -> None:
    """Have torch.compile keep the buffers of its backward graphs, which several passes go through.

    By default a graph compiled for a single backward gives them away, and a second pass raises, or reads what
    the first one wrote over: inductor's cache on the disk does not tell graphs that give buffers away from
    those that do not, so entries made from now on get a key of their own. Settings of the process, for graphs
    compiled from now on.
    """
    from torch._functorch import config

    if getattr(config, "donated_buffer", False):
        config.donated_buffer = False
        cache: Any = getattr(torch.compiler, "config", None)
        if hasattr(cache, "cache_key_tag"):
            cache.cache_key_tag = f"{cache.cache_key_tag} buffers kept"
