"""Whether what lies on disk has been copied there to its end."""

import math
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from app.repository.fingerprint import Fingerprint

Key = TypeVar("Key", bound=Hashable)


class Settling(Generic[Key]):
    """Takes for settled what has looked the same at two looks, or more, over a time.

    Nothing tells a copy that has ended from one that pauses; a copier that renames (or swaps a link) is always safe.
    The first look of all, when the server starts, takes at once what nobody has touched for that time.

    Args:
        settle_seconds: that time; 0: everything is settled at first sight.
    """

    def __init__(self, settle_seconds: float) -> None:
        self._seconds = settle_seconds
        self._since: dict[Key, tuple[Fingerprint, float]] = {}
        self._started = False

    def look(self, now: float, found: Mapping[Key, Fingerprint]) -> set[Key]:
        """Say which of all that is found now is settled; what is not found is forgotten.

        Args:
            now: seconds of any clock that never goes back.
        """
        since = {}
        for key, fingerprint in found.items():
            before = self._since.get(key)
            if before is not None and before[0] == fingerprint:
                since[key] = before
            elif not self._started and fingerprint.age >= self._seconds:
                since[key] = (fingerprint, -math.inf)
            else:
                since[key] = (fingerprint, now)
        self._since = since
        self._started = True
        return {key for key, (_, first) in since.items() if now - first >= self._seconds}

    def waiting(self, now: float) -> float | None:
        """Seconds until the next look that can settle something; None when everything was at the last one."""
        left = [self._seconds - (now - first) for _, first in self._since.values()]
        return min((seconds for seconds in left if seconds > 0), default=None)
