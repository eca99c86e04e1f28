"""How many examples property tests draw: all in the whole suite, a few in the fast one, more with `FUZZ=N`."""

import os

_FEW = 5
_LEAST = 10

TIMES = int(os.environ.get("FUZZ", "1"))
"""How many times as many as in the suite: what `make fuzz` says."""

_fast = False


def be_fast() -> None:
    """Draw few from now on: of tests that are imported after this."""
    global _fast  # noqa: PLW0603  pytest has one suite
    _fast = True


def many(examples: int) -> int:
    """`examples`, or in the fast suite a part of them."""
    return max(_LEAST, examples // _FEW) if _fast else TIMES * examples
