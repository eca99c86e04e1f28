"""Models made for the scenarios: whose answers tell the version, however large their weights."""

import numpy as np

from tests import tflite

WIDTH = 64
COPIES = 32


def multiplier(factor: int) -> bytes:
    """`y = x * factor`, float32 [-1, 4], in a few bytes."""
    return tflite.affine(float(factor), 0.0)


def heavy_multiplier(factor: int) -> bytes:
    """`y = x * factor`, float32 [-1, 64], by 1 MB of weights which all have a part in every value of the answer.

    The numbers are small or powers of two, so that sums come out exact, whatever their order.
    """
    graph = tflite.Graph()
    x = graph.tensor("x", (-1, WIDTH))
    spread = graph.tensor("spread", (-1, WIDTH * COPIES))
    y = graph.tensor("y", (-1, WIDTH))
    out = np.tile(np.eye(WIDTH), (COPIES, 1)) * factor
    graph.operator("FULLY_CONNECTED", [x, graph.constant(out)], [spread])
    graph.operator("FULLY_CONNECTED", [spread, graph.constant(np.tile(np.eye(WIDTH), (1, COPIES)) / COPIES)], [y])
    return graph.build({"x": x}, {"y": y})
