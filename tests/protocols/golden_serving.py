"""Requests of TensorFlow Serving's formats and their answers, the same by REST and by gRPC.

Each is held by the tests of both codecs: what the REST body asks, the message asks, and what the arrays are answered
with in JSON is the JSON form of the answer's message.
"""

from typing import Any, NamedTuple

import numpy as np

from app.tensors import Array, Signature, make_signature
from tests.signatures import one_in, spec, two_in


class Golden(NamedTuple):
    """A request and its answer.

    Args:
        rest: the request's body, columnar.
        inputs: the tensors that it holds, in the signature's order.
        outputs: the model's answer, in the signature's order.
        answer: the body of the answer.
    """

    signature: Signature
    rest: str
    inputs: list[Array]
    outputs: list[Array]
    answer: str


def _strings(*rows: list[bytes]) -> Array:
    return np.array([*rows, [None] * len(rows[0])], object)[:-1]


def _plain(dtype: str, rest: str, values: list[Any], answer: str) -> Golden:
    array = np.array([values], dtype)
    return Golden(one_in(dtype, (-1, 4)), f'{{"inputs":[{rest}]}}', [array], [array], f'{{"outputs":[{answer}]}}')


PREDICTIONS = {
    "float32": _plain("float32", "[1,2.5,-0.0,1e-3]", [1, 2.5, -0.0, 1e-3], "[1.0,2.5,-0.0,0.001]"),
    "float32, digits": _plain(
        "float32", "[0.1,16777217,3.4028235e38,1e-45]", [0.1, 16777216, 3.4028235e38, 1e-45],
        "[0.1,16777216.0,3.4028235e+38,1e-45]",
    ),
    "float32, not finite": _plain(
        "float32", "[NaN,Infinity,-Infinity,1e39]", [np.nan, np.inf, -np.inf, np.inf],
        "[NaN,Infinity,-Infinity,Infinity]",
    ),
    "float64": _plain("float64", "[0.1,1e300,2,-1]", [0.1, 1e300, 2, -1], "[0.1,1e+300,2.0,-1.0]"),
    "float16": _plain("float16", "[0.5,65504,1,-2]", [0.5, 65504, 1, -2], "[0.5,65504.0,1.0,-2.0]"),
    "int8": _plain("int8", "[-128,127,0,-1]", [-128, 127, 0, -1], "[-128,127,0,-1]"),
    "uint8": _plain("uint8", "[0,255,128,1]", [0, 255, 128, 1], "[0,255,128,1]"),
    "int16": _plain("int16", "[-32768,32767,128,-129]", [-32768, 32767, 128, -129], "[-32768,32767,128,-129]"),
    "uint16": _plain("uint16", "[0,65535,128,300]", [0, 65535, 128, 300], "[0,65535,128,300]"),
    "int32": _plain(
        "int32", "[-2147483648,2147483647,0,-1]", [-(2**31), 2**31 - 1, 0, -1], "[-2147483648,2147483647,0,-1]"
    ),
    "uint32": _plain("uint32", "[0,4294967295,1,2]", [0, 2**32 - 1, 1, 2], "[0,4294967295,1,2]"),
    "int64": _plain(
        "int64", "[-9223372036854775808,9223372036854775807,0,-1]", [-(2**63), 2**63 - 1, 0, -1],
        "[-9223372036854775808,9223372036854775807,0,-1]",
    ),
    "uint64": _plain("uint64", "[0,18446744073709551615,1,2]", [0, 2**64 - 1, 1, 2], "[0,18446744073709551615,1,2]"),
    "bool": _plain("bool", "[true,false,true,true]", [True, False, True, True], "[true,false,true,true]"),
    "string": Golden(
        one_in("string", (-1, 2)),
        '{"inputs":[["a\\u00e9",{"b64":"/wA="}],["",{"b64":""}]]}',
        [_strings([b"a\xc3\xa9", b"\xff\x00"], [b"", b""])],
        [_strings([b"a\xc3\xa9", b"\xff\x00"], [b"", b"NaN"])],
        '{"outputs":[["a\u00e9",{"b64":"/wA="}],["","NaN"]]}',
    ),
    "string, called bytes": Golden(
        make_signature("serving_default", (spec("x", "string", (-1,)),), (spec("y_bytes", "string", (-1,)),)),
        '{"inputs":["a","b"]}',
        [_strings([b"a"], [b"b"])[:, 0]],
        [_strings([b"a"], [b"\xff"])[:, 0]],
        '{"outputs":[{"b64":"YQ=="},{"b64":"/w=="}]}',
    ),
    "complex64": Golden(
        one_in("complex64", (-1, 2)),
        '{"inputs":[[[1,2],[3.5,-4]]]}',
        [np.array([[1 + 2j, 3.5 - 4j]], "complex64")],
        [np.array([[1 + 2j, complex(np.nan, -4)]], "complex64")],
        '{"outputs":[[[1.0,2.0],[NaN,-4.0]]]}',
    ),
    "several inputs and outputs": Golden(
        two_in(),
        '{"inputs":{"body":[[1,2,3],[4,5,6]],"age":[[7],[8]]}}',
        [np.array([[7], [8]], "int32"), np.array([[1, 2, 3], [4, 5, 6]], "float32")],
        [np.array([[0.5, 1], [2, np.inf]], "float32"), np.array([9, 10], "float32")],
        '{"outputs":{"risk":[[0.5,1.0],[2.0,Infinity]],"score":[9.0,10.0]}}',
    ),
    "no batch dimension": Golden(
        one_in(shape=(2, 2)),
        '{"inputs":[[1,2],[3,4]]}',
        [np.array([[[1, 2], [3, 4]]], "float32")],
        [np.array([[[1, 2], [3, 4]]], "float32")],
        '{"outputs":[[1.0,2.0],[3.0,4.0]]}',
    ),
    "one number": Golden(
        one_in(shape=()), '{"inputs":5}', [np.array([5], "float32")], [np.array([6], "float32")], '{"outputs":6.0}'
    ),
}  # fmt: skip


class GoldenExamples(NamedTuple):
    """Examples and what they come to.

    Args:
        rest: the request's body.
        features: the same, each as the kind of its values and these: `[{name: (kind, values)}]`.
        context: those that all examples share.
        inputs: the tensors that are made of them, in the signature's order.
    """

    signature: Signature
    rest: str
    features: list[dict[str, tuple[str, list[Any]]]]
    context: dict[str, tuple[str, list[Any]]]
    inputs: list[Array]


_SERIALIZED = make_signature(
    "serving_default",
    (spec("inputs", "string", (-1,)),),
    (spec("scores", "float32", (-1, 2)), spec("z", "int8", (-1,))),
)
_OF_ALL_KINDS = make_signature(
    "serving_default",
    (spec("word", "string", (-1, 2)), spec("on", "bool", (-1,)), spec("half", "float16", (-1, 2, 2))),
    (spec("y", shape=(-1, 2)),),
)

EXAMPLES = {
    "several features": GoldenExamples(
        two_in(),
        '{"examples":[{"age":7,"body":[1.5,2.0,3.0]},{"body":[4.0,5.0,6.0],"age":[8],"more":"x"}]}',
        [
            {"age": ("int64", [7]), "body": ("float", [1.5, 2, 3])},
            {"body": ("float", [4, 5, 6]), "age": ("int64", [8]), "more": ("bytes", [b"x"])},
        ],
        {},
        [np.array([[7], [8]], "int32"), np.array([[1.5, 2, 3], [4, 5, 6]], "float32")],
    ),
    "a context": GoldenExamples(
        two_in(),
        '{"context":{"age":7,"body":[1.0,2.0,3.0]},"examples":[{},{"age":8}]}',
        [{}, {"age": ("int64", [8])}],
        {"age": ("int64", [7]), "body": ("float", [1, 2, 3])},
        [np.array([[7], [8]], "int32"), np.array([[1, 2, 3]] * 2, "float32")],
    ),
    "integers for floats": GoldenExamples(
        one_in(shape=(-1, 2)),
        '{"examples":[{"x":[1,2]}]}',
        [{"x": ("int64", [1, 2])}],
        {},
        [np.array([[1, 2]], "float32")],
    ),
    "a free dimension": GoldenExamples(
        one_in(shape=(-1, -1, 2)),
        '{"examples":[{"x":[1.0,2.0,3.0,4.0]}]}',
        [{"x": ("float", [1, 2, 3, 4])}],
        {},
        [np.array([[[1, 2], [3, 4]]], "float32")],
    ),
    "one record at a time": GoldenExamples(
        one_in(shape=(1, 2)),
        '{"examples":[{"x":[1.0,NaN]},{"x":[3.0,4.0]}]}',
        [{"x": ("float", [1, np.nan])}, {"x": ("float", [3, 4])}],
        {},
        [np.array([[1, np.nan], [3, 4]], "float32")],
    ),
    "values of all kinds": GoldenExamples(
        _OF_ALL_KINDS,
        '{"examples":[{"word":["\\u00e9",{"b64":"/w=="}],"on":true,"half":[0.5,1.0,-2.0,1e9]}]}',
        [
            {
                "word": ("bytes", [b"\xc3\xa9", b"\xff"]),
                "on": ("int64", [1]),
                "half": ("float", [0.5, 1, -2, 1e9]),
            }
        ],
        {},
        [_strings([b"\xc3\xa9", b"\xff"]), np.array([True]), np.array([[[0.5, 1], [-2, np.inf]]], "float16")],
    ),
    "serialized": GoldenExamples(
        _SERIALIZED,
        '{"examples":[{"a":[0.5,1.5],"b":[1,-1,300],"c":["x","y"]},{}]}',
        [{"a": ("float", [0.5, 1.5]), "b": ("int64", [1, -1, 300]), "c": ("bytes", [b"x", b"y"])}, {}],
        {},
        [],
    ),
    "serialized, with a context": GoldenExamples(
        _SERIALIZED,
        '{"context":{"a":1.5},"examples":[{"b":1},{"a":2.5}]}',
        [{"b": ("int64", [1])}, {"a": ("float", [2.5])}],
        {"a": ("float", [1.5])},
        [],
    ),
}
