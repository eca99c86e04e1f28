"""One large batch run in parts by several threads of the pool."""

import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from app.tensors import Array

Outcome = list[Array] | Exception


class Split:
    """Collects the parts of one job; whichever thread brings the last one calls `done`.

    Args:
        parts: how many there are.
        done: gets the outputs in the order of the rows, or the first part's error.
    """

    def __init__(self, parts: int, done: Callable[[Outcome], None]) -> None:
        self._outcomes: list[Outcome | None] = [None] * parts
        self._missing = parts
        self._lock = threading.Lock()
        self._done = done

    def bring(self, part: int, outcome: Outcome) -> None:
        """Hand in one part's outputs, or why there are none."""
        self._outcomes[part] = outcome
        with self._lock:
            self._missing -= 1
            last = not self._missing
        if last:
            try:
                whole = self._together()
            except Exception as error:  # noqa: BLE001  The job's end tells it.
                whole = error
            self._done(whole)

    def _together(self) -> Outcome:
        brought = []
        for outcome in self._outcomes:
            assert outcome is not None
            if isinstance(outcome, Exception):
                return outcome
            brought.append(outcome)
        return [np.concatenate(column) for column in zip(*brought, strict=True)]


def bounds(rows: int, parts: int) -> list[tuple[int, int]]:
    """Where each part begins and ends, as even as can be."""
    edges = [rows * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def outputs_of(outcome: Outcome) -> list[Array]:
    """The outputs; an error is raised."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
