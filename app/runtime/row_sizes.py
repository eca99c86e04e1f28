"""What operators make of tensors that hold no records: sizes are computed in a graph as everything else is.

A flattening is converted to SHAPE, STRIDED_SLICE, PACK and RESHAPE, so that a shape has to be followed to its use.
"""

import operator
from collections.abc import Callable

from app.runtime.row_moves import broadcast_to, spread, tile
from app.runtime.row_values import Element, Free, NotKnown, Plain, Records, Step, Times, multiplied

Elements = tuple[Element, ...]


def follow(step: Step) -> Plain | Records:
    """What an operator gives when none of its inputs holds records.

    Raises:
        NotKnown: it gives something of its own to each record.
    """
    name = step.operator.name
    sized = any(isinstance(value, Plain) and value.sized for value in step.values)
    if name == "RANGE" and sized:
        raise NotKnown("numbers the records")
    if name in ("FILL", "BROADCAST_TO", "TILE"):
        return _filled(step, sized)
    if name == "RANK":
        return Plain()
    fold = _FOLDS.get(name)
    found = fold(step) if fold else None
    if found is not None and all(isinstance(element, int | Free) for element in found):
        sized = False
    return Plain(found, sized)


def _filled(step: Step, sized: bool) -> Plain | Records:
    sizes = _held(step, 0 if step.operator.name == "FILL" else 1)
    if sizes is None or not any(isinstance(size, Times) for size in sizes):
        if sized:
            raise NotKnown("with a shape that depends on how many records there are")
        return Plain()
    # The other input must not depend on how many there are.
    other = step.value(1 if step.operator.name == "FILL" else 0)
    if isinstance(other, Plain) and other.sized:
        raise NotKnown("with a number that depends on how many records there are")
    if step.operator.name == "FILL":
        return spread(sizes)
    return tile(step) if step.operator.name == "TILE" else broadcast_to(step)


def _held(step: Step, place: int) -> Elements | None:
    value = step.value(place)
    return value.elements if isinstance(value, Plain) else None


def _same(step: Step) -> Elements | None:
    return _held(step, 0)


def _joined(step: Step) -> Elements | None:
    """Scalars packed, or vectors joined: there is but one way for either."""
    if any(step.rank(place) > 1 for place in range(len(step.values))):
        return None
    parts = [_held(step, place) for place in range(len(step.values))]
    found: Elements = ()
    for place, part in enumerate(parts):
        if part is None:
            if step.rank(place):
                return None
            part = (None,)
        found += part
    return found


def _arithmetic(step: Step) -> Elements | None:
    first, second = _held(step, 0), _held(step, 1)
    if not first or not second or step.rank(0) > 1 or step.rank(1) > 1:
        return None
    count = max(len(first), len(second))
    if not {len(first), len(second)} <= {1, count}:
        return None
    compute = _ARITHMETIC[step.operator.name]
    pairs = zip(first * (count // len(first)), second * (count // len(second)), strict=True)
    return tuple(compute(*pair) for pair in pairs)


def _linear(compute: Callable[[int, int], int]) -> Callable[[Element, Element], Element]:
    """Sums and differences of numbers of the same kind."""

    def both(first: Element, second: Element) -> Element:
        if isinstance(first, Times) and isinstance(second, Times):
            return Times(compute(first.count, second.count))
        return compute(first, second) if isinstance(first, int) and isinstance(second, int) else None

    return both


def _divided(first: Element, second: Element) -> Element:
    whole = first.count if isinstance(first, Times) else first
    if not isinstance(second, int) or not isinstance(whole, int) or second <= 0 or whole % second:
        return None
    return Times(whole // second) if isinstance(first, Times) else whole // second


def _multiplied_out(step: Step) -> Elements | None:
    held = _held(step, 0)
    if held is None or step.rank(0) != 1:
        return None
    product: Element = 1
    for element in held:
        product = multiplied(product, element)
    return (product,)


def _picked(step: Step) -> Elements | None:
    held, places = _held(step, 0), _held(step, 1)
    if held is None or places is None or step.rank(0) != 1:
        return None
    if not all(isinstance(place, int) and 0 <= place < len(held) for place in places):
        return None
    return tuple(held[place] for place in places if isinstance(place, int))


def _part(step: Step) -> Elements | None:
    """Of a vector, by STRIDED_SLICE or SLICE."""
    held, begin, end = (_held(step, place) for place in range(3))
    if held is None or begin is None or end is None or step.rank(0) != 1 or len(begin) != 1 or len(end) != 1:
        return None
    first, last, stride = begin[0], end[0], 1
    if not isinstance(first, int) or not isinstance(last, int):
        return None
    if step.operator.name == "SLICE":
        return held[first:] if last == -1 else held[first : first + last]
    strides = _held(step, 3)
    masks = [
        step.operator.option("StridedSliceOptions", field + "Mask")
        for field in ("Begin", "End", "Ellipsis", "NewAxis", "ShrinkAxis")
    ]
    if not strides or not isinstance(strides[0], int) or None in masks or masks[2] or masks[3]:
        return None
    stride = strides[0]
    if masks[4] & 1:
        return (held[first],) if -len(held) <= first < len(held) else None
    return held[None if masks[0] & 1 else first : None if masks[1] & 1 else last : stride] if stride else None


_ARITHMETIC: dict[str, Callable[[Element, Element], Element]] = {
    "ADD": _linear(operator.add),
    "SUB": _linear(operator.sub),
    "MUL": multiplied,
    "DIV": _divided,
    "FLOOR_DIV": _divided,
}

_FOLDS: dict[str, Callable[[Step], Elements | None]] = {
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(("CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE"), _same),
    **dict.fromkeys(("PACK", "CONCATENATION"), _joined),
    **dict.fromkeys(("STRIDED_SLICE", "SLICE"), _part),
    "GATHER": _picked,
    "REDUCE_PROD": _multiplied_out,
}
