"""Signatures for tests of what works from a signature alone."""

import numpy as np

from app.tensors import STRING, Scaling, Shape, Signature, TensorSpec, make_signature


def spec(name: str, dtype: str = "float32", shape: Shape = (-1, 4), scaling: Scaling | None = None) -> TensorSpec:
    """`dtype` as NumPy calls it, or `string`."""
    return TensorSpec(name, STRING if dtype == "string" else np.dtype(dtype), shape, scaling)


def one_in(dtype: str = "float32", shape: Shape = (-1, 4), scaling: Scaling | None = None) -> Signature:
    """Input `x`, output `y`, alike."""
    return make_signature("serving_default", (spec("x", dtype, shape, scaling),), (spec("y", dtype, shape, scaling),))


def two_in() -> Signature:
    """Inputs `age` int32 [-1, 1] and `body` float32 [-1, 3]; outputs `risk` [-1, 2] and `score` [-1], float32."""
    return make_signature(
        "serving_default",
        (spec("age", "int32", (-1, 1)), spec("body", "float32", (-1, 3))),
        (spec("risk", "float32", (-1, 2)), spec("score", "float32", (-1,))),
    )
