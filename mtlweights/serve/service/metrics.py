"""What Prometheus sees of a service: latency, queue, batches, and what each head says, for drift."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ...problems.task import NUMBERS, Task

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHARES = tuple(i / 20 for i in range(1, 20))
DEVIATIONS = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
PATHS = frozenset({"/predict", "/health", "/ready", "/metrics", "/docs", "/openapi.json"})


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.registry, self.tasks = CollectorRegistry(), tuple(tasks)
        own: dict[str, Any] = {"registry": self.registry, "namespace": "mtlweights"}
        self.requests = Counter("requests", "Requests, by path and status", ("path", "status"), **own)
        self.latency = Histogram(
            "request_seconds", "From the headers to the end of the answer", ("path",), buckets=SECONDS, **own
        )
        self.queue = Gauge("queue_items", "Examples that wait for the model", **own)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.batch = Histogram("batch_items", "Examples of a batch of the model", buckets=sizes, **own)
        self.model = Histogram("model_seconds", "Of a batch in the model", buckets=SECONDS, **own)
        self.share = Histogram(
            "score", "Probability of the label; of a text the lowest", ("task",), buckets=SHARES, **own
        )
        self.deviation = Histogram(
            "value_deviations",
            "Numbers, in standard deviations of training from its mean",
            ("task",),
            buckets=DEVIATIONS,
            **own,
        )
        self.labels = Counter("labels", "Labels that were given", ("task", "label"), **own)

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request that was answered; paths that there are not count as one."""
        known = path if path in PATHS else "other"
        self.requests.labels(known, str(status)).inc()
        self.latency.labels(known).observe(seconds)

    def answers(self, answers: Sequence[dict[str, Any]]) -> None:
        """What the heads said."""
        for task in self.tasks:
            found = [answer[task.name] for answer in answers]
            if task.kind in NUMBERS:
                for one in found:
                    if one["value"] is not None:
                        self.deviation.labels(task.name).observe((one["value"] - task.mean) / task.std)
                continue
            tokens = task.kind == "tokens"
            for one in found:
                shares = [share for share in one["probabilities"] if share is not None] if tokens else []
                if shares or not tokens:
                    self.share.labels(task.name).observe(min(shares) if tokens else one["probability"])
            labels = Count(label for one in found for label in (one["labels"] if tokens else [one["label"]]))
            for label, n in labels.items():
                if label is not None:
                    self.labels.labels(task.name, label).inc(n)

    def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
