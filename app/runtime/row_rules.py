"""For each operator, where the records lie in what it gives.

A rule has inputs of which at least one holds records, none of them lost, and answers where they lie in its outputs; it
raises `Mixes` or `NotKnown` where they meet, or may. What is not in the table is not known.

Weights of 8 bits under inputs of floats ("dynamic range", "hybrid" kernels) are no exception, but for `BATCH_MATMUL`:
XNNPACK and LiteRT's own kernels find the inputs' scale for each row (`FULLY_CONNECTED`) or each image (`CONV_2D`,
`DEPTHWISE_CONV_2D`) alone. Rows of scale 1e4, 1 and 0 in one batch answer as they do by themselves, to the last bit.
"""

from app.runtime import row_moves as moves
from app.runtime.row_values import (
    BATCH,
    BY_COUNT,
    VARIED,
    Mixes,
    NotKnown,
    Plain,
    Records,
    Rule,
    Step,
    Times,
    one,
    option,
    product,
)


def elementwise(step: Step) -> Records:
    """NumPy's broadcasting: axes are counted from the last."""
    rank = max(step.rank(place) for place in range(len(step.values)) if step.given(place))
    found = {
        step.records(place).at(step.rank(place) - value.axis)
        for place, value in enumerate(step.values)
        if isinstance(value, Records)
    }
    if len(found) > 1:
        raise Mixes("lines up the batch axis of one tensor with another axis of the next")
    (records,) = found
    from_last = records.axis
    for place, value in enumerate(step.values):
        if isinstance(value, Plain):
            shape = step.shape(place)
            if value.sized:
                raise Mixes(BY_COUNT)
            if len(shape) >= from_last and shape[-from_last] != 1:
                raise NotKnown(VARIED)
    return records.at(rank - from_last)


def select(step: Step) -> Records:
    """The older of the two takes a condition of rank 1 to choose whole rows."""
    condition, first = step.value(0), step.value(1)
    if step.rank(0) == 1 and step.rank(1) > 1:
        if condition == first == step.value(2) and step.records(0).axis == 0:
            return step.records(0)
        raise NotKnown("with a condition for whole rows")
    return elementwise(step)


def images(rank: int) -> Rule:
    """Convolutions, pools and the like: the first axis counts the images, and all other inputs are weights."""

    def rule(step: Step) -> Records:
        records = step.records(0)
        if step.rank(0) != rank:
            raise NotKnown(f"on a tensor of rank {step.rank(0)}")
        if records.axis != 0:
            raise Mixes(BATCH)
        for place in range(1, len(step.values)):
            step.plain(place, "its weights or sizes")
        return records

    return rule


def transposed_images(step: Step) -> Records:
    """A transposed convolution: output sizes, weights, images, and perhaps a bias."""
    records = step.records(2)
    for place in (1, 3):
        step.plain(place, "its weights")
    if records.axis != 0:
        raise Mixes(BATCH)
    if step.elements(0, "its sizes")[:1] != (Times(records.times),):
        raise NotKnown("with an output whose leading size is not that of its input")
    return records


def last_axes(count: int) -> Rule:
    """Works on the last axes together, and on each place of the others alone."""

    def rule(step: Step) -> Records:
        records = step.records(0)
        if records.axis >= step.rank(0) - count:
            raise Mixes(BATCH)
        for place in range(1, len(step.values)):
            step.plain(place, "a parameter")
        return records

    return rule


def fully_connected(step: Step) -> Records:
    """The input counts as rows as long as the weights `[units, length]`, however its axes lie."""
    records, weights = step.records(0), step.shape(1)
    if isinstance(step.value(1), Records):
        raise Mixes("takes the records of one tensor as weights for another")
    step.plain(2, "its bias")
    if len(weights) != 2:
        raise NotKnown(f"with weights of rank {len(weights)}")
    shape = step.shape(0)
    if step.operator.option("FullyConnectedOptions", "KeepNumDims"):
        if records.axis == len(shape) - 1:
            raise Mixes(BATCH)
        return records
    length, each = weights[-1], product(shape[records.axis + 1 :])
    if records.axis != 0:
        raise NotKnown("on a batch axis that is not the leading one")
    if each is None or length < 1:
        raise NotKnown("on an input whose inner sizes are free")
    places, rest = divmod(records.times * each, length)
    if rest or not places:
        raise Mixes(f"folds records of {records.times * each} numbers into rows of {length}")
    return records.laid(0, places)


def reduction(step: Step) -> Records:
    records = step.records(0)
    axes = {step.axis(axis, step.rank(0)) for axis in step.numbers(1, "its axes")}
    if not axes:
        raise NotKnown("without axes")
    if records.axis in axes:
        raise Mixes(BATCH)
    keep = step.operator.option("ReducerOptions", "KeepDims")
    if keep is None:
        raise NotKnown("without its options")
    return records if keep else records.at(records.axis - sum(axis < records.axis for axis in axes))


def arg_extreme(step: Step) -> Records:
    records = step.records(0)
    (axis,) = one(step.numbers(1, "its axis"))
    axis = step.axis(axis, step.rank(0))
    if axis == records.axis:
        raise Mixes(BATCH)
    return records.at(records.axis - (axis < records.axis))


def along(place: int) -> Rule:
    """Works along the axes that an input names: running sums, reversals."""

    def rule(step: Step) -> Records:
        records = step.records(0)
        if records.axis in {step.axis(axis, step.rank(0)) for axis in step.numbers(place, "its axes")}:
            raise Mixes(BATCH)
        return records

    return rule


def one_hot(step: Step) -> Records:
    records = step.records(0)
    for place in (1, 2, 3):
        step.plain(place, "a parameter")
    axis = step.axis(option(step, "OneHotOptions", "Axis"), step.rank(0) + 1)
    return records.at(records.axis + (axis <= records.axis))


def batch_matmul(step: Step) -> Records:
    """Matrices lie in the last two axes, and all before are broadcast."""
    kind = "BatchMatMulOptions"
    if {tensor.dtype for tensor in step.tensors if tensor is not None} == {"float32", "int8"}:
        # LiteRT's own kernel (not XNNPACK's) then answers a row of zeros with what comes from the row beside it.
        raise NotKnown("of floats by weights of 8 bits, of which not every kernel keeps rows apart")
    found: set[Records] = set()
    for place, turned, contracted in ((0, "AdjX", 1), (1, "AdjY", 2)):
        value = step.value(place)
        if not isinstance(value, Records):
            step.plain(place, "a parameter")
            continue
        from_last = step.rank(place) - step.records(place).axis
        if from_last <= 2:
            if option(step, kind, turned):
                from_last = 3 - from_last
            if from_last == contracted:
                raise Mixes(BATCH)
        found.add(value.at(from_last))
    if not found:
        raise NotKnown("with an input that it does not take")
    (records, *others) = found
    from_last = records.axis
    plain = [place for place in (0, 1) if isinstance(step.value(place), Plain)]
    if others or (from_last <= 2 and not plain):
        raise Mixes("multiplies the records with one another")
    for place in plain:
        if step.rank(place) >= from_last > 2 and step.shape(place)[-from_last] != 1:
            raise NotKnown(VARIED)
    return records.at(max(step.rank(0), step.rank(1)) - from_last)


def reverse_sequence(step: Step) -> Records:
    """Each record's own length, along another axis."""
    records = step.records(0)
    sequence = option(step, "ReverseSequenceOptions", "SeqDim")
    batch = option(step, "ReverseSequenceOptions", "BatchDim")
    if sequence == records.axis:
        raise Mixes(BATCH)
    if batch != records.axis:
        step.plain(1, "its lengths")
    elif step.value(1) != records.at(0):
        raise NotKnown("with lengths that are not the records' own")
    return records


def mixing(reason: str) -> Rule:
    def rule(_: Step) -> Records:
        raise Mixes(reason)

    return rule


_ELEMENTWISE = """
    ABS ADD ADD_N ATAN2 BITWISE_XOR BUCKETIZE CAST CEIL COMPLEX_ABS COS DEQUANTIZE DIV ELU EQUAL EXP FAKE_QUANT
    FLOOR FLOOR_DIV FLOOR_MOD GELU GREATER GREATER_EQUAL HARD_SWISH IMAG LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
    LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MINIMUM MUL NEG NOT_EQUAL POW PRELU QUANTIZE REAL RELU RELU6 RELU_0_TO_1
    RELU_N1_TO_1 RIGHT_SHIFT ROUND RSQRT SELECT_V2 SIGN SIN SQRT SQUARE SQUARED_DIFFERENCE SUB TANH ZEROS_LIKE
"""

_REDUCTIONS = "MEAN SUM REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD"

_IMAGES = """
    AVERAGE_POOL_2D CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE L2_POOL_2D MAX_POOL_2D RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR SPACE_TO_DEPTH
"""

_LAST = {"L2_NORMALIZATION": 1, "LOCAL_RESPONSE_NORMALIZATION": 1, "LOG_SOFTMAX": 1, "SOFTMAX": 1, "TOPK_V2": 1}
_LAST |= {"MATRIX_DIAG": 1, "RFFT2D": 2}

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_REDUCTIONS.split(), reduction),
    **dict.fromkeys(_IMAGES.split(), images(4)),
    **{name: last_axes(count) for name, count in _LAST.items()},
    "ARG_MAX": arg_extreme,
    "ARG_MIN": arg_extreme,
    "BATCH_MATMUL": batch_matmul,
    "BATCH_TO_SPACE_ND": moves.batch_to_space,
    "BROADCAST_TO": moves.broadcast_to,
    "CONCATENATION": moves.concatenation,
    "CONV_3D": images(5),
    "CONV_3D_TRANSPOSE": transposed_images,
    "CUMSUM": along(1),
    "EMBEDDING_LOOKUP": moves.embedding,
    "EXPAND_DIMS": moves.expand_dims,
    "FULLY_CONNECTED": fully_connected,
    "GATHER": moves.gather,
    "GATHER_ND": moves.gather_nd,
    "MIRROR_PAD": moves.padding,
    "ONE_HOT": one_hot,
    "PACK": moves.pack,
    "PAD": moves.padding,
    "PADV2": moves.padding,
    "RESHAPE": moves.reshape,
    "REVERSE_SEQUENCE": reverse_sequence,
    "REVERSE_V2": along(1),
    "SEGMENT_SUM": mixing(BATCH),
    "SELECT": select,
    "SHAPE": moves.size_of,
    "SLICE": moves.slices,
    "SPACE_TO_BATCH_ND": moves.space_to_batch,
    "SPLIT": moves.split(1, 0),
    "SPLIT_V": moves.split(0, 2),
    "SQUEEZE": moves.squeeze,
    "STRIDED_SLICE": moves.strided_slice,
    "TILE": moves.tile,
    "TRANSPOSE": moves.transpose,
    "TRANSPOSE_CONV": transposed_images,
    "UNIQUE": mixing(BATCH),
    "UNPACK": moves.unpack,
}
