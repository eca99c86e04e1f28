"""How much of what asks for nothing a client may send, before the connection ends with ENHANCE_YOUR_CALM."""

from app.server.h2.frames import ConnectionFault, ErrorCode

_FREE_RESETS = 1000
_RESETS_PER_SECOND = 33
"""So many are forgiven, as nghttp2 does it: a person who types makes a client cancel most of its calls, but slowly."""

_FREE_IDLE = 10_000
_IDLE_SECONDS = 10.0
"""A client may send so many idle frames in so many seconds with no call and no data sent between them.

Some clients ping whenever data comes, to measure the line: those pings are not counted up, as data was sent.
"""


class Patience:
    """Counts for one connection."""

    def __init__(self) -> None:
        self.idle = 0
        """Idle frames since the last call; whoever takes a call sets it to 0."""
        self._since = 0.0
        self._turns = 0
        self._resets = 0.0
        self._reset_at = 0.0

    def tire(self, now: float, turns: int, weight: int = 1) -> None:
        """Bear with a frame that asks for nothing.

        Args:
            now: by the loop's clock.
            turns: how often data was sent.
            weight: as how many frames this one counts.

        Raises:
            ConnectionFault: there were too many.
        """
        if now - self._since > _IDLE_SECONDS or turns != self._turns:
            self._since, self._turns, self.idle = now, turns, 0
        self.idle += weight
        if self.idle > _FREE_IDLE:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "very many frames came that ask for nothing")

    def count_reset(self, now: float, last: int) -> None:
        """Bear with a stream that was reset, by the client or for its fault (CVE-2023-44487).

        Args:
            now: by the loop's clock.
            last: the highest stream; every second number is one.

        Raises:
            ConnectionFault: there were many, and half of all streams.
        """
        forgiven = _RESETS_PER_SECOND * (now - self._reset_at)
        self._resets = max(self._resets - forgiven, 0.0) + 1
        self._reset_at = now
        if self._resets > _FREE_RESETS + last // 4:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"{self._resets:.0f} streams were reset, most of all")
