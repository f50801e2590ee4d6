"""What a client may ask for, and how often."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

CLIENTS = 10_000  #: whose rates are kept; the one that has been silent longest makes place


@dataclass(frozen=True)
class Limits:
    """Limits of a service. What exceeds one is answered with the status in brackets.

    Attributes:
        body: bytes of a request (413).
        items: examples of a request (422).
        words: of a text, or characters of a word (422).
        rate: requests per second of one client address, over bursts of as many; 0 is no limit (429).
        queue: examples that may wait for the model (503).
        seconds: for a request's headers, and for its body (408).
        drain: seconds between the signal to stop and closing, so that balancers see it.
    """

    body: int = 1 << 20
    items: int = 64
    words: int = 512
    rate: float = 0.0
    queue: int = 1024
    seconds: float = 10.0
    drain: float = 5.0

    def __post_init__(self) -> None:
        for name in ("body", "items", "words", "queue"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} should be a whole number from 1, found {getattr(self, name)!r}.")
        if not (0 <= self.rate < 1e9 and 0 < self.seconds < 1e6 and 0 <= self.drain < 1e6):
            raise ValueError("rate and drain should be numbers from 0, seconds above 0.")


class Rates:
    """A bucket of tokens per client: it holds a second's worth, at least one, and fills at ``rate``."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.most, self.clock = rate, max(1.0, rate), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0.0 where the client may go on, else the seconds it should wait."""
        if not self.rate:
            return 0.0
        now = self.clock()
        left, then = self._left.pop(client, (self.most, now))
        left = min(self.most, left + (now - then) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._left[client] = (left if wait else left - 1, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return wait
