"""Seeded inputs, TensorFlow's answers to them, and the time that it takes: what a conversion is compared with."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from child_models import Model, shape_of
from child_reasons import Refused, explain

SEED = 20240229
ROWS = 16
_FREE_SIZES = (16, 8, 32, 64, 96, 128, 160, 224, 256, 1)
"""Sizes tried for free inner dimensions, all alike, until TensorFlow runs the model."""

_TIMING_SECONDS = 1.0
_TIMING_RUNS = 25


def write_parity(model: Model, path: Path) -> dict[str, float]:
    """Store seeded inputs with the model's answers; returns median times of one record in microseconds."""
    import numpy as np

    records, answers = reference(model)
    arrays = {f"in_{index}": records[name] for index, name in enumerate(model.inputs)}
    arrays |= {f"out_{index}": answers[name] for index, name in enumerate(model.outputs)}
    np.savez(path, allow_pickle=False, **arrays)
    one = {name: tensor_of(model, value, 1) for name, value in records.items()}
    timings = {"call": timed(lambda: model.call(one))}
    if model.keras_version is not None:
        timings["predict"] = timed(lambda: model.predict(one))
    return timings


def reference(model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Seeded records, and TensorFlow's answers to them: `{name: [rows, *record]}`."""
    free = any(None in shape_of(spec.shape)[model.batching != "none" :] for spec in model.inputs.values())
    failure: Exception | None = None
    for size in _FREE_SIZES if free else (1,):
        records = {name: sample(model, spec, size, index) for index, (name, spec) in enumerate(model.inputs.items())}
        try:
            return records, answers_to(model, records)
        except Exception as error:
            failure = failure or error
    raise Refused(f"TensorFlow itself does not run the model: {explain(failure)}")


def sample(model: Model, spec: Any, size: int, index: int) -> Any:
    """Seeded records for one input: noise, with a record of zeros and one of ones for floats; 0 and 1 for integers."""
    import numpy as np

    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    shape = shape_of(spec.shape)[model.batching != "none" :]
    generator = np.random.default_rng([SEED, index])
    full = (ROWS, *(size if part is None else part for part in shape))
    if dtype.kind == "f":
        values = generator.standard_normal(full).astype(dtype)
        values[0], values[1] = 0, 1
        return values
    return generator.integers(0, 2, full).astype(dtype)


def tensor_of(model: Model, records: Any, rows: int) -> Any:
    """The first `rows` records as the model takes them."""
    return records[0] if model.batching == "none" else records[:rows]


def answers_to(model: Model, records: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    if model.batching == "free":
        return model.call(records)
    singles = [
        model.call(
            {name: value[row] if model.batching == "none" else value[row : row + 1] for name, value in records.items()}
        )
        for row in range(ROWS)
    ]
    join = np.stack if model.batching == "none" else np.concatenate
    return {name: join([single[name] for single in singles]) for name in model.outputs}


def timed(run: Callable[[], object]) -> float:
    """Median microseconds of a call, after two that do not count."""
    run()
    run()
    took: list[float] = []
    while len(took) < _TIMING_RUNS and sum(took) < _TIMING_SECONDS:
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return round(median(took) * 1e6, 1)
