"""Answers as JSON text: the values of every dtype exactly, and the same text whether in pieces or not."""

import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.protocols import json_answer
from app.protocols.call import Call, Form
from app.protocols.predict_json import PredictJson
from app.tensors import DTYPES, STRING, Array, Shape, dtype_name, make_signature
from tests.signatures import one_in, spec, two_in

BY_NAME = [np.dtype(name) for name in sorted(dtype.str for dtype in DTYPES)]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_answer, "_PIECE", 5)


def strings(*values: Any) -> Array:
    return np.array(values, STRING)


def extremes(dtype: np.dtype[Any]) -> Array:
    """Six values of a dtype, the ends of its range among them."""
    values: list[Any]
    if dtype == STRING:
        values = [b"", b"\xff\xfe", "\u00e9\U0001f600".encode(), b'"\\\x00\n', b"null", b"\xed\xa0\x80"]
    elif dtype.kind == "b":
        values = [True, False] * 3
    elif dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = [limits.min, limits.max, 0, 1, limits.max - 1, limits.max // 2 + 1]
    else:
        real = np.finfo(dtype)
        parts = [real.max, real.min, real.tiny, real.smallest_subnormal, -0.0, real.eps]
        values = parts if dtype.kind == "f" else [complex(a, b) for a, b in zip(parts, parts[::-1], strict=True)]
    return np.array(values, dtype)


def as_asked(text: bytes) -> bytes:
    """An answer as the request that has the same values."""
    for answer, form in ((b"predictions", b"instances"), (b"prediction", b"instance"), (b"outputs", b"inputs")):
        text = text.replace(b'{"%b":' % answer, b'{"%b":' % form, 1)
    return text


def same(one: Array, other: Array) -> bool:
    """Whether arrays are equal in every bit, the sign of zero too."""
    if one.dtype == STRING:
        return (one.shape, one.tolist()) == (other.shape, other.tolist())
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


SHAPES: list[Shape] = [(), (6,), (2, 3), (6, 1, 1), (2, 1, 3, 1), (6, 1, 1, 1, 1), (2, 1, 1, 3, 1, 1)]


@pytest.mark.parametrize("leading", [(-1,), (1,), ()])
@pytest.mark.parametrize("dtype", BY_NAME, ids=dtype_name)
def test_what_is_answered_and_sent_back_is_the_same_in_every_bit_and_form_up_to_rank_6(
    dtype: np.dtype[Any], leading: Shape
) -> None:
    values = extremes(dtype)
    for shape in SHAPES:
        records = [values[:1].reshape(()), values[1:2].reshape(())] if not shape else [values.reshape(shape)] * 2
        signature = one_in(dtype_name(dtype), (*leading, *shape))
        pair = make_signature("s", (*signature.inputs, spec("n", "int8", leading)), signature.outputs)
        pair_out = make_signature("s", signature.inputs, (*signature.outputs, spec("n", "int8", leading)))
        for form in Form:
            alone = form is Form.INSTANCE or (form is Form.INPUTS and not leading)
            tensor = np.stack(records[:1] if alone else records)
            text = as_asked(PredictJson(signature).encode(Call((), len(tensor), form), [tensor]))

            call = PredictJson(signature).decode(text)

            assert (call.form, call.rows) == (form, len(tensor))
            assert same(call.inputs[0], tensor), (shape, form, text)

            several = PredictJson(pair_out).encode(
                Call((), len(tensor), form), [tensor, np.zeros(len(tensor), np.int8)]
            )
            call = PredictJson(pair).decode(as_asked(several).replace(b'"y":', b'"x":'))
            assert same(call.inputs[0], tensor), (shape, form, several)


@given(st.binary(max_size=12))
@example(b"\xed\xa0\x80")
@example(b'{"b64": "/w=="}')
def test_any_bytes_are_a_string_where_they_are_utf_8_and_else_base64(value: bytes) -> None:
    answer = orjson.loads(json_answer.dump_array(strings(value)))[0]

    assert isinstance(answer, str) == (value.decode(errors="replace").encode() == value)
    codec = PredictJson(one_in("string", (-1, 1)))
    assert codec.decode(orjson.dumps({"instance": [answer]})).inputs[0].tolist() == [[value]]


def test_strings_are_written_so() -> None:
    assert json_answer.dump_array(strings(b"a", b"", "\u00e9".encode(), b"\xff")) == (
        '["a","","\u00e9",{"b64":"/w=="}]'.encode()
    )
    assert json_answer.dump_array(strings(b"a", b"b").reshape(2, 1)) == b'[["a"],["b"]]'
    assert json_answer.dump_array(strings(b"a")[0]) == b'"a"'
    assert json_answer.dump_array(strings(b"\xff")[0]) == b'{"b64":"/w=="}'
    assert json_answer.dump([{"y": strings(b"a"), "z": b"b"}]) == b'[{"y":["a"],"z":"b"}]'


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_pairs_of_a_real_and_an_imaginary_part(dtype: str) -> None:
    values = np.array([1 + 2j, complex(-0.0, 0.1), complex(math.nan, -math.inf)], dtype)

    assert json_answer.dump_array(values) == b"[[1.0,2.0],[-0.0,0.1],[null,null]]"
    assert json_answer.dump_array(values.reshape(3, 1)[:1]) == b"[[[1.0,2.0]]]"
    assert json_answer.dump_array(values[0]) == b"[1.0,2.0]"
    assert json_answer.dump_array(values[2]) == b"[null,null]"
    assert json_answer.dump_array(np.asfortranarray([[1, 2], [3, 4j]], dtype)) == (
        b"[[[1.0,0.0],[2.0,0.0]],[[3.0,0.0],[0.0,4.0]]]"
    )


def test_what_is_no_array_s_is_no_answer() -> None:
    with pytest.raises(TypeError):
        json_answer.dump(object())


# In pieces


@pytest.mark.parametrize("shape", [(6, 1), (1, 6), (3, 2, 1), (6,)])
@pytest.mark.parametrize("dtype", BY_NAME, ids=dtype_name)
def test_an_answer_of_any_dtype_is_the_same_in_pieces(dtype: np.dtype[Any], shape: Shape) -> None:
    values = extremes(dtype).reshape(shape)

    assert json_answer.dump_rows(values) == json_answer.dump(values)


@pytest.mark.parametrize("shape", [(7, 3), (1, 3), (11, 2, 2), (4,)])
def test_an_answer_written_in_pieces_is_the_answer(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    assert json_answer.dump_rows(values) == orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def test_a_large_answer_is_the_same_text_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = PredictJson(one_in(shape=(-1, 3)))
    values = np.array([[0.1, np.nan, 3.0], [1e-7, -0.0, 1e20]], np.float32)
    call = Call((values,), 2, Form.INSTANCES)
    small = codec.encode(call, [values])
    monkeypatch.setattr(json_answer, "_LARGE", 1)
    assert codec.encode(call, [values]) == small == b'{"predictions":[[0.1,null,3.0],[1e-7,-0.0,1e+20]]}'


@pytest.mark.parametrize("form", list(Form))
def test_a_large_answer_of_any_form_and_of_several_outputs_is_the_same_text(
    monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    for signature in (one_in(shape=(-1, 3)), two_in()):
        codec = PredictJson(signature)
        outputs = [np.full((2, *signature.record_shape(spec)), 0.5, np.float32) for spec in signature.outputs]
        call = Call((outputs[0],), 2, form)
        small = codec.encode(call, outputs)
        with monkeypatch.context() as patch:
            patch.setattr(json_answer, "_LARGE", 1)
            assert codec.encode(call, outputs) == small
        json.loads(small)
