import numpy as np
import pytest

from app.errors import InvalidArgument, ModelError
from app.tensors import (
    DTYPES,
    Batching,
    OutputCheck,
    Scaling,
    Shape,
    TensorSpec,
    batching_of,
    check,
    dtype_name,
    fits,
    make_signature,
    scaling_of,
    show_shape,
)
from tests.signatures import one_in, spec


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([(-1, 4)], [(-1, 2)], Batching.FREE),
        ([(-1, 4), (-1,)], [(-1, 2)], Batching.FREE),
        ([(1, 4)], [(1, 2)], Batching.ONE),
        ([(1, 4)], [(-1, 2)], Batching.NONE),
        ([(-1, 4)], [(1,)], Batching.NONE),
        ([(-1, 4), (3,)], [(-1, 2)], Batching.NONE),
        ([(4,)], [(4,)], Batching.NONE),
        ([()], [()], Batching.NONE),
        ([(-1, 4)], [()], Batching.NONE),
    ],
)
def test_how_a_model_holds_records_follows_from_every_leading_dimension(
    inputs: list[Shape], outputs: list[Shape], expected: Batching
) -> None:
    given = tuple(spec("x", shape=shape) for shape in inputs)
    wanted = tuple(spec("y", shape=shape) for shape in outputs)

    assert batching_of(given, wanted) is expected
    assert make_signature("s", given, wanted).batching is expected


@pytest.mark.parametrize(
    ("shape", "record", "tensor"),
    [((-1, 4), (4,), (-1, 4)), ((1, 4), (4,), (-1, 4)), ((3, 2), (3, 2), (3, 2)), ((-1,), (), (-1,)), ((), (), ())],
)
def test_callers_see_a_free_batch_dimension_unless_there_is_none(shape: Shape, record: Shape, tensor: Shape) -> None:
    signature = one_in(shape=shape)

    assert signature.record_shape(signature.inputs[0]) == record
    assert signature.tensor_shape(signature.inputs[0]) == tensor


@pytest.mark.parametrize("dtype", sorted(map(dtype_name, DTYPES)))
def test_every_dtype_with_a_form_on_the_wire_is_taken(dtype: str) -> None:
    assert dtype_name(one_in(dtype).inputs[0].dtype) == dtype


def test_strings_are_called_so_and_not_objects() -> None:
    assert [dtype_name(np.dtype(dtype)) for dtype in (object, "float32", "complex64", "bool")] == [
        *("string", "float32", "complex64", "bool")
    ]


@pytest.mark.parametrize("dtype", ["S", "U3", "datetime64[s]", "V4"])
def test_a_dtype_without_a_form_on_the_wire_is_refused_with_the_tensor_s_name(dtype: str) -> None:
    bad = TensorSpec("picture", np.dtype(dtype), (-1,))

    with pytest.raises(ModelError, match=r"tensor 'picture' holds .* values, and those served are bool, complex128, "):
        make_signature("s", (spec("x"),), (bad,))
    with pytest.raises(ModelError, match="tensor 'picture' holds"):
        make_signature("s", (bad,), (spec("y"),))


def test_a_model_without_inputs_or_outputs_is_refused_with_both_counts() -> None:
    with pytest.raises(ModelError, match=r"signature 's' has 0 inputs and 1 outputs"):
        make_signature("s", (), (spec("y"),))
    with pytest.raises(ModelError, match=r"signature 's' has 1 inputs and 0 outputs"):
        make_signature("s", (spec("x"),), ())


@pytest.mark.parametrize(("shape", "shown"), [((0,), "[0]"), ((-1, 0, 3), "[-1, 0, 3]"), ((-2, 4), "[-2, 4]")])
def test_an_input_that_nothing_fits_is_refused_with_its_shape(shape: Shape, shown: str) -> None:
    with pytest.raises(ModelError) as refusal:
        make_signature("s", (spec("x", shape=shape),), (spec("y"),))

    assert refusal.value.message == f"input 'x' has the shape {shown}, which no data has"


def test_an_output_may_be_declared_empty() -> None:
    assert make_signature("s", (spec("x"),), (spec("y", shape=(0,)),)).outputs[0].shape == (0,)


def test_more_dimensions_than_an_array_may_have_are_refused() -> None:
    assert one_in(shape=(-1,) * 31)
    with pytest.raises(ModelError, match="tensor 'y' has 32 dimensions: expected fewer than 32"):
        make_signature("s", (spec("x"),), (spec("y", shape=(1,) * 32),))


# Quantized tensors


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "expected"),
    [
        ("int8", 0.5, -128, Scaling(0.5, -128)),
        ("uint8", 1 / 255, 0, Scaling(1 / 255, 0)),
        ("int16", 2.0**-15, 0, Scaling(2.0**-15, 0)),
        ("int32", 0.25, 2**31 - 1, Scaling(0.25, 2**31 - 1)),
        ("int8", 0.0, 0, None),
        ("int8", -0.5, 0, None),
        ("int8", 1e-40, 0, None),
        ("int8", 1e39, 0, None),
        ("int8", float("nan"), 0, None),
        ("int8", float("inf"), 0, None),
        ("int8", 0.5, 128, None),
        ("uint8", 0.5, -1, None),
        ("float32", 0.5, 0, None),
        ("int64", 0.5, 0, None),
        ("bool", 0.5, 0, None),
        ("string", 0.5, 0, None),
    ],
)
def test_a_scaling_is_taken_from_a_model_where_it_makes_sense(
    dtype: str, scale: float, zero_point: int, expected: Scaling | None
) -> None:
    assert scaling_of(spec("x", dtype).dtype, scale, zero_point) == expected


def test_in_real_numbers_quantized_tensors_are_float32_and_the_others_stay() -> None:
    scaling = Scaling(0.5, 3)
    signature = make_signature("s", (spec("x", "int8", scaling=scaling), spec("n", "int64")), (spec("y", "uint8"),))

    real = signature.real()

    assert real.inputs == (spec("x", "float32", scaling=scaling), spec("n", "int64"))
    assert real.outputs == signature.outputs
    assert (real.name, real.batching) == (signature.name, signature.batching)


def test_a_signature_is_scaled_when_any_of_its_tensors_is() -> None:
    plain, scaled = spec("x", "int8"), spec("x", "int8", scaling=Scaling(0.5, 3))

    assert not make_signature("s", (plain,), (plain,)).scaled
    assert make_signature("s", (plain,), (scaled,)).scaled
    assert make_signature("s", (scaled,), (plain,)).scaled
    assert one_in("int8", scaling=Scaling(0.5, 3)).real().scaled


def test_a_scaling_is_shown_as_the_arithmetic_that_it_is() -> None:
    scales = [Scaling(0.1, -128), Scaling(float(np.float32(0.1)), 0), Scaling(1e-9, 3)]

    assert [str(scaling) for scaling in scales] == ["0.1 * (raw + 128)", "0.1 * (raw - 0)", "1e-09 * (raw - 3)"]


# Shapes


@pytest.mark.parametrize(
    ("shape", "wanted", "expected"),
    [
        ((2, 4), (-1, 4), True),
        ((2, 4), (2, 4), True),
        ((), (), True),
        ((2, 5), (-1, 4), False),
        ((2,), (-1, 4), False),
        ((2, 4, 1), (-1, 4), False),
        ((0, 4), (-1, 4), False),
        ((4,), (), False),
    ],
)
def test_a_shape_fits_when_every_fixed_size_is_equal_and_no_free_one_is_empty(
    shape: Shape, wanted: Shape, expected: bool
) -> None:
    assert fits(shape, wanted) is expected


def test_a_shape_that_does_not_fit_is_refused_with_place_expected_and_found() -> None:
    with pytest.raises(InvalidArgument) as refusal:
        check(np.zeros((2, 5)), spec("x"), (-1, 4), "inputs.x")

    assert refusal.value.message == "inputs.x: expected shape [-1, 4] for input 'x', found [2, 5]"


def test_a_shape_that_fits_passes() -> None:
    check(np.zeros((2, 4)), spec("x"), (-1, 4), "inputs.x")


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((2, 4), (-1, 4)),
        ((0, 4), (-1, 4)),
        ((2, 0), (2, -1)),
        ((), ()),
        ((0, 0), (-1, -1)),
        ((2, 3, 4), (2, 3, 4)),
        ((0,), (0,)),
        ((9, 3, 8, 4), (-1, 3, -1, 4)),
    ],
)
def test_an_output_may_have_any_size_where_its_declared_shape_is_free(shape: Shape, wanted: Shape) -> None:
    OutputCheck(spec("y"), wanted)(np.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((2, 5), (-1, 4)),
        ((2, 0), (-1, 4)),
        ((4,), (-1, 4)),
        ((1, 2, 4), (-1, 4)),
        ((1,), ()),
        ((), (1,)),
        ((2,), (-1, -1)),
        ((2, 3, 4), (-1, -1)),
        ((4, 2), (2, 4)),
        ((3, 3), (2, 3)),
        ((9, 3, 8, 5), (-1, 3, -1, 4)),
        ((9, 4, 8, 4), (-1, 3, -1, 4)),
    ],
)
def test_an_output_of_another_shape_than_the_model_declares_is_the_model_s_fault(shape: Shape, wanted: Shape) -> None:
    with pytest.raises(ModelError) as refusal:
        OutputCheck(spec("y"), wanted)(np.zeros(shape))

    assert refusal.value.message == (
        f"output 'y': the model declares shape {show_shape(wanted)} and gave {show_shape(shape)}"
    )


def test_shapes_are_shown_as_the_wire_protocols_write_them() -> None:
    assert [show_shape(shape) for shape in ((), (3,), (-1, 256))] == ["[]", "[3]", "[-1, 256]"]
