"""The roads from a body to arrays agree: what a fast one takes, the slow one takes, and makes the same of it."""

import base64
import json
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import InvalidArgument
from app.protocols.call import Call
from app.protocols.predict_json import PredictJson
from app.tensors import STRING, Shape, Signature, make_signature
from tests.examples import many
from tests.signatures import spec

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
COMPLEX = ["complex64", "complex128"]
DTYPES = [*FLOATS, *COMPLEX, *INTEGERS, "bool", "string"]
LEADING: dict[str, tuple[int, ...]] = {"free": (-1,), "one": (1,), "none": ()}


def floats(dtype: str) -> st.SearchStrategy[str]:
    """Numbers that the dtype takes, some of them halfway between two of its values."""
    limits = np.finfo(dtype)
    largest = int(limits.max) if dtype == "float16" else 2**70
    within = st.floats(-float(limits.max), float(limits.max))
    return st.one_of(
        st.integers(-largest, largest).map(str),
        within.map(repr),
        within.map(lambda value: repr(float(np.dtype(dtype).type(value)))),
        st.sampled_from(["0", "-0", "-0.0", "1e2", "1E+2", "2049", "16777217", "9007199254740993", "1e-60", "1e-400"]),
        st.sampled_from([repr(float(limits.max)), repr(float(limits.min)), repr(float(limits.smallest_subnormal))]),
    )


def integers(dtype: str) -> st.SearchStrategy[str]:
    limits = np.iinfo(dtype)
    ends = [limits.min, limits.max, min(limits.max, 2**63), min(limits.max, 2**63 - 1), 0]
    return st.one_of(
        st.integers(limits.min, limits.max).map(str), st.sampled_from(ends).map(str), st.sampled_from(["0", "-0"])
    )


GOOD = {
    **{dtype: floats(dtype) for dtype in FLOATS},
    **{dtype: integers(dtype) for dtype in INTEGERS},
    "complex64": st.tuples(floats("float32"), floats("float32")).map(lambda parts: f"[{', '.join(parts)}]"),
    "complex128": st.tuples(floats("float64"), floats("float64")).map(lambda parts: f"[{', '.join(parts)}]"),
    "bool": st.sampled_from(["true", "false"]),
    "string": st.one_of(
        st.text(max_size=3).map(json.dumps),
        st.binary(max_size=3).map(lambda value: json.dumps({"b64": base64.b64encode(value).decode()})),
        st.sampled_from(['"},{"', '"],["', '"\\u0022"', '{"b64": ""}', '"true"', '"1"']),
    ),
}
ODD = st.sampled_from(
    [
        *("true", "false", "null", '"1"', '"true"', '""', "{}", "[]", "[1]", '{"x": 1}', '"\\u0031"', '"\\ud800"'),
        *("NaN", "Infinity", "-Infinity", "-NaN", "nan", "1e39", "1e400", "-1e400", "3.4028236e38", "1.0", "0.5"),
        *("-1", "256", "2147483648", "-2147483649", "9223372036854775808", "18446744073709551615"),
        *('{"b64": "*"}', '{"b64": 1}', '{"b64": "YQ", "x": 1}', "[1, 2, 3]", "[1, true]", "[[1, 2]]", '"\\udc00"'),
        *("18446744073709551616", "1" + "0" * 400, "01", "+1", ".5", "1.", "0x1", "1_0", "", "\u00e9", "// 1"),
    ]
)


@cache
def codec_of(dtype: str, inputs: int, leading: str) -> PredictJson:
    return PredictJson(signature_of(dtype, inputs, leading))


def signature_of(dtype: str, inputs: int, leading: str) -> Signature:
    shapes: list[Shape] = [(*LEADING[leading], 2), (*LEADING[leading], -1)]
    specs = tuple(spec(name, dtype, shape) for name, shape in zip("xz", shapes[:inputs], strict=False))
    return make_signature("s", specs, (spec("y", "float32", (*LEADING[leading], 1)),))


class Writer:
    """Writes a body that is right in most of its parts, so that what is wrong is found in good company."""

    def __init__(self, draw: st.DrawFn, dtype: str, inputs: int) -> None:
        self.draw = draw
        self.dtype = dtype
        self.inputs = inputs
        self.sizes = [2, draw(st.integers(1, 3))][:inputs]
        self.flaws = draw(st.booleans())

    def flawed(self) -> bool:
        return self.flaws and self.draw(st.integers(0, 12)) == 0

    def leaf(self) -> str:
        return self.draw(ODD if self.flawed() else GOOD[self.dtype])

    def listed(self, parts: list[str]) -> str:
        if self.flawed():
            parts = parts[1:] if self.draw(st.booleans()) else [*parts, *parts[:1]]
        return "[" + self.draw(st.sampled_from([",", ", ", " ,\n"])).join(parts) + "]"

    def row(self, size: int) -> str:
        return self.draw(ODD) if self.flawed() else self.listed([self.leaf() for _ in range(size)])

    def record(self) -> str:
        return self.together([self.row(size) for size in self.sizes])

    def tensors(self, rows: int) -> str:
        return self.together([self.listed([self.row(size) for _ in range(rows)]) for size in self.sizes])

    def together(self, values: list[str]) -> str:
        """Bare where there is one input, and by name."""
        if self.inputs == 1 and self.draw(st.booleans()):
            return values[0]
        names = self.draw(st.permutations(["x", "z", "q"])) if self.flawed() else ["x", "z"]
        pairs = [f'"{name}": {value}' for name, value in zip(names, values, strict=False)]
        if self.flawed():
            pairs = [*pairs, pairs[0]]
        return "{" + ", ".join(self.draw(st.permutations(pairs))) + "}"

    def body(self) -> bytes:
        rows = self.draw(st.integers(1, 3))
        key, value = self.draw(
            st.sampled_from(
                [
                    ("instance", self.record),
                    ("inputs", self.record),
                    ("inputs", lambda: self.tensors(rows)),
                    ("instances", lambda: self.listed([self.record() for _ in range(rows)])),
                ]
            )
        )
        if self.flawed():
            key = self.draw(st.sampled_from(["instanses", "", "inst\\u0061nce", "inputs"]))
        text = f'{{"{key}": {value()}}}'
        return (text[:-2] if self.flawed() else text).encode()


@st.composite
def bodies(draw: st.DrawFn, dtype: str, inputs: int) -> bytes:
    return Writer(draw, dtype, inputs).body()


def shown(call: Call) -> object:
    arrays = [
        (array.dtype, array.shape, array.tolist() if array.dtype == STRING else array.tobytes())
        for array in call.inputs
    ]
    return call.form, call.rows, arrays


def outcome(decode: Callable[[bytes], Call | None], body: bytes) -> object:
    """The arrays, or the words of the refusal; None from a road that declined."""
    try:
        call = decode(body)
    except InvalidArgument as refusal:
        return refusal.message
    return call and shown(call)


def agree(codec: PredictJson, body: bytes) -> None:
    slow = outcome(codec._decode_slow, body)

    assert outcome(codec._decode_fast, body) in (None, slow)
    assert outcome(codec.decode, body) == slow


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_roads_make_the_same_of_a_body_or_all_refuse_it(dtype: str, inputs: int, leading: str) -> None:
    codec = codec_of(dtype, inputs, leading)

    @settings(max_examples=many(80))
    @given(bodies(dtype, inputs))
    def check(body: bytes) -> None:
        agree(codec, body)

    check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers().map(str) | st.floats().map(str) | st.text(max_size=4).map(repr),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "z", "q"]), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=many(120))
@given(st.sampled_from(["instance", "instances", "inputs", "x"]), JSON)
@example("instances", [[True, 1], [2, 3]])
@example("instances", [["1", "2"]])
def test_whatever_a_body_holds_it_is_taken_alike_or_refused_in_words(key: str, value: object) -> None:
    body = f'{{"{key}": {value}}}'.replace("'", '"').replace("True", "true").replace("None", "null").encode()

    for leading in LEADING:
        for inputs in (1, 2):
            agree(codec_of("float32", inputs, leading), body)


@settings(max_examples=many(200))
@given(st.binary(max_size=40))
@example(b'\xef\xbb\xbf{"instance": [1, 2]}')
@example(b'{"instance": [1, 2], "instance": [3, 4]}')
@example(b'{"instance": [1, 2]}\x00')
def test_no_bytes_whatever_are_taken_by_one_road_only(body: bytes) -> None:
    agree(codec_of("float32", 1, "free"), body)
