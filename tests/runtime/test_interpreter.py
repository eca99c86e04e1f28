import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import ModelError
from app.runtime import interpreter as interpreter_module
from app.runtime.interpreter import Runner, one_line
from app.tensors import DTYPES, STRING, Batching
from tests import tflite

Open = Callable[[bytes], Runner]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def make(model: bytes) -> Runner:
        path = tmp_path / "model.tflite"
        path.write_bytes(model)
        return Runner(path)

    return make


def records(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_a_model_is_described_by_its_signature(opened: Open) -> None:
    signature = opened(tflite.affine(input_name="pixels", output_name="scores")).signature()

    assert signature.name == "serving_default"
    assert [(spec.name, spec.dtype.name, spec.shape) for spec in signature.inputs] == [("pixels", "float32", (-1, 4))]
    assert [(spec.name, spec.dtype.name, spec.shape) for spec in signature.outputs] == [("scores", "float32", (-1, 4))]


def test_names_come_from_the_signature_and_not_from_the_tensors(opened: Open) -> None:
    runner = opened(tflite.two_in_two_out())
    signature = runner.signature()
    left, right = records(2, 3) * 10, records(2, 3)

    outputs = runner.invoke([left, right])

    assert [spec.name for spec in signature.inputs] == ["left", "right"]
    assert [spec.name for spec in signature.outputs] == ["difference", "total"]
    assert outputs[0].tolist() == (left - right).tolist()
    assert outputs[1].tolist() == (left + right).sum(axis=1, keepdims=True).tolist()


def test_without_a_signature_the_tensors_own_names_are_taken(opened: Open) -> None:
    runner = opened(tflite.affine(signature=None))

    assert [spec.name for spec in runner.signature().inputs] == ["x"]
    assert [spec.name for spec in runner.signature().outputs] == ["y"]
    assert runner.invoke([records(1, 4)])[0].tolist() == [[1, 3, 5, 7]]


def test_another_name_of_the_only_signature_is_kept(opened: Open) -> None:
    assert opened(tflite.affine(signature="classify")).signature().name == "classify"


def test_a_signature_of_another_subgraph_than_the_first_is_run_there(opened: Open) -> None:
    runner = opened(tflite.signature_elsewhere())

    assert runner.subgraph == 1
    assert [spec.name for spec in runner.signature().inputs] == ["other_x"]
    assert runner.invoke([records(1, 4)])[0].tolist() == [[0, 2, 4, 6]]


@pytest.mark.parametrize(
    ("model", "shape", "batching"),
    [
        (tflite.affine(), (-1, 4), Batching.FREE),
        (tflite.scalar_records(), (-1,), Batching.FREE),
        (tflite.free_inner(), (-1, -1, 3), Batching.FREE),
        (tflite.fixed_one(), (1, 4), Batching.ONE),
        (tflite.whole(), (3, 2), Batching.NONE),
        (tflite.affine(shape=()), (), Batching.NONE),
    ],
)
def test_free_dimensions_are_those_of_the_signature(
    opened: Open, model: bytes, shape: tuple[int, ...], batching: Batching
) -> None:
    signature = opened(model).signature()

    assert signature.inputs[0].shape == shape
    assert signature.batching is batching


@pytest.mark.parametrize("dtype", sorted(dtype.name for dtype in DTYPES - {STRING, np.dtype("complex128")}))
def test_every_dtype_goes_in_and_comes_out_as_it_is(opened: Open, dtype: str) -> None:
    runner = opened(tflite.identity(dtype))
    given = np.array([[0, 1, 1, 0], [1, 0, 0, 1]], dtype)

    (output,) = runner.invoke([given])

    assert runner.signature().inputs[0].dtype == np.dtype(dtype)
    assert output.dtype == np.dtype(dtype)
    assert output.tolist() == given.tolist()


@pytest.mark.parametrize(
    ("dtype", "why"),
    [
        ("resource", "holds a handle"),
        ("variant", "holds a handle"),
        # NumPy knows the dtype once something in the process has made it known, such as TensorFlow in another test.
        ("bfloat16", "(is of a kind that LiteRT has no|holds bfloat16 values, and those served are)"),
    ],
)
def test_a_dtype_that_no_codec_carries_is_refused(opened: Open, dtype: str, why: str) -> None:
    runner = opened(tflite.identity(dtype))

    with pytest.raises(ModelError, match=f"tensor 'x' {why}"):
        runner.signature()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("string", [[b"", b"two words", "\u00e9".encode(), b"\xff\x00\xfe"], [b"a" * 5000, b"\x00", b"b", b"\n"]]),
        ("complex64", [[1 + 2j, -1j, 0, complex("nan")], [1e30j, 2, complex(-np.inf, 3), -0.5]]),
    ],
)
def test_strings_and_complex_numbers_go_in_and_come_out_as_they_are(opened: Open, dtype: str, value: object) -> None:
    runner = opened(tflite.identity(dtype))
    given = np.array(value, STRING if dtype == "string" else dtype)
    (spec,) = runner.signature().inputs

    (first,) = runner.invoke([given])
    (alone,) = runner.invoke([given[1:]])
    (again,) = runner.invoke([given])

    assert spec.dtype == given.dtype
    assert first.dtype == given.dtype
    for output, wanted in ((first, given), (alone, given[1:]), (again, given)):
        if dtype == "string":
            assert output.tolist() == wanted.tolist()
        else:
            np.testing.assert_array_equal(output, wanted)


# Several signatures


@pytest.mark.parametrize("first", ["serving_default", "add"])
def test_every_signature_of_an_interpreter_answers_by_itself_in_any_order_and_size(opened: Open, first: str) -> None:
    runner = opened(tflite.two_signatures())
    affine, add = runner.of("serving_default"), runner.of("add")
    sizes = [1, 3, 1, 2] if first == "add" else [2, 1, 5]

    assert runner.names == ["serving_default", "add"]
    assert [spec.name for spec in add.signature().inputs] == ["left", "right"]
    for rows in sizes:
        given = np.full((rows, 2), rows, np.float32)
        for name in (first, "serving_default", "add"):
            if name == "add":
                assert add.invoke([given, 10 * given])[0].tolist() == [[11 * rows] * 2] * rows
            else:
                assert affine.invoke([records(rows, 4)])[0].tolist() == (2 * records(rows, 4) + 1).tolist()


def test_the_default_signature_comes_first_wherever_it_lies_in_the_file(opened: Open) -> None:
    graph = tflite.Graph()
    parts = (graph, graph.subgraph())
    ends = []
    for part in parts:
        x, y = part.tensor("x", (-1, 4)), part.tensor("y", (-1, 4))
        part.operator("ADD", [x, x], [y])
        ends.append(({"x": x}, {"y": y}))

    runner = opened(graph.build_several({"apply": (0, *ends[0]), "serving_default": (1, *ends[1])}))

    assert runner.names == ["serving_default", "apply"]
    assert (runner.name, runner.subgraph) == ("serving_default", 1)


def test_two_signatures_of_one_subgraph_may_be_given_different_shapes_in_turn(opened: Open) -> None:
    runner = opened(tflite.two_names())
    other = runner.of("other")

    assert [spec.name for spec in (*other.signature().inputs, *other.signature().outputs)] == ["a", "b"]
    for rows in (2, 1, 1, 3):
        assert runner.invoke([records(rows, 4)])[0].tolist() == (2 * records(rows, 4) + 1).tolist()
        assert other.invoke([records(rows + 1, 4)])[0].tolist() == (2 * records(rows + 1, 4) + 1).tolist()
        assert runner.invoke([records(rows, 4)])[0].tolist() == (2 * records(rows, 4) + 1).tolist()


def test_a_signature_is_asked_for_twice_and_is_the_same(opened: Open) -> None:
    runner = opened(tflite.two_signatures())
    add = runner.of("add")

    assert runner.of("add") is add
    assert add.of("serving_default") is runner


def test_signatures_share_the_variables_and_none_is_lost_when_a_runner_is(opened: Open) -> None:
    runner = opened(tflite.account())
    ones = np.ones((1, 4), np.float32)

    for total in (1, 2, 3):
        assert runner.invoke([ones])[0].tolist() == [[total] * 4]
        assert runner.of("peek").invoke([10 * ones])[0].tolist() == [[total + 10] * 4]


# Outputs that misfit


def test_an_output_of_another_shape_than_is_declared_is_an_error_once_it_is_held_to_that(opened: Open) -> None:
    runner = opened(tflite.misfit())
    assert runner.invoke([records(3, 4)])[0].shape == (3, 1)

    runner.hold_to(runner.signature())

    with pytest.raises(ModelError, match=r"^output 'y': the model declares shape \[-1, 4\] and gave \[3, 1\]$"):
        runner.invoke([records(3, 4)])


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (tflite.affine(), (3, 4)),
        (tflite.free_inner(), (2, 5, 3)),
        (tflite.fixed_one(), (1, 4)),
        (tflite.whole(), (3, 2)),
        (tflite.scalar_records(), (3,)),
    ],
)
def test_outputs_as_declared_are_none(opened: Open, model: bytes, shape: tuple[int, ...]) -> None:
    runner = opened(model)
    runner.hold_to(runner.signature())

    assert runner.invoke([records(*shape)])[0].shape == shape


# Invokes


def test_the_batch_may_change_with_each_invoke(opened: Open) -> None:
    runner = opened(tflite.affine())

    for rows in (1, 3, 3, 1, 257, 2):
        (output,) = runner.invoke([records(rows, 4)])
        assert output.tolist() == (records(rows, 4) * 2 + 1).tolist()


def test_an_output_without_elements_is_an_empty_array(opened: Open) -> None:
    runner = opened(tflite.places_of_true())
    somewhere, nowhere = np.array([True, False, False, True]), np.zeros(4, bool)

    found = [runner.invoke([given])[0] for given in (nowhere, somewhere, nowhere)]

    assert [(places.shape, places.dtype.name) for places in found] == [
        ((0, 1), "int64"),
        ((2, 1), "int64"),
        ((0, 1), "int64"),
    ]
    assert found[1].tolist() == [[0], [3]]


def test_outputs_are_copies_that_the_next_invoke_leaves_alone(opened: Open) -> None:
    runner = opened(tflite.affine())
    (first,) = runner.invoke([records(1, 4)])

    runner.invoke([records(1, 4) + 100])

    assert first.tolist() == [[1, 3, 5, 7]]


def test_an_array_at_an_odd_address_is_read_by_its_values(opened: Open) -> None:
    crooked = np.frombuffer(b"\0" + records(1, 4).tobytes(), np.float32, offset=1).reshape(1, 4)
    assert not crooked.flags.aligned

    assert opened(tflite.affine()).invoke([crooked])[0].tolist() == [[1, 3, 5, 7]]


# Views of requests: arrays that cannot be written, and lie anywhere


def seen_in_a_request(array: np.ndarray[Any, Any], offset: int = 1) -> np.ndarray[Any, Any]:
    view = np.frombuffer(b"\0" * offset + array.tobytes(), array.dtype, offset=offset).reshape(array.shape)
    assert not view.flags.writeable
    return view


@pytest.mark.parametrize("dtype", sorted(dtype.name for dtype in DTYPES - {STRING, np.dtype("complex128")}))
def test_a_large_view_of_a_request_is_read_by_its_values_whatever_the_batch_before(opened: Open, dtype: str) -> None:
    runner = opened(tflite.identity(dtype))
    for rows in (20_000, 30_000, 1, 20_000):
        given = (np.arange(4 * rows).reshape(rows, 4) % (2 if dtype == "bool" else 120)).astype(dtype)

        (output,) = runner.invoke([seen_in_a_request(given)])

        assert output.dtype == given.dtype
        assert np.array_equal(output, given)


def test_large_views_go_to_the_input_that_they_are_for(opened: Open) -> None:
    left, right = records(10_000, 3), records(10_000, 3) * 2

    difference, total = opened(tflite.two_in_two_out()).invoke([seen_in_a_request(left), seen_in_a_request(right)])

    assert np.array_equal(difference, left - right)
    assert np.array_equal(total, (left + right).sum(axis=1, keepdims=True))


def test_a_large_view_goes_to_the_subgraph_of_the_signature(opened: Open) -> None:
    given = records(10_000, 4)

    assert np.array_equal(opened(tflite.signature_elsewhere()).invoke([seen_in_a_request(given)])[0], given * 2)


def test_of_a_large_view_nothing_is_copied_but_into_the_interpreter(opened: Open) -> None:
    graph = tflite.Graph()
    x, sums = graph.tensor("x", (-1, 1000)), graph.tensor("sums", (-1, 1))
    graph.operator("SUM", [x, graph.constant([1], "int32")], [sums], keepDims=True)
    runner = opened(graph.build({"x": x}, {"sums": sums}))
    view = seen_in_a_request(np.ones((500, 1000), np.float32))
    runner.invoke([view])
    tracemalloc.start()
    try:
        (output,) = runner.invoke([view])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert output.tolist() == [[1000]] * 500
    assert peak < view.nbytes / 10


def test_strings_in_an_array_that_cannot_be_written_go_in_as_they_are(opened: Open) -> None:
    given = np.array([[b"a", b"bc", b"", b"d"]] * 1000, STRING)
    given.flags.writeable = False

    (output,) = opened(tflite.identity("string")).invoke([given])

    assert output.tolist() == given.tolist()


def test_an_invoke_that_fails_says_why_in_one_line(opened: Open) -> None:
    with pytest.raises(ModelError, match=r"^the interpreter failed: gather index out of bounds.*$"):
        opened(tflite.never_runs()).invoke([records(1, 4)])


def test_an_invoke_after_one_that_failed_is_right_again(opened: Open) -> None:
    runner = opened(tflite.lookup((10.0, 20.0, 30.0)))
    good, bad = np.array([[1], [2]], np.int32), np.array([[1], [7]], np.int32)

    for _ in range(2):
        assert runner.invoke([good])[0].tolist() == [[20], [30]]
        with pytest.raises(ModelError, match="the interpreter failed"):
            runner.invoke([bad])
    assert runner.invoke([good])[0].tolist() == [[20], [30]]


def test_shapes_that_the_model_cannot_be_given_are_refused_and_harm_nothing(opened: Open) -> None:
    runner = opened(tflite.picky_inner(16))

    for _ in range(2):
        with pytest.raises(ModelError, match="the interpreter failed"):
            runner.invoke([records(1, 5)])
        for _ in range(2):
            assert runner.invoke([records(2, 16)])[0].tolist() == [[120], [376]]


# One input and one output have a road of their own; everything else takes the other.


def picked(inputs: int, outputs: int) -> bytes:
    """`picked = table[indexes]`, float32 [-1, 3]: an invoke fails where one of `indexes`, int32 [-1], is out of range.

    The table is TABLE, or, where there are two inputs, the second, [-1, 3]. A second output is `turned = -picked`.
    """
    graph = tflite.Graph()
    indexes = graph.tensor("indexes", (-1,), "int32")
    table = graph.tensor("table", (-1, 3)) if inputs == 2 else graph.constant(TABLE)
    found = graph.tensor("picked", (-1, 3))
    turned = graph.tensor("turned", (-1, 3))
    graph.operator("GATHER", [table, indexes], [found])
    graph.operator("NEG", [found], [turned])
    return graph.build(
        dict([("indexes", indexes), ("table", table)][:inputs]), dict([("picked", found), ("turned", turned)][:outputs])
    )


TABLE = np.array([[0, 1, 2], [10, 11, 12]], np.float32)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 2), (2, 1), (2, 2)])
class TestHoweverManyInputsAndOutputsThereAre:
    def test_shapes_may_change_with_each_invoke(self, opened: Open, inputs: int, outputs: int) -> None:
        runner = opened(picked(inputs, outputs))

        for indexes in ([0], [1, 0, 1], [0, 0, 1], [1], [1, 0] * 50, [1]):
            found = runner.invoke([np.array(indexes, np.int32), TABLE][:inputs])
            assert [output.tolist() for output in found] == [TABLE[indexes].tolist(), (-TABLE[indexes]).tolist()][
                :outputs
            ]

    def test_an_invoke_after_those_that_failed_is_right_whatever_its_shape(
        self, opened: Open, inputs: int, outputs: int
    ) -> None:
        runner = opened(picked(inputs, outputs))

        for good in ([0], [1, 0], [1, 1, 0], [0]):
            for bad in ([7], [0, 7], [7]):
                with pytest.raises(ModelError, match=r"^the interpreter failed: gather index out of bounds"):
                    runner.invoke([np.array(bad, np.int32), TABLE][:inputs])
            for _ in range(2):
                found = runner.invoke([np.array(good, np.int32), TABLE][:inputs])
                assert [output.tolist() for output in found] == [TABLE[good].tolist(), (-TABLE[good]).tolist()][
                    :outputs
                ]

    def test_outputs_are_copies(self, opened: Open, inputs: int, outputs: int) -> None:
        runner = opened(picked(inputs, outputs))
        first = runner.invoke([np.array([0, 1], np.int32), TABLE][:inputs])

        runner.invoke([np.array([1, 1], np.int32), TABLE * 0][:inputs])

        assert [output.tolist() for output in first] == [TABLE.tolist(), (-TABLE).tolist()][:outputs]

    def test_an_array_of_any_layout_is_read_by_its_values(self, opened: Open, inputs: int, outputs: int) -> None:
        runner = opened(picked(inputs, outputs))
        every_other = np.array([0, 9, 1, 9], np.int32)[::2]
        crooked = np.frombuffer(b"\0" + TABLE.T.tobytes(), np.float32, offset=1).reshape(3, 2).T
        assert not every_other.flags.contiguous
        assert not crooked.flags.c_contiguous

        found = runner.invoke([every_other, crooked][:inputs])

        assert found[0].tolist() == TABLE.tolist()


def test_each_input_may_change_its_shape_alone(opened: Open) -> None:
    runner = opened(picked(2, 1))
    larger = np.concatenate([TABLE, TABLE + 100])

    for table, indexes in ((TABLE, [0, 1]), (larger, [0, 1]), (larger, [3]), (TABLE, [1])):
        (found,) = runner.invoke([np.array(indexes, np.int32), table])
        assert found.tolist() == table[indexes].tolist()
    with pytest.raises(ModelError):
        runner.invoke([np.array([3], np.int32), TABLE])


def test_shapes_that_several_inputs_cannot_have_together_are_refused_and_harm_nothing(opened: Open) -> None:
    runner = opened(tflite.two_in_two_out())
    left, right = records(2, 3) * 10, records(2, 3)

    for _ in range(2):
        with pytest.raises(ModelError, match="the interpreter failed"):
            runner.invoke([left, records(3, 3)])
        for _ in range(2):
            assert runner.invoke([left, right])[0].tolist() == (left - right).tolist()


@pytest.mark.parametrize(("model", "given"), [(tflite.affine(), 0), (tflite.affine(), 2), (tflite.two_in_two_out(), 1)])
def test_another_number_of_arrays_than_there_are_inputs_is_an_error_and_harms_nothing(
    opened: Open, model: bytes, given: int
) -> None:
    runner = opened(model)
    inputs = [records(1, size) for spec in runner.signature().inputs for size in spec.shape[1:]]
    before = [output.tolist() for output in runner.invoke(inputs)]

    with pytest.raises(ModelError, match="the interpreter failed"):
        runner.invoke([inputs[0]] * given)

    assert [output.tolist() for output in runner.invoke(inputs)] == before


@pytest.mark.parametrize("threads", [1, 4])
def test_litert_gets_the_threads_that_are_asked_for_and_answers_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    given: list[object] = []
    original: Any = getattr(interpreter_module, "Interpreter")  # noqa: B009  It is there, and not for others.

    def counted(**options: Any) -> Any:
        given.append(options["num_threads"])
        return original(**options)

    monkeypatch.setattr(interpreter_module, "Interpreter", counted)
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite.affine())

    for model in (path, tflite.affine()):
        assert Runner(model, threads).invoke([records(1, 4)])[0].tolist() == [[1, 3, 5, 7]]
    assert given == [threads, threads]


@pytest.mark.parametrize(
    "content",
    [b"", b"x", tflite.truncated(tflite.affine()), b"\0" * 1000, b"PK\x03\x04" + b"\0" * 100, b"\0\0\0\x08TFL3"],
)
def test_a_file_that_is_no_model_is_refused(opened: Open, content: bytes) -> None:
    with pytest.raises(ModelError, match="LiteRT does not load it: "):
        opened(content)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="LiteRT does not load it: "):
        Runner(tmp_path / "nothing.tflite")


def test_variables_in_the_graph_make_a_model_stateful(opened: Open) -> None:
    assert opened(tflite.running_sum()).stateful()
    assert not opened(tflite.affine()).stateful()


def test_a_stateful_model_remembers_within_one_interpreter_and_a_new_one_starts_afresh(opened: Open) -> None:
    ones = np.ones((1, 4), np.float32)
    runner = opened(tflite.running_sum())

    assert [runner.invoke([ones])[0].tolist() for _ in range(2)] == [[[1] * 4], [[2] * 4]]
    assert opened(tflite.running_sum()).invoke([ones])[0].tolist() == [[1] * 4]


def test_an_error_is_told_in_one_line_of_bounded_length() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("word " * 1000))) == 300
