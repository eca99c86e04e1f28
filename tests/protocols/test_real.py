"""Real numbers become the integers that LiteRT's own operators make of them, and the other way."""

import io
import json
import math
from typing import Any, cast

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidArgument
from app.protocols.call import Call, Form
from app.protocols.npy import Npy
from app.protocols.predict_json import PredictJson
from app.protocols.real import Real, dequantize, quantize
from app.tensors import Array, Scaling, Signature, TensorSpec, make_signature
from tests.signatures import one_in, spec
from tests.tflite import Graph

HALF = Scaling(0.5, 3)


def litert(operator: str, array: Array, quantized: TensorSpec) -> Array:
    """What LiteRT's QUANTIZE or DEQUANTIZE makes of a vector."""
    assert quantized.scaling is not None
    graph = Graph()
    names = ("float32", quantized.dtype.name)
    x, y = (
        graph.tensor(name, array.shape, dtype)
        for name, dtype in zip("xy", names if operator == "QUANTIZE" else names[::-1], strict=True)
    )
    graph.tensors[y if operator == "QUANTIZE" else x].quantization = schema.QuantizationParametersT(
        scale=[quantized.scaling.scale], zeroPoint=[quantized.scaling.zero_point]
    )
    graph.operator(operator, [x], [y])
    interpreter = Interpreter(model_content=graph.build({"x": x}, {"y": y}))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
    interpreter.invoke()
    found: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found


def codec(signature: Signature) -> Real:
    return Real(PredictJson(signature.real()), signature)


def decode(signature: Signature, text: str) -> Call:
    return codec(signature).decode(text.encode())


def answer(signature: Signature, *outputs: Any, form: Form = Form.INSTANCES) -> Any:
    arrays = [np.asarray(output, spec.dtype) for output, spec in zip(outputs, signature.outputs, strict=True)]
    return json.loads(cast("bytes", codec(signature).encode(Call((), len(arrays[0]), form), arrays)))


# The arithmetic


@pytest.mark.parametrize("scale", [0.5, 0.1, 1 / 255, 0.0235, 0.7903, 13.7])
@pytest.mark.parametrize(
    ("dtype", "zero_point"), [("int8", -128), ("int8", 7), ("uint8", 0), ("uint8", 128), ("int16", 0)]
)
def test_every_bit_is_that_of_litert_s_own_operators(dtype: str, zero_point: int, scale: float) -> None:
    quantized = spec("x", dtype, (-1,), Scaling(float(np.float32(scale)), zero_point))
    halves = ((np.arange(-300, 300) + 0.5) * np.float32(scale)).astype(np.float32)
    near = [np.nextafter(halves, np.float32(end)) for end in (-np.inf, np.inf)]
    noise = np.random.default_rng(1).normal(0, 150 * scale, 2000).astype(np.float32)
    edges = np.array([0.0, -0.0, 1e-40, 200 * scale, -200 * scale], np.float32)
    real = np.concatenate([halves, *near, noise, edges])
    every = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)

    np.testing.assert_array_equal(quantize(real, quantized), litert("QUANTIZE", real, quantized), strict=True)
    np.testing.assert_array_equal(dequantize(every, quantized), litert("DEQUANTIZE", every, quantized), strict=True)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize("scale", [1e-30, 0.5, 1e30])
def test_what_is_beyond_the_range_becomes_its_end(dtype: str, scale: float) -> None:
    limits = np.iinfo(dtype)
    far = np.array([np.inf, -np.inf, np.finfo(np.float32).max, np.finfo(np.float32).min], np.float32)
    ends = [limits.max, limits.min, limits.max, limits.min]

    for zero_point in (limits.min, 0, limits.max):
        found = quantize(far, spec("x", dtype, scaling=Scaling(scale, zero_point))).tolist()
        assert found[:2] == ends[:2]
        assert scale > 1 or found == ends


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_every_integer_that_float32_can_tell_comes_back_as_it_was(dtype: str) -> None:
    limits = np.iinfo(dtype)

    @given(st.integers(limits.min, limits.max), st.floats(1e-20, 1e20), st.integers(limits.min, limits.max))
    def check(raw: int, scale: float, zero_point: int) -> None:
        quantized = spec("x", dtype, scaling=Scaling(float(np.float32(scale)), zero_point))
        array = np.array([raw], dtype)

        again = quantize(dequantize(array, quantized), quantized)

        # Three roundings of float32, each of at most half a unit in its last place.
        assert abs(int(again[0]) - raw) <= abs(raw - zero_point) * 2.0**-22

    check()


def test_integers_of_four_bytes_are_dequantized_by_one_rounding() -> None:
    quantized = spec("x", "int32", scaling=Scaling(0.25, -(2**31)))

    assert dequantize(np.array([2**31 - 1, -(2**31)], np.int32), quantized).tolist() == [2.0**30, 0.0]


# Around a codec


@pytest.mark.parametrize(
    ("text", "form", "rows"),
    [
        ('{"instance": [1, -1.5, 0.2, 1e9]}', Form.INSTANCE, [[5, 0, 3, 127]]),
        ('{"instance": {"x": [1, -1.5, 0.2, -1e9]}}', Form.INSTANCE, [[5, 0, 3, -128]]),
        ('{"instances": [[1, 2, 3, 4], [0, 0, 0, Infinity]]}', Form.INSTANCES, [[5, 7, 9, 11], [3, 3, 3, 127]]),
        ('{"inputs": [[0.25, 0.75, -0.25, -0.75]]}', Form.INPUTS, [[3, 5, 3, 1]]),
    ],
)
def test_a_request_in_real_numbers_becomes_the_model_s_integers(text: str, form: Form, rows: list[list[int]]) -> None:
    call = decode(one_in("int8", scaling=HALF), text)

    assert (call.form, call.rows) == (form, len(rows))
    assert call.inputs[0].dtype == np.int8
    assert call.inputs[0].tolist() == rows


@pytest.mark.parametrize("form", Form)
def test_an_answer_is_in_real_numbers(form: Form) -> None:
    found = answer(one_in("int8", scaling=HALF), [[3, 4, -128, 127]], form=form)

    record = [0.0, 0.5, -65.5, 62.0]
    assert list(found.values()) == [record if form is Form.INSTANCE else [record]]


def test_tensors_that_are_not_quantized_stay_as_they_are() -> None:
    signature = make_signature(
        "s",
        (spec("a", "uint8", (-1, 2), HALF), spec("b", "uint8", (-1,)), spec("c", "string", (-1,))),
        (spec("y", "int8", (-1, 2)), spec("z", "int16", (-1,), Scaling(0.25, 0))),
    )

    call = decode(signature, '{"instance": {"a": [-1.5, 1], "b": 255, "c": "x"}}')

    assert [array.tolist() for array in call.inputs] == [[[0, 5]], [255], [b"x"]]
    assert answer(signature, [[1, -128]], [-3]) == {"predictions": [{"y": [1, -128], "z": -0.75}]}
    with pytest.raises(InvalidArgument, match=r"instance\.b: expected one uint8 integer for input 'b'"):
        decode(signature, '{"instance": {"a": [0, 1], "b": 0.5, "c": "x"}}')


def test_the_codec_s_own_refusals_speak_of_real_numbers() -> None:
    with pytest.raises(InvalidArgument) as refusal:
        decode(one_in("int8", scaling=HALF), '{"instance": [1, true, 2, 3]}')

    assert refusal.value.message == "instance[1]: expected one float32 number for input 'x', found true"


@pytest.mark.parametrize(
    ("shape", "text", "place"),
    [
        ((-1, 2), '{"instance": [1, NaN]}', " at [1]"),
        ((-1, 2), '{"instances": [[1, 2], [NaN, NaN]]}', " at [1][0]"),
        ((-1, 2), '{"inputs": {"x": [[1, 2], [1, NaN]]}}', " at [1][1]"),
        ((-1,), '{"instance": NaN}', ""),
        ((-1,), '{"instances": [1, NaN]}', " at [1]"),
        ((2, 2), '{"inputs": [[1, 2], [NaN, 1]]}', " at [1][0]"),
        ((2, 2), '{"instance": [[1, 2], [NaN, 1]]}', " at [1][0]"),
        ((2, 2), '{"instances": [[[1, 2], [NaN, 1]]]}', " at [0][1][0]"),
        ((), '{"inputs": NaN}', ""),
    ],
)
def test_nan_is_refused_at_its_place_since_no_integer_means_it(shape: tuple[int, ...], text: str, place: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        decode(one_in("int8", shape, HALF), text)

    assert refusal.value.message == f"input 'x'{place}: expected a number to quantize to int8, found NaN"


def test_npy_files_hold_real_numbers_too() -> None:
    signature = one_in("uint8", scaling=HALF)
    real = Real(Npy(signature.real()), signature)
    body = io.BytesIO()
    np.save(body, np.array([[1, -1.5, 1e9, -1e9]], np.float64))

    call = real.decode(body.getvalue())
    written = np.load(io.BytesIO(cast("bytes", real.encode(call, call.inputs))))

    assert call.inputs[0].tolist() == [[5, 0, 255, 0]]
    assert (written.dtype, written.tolist()) == (np.float32, [[1, -1.5, 126, -1.5]])
    body = io.BytesIO()
    np.save(body, np.array([1, math.nan, 1, 1], np.float16))
    with pytest.raises(
        InvalidArgument, match=r"^input 'x' at \[1\]: expected a number to quantize to uint8, found NaN$"
    ):
        real.decode(body.getvalue())
