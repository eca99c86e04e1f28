"""The numbers of versions, as the names of folders, model.toml and requests have them."""

import re

LARGEST = 2**63 - 1
"""As TensorFlow Serving and Triton have it. Who exports by the clock in nanoseconds comes near."""

_NUMBER = re.compile(r"0*([0-9]{1,19})")
_LONGEST = 255
"""Characters that the name of a folder has at most."""


def version_of(text: str) -> int | None:
    """The number that a text is, or None: 0, which is no version's, to `LARGEST`; zeros before it mean nothing."""
    found = _NUMBER.fullmatch(text) if len(text) <= _LONGEST else None
    number = int(found[1]) if found is not None else LARGEST + 1
    return number if number <= LARGEST else None
