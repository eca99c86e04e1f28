"""TensorFlow's answers, and the time that they take: what a conversion is compared with."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from child_models import Model
from child_reasons import Refused, explain
from child_records import Records, attempts
from child_signature import Signature, Tensors

_ALONE, _ALONE_SECONDS = 4, 2.0
"""How many records are asked about alone as well: so many, and more while there is time."""

_TIMING_SECONDS = 1.0
_TIMING_RUNS = 25
_AGAIN = 1e-3
"""Two answers to one record differ by less, of their scale, unless chance is part of the model."""


@dataclass(eq=False)
class Reference:
    """Records of one signature, and the answers of TensorFlow to them, `{name: [rows, *record]}`.

    Attributes:
        alone: answers to the first rows one by one, where `answers` came of one batch.
        random: the model answers one record in several ways.
    """

    signature: Signature
    records: Records
    answers: Tensors
    alone: Tensors | None = None
    random: bool = False

    @property
    def rows(self) -> int:
        return len(next(iter(self.answers.values())))


def references(model: Model, real: Tensors | None) -> list[Reference]:
    """The answers of each signature. One that TensorFlow does not run is left out, unless it is the default.

    Args:
        real: records of the user's, for the default signature.

    Raises:
        Refused: TensorFlow does not run the default.
    """
    found = [reference(model, model.default, real)]
    for signature in model.signatures[1:]:
        try:
            found.append(reference(model, signature, None))
        except Refused as error:
            model.leave_out(signature, str(error))
    return found


def reference(model: Model, signature: Signature, real: Tensors | None) -> Reference:
    if not signature.inputs:
        raise Refused("it has no inputs, so that there is nothing to ask it")
    failure: Exception | None = None
    for records in attempts(signature, real):
        try:
            return answered(model, signature, records)
        except Refused:
            raise
        except Mixed:
            signature.is_whole = True
            return reference(model, signature, None)
        except Exception as error:
            failure = failure or error
    cure = "" if real else ": if only real records will do, put one in a samples.json beside it"
    raise Refused(f"TensorFlow itself does not run the model: {explain(failure).rstrip('.')}{cure}")


def answered(model: Model, signature: Signature, records: Records) -> Reference:
    """Ask TensorFlow. Of a model with state, only what it says first, and to one record."""
    run = signature.run
    if signature.keeps_state:
        run = model.fresh(signature)
        first = {name: value[:1] for name, value in records.tensors.items()}
        records = Records(first, min(records.real, 1))
    is_batch = signature.batching == "free" and not signature.keeps_state
    if is_batch:
        answers = run(records.tensors)
        if any(len(value) != records.rows for value in answers.values()):
            raise Mixed
    else:
        records = alike(signature, run, records)
        answers = one_by_one(signature, run, records.tensors)
    for name, value in answers.items():
        if value.dtype.kind not in "fiubcOS":
            raise Refused(
                f"output {name!r} holds {value.dtype.name} values, which are not served: cast them to float32"
            )
    found = Reference(signature, records, answers)
    if is_batch:
        found.alone = alone(signature, run, records.tensors)
    if not signature.keeps_state:
        found.random = is_random(signature, records.tensors)
    return found


class Mixed(Exception):
    """What looked like a batch is none: there are more answers than records, or fewer."""


def alike(signature: Signature, run: Callable[[Tensors], Tensors], records: Records) -> Records:
    """Where the shapes of answers depend on what is asked, records whose answers have the same: real ones, or most."""
    batch = int(signature.batching != "none")
    known = all(shape is not None and None not in shape[batch:] for shape in signature.output_shapes)
    if known or signature.keeps_state:
        return records
    rows = [{name: value[row:] for name, value in records.tensors.items()} for row in range(records.rows)]
    shapes = [tuple(value.shape for value in run(_first(signature, row, 1)).values()) for row in rows]
    groups = [[row for row, found in enumerate(shapes) if found == shape] for shape in dict.fromkeys(shapes)]
    # Of groups of one size rather that with more in its answers, for the first of the records is all zeros.
    same = max(groups, key=lambda group: (group[0] < records.real, len(group), sum(map(sum, shapes[group[0]]))))
    kept = {name: value[same] for name, value in records.tensors.items()}
    quiet = records.rows - records.loud
    return Records(kept, sum(row < records.real for row in same), sum(row >= quiet for row in same))


def learn_shapes(model: Model) -> None:
    """Find the shapes of outputs that the graph does not tell, from what comes of batches of two sizes."""
    for signature in model.signatures:
        if None in signature.output_shapes:
            _learn_shapes(signature)


def _learn_shapes(signature: Signature) -> None:
    has_free = any(spec.shape.rank and spec.shape[0] is None for spec in signature.inputs.values())
    for records in attempts(signature, None):
        whole = {name: value[0] for name, value in records.tensors.items()}
        sizes = [{name: value[:rows] for name, value in whole.items()} for rows in (3, 5)] if has_free else [whole]
        try:
            answers = [signature.run(each) for each in sizes]
        except Exception:  # noqa: S112  The next records may do, and if none does, asking for answers tells why.
            continue
        for index, name in enumerate(signature.outputs):
            shapes = zip(*(each[name].shape for each in answers), strict=True)
            signature.output_shapes[index] = [each[0] if len(set(each)) == 1 else None for each in shapes]
        return


def _first(signature: Signature, records: Tensors, rows: int) -> Tensors:
    """The first records as the signature takes them."""
    return {name: value[0] if signature.batching == "none" else value[:rows] for name, value in records.items()}


def one_by_one(signature: Signature, run: Callable[[Tensors], Tensors], records: Tensors) -> Tensors:
    """Answers to each record alone, joined to `[rows, *record]`."""
    import numpy as np

    rows = len(next(iter(records.values())))
    singles = [run(_first(signature, {key: value[row:] for key, value in records.items()}, 1)) for row in range(rows)]
    join = np.stack if signature.batching == "none" else np.concatenate
    return {name: join([single[name] for single in singles]) for name in signature.outputs}


def alone(signature: Signature, run: Callable[[Tensors], Tensors], records: Tensors) -> Tensors:
    """Answers to the first records one by one."""
    import numpy as np

    start = time.monotonic()
    first = one_by_one(signature, run, {name: value[:_ALONE] for name, value in records.items()})
    each = (time.monotonic() - start) / _ALONE
    more = {name: value[_ALONE:][: int(_ALONE_SECONDS / each)] for name, value in records.items()}
    if not min(len(value) for value in more.values()):
        return first
    rest = one_by_one(signature, run, more)
    return {name: np.concatenate([value, rest[name]]) for name, value in first.items()}


def is_random(signature: Signature, records: Tensors) -> bool:
    """Whether one record is answered differently when it is asked about again."""
    import numpy as np

    # From the middle: the first may be zeros, which hide what is multiplied.
    one = _first(signature, {name: value[len(value) // 2 :] for name, value in records.items()}, 1)
    first, second = signature.run(one), signature.run(one)
    for name, value in first.items():
        if value.shape != second[name].shape:
            return True
        if value.dtype.kind not in "fc":
            same = np.array_equal(value, second[name])
        else:
            scale = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
            same = np.allclose(value, second[name], rtol=0, atol=_AGAIN * scale, equal_nan=True)
        if not same:
            return True
    return False


def described(found: list[Reference], of: list[Reference]) -> list[dict[str, Any]]:
    """Those of the signatures for the parent; of their records, the first `samples` are the user's."""
    return [
        {
            "name": each.signature.name,
            "number": number,
            "inputs": list(each.signature.inputs),
            "outputs": each.signature.outputs,
            "batching": each.signature.batching,
            "stateful": each.signature.keeps_state,
            "random": each.random,
            "rows": each.rows,
            "samples": each.records.real,
            "loud": each.records.loud,
        }
        for number, each in enumerate(found)
        if each in of
    ]


def write_parity(found: list[Reference], path: Path) -> None:
    """Store `in_<signature>_<input>`, `out_...` and `alone_...`; strings as bytes, without zeros at their end."""
    import numpy as np

    arrays: Tensors = {}
    for k, each in enumerate(found):
        arrays |= {f"in_{k}_{i}": each.records.tensors[name] for i, name in enumerate(each.signature.inputs)}
        arrays |= {f"out_{k}_{i}": each.answers[name] for i, name in enumerate(each.signature.outputs)}
        if each.alone:
            arrays |= {f"alone_{k}_{i}": each.alone[name] for i, name in enumerate(each.signature.outputs)}
    plain = {name: value.astype(np.bytes_) if value.dtype == object else value for name, value in arrays.items()}
    np.savez(path, allow_pickle=False, **plain)


def timings(model: Model, found: Reference) -> dict[str, float]:
    """Median times of one record in microseconds."""
    one = _first(found.signature, found.records.tensors, 1)
    times = {"call": timed(lambda: found.signature.run(one))}
    if model.keras_version is not None:
        times["predict"] = timed(lambda: model.predict(one))
    return times


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
