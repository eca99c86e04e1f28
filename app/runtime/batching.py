"""How a call's records become invokes, by the way the model holds records."""

from collections.abc import Callable, Sequence

import numpy as np

from app.errors import InvalidArgument, ModelError
from app.runtime.runners import AnyRunner
from app.tensors import Array, Batching, show_shape


def run(runner: AnyRunner, batching: Batching, inputs: Sequence[Array], rows: int) -> list[Array]:
    """Run `rows` records.

    Args:
        inputs: in the signature's order, each `[rows, *record]`.

    Returns:
        The outputs in the signature's order, each `[rows, *record]`.

    Raises:
        ModelError: the interpreter failed, or the model gave another number of rows than it got.
        InvalidArgument: records of different output shapes cannot be one answer.
    """
    if batching is Batching.FREE:
        outputs = runner.invoke(inputs)
        for output in outputs:
            if output.ndim == 0 or output.shape[0] != rows:
                raise ModelError(f"the model answered shape {show_shape(output.shape)} to a batch of {rows}")
        return outputs
    if batching is Batching.ONE:
        return _join([runner.invoke([array[row : row + 1] for array in inputs]) for row in range(rows)], np.concatenate)
    return _join([runner.invoke([array[row, ...] for array in inputs]) for row in range(rows)], np.stack)


def _join(results: list[list[Array]], how: Callable[[Sequence[Array]], Array]) -> list[Array]:
    columns = list(zip(*results, strict=True))
    for column in columns:
        shapes = {array.shape for array in column}
        if len(shapes) > 1:
            found = " and ".join(sorted(map(show_shape, shapes))[:2])
            raise InvalidArgument(f"the records' outputs have different shapes, {found}: send them one by one")
    return [how(column) for column in columns]
