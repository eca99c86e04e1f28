"""Rules for operators that move, cut and join axes and rows, and leave the numbers as they are; see `row_rules`."""

import math

from app.runtime.row_values import (
    BATCH,
    BY_COUNT,
    Element,
    Free,
    Mixes,
    NotKnown,
    Plain,
    Records,
    Rule,
    Step,
    Times,
    multiplied,
    one,
    option,
    product,
)
from app.tensors import Shape


def reshape(step: Step) -> Records:
    """Records stay together, since their order does; what matters is that no axis takes in more than whole ones."""
    records, old = step.records(0), step.shape(0)
    if step.given(1):
        new = step.elements(1, "its shape")
    else:
        options = step.operator.options
        if type(options).__name__ != "ReshapeOptions" or options.NewShapeIsNone():
            raise NotKnown("without a shape")
        new = tuple(options.NewShapeAsNumpy().tolist())
    axes = [place for place, size in enumerate(new) if isinstance(size, Times)]
    axes = axes or [place for place, size in enumerate(new) if size == -1]
    if len(axes) != 1:
        raise Mixes("into a shape that has no axis for the records")
    axis = axes[0]
    before, ahead = product(new[:axis]), product(old[: records.axis])
    if before is None or ahead is None:
        raise NotKnown("with sizes before the batch axis that are not known")
    if before != ahead:
        raise Mixes("folds the batch axis into another")
    size, after = new[axis], new[axis + 1 :]
    held, wanted = product(old[records.axis + 1 :]), product(after)
    if isinstance(size, Times):
        # How large the rest is follows from how many places there are, and so does what the file may have left free.
        each = -1 if held is None or not size.count else records.times * held // size.count
        if after.count(-1) == 1 and each > 0:
            rest = product(tuple(1 if inner == -1 else inner for inner in after))
            after = tuple(each // rest if inner == -1 and rest else inner for inner in after)
        return records.laid(axis, size.count, (*new[:axis], -1, *after))
    if held is None or not wanted:
        raise NotKnown("with sizes that are not known")
    places, rest = divmod(records.times * held, wanted)
    if rest or not places:
        raise Mixes("folds the batch axis into another")
    return records.laid(axis, places, new)


def transpose(step: Step) -> Records:
    records, order = step.records(0), step.numbers(1, "its axes")
    axes = [step.axis(axis, step.rank(0)) for axis in order]
    if sorted(axes) != list(range(step.rank(0))):
        raise NotKnown("with axes that are no permutation")
    return records.at(axes.index(records.axis))


def concatenation(step: Step) -> Records:
    records = [step.records(place) for place in range(len(step.values)) if isinstance(step.values[place], Records)]
    if len(set(records)) > 1:
        raise NotKnown("of tensors whose batch axes differ")
    axis = option(step, "ConcatenationOptions", "Axis")
    if step.axis(axis, max(step.rank(place) for place in range(len(step.values)))) == records[0].axis:
        raise Mixes(BATCH)
    if len(records) < len(step.values):
        raise NotKnown("of records with something that is the same for any number of them")
    return records[0]


def pack(step: Step) -> Records:
    found = set(step.values)
    if len(found) > 1:
        raise NotKnown("of tensors that do not all hold records in the same way")
    records = step.records(0)
    axis = step.axis(option(step, "PackOptions", "Axis"), step.rank(0) + 1)
    return records.at(records.axis + (axis <= records.axis))


def unpack(step: Step) -> Records:
    records = step.records(0)
    axis = step.axis(option(step, "UnpackOptions", "Axis"), step.rank(0))
    if axis == records.axis:
        raise Mixes(BATCH)
    return records.at(records.axis - (axis < records.axis))


def split(data: int, by: int) -> Rule:
    def rule(step: Step) -> Records:
        records = step.records(data)
        (axis,) = one(step.numbers(by, "its axis"))
        if step.axis(axis, step.rank(data)) == records.axis:
            raise Mixes(BATCH)
        return records

    return rule


def expand_dims(step: Step) -> Records:
    records = step.records(0)
    (axis,) = one(step.numbers(1, "its axis"))
    return records.at(records.axis + (step.axis(axis, step.rank(0) + 1) <= records.axis))


def squeeze(step: Step) -> Records:
    records, options = step.records(0), step.operator.options
    if type(options).__name__ != "SqueezeOptions" or not options.SqueezeDimsLength():
        raise NotKnown("of every axis whose size is 1, as that of the records may be")
    axes = {step.axis(axis, step.rank(0)) for axis in options.SqueezeDimsAsNumpy().tolist()}
    if records.axis in axes:
        raise Mixes("removes the batch axis")
    return records.at(records.axis - sum(axis < records.axis for axis in axes))


def slices(step: Step) -> Records:
    """Begins and sizes."""
    records = step.records(0)
    begins, sizes = step.elements(1, "its begin"), step.elements(2, "its size")
    for axis, (begin, size) in enumerate(zip(begins, sizes, strict=False)):
        if axis == records.axis:
            if begin != 0 or size not in (-1, Times(records.times)):
                raise Mixes("takes a part of the batch axis")
        elif isinstance(begin, Times) or isinstance(size, Times):
            raise Mixes(BY_COUNT)
    if len(begins) != step.rank(0) or len(sizes) != step.rank(0):
        raise NotKnown("with sizes for other axes than there are")
    return records


def strided_slice(step: Step) -> Records:
    """Begins, ends and strides, with a bit for each axis in the options' masks."""
    records = step.records(0)
    begins, ends = step.elements(1, "its begin"), step.elements(2, "its end")
    strides = step.numbers(3, "its strides")
    kind = "StridedSliceOptions"
    begun, ended, dots, fresh, shrunk = (
        int(option(step, kind, field + "Mask")) for field in ("Begin", "End", "Ellipsis", "NewAxis", "ShrinkAxis")
    )
    if (dots | fresh | shrunk) >> len(begins) or dots & (dots - 1) or dots & (fresh | shrunk) or fresh & shrunk:
        raise NotKnown("with masks that contradict one another")
    axis = target = 0
    result = None
    for place, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=False)):
        bit = 1 << place
        if dots & bit:
            after = sum(not fresh >> later & 1 for later in range(place + 1, len(begins)))
            covered = step.rank(0) - axis - after
            if axis <= records.axis < axis + covered:
                result = target + records.axis - axis
            axis, target = axis + covered, target + covered
        elif fresh & bit:
            target += 1
        else:
            if axis == records.axis:
                whole = (begun & bit or begin == 0) and (ended & bit or end == Times(records.times))
                if shrunk & bit or stride != 1 or not whole:
                    raise Mixes("takes a part of the batch axis")
                result = target
            elif isinstance(begin, Times) or isinstance(end, Times):
                raise Mixes(BY_COUNT)
            elif shrunk & bit and not _within(step.shape(0)[axis : axis + 1], begin, stride):
                # LiteRT does not look, and reads on in the next row.
                raise NotKnown("of a place that may lie outside of its axis")
            axis, target = axis + 1, target + (not shrunk & bit)
    return records.at(target + records.axis - axis if result is None else result)


def _within(sizes: Shape, place: Element, stride: int) -> bool:
    return len(sizes) == 1 and isinstance(place, int) and stride == 1 and -sizes[0] <= place < sizes[0]


def gather(step: Step) -> Records:
    table, chosen = step.value(0), step.value(1)
    axis = step.axis(option(step, "GatherOptions", "Axis"), step.rank(0))
    common = option(step, "GatherOptions", "BatchDims")
    if isinstance(table, Plain):
        step.plain(0, "its table")
        records = step.records(1)
        if common:
            raise NotKnown("with a constant table for each place along the batch axis")
        return records.at(axis + records.axis)
    records = step.records(0)
    if isinstance(chosen, Plain):
        step.plain(1, "its indices")
        if common:
            raise NotKnown("with constant indices for each place along the batch axis")
        if axis == records.axis:
            raise Mixes("picks from the batch axis")
        return records.at(records.axis + (step.rank(1) - 1 if axis < records.axis else 0))
    common = common + step.rank(1) if common < 0 else common
    if records == chosen and records.axis < common <= axis:
        return records
    raise Mixes("picks from the batch axis")


def gather_nd(step: Step) -> Records:
    if isinstance(step.value(0), Records):
        raise Mixes("picks from the batch axis")
    step.plain(0, "its table")
    records = step.records(1)
    if records.axis == step.rank(1) - 1:
        raise Mixes("takes records as the parts of one index")
    return records


def embedding(step: Step) -> Records:
    """Indices of rank 1, and a table."""
    if isinstance(step.value(1), Records):
        raise Mixes("picks from the batch axis")
    step.plain(1, "its table")
    return step.records(0)


def padding(step: Step) -> Records:
    records, sizes = step.records(0), step.numbers(1, "its paddings")
    step.plain(2, "what it pads with")
    if sizes[2 * records.axis : 2 * records.axis + 2] != (0, 0):
        raise Mixes("adds rows to the batch axis")
    return records


def tile(step: Step) -> Records:
    value, times = step.value(0), step.elements(1, "its multiples")
    if len(times) != step.rank(0):
        raise NotKnown("with multiples for other axes than there are")
    if isinstance(value, Plain):
        return spread(tuple(multiplied(*pair) for pair in zip(times, step.shape(0), strict=True)))
    if times[value.axis] != 1:
        raise Mixes("repeats the batch axis")
    if any(isinstance(number, Times) for number in times):
        raise Mixes(BY_COUNT)
    return value


def broadcast_to(step: Step) -> Records:
    """A shape to which the tensor is broadcast."""
    new = step.elements(1, "its shape")
    value = step.value(0)
    if isinstance(value, Plain):
        found = spread(new)
        from_last = len(new) - found.axis
        if step.rank(0) >= from_last and step.shape(0)[-from_last] != 1:
            raise NotKnown("of a constant that has something else for each place along the batch axis")
        return found
    axis = len(new) - step.rank(0) + value.axis
    if axis < 0 or new[axis] != Times(value.times) or spread(new).axis != axis:
        raise NotKnown("to a shape whose batch axis is another")
    return value.at(axis)


def spread(shape: tuple[Element, ...]) -> Records:
    """Where the records lie in a tensor of a shape that is filled with the same for each of them."""
    axes = [(place, size) for place, size in enumerate(shape) if isinstance(size, Times)]
    if len(axes) != 1 or None in shape:
        raise NotKnown("with a shape that depends on how many records there are")
    axis, size = axes[0]
    if size.count < 1:
        raise NotKnown("with a shape that has no place for a record")
    return Records(axis, size.count)


def _block(step: Step) -> int:
    size = math.prod(step.numbers(1, "its block"))
    if size < 1:
        raise NotKnown("with an empty block")
    return size


def space_to_batch(step: Step) -> Records:
    """Parts of the images become images of their own, the first parts of all before the second of all."""
    records = step.records(0)
    step.plain(2, "its paddings")
    if records.axis != 0:
        raise Mixes("moves parts of the batch axis")
    if records.times > 1 and not records.woven:
        raise NotKnown("on a batch axis where records have several places")
    places = records.times * _block(step)
    return Records(0, places, woven=places > 1)


def batch_to_space(step: Step) -> Records:
    """The other way round."""
    records = step.records(0)
    step.plain(2, "its crops")
    places, rest = divmod(records.times, _block(step))
    if places == records.times:
        return records
    if records.axis != 0 or rest or not records.woven:
        raise Mixes("moves rows of the batch axis into the image")
    return Records(0, places, woven=places > 1)


def size_of(step: Step) -> Plain:
    records, shape = step.records(0), step.shape(0)
    sizes: list[Element] = [Free.SIZE if size < 0 else size for size in shape]
    sizes[records.axis] = Times(records.times)
    return Plain(tuple(sizes), sized=True)
