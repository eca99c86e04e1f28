import numpy as np
import pytest

from app.errors import InvalidArgument, ModelError
from app.tensors import (
    DTYPES,
    Batching,
    Shape,
    TensorSpec,
    batching_of,
    check,
    fits,
    make_signature,
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


@pytest.mark.parametrize("dtype", sorted(dtype.name for dtype in DTYPES))
def test_every_dtype_with_a_form_on_the_wire_is_taken(dtype: str) -> None:
    assert one_in(dtype).inputs[0].dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["complex64", "S", "U3", "datetime64[s]"])
def test_a_dtype_without_a_form_on_the_wire_is_refused_with_the_tensor_s_name(dtype: str) -> None:
    bad = TensorSpec("picture", np.dtype(dtype), (-1,))

    with pytest.raises(ModelError, match=r"tensor 'picture' holds .* values, and those served are bool, float16, "):
        make_signature("s", (spec("x"),), (bad,))
    with pytest.raises(ModelError, match="tensor 'picture' holds"):
        make_signature("s", (bad,), (spec("y"),))


def test_a_model_without_inputs_or_outputs_is_refused_with_both_counts() -> None:
    with pytest.raises(ModelError, match=r"signature 's' has 0 inputs and 1 outputs"):
        make_signature("s", (), (spec("y"),))
    with pytest.raises(ModelError, match=r"signature 's' has 1 inputs and 0 outputs"):
        make_signature("s", (spec("x"),), ())


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


def test_shapes_are_shown_as_the_wire_protocols_write_them() -> None:
    assert [show_shape(shape) for shape in ((), (3,), (-1, 256))] == ["[]", "[3]", "[-1, 256]"]
