"""Unlike clients of models of every class, mixed under load: no answer may depend on another request.

Each answer is compared with that of the plain LiteRT interpreter for that request alone.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import orjson
from ai_edge_litert.interpreter import Interpreter

from app.tensors import Array
from tests import tflite
from tests.e2e.life.clients import Clients, post
from tests.e2e.process import Litepool

CONNECTIONS = 32
SIZES = (1, 2, 7, 33)
KINDS = ("zeros", "huge", "tiny", "noise", "nan", "repeated", "one-hot")
TOLERANCE = 1e-5
"""Of an answer's own scale: kernels sum in another order for another number of rows."""

STEPS = 5
"""Requests of one sequence."""

NPY = "application/x-npy"


@dataclass(frozen=True)
class Model:
    """Args:
    expected: the class that it must be found to be.
    width: of a record.
    batches: whether a request may hold several records.
    shape: of a record.
    """

    content: bytes
    expected: str
    reason: str = ""
    shape: tuple[int, ...] = (4,)
    batches: bool = True


def _network(proven: bool) -> bytes:
    """A small one, [-1, 24] to [-1, 8]; unless it is to be proven, with an operator of which no rule is known."""
    draw = np.random.default_rng(5)
    graph = tflite.Graph()
    x = graph.tensor("x", (-1, 24))
    hidden = graph.tensor("hidden", (-1, 40))
    middle = graph.tensor("middle", (-1, 40))
    bits = graph.tensor("bits", (-1, 40), "int32")
    y = graph.tensor("y", (-1, 8))
    graph.operator("FULLY_CONNECTED", [x, graph.constant(draw.standard_normal((40, 24)))], [hidden])
    if proven:
        graph.operator("ABS", [hidden], [middle])
    else:
        graph.operator("BITCAST", [hidden], [bits])
        graph.operator("BITCAST", [bits], [middle])
    graph.operator("FULLY_CONNECTED", [middle, graph.constant(draw.standard_normal((8, 40)))], [y])
    return graph.build({"x": x}, {"y": y})


MODELS: Mapping[str, Model] = {
    "proven": Model(_network(True), "merged", "proven", (24,)),
    "probed": Model(_network(False), "merged", "probe", (24,)),
    "batched": Model(tflite.maximum_over_batch(), "batched"),
    "looped": Model(tflite.fixed_one(), "looped"),
    "whole": Model(tflite.whole(), "whole", shape=(3, 2), batches=False),
    "stateful": Model(tflite.running_sum(), "stateful"),
    "sequences": Model(tflite.running_sum(), "stateful"),
}


@dataclass(frozen=True)
class Case:
    """A request and the answer to it alone.

    Args:
        answers: `[rows, *record]`, or `[*record]` where the request is one record.
        npy: whether request and answer are `.npy`.
    """

    model: str
    kind: str
    request: bytes
    answers: Array
    npy: bool


class Alone:
    """The plain interpreter, for one request at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._interpreter: Any = self._new()

    def _new(self) -> Any:
        return Interpreter(model_content=self._model.content)

    def run(self, rows: Array) -> Array:
        """`[rows, *record]` to the same: as one invoke, or record by record where the model takes no batch."""
        if self._model.expected in ("merged", "batched"):
            return self._invoke(rows)
        if self._model.expected == "whole":
            return np.stack([self._invoke(row) for row in rows])
        found = []
        for row in rows:
            if self._model.expected == "stateful":
                # Without a sequence each record has a clean state, whatever batch it came in.
                self._interpreter = self._new()
            found.append(self._invoke(row[np.newaxis]))
        return np.concatenate(found)

    def _invoke(self, tensor: Array) -> Array:
        interpreter = self._interpreter
        (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(given["index"], tensor.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], tensor)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(found["index"]))


def rows_of(kind: str, count: int, shape: tuple[int, ...], draw: np.random.Generator) -> Array:
    """Records of one kind, which have nothing in common with those of another."""
    noise = draw.standard_normal((count, *shape)).astype(np.float32)
    if kind == "zeros":
        return np.zeros_like(noise)
    if kind == "huge":
        return noise * np.float32(1e30)
    if kind == "tiny":
        return noise * np.float32(1e-30)
    if kind == "nan":
        noise[:, ..., 0] = np.nan
        return noise
    if kind == "repeated":
        return np.repeat(noise[:1], count, axis=0)
    if kind == "one-hot":
        flat = np.zeros((count, noise[0].size), np.float32)
        flat[np.arange(count), draw.integers(0, flat.shape[1], count)] = 1000.0
        return flat.reshape(noise.shape)
    return noise


def cases(seed: int = 4) -> list[Case]:
    """Of every model but that of the sequences: of each kind and size one in JSON and one in `.npy`."""
    draw = np.random.default_rng(seed)
    found = []
    for name, model in MODELS.items():
        if name == "sequences":
            continue
        alone = Alone(model)
        for kind in KINDS:
            for size in SIZES if model.batches else (1,):
                rows = rows_of(kind, size, model.shape, draw)
                answers = alone.run(rows)
                found += [_in_json(name, kind, rows, answers, model), _in_npy(name, kind, rows, answers, model)]
    return found


def _in_json(name: str, kind: str, rows: Array, answers: Array, model: Model) -> Case:
    given: dict[str, Any] = {"instances": rows.tolist()} if model.batches else {"instance": rows[0].tolist()}
    # The one number that JSON has no word for.
    body = orjson.dumps(given).replace(b"null", b"NaN")
    return Case(name, kind, post(f"/predict/{name}", body), answers if model.batches else answers[0], False)


def _in_npy(name: str, kind: str, rows: Array, answers: Array, model: Model) -> Case:
    body = io.BytesIO()
    np.save(body, rows if model.batches else rows[0])
    request = post(f"/predict/{name}", body.getvalue(), NPY)
    return Case(name, kind, request, answers if model.batches else answers[0], True)


def difference(found: Array, wanted: Array) -> float:
    """The largest, of the scale of the answer itself; infinite where one is no number and the other is, or has another
    shape."""
    if found.shape != wanted.shape:
        return float("inf")
    if np.array_equal(found, wanted, equal_nan=True):
        return 0.0
    finite = np.isfinite(wanted)
    if not np.array_equal(np.isfinite(found), finite) or not np.array_equal(found[~finite], wanted[~finite], True):
        return float("inf")
    scale = float(np.abs(wanted[finite].astype(np.float64)).max(initial=0.0))
    return float(np.abs(found[finite].astype(np.float64) - wanted[finite]).max(initial=0.0)) / (scale or 1.0)


@dataclass
class Mixed:
    """Draws a case for each request, or the next step of a sequence, and compares."""

    cases: Sequence[Case]
    seed: int = 9
    exact: int = 0
    largest: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    _given: dict[int, Case] = field(default_factory=dict)
    _sequences: dict[int, Iterator[Case]] = field(default_factory=dict)
    _draw: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # What is under way stays where it is.
        return {**self.__dict__, "_sequences": {}, "_given": {}, "_draw": None}

    def request(self, connection: int) -> bytes:
        if self._draw is None:
            self._draw = np.random.default_rng(self.seed)
        case = self._next(connection)
        self._given[connection] = case
        self.counts[case.model] = self.counts.get(case.model, 0) + 1
        return case.request

    def _next(self, connection: int) -> Case:
        # A sequence goes on to its end between the connection's other requests.
        if self._draw.random() < 1 / len(MODELS):
            running = self._sequences.get(connection)
            case = next(running, None) if running is not None else None
            if case is None:
                name = f"{connection}-{self.counts.get('sequences', 0)}"
                running = self._sequences[connection] = iter(sequence(name, self._draw))
                case = next(running)
            return case
        return self.cases[int(self._draw.integers(len(self.cases)))]

    def fault(self, connection: int, good: bool, body: bytes) -> str:
        case = self._given[connection]
        what = f"{case.model}, {case.kind}, {case.answers.shape}"
        if not good:
            return f"{what}: refused: {body[:200].decode(errors='replace')}"
        if case.npy:
            found, wanted = np.load(io.BytesIO(body)), case.answers
        else:
            (values,) = orjson.loads(body).values()
            # `/predict` writes null for what is no finite number.
            found = np.array(values, np.float64).astype(np.float32)
            wanted = np.where(np.isfinite(case.answers), case.answers, np.float32(np.nan))
        off = difference(found, wanted)
        self.exact += off == 0.0
        self.largest = max(self.largest, off)
        return "" if off <= TOLERANCE else f"{what}: {off:.2g} of its scale from the answer to it alone"


def sequence(name: str, draw: np.random.Generator) -> Iterator[Case]:
    """The requests of one, of a record or of several in their order, and the sums that they must be answered."""
    total = np.zeros(4, np.float32)
    for step in range(STEPS):
        rows = rows_of(KINDS[int(draw.integers(4))], 1 + step % 3, (4,), draw)
        sums = []
        for row in rows:
            total = total + row
            sums.append(total)
        headers = {"Litepool_Sequence_Id": name}
        headers |= {"Litepool_Sequence_Start": "true"} if step == 0 else {}
        headers |= {"Litepool_Sequence_End": "true"} if step == STEPS - 1 else {}
        body = orjson.dumps({"instances": rows.tolist()})
        yield Case("sequences", f"step {step}", post("/predict/sequences", body, **headers), np.stack(sums), False)


@dataclass(frozen=True)
class Mixing:
    """Figures, and the faults.

    Args:
        by_model: how many requests each model had.
        exact: how many answers were the same bit for bit.
        largest: the largest difference of any, of its answer's own scale.
    """

    answered: int
    by_model: dict[str, int]
    classes: dict[str, str]
    exact: int
    largest: float
    seconds: float
    faults: list[str]


def mix(folder: Path, requests: int, patience: float, look: Callable[[Litepool], None] = lambda _: None) -> Mixing:
    """Serve a model of each class with two workers, and mix so many requests to them.

    Args:
        folder: an empty one.
        patience: seconds that all of it may take.
    """
    models = folder / "models"
    models.mkdir()
    for name, model in MODELS.items():
        (models / name).mkdir()
        (models / name / "model.tflite").write_bytes(model.content)
        if model.expected == "merged":
            # Whatever the measured profile says of its use: here they shall share.
            (models / name / "model.toml").write_text("lane.merge_rows = 64\n")
    settings: dict[str, str | Path] = {"cache_dir": folder / "cache", "log_level": "warning"}
    faults = []
    with Litepool(models, "--workers", "2", settings=settings) as litepool:
        litepool.wait_ready()
        with litepool.client() as client:
            classes = {name: _class_of(client.get(f"/models/{name}/versions/1").json()) for name in MODELS}
        for name, (found, reason) in classes.items():
            if found != MODELS[name].expected or MODELS[name].reason not in reason:
                faults.append(f"{name} is taken for {found}, because {reason}")
        look(litepool)
        start = monotonic()
        with Clients(litepool.url, Mixed(cases()), CONNECTIONS, requests) as clients:
            clients.wait_end(patience)
        seconds = monotonic() - start
    seen = clients.seen
    return Mixing(
        seen.answered,
        seen.judge.counts,
        {name: found for name, (found, _) in classes.items()},
        seen.judge.exact,
        seen.judge.largest,
        seconds,
        faults + seen.faults,
    )


def _class_of(shown: dict[str, Any]) -> tuple[str, str]:
    return shown["batching"]["class"], shown["batching"]["because"]
