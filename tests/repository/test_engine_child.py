"""What TensorFlow's process makes of real SavedModels. How it is started and ended is in test_engine.py."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from app.errors import ModelError
from app.runtime import batching
from app.runtime.engine import Engine, EngineRunner
from app.tensors import FREE, Array, Batching, TensorSpec
from child_function import brief, choose
from child_reasons import Refused
from tests.repository.test_conversion_child import landlock
from tests.runtime import engine_stand_in as stand_in

PROGRAM = Path(__file__).with_name("engine_models.py")
ZEROS = np.zeros(2, np.float32)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that engine_models.py fills."""
    folder = tmp_path_factory.mktemp("engine")
    made = subprocess.run(
        [sys.executable, str(PROGRAM), folder], capture_output=True, text=True, timeout=600, check=False
    )
    assert made.returncode == 0, made.stderr
    return folder


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        run()
    assert "\n" not in caught.value.message
    return caught.value.message


def names(specs: tuple[TensorSpec, ...]) -> list[str]:
    return [spec.name for spec in specs]


def texts(*items: bytes) -> Array:
    return np.array(items, object)


# What a model answers


@pytest.mark.slow
def test_a_table_of_strings_is_looked_up(workshop: Path) -> None:
    with closing(Engine(workshop / "words")) as engine:
        ids, lengths, upper = engine.runner().invoke([texts(b"no", b"", b"yes", "größe".encode())])

        assert engine.signature.inputs == (TensorSpec("words", np.dtype(object), (FREE,)),)
        assert engine.signature.outputs == (
            TensorSpec("ids", np.dtype(np.int64), (FREE,)),
            # Of which the graph does not tell the rank.
            TensorSpec("lengths", np.dtype(np.int32), (FREE, FREE)),
            TensorSpec("upper", np.dtype(object), (FREE,)),
        )
        assert ids.tolist() == [2, -1, 1, -1]
        assert lengths.tolist() == [[2], [0], [3], [7]]
        assert upper.tolist()[:3] == [b"NO", b"", b"YES"]
        assert [len(output) for output in engine.runner().invoke([texts()])] == [0, 0, 0]
        assert not engine.stateful
    assert "tensorflow" not in sys.modules


@pytest.mark.slow
def test_an_ordinary_model_answers_as_numpy_does_for_any_batch(workshop: Path) -> None:
    weights = np.random.default_rng(7).standard_normal((3, 4)).astype(np.float32)
    with closing(Engine(workshop / "dense")) as engine:
        runner = engine.runner()

        # By name, since a SavedModel keeps no order.
        assert (names(engine.signature.inputs), names(engine.signature.outputs)) == (["a", "z"], ["b", "y"])
        assert engine.signature.batching is Batching.FREE
        for rows in (1, 5, 700, 2):
            a, z = np.full((rows, 1), 0.5, np.float32), np.random.default_rng(rows).random((rows, 3), np.float32)
            b, y = batching.run(runner, Batching.FREE, [a, z], rows)
            np.testing.assert_allclose(b, z.sum(1), rtol=1e-5)
            np.testing.assert_allclose(y, np.maximum(z @ weights, 0) + a, rtol=1e-5)


@pytest.mark.slow
def test_every_dtype_goes_through_as_it_is(workshop: Path) -> None:
    generator = np.random.default_rng(0)
    inputs: list[Array] = []
    with closing(Engine(workshop / "dtypes")) as engine:
        for spec in engine.signature.inputs:
            shape = tuple(3 if size == FREE else size for size in spec.shape)
            values = np.asarray(generator.integers(0, 100, shape))
            is_text = spec.dtype == np.dtype(object)
            inputs.append(values.astype("S4").astype(object) if is_text else values.astype(spec.dtype))

        outputs = engine.runner().invoke(inputs)

    assert len({spec.dtype for spec in engine.signature.outputs}) == 15
    for spec, sent, answer in zip(engine.signature.outputs, inputs, outputs, strict=True):
        assert (answer.dtype, answer.shape, answer.tolist()) == (spec.dtype, sent.shape, sent.tolist()), spec.name


@pytest.mark.slow
def test_a_signature_is_served_by_its_name(workshop: Path) -> None:
    with closing(Engine(workshop / "two", "other")) as engine:
        assert (engine.signature.name, names(engine.signature.outputs)) == ("other", ["negated"])
        assert engine.runner().invoke([ZEROS + 1])[0].tolist() == [-1, -1]


@pytest.mark.slow
def test_variables_are_each_runners_own_and_as_the_model_has_them_at_first(workshop: Path) -> None:
    def answer(runner: EngineRunner) -> tuple[float, float, float]:
        counted, doubled, noise = runner.invoke([ZEROS])
        return float(counted[0]), float(doubled[0]), float(noise[0])

    with closing(Engine(workshop / "counter")) as engine:
        one, other = engine.runner(), engine.runner()
        first = [answer(one) for _ in range(3)]

        assert engine.stateful
        assert [counts[:2] for counts in first] == [(11, 6), (12, 12), (13, 24)]
        assert len({noise for _, _, noise in first}) == 3
        assert answer(other) == first[0]
        assert answer(one)[:2] == (14, 48)
        assert [answer(other), answer(other)] == first[1:]
        assert answer(engine.runner()) == first[0]


@pytest.mark.slow
def test_a_failure_is_told_and_a_death_is_survived(workshop: Path) -> None:
    def look(runner: EngineRunner, index: int) -> list[float]:
        found: list[float] = runner.invoke([np.array([index], np.int32)])[0].tolist()
        return found

    with closing(Engine(workshop / "moody")) as engine:
        runner, other = engine.runner(), engine.runner()

        assert look(runner, 1) == [2.0]
        assert refusal(lambda: look(runner, 7)) == "TensorFlow failed: indices[0] = 7 is not in [0, 3)"
        assert "expected to be a int32 tensor" in refusal(lambda: runner.invoke([ZEROS]))
        assert look(runner, 2) == [3.0]
        assert refusal(lambda: look(runner, 1000)) == (
            "the TensorFlow process died of SIGABRT (its last words: Abort_op intentional failure; this is the end)"
        )
        assert look(other, 0) == [1.0]
        assert look(runner, 0) == [1.0]


# What is refused


TRIES_ALL = """
import child_function, json

Function = child_function.Function

class Tries(Model):
    def __init__(self, tf, source, signature, dtypes):
        def outcome(path):
            try:
                return Function(tf, path, None, dtypes).description
            except Exception as error:
                return child_server.why(error, 0)
        outcomes = {path.name: outcome(path) for path in source.iterdir()}
        self.description = {**Model.description, "signature": json.dumps(outcomes)}

child_function.Function = Tries
load = child_server.load
"""


@pytest.mark.slow
def test_why_a_model_is_not_run(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workshop / "empty").mkdir()
    (workshop / "damaged").mkdir()
    (workshop / "damaged" / "saved_model.pb").write_bytes(b"\xff" * 100)
    stand_in.install(monkeypatch, tmp_path, TRIES_ALL)
    with closing(Engine(workshop)) as engine:
        outcomes = json.loads(engine.signature.name)

    assert {name: reason for name, reason in outcomes.items() if isinstance(reason, str)} == {
        "reads": "the SavedModel is not loaded: its graph holds ReadFile, which reach beyond tensors",
        "hoards": "it keeps state by LookupTableInsertV2, which cannot be told apart for requests: "
        "keep it in variables",
        "rank": "its tensor 'x' may have any number of dimensions: export it with a fixed number",
        "bfloat": "its tensor 'y' holds bfloat16 values, which are not served",
        "two": "the SavedModel has the signatures one, other: export it with one that is named serving_default",
        "empty": "the SavedModel is in text form (saved_model.pbtxt): save it in binary form",
        "damaged": "saved_model.pb is damaged: it is no SavedModel protocol buffer",
    }
    assert {name for name, told in outcomes.items() if isinstance(told, dict)} == {
        *("words", "dense", "moody", "counter", "dtypes"),
    }


@pytest.mark.slow
def test_too_little_memory_for_tensorflow_is_told(workshop: Path) -> None:
    assert refusal(lambda: Engine(workshop / "words", memory=1 << 29)) == (
        "TensorFlow needs more than the 512 MiB that it may use"
    )


# What it may do


@pytest.mark.slow
def test_a_model_reads_its_own_folder_and_python_and_writes_and_reaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not landlock():
        pytest.skip("this kernel has no Landlock that knows of TCP")
    secret, own = tmp_path / "secret", tmp_path / "model"
    secret.write_text("secret")
    own.mkdir()
    (own / "asset").write_text("asset")
    body = """
import child_function, resource, socket
from pathlib import Path

class Probe(Model):
    def __init__(self, tf, source, signature, dtypes):
        self.source = source

    def run(self, x):
        def outcome(do):
            try:
                do()
            except OSError as error:
                return type(error).__name__
            return "done"
        tries = [
            lambda: (self.source / "asset").read_text(),
            lambda: Path(os.__file__).read_text(),
            lambda: (HERE_PATH / "secret").read_text(),
            lambda: Path("/etc/hostname").read_text(),
            lambda: Path("written").write_text("x"),
            lambda: (self.source / "written").write_text("x"),
            lambda: socket.create_connection(("127.0.0.1", PORT)),
            lambda: os.kill(os.getppid(), 0),
        ]
        limits = [resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_AS, resource.RLIMIT_CORE)]
        raise ValueError(f"{[outcome(do) for do in tries]} {limits} {os.nice(0)} {'tensorflow' in sys.modules}")

HERE_PATH = Path(HERE)
child_function.Function = Probe
load = child_server.load
"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stand_in.install(monkeypatch, tmp_path, f"PORT = {listening.getsockname()[1]}\n{body}")
        with closing(Engine(own, memory=12345 << 20)) as engine:
            told = refusal(lambda: engine.runner().invoke([np.zeros((1, 2), np.float32)]))

    tried = ["done"] * 2 + ["PermissionError"] * 6
    assert told == f"TensorFlow failed: {tried} {[12345 << 20, 0]} {os.nice(0)} True"


# Without TensorFlow


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "Graph execution error:\n\nDetected at node GatherV2 defined at (most recent call last):\n"
            "<stack traces unavailable>\nindices[0] = 5 is not in [0, 3)\n"
            "\t [[{{function_node __inference_f_34}}{{node GatherV2}}]] [Op:__inference_signature_wrapper_39]",
            "indices[0] = 5 is not in [0, 3)",
        ),
        (
            "Graph execution error:\n\nDetected at node zeros defined at (most recent call last):\n"
            '  File "model.py", line 3, in f\n\nOOM when allocating tensor\n\t [[{{node zeros}}]]\n'
            "Hint: If you want to see a list of allocated tensors\n [Op:__inference_39]",
            "OOM when allocating tensor",
        ),
        (
            "cannot compute f_288 as input #0 was expected to be a int32 tensor [Op:f_288]",
            "cannot compute f_288 as input #0 was expected to be a int32 tensor",
        ),
        (
            "2 root error(s) found.\n  (0) INVALID_ARGUMENT:  bad row\n\t [[{{node a}}]]\n  (1) INVALID_ARGUMENT: x",
            "bad row",
        ),
        ("{{node a}} bad node", "bad node"),
        ("", "SimpleError"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_what_tensorflow_raises_is_one_line(message: str, line: str) -> None:
    class SimpleError(Exception):
        pass

    error = SimpleError("at the graph's end")
    error.message = message  # type: ignore[attr-defined]

    assert brief(error) == line
    assert brief(SimpleError(message)) == line


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (["serving_default"], None, "serving_default"),
        (["a", "serving_default"], None, "serving_default"),
        (["a", "__saved_model_init_op"], None, "a"),
        (["a", "b"], "b", "b"),
    ],
)
def test_which_signature_is_served(names: list[str], wanted: str | None, chosen: str) -> None:
    assert choose(names, wanted) == chosen


@pytest.mark.parametrize(
    ("names", "wanted", "reason"),
    [
        ([], None, "no signature: export it with one that is named serving_default"),
        (["b", "a"], None, "the signatures a, b: export it with one that is named serving_default"),
        (["a"], "b", "the signatures a: export it with one that is named b"),
        (["__init"], "__init", "no signature: export it with one that is named __init"),
    ],
)
def test_a_signature_that_is_not_there_is_refused(names: list[str], wanted: str | None, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        choose(names, wanted)
    assert str(caught.value) == f"the SavedModel has {reason}"
