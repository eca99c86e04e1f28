"""Whether a JSON text's brackets and commas are those of nested lists of one exact shape.

A parser that gives all numbers of a text as one flat buffer says nothing of how they were nested: 2 + 4 numbers are as
many as 3 + 3. This looks at the text itself, with a handful of NumPy calls whatever its size.
"""

import numpy as np

from app.tensors import Array, Shape

_COMMA = 44
_OPEN = 91
_CLOSE = 93


class Skeleton:
    """The brackets of nested lists of `shape`, and how many commas come before each.

    Args:
        shape: sizes of 1 or more, at least one of them.
    """

    __slots__ = ("before", "brackets", "commas")

    def __init__(self, shape: Shape) -> None:
        self.brackets: Array = np.array([_OPEN, _CLOSE], np.uint8)
        self.before: Array = np.array([0, shape[-1] - 1])
        self.commas = shape[-1] - 1
        for size in reversed(shape[:-1]):
            self._wrap(size)

    def repeated(self, size: int) -> "Skeleton":
        """A list of `size` such lists."""
        outer: Skeleton = object.__new__(Skeleton)
        outer.brackets, outer.before, outer.commas = self.brackets, self.before, self.commas
        outer._wrap(size)
        return outer

    def fits(self, text: bytes) -> bool:
        """Whether `text`, valid JSON whose only string is free of brackets and commas, is nested like this."""
        codes = np.frombuffer(text, np.uint8)
        # 91 and 93 differ in bits that only 'Y' and '_' share, which stand in no number and in no key of ours.
        places = np.flatnonzero((codes & 0xF9) == (_OPEN & 0xF9))
        if len(places) != len(self.brackets) or not np.array_equal(codes[places], self.brackets):
            return False
        commas = np.flatnonzero(codes == _COMMA)
        return len(commas) == self.commas and np.array_equal(np.searchsorted(commas, places), self.before)

    def _wrap(self, size: int) -> None:
        inside = self.commas + 1
        offsets = np.repeat(np.arange(size) * inside, len(self.before))
        self.brackets = np.concatenate(([_OPEN], np.tile(self.brackets, size), [_CLOSE])).astype(np.uint8)
        self.before = np.concatenate(([0], np.tile(self.before, size) + offsets, [size * inside - 1]))
        self.commas = size * inside - 1
