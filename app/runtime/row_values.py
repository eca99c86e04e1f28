"""What the analysis of rows knows of a tensor, and of an operator that it has come to."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from app.runtime.graph import Operator, Tensor
from app.tensors import Shape


@dataclass(frozen=True, slots=True)
class Times:
    """A number that is `count` times that of the records."""

    count: int


class Free(Enum):
    """A number that is not known, and the same however many records there are: an inner size that is free."""

    SIZE = "free"


Element = int | Times | Free | None
"""One number of a shape; None where it may depend on anything but what the records hold."""


def multiplied(first: Element, second: Element) -> Element:
    """The product of two numbers of a shape."""
    if first is None or second is None:
        return None
    if isinstance(first, Times) and isinstance(second, int):
        return Times(first.count * second)
    if isinstance(first, int) and isinstance(second, Times):
        return Times(first * second.count)
    if isinstance(first, Times) or isinstance(second, Times):
        return None
    return first * second if isinstance(first, int) and isinstance(second, int) else Free.SIZE


@dataclass(frozen=True, slots=True)
class Plain:
    """A tensor that is the same whatever the records hold.

    Attributes:
        elements: what a small tensor of integers holds, a scalar as one element; None where nobody knows.
        sized: whether it depends on how many records there are.
    """

    elements: tuple[Element, ...] | None = None
    sized: bool = False


@dataclass(frozen=True, slots=True)
class Records:
    """A tensor along whose `axis` the records lie: what is at one place of it comes from one record alone.

    Attributes:
        times: the places that each record has.
        woven: whether the first places of all records come first, and then the second of all; otherwise the places of a
            record lie side by side.
        shape: what is known better than the file declares it.
    """

    axis: int = 0
    times: int = 1
    woven: bool = False
    shape: Shape | None = field(default=None, compare=False)

    def at(self, axis: int) -> "Records":
        """The same places along another axis."""
        return Records(axis, self.times, self.woven)

    def laid(self, axis: int, places: int, shape: tuple[Element, ...] = ()) -> "Records":
        """The same numbers in their order, with so many places for each record along an axis."""
        if places < 1:
            raise NotKnown("with a shape that has no place for a record")
        if self.woven and places != self.times:
            raise NotKnown("on a batch axis that has been woven")
        sizes = tuple(size if isinstance(size, int) else -1 for size in shape)
        return Records(axis, places, self.woven, sizes or None)


@dataclass(frozen=True, slots=True)
class Lost:
    """A tensor of which nothing can be said; `mixing` where records have met in it."""

    mixing: bool
    reason: str


Value = Plain | Records | Lost


class Mixes(Exception):
    """The operator lets records meet. The reason goes on from the operator's name: "over the batch axis"."""


class NotKnown(Exception):
    """Whether the operator lets records meet cannot be said; the reason as that of `Mixes`."""


BATCH = "over the batch axis"
BY_COUNT = "with a number that depends on how many records there are"
VARIED = "with a constant that has something else for each place along the batch axis"


@dataclass(frozen=True, slots=True)
class Step:
    """An operator with what is known of its inputs: a rule's argument. A left-out input is None in both tuples."""

    operator: Operator
    tensors: tuple[Tensor | None, ...]
    values: tuple[Plain | Records | None, ...]

    def given(self, place: int) -> bool:
        return place < len(self.values) and self.values[place] is not None

    def value(self, place: int) -> Plain | Records:
        value = self.values[place] if place < len(self.values) else None
        if value is None:
            raise NotKnown("without an input that it needs")
        return value

    def shape(self, place: int) -> Shape:
        """The declared shape of an input, -1 where it is free."""
        value, tensor = self.value(place), self.tensors[place]
        if isinstance(value, Records) and value.shape is not None:
            return value.shape
        if tensor is None or not tensor.has_rank:
            raise NotKnown("on a tensor whose rank is not known")
        return tensor.shape_signature

    def rank(self, place: int) -> int:
        return len(self.shape(place))

    def records(self, place: int) -> Records:
        """An input that must hold records."""
        value = self.value(place)
        if isinstance(value, Records):
            if not 0 <= value.axis < self.rank(place):
                raise NotKnown("on a tensor whose declared rank has no batch axis")
            return value
        raise NotKnown("with a constant where records are looked for")

    def plain(self, place: int, what: str) -> Plain:
        """An input that must not depend on the records, if it is given at all."""
        if not self.given(place):
            return Plain()
        value = self.value(place)
        if isinstance(value, Records):
            raise Mixes(f"takes {what} from the records")
        if value.sized:
            raise Mixes(BY_COUNT)
        return value

    def numbers(self, place: int, what: str) -> tuple[int, ...]:
        """The integers of an input that must be constant."""
        elements = self.plain(place, what).elements
        if elements is None:
            raise NotKnown(f"with {what} that are computed")
        numbers = tuple(element for element in elements if isinstance(element, int))
        if len(numbers) < len(elements):
            raise NotKnown(f"with {what} that are computed")
        return numbers

    def elements(self, place: int, what: str) -> tuple[Element, ...]:
        """The numbers of a shape, which may depend on how many records there are."""
        value = self.value(place)
        if isinstance(value, Records):
            raise Mixes(f"takes {what} from the records")
        if value.elements is None:
            raise NotKnown(f"with {what} that are computed")
        return value.elements

    def axis(self, given: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= given < rank:
            raise NotKnown(f"along axis {given} of {rank}")
        return given % rank


Rule = Callable[[Step], Records | Plain]
"""Where records lie in what an operator gives, when at least one of its inputs holds records and none is lost."""


def option(step: Step, kind: str, field: str) -> int:
    found = step.operator.option(kind, field)
    if found is None:
        raise NotKnown("without its options")
    return int(found)


def one(numbers: tuple[int, ...]) -> tuple[int]:
    if len(numbers) != 1:
        raise NotKnown(f"with {len(numbers)} axes, where it takes one")
    return (numbers[0],)


def product(sizes: tuple[Element, ...]) -> int | None:
    """None where a size is not known."""
    known = [size for size in sizes if isinstance(size, int) and size >= 0]
    return math.prod(known) if len(known) == len(sizes) else None
