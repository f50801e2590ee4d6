"""Trials of workers that are gone: noticed on every storage, and handed to another worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import optuna
from optuna.trial import FrozenTrial, TrialState

BEAT = "beat"  #: user attribute that changes for as long as the trial's worker lives
RETRY_OF = "retry_of"  #: of a trial that goes on with another's parameters: that one's number
TRIES = "tries"
MOST_TRIES = 3  #: a trial whose workers die each time would take them all along
SILENT = 4  #: beats that may be missed


@contextmanager
def beating(trial: optuna.Trial, interval: float) -> Iterator[None]:
    """While the block runs, change the trial's `BEAT` every ``interval`` seconds."""
    done = threading.Event()

    def beat() -> None:
        count = 0
        while not done.wait(interval):
            count += 1
            with suppress(Exception):  # a storage out of reach for a moment: the next beat tells
                trial.set_user_attr(BEAT, count)

    trial.set_user_attr(BEAT, 0)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Watch:
    """Notices running trials whose beat has stopped, by this process's clock alone: no two need to agree."""

    def __init__(self, interval: float) -> None:
        self.patience = SILENT * interval
        self._seen: dict[int, tuple[object, float]] = {}

    def recover(self, study: optuna.Study, trials: list[FrozenTrial]) -> list[int]:
        """Hand on the trials that have been silent for too long; their numbers."""
        now, found = time.monotonic(), []
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            beat = trial.user_attrs.get(BEAT)
            before, since = self._seen.get(trial.number, (None, 0.0))
            if trial.number not in self._seen or before != beat:
                self._seen[trial.number] = (beat, now)
            elif now - since > self.patience and hand_on(study, trial):
                found.append(trial.number)
        return found


def hand_on(study: optuna.Study, trial: FrozenTrial | optuna.Trial, *, again: bool = False) -> bool:
    """End a trial and queue one with its parameters; whether it was this call that did.

    With ``again`` the try does not count: its worker was stopped, and did not die of it.
    """
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, RuntimeError):  # another worker was first, or the trial has just ended
        return False
    tries = trial.user_attrs.get(TRIES, 1) + (not again)
    if tries <= MOST_TRIES:
        kept = {key: value for key, value in trial.user_attrs.items() if key != BEAT}
        study.enqueue_trial(trial.params, {**kept, RETRY_OF: trial.number, TRIES: tries})
    return True
