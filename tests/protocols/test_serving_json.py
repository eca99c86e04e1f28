"""TensorFlow Serving's `:predict` in JSON: what the tests of the routes do not hold."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidArgument
from app.protocols import json_pieces
from app.protocols.call import Call, Form, OtherSignature
from app.protocols.predict_json import PredictJson
from app.protocols.serving_json import ServingPredict, cut_signature
from app.tensors import STRING, Array, Signature, make_signature
from tests.examples import many
from tests.protocols.golden_serving import PREDICTIONS, Golden
from tests.protocols.test_agreement import DTYPES, LEADING, bodies, codec_of, outcome, shown, signature_of
from tests.signatures import one_in, spec, two_in


def decode(signature: Signature, text: str) -> Call:
    return ServingPredict(signature).decode(text.encode())


def refusal(signature: Signature, text: str) -> str:
    with pytest.raises(InvalidArgument) as refused:
        decode(signature, text)
    return refused.value.message


def same(found: Array, expected: Array) -> bool:
    if found.dtype == STRING:
        return found.shape == expected.shape and bool((found == expected).all())
    return found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=found.dtype.kind in "fc")


@pytest.mark.parametrize("golden", PREDICTIONS.values(), ids=PREDICTIONS)
def test_a_golden_request_is_read_and_answered(golden: Golden) -> None:
    codec = ServingPredict(golden.signature)
    call = codec.decode(golden.rest.encode())

    assert call.form is Form.INPUTS
    for found, expected in zip(call.inputs, golden.inputs, strict=True):
        assert same(found, expected), (found, expected)
    assert codec.encode(call, golden.outputs).decode() == golden.answer


# The roads agree


def taken(codec: PredictJson, body: bytes) -> Call | None:
    try:
        return codec.decode(body)
    except InvalidArgument:
        return None


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_fast_roads_take_the_exact_one_takes_alike(dtype: str, inputs: int, leading: str) -> None:
    codec = ServingPredict(signature_of(dtype, inputs, leading))

    @settings(max_examples=many(60))
    @given(bodies(dtype, inputs))
    def check(body: bytes) -> None:
        read = codec._read(body)
        if read is not None and read.form is not Form.INSTANCE:
            assert shown(codec._decode_slow(body)) == shown(read)
        more = body.rstrip()[:-1] + b',"parameters":{"k":[1.5,"]}"]}}'
        assert outcome(codec._decode_lean, more) in (None, outcome(codec._decode_slow, more))

    check()


@pytest.mark.parametrize(
    "body",
    [
        '{"instances":[[1,2,3,4]],"parameters":{}}',
        '{"parameters":{"instance":[7]},"instances":[{"x":[1,2,3,4]}],"signature_name":""}',
        '{"id":"7","inputs":{"x":[[1,2,3,4]]},"signature_name":"serving_default"}',
    ],
)
def test_a_key_that_is_not_looked_at_does_not_make_a_body_slow(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServingPredict, "_decode_slow", None)

    call = decode(one_in(), body)

    assert call.rows == 1
    assert call.inputs[0].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("leading", ["free", "one"])
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_predict_takes_is_taken_here_to_the_same_bits(dtype: str, inputs: int, leading: str) -> None:
    ours, other = ServingPredict(signature_of(dtype, inputs, leading)), codec_of(dtype, inputs, leading)

    @settings(max_examples=many(60))
    @given(bodies(dtype, inputs))
    def check(body: bytes) -> None:
        call = taken(other, body)
        if call is None or call.form is Form.INSTANCE:
            return
        found = taken(ours, body)
        if found is None:
            # Rows of two kinds are taken there.
            with pytest.raises(InvalidArgument, match=r"but got (list|object) at item"):
                ours.decode(body)
        else:
            assert shown(found) == shown(call)

    check()


@settings(max_examples=many(60))
@given(st.lists(st.lists(st.floats(width=32), min_size=4, max_size=4), min_size=1, max_size=3), st.booleans())
def test_answers_are_those_of_predict_but_for_numbers_that_are_not_finite(rows: list[list[float]], named: bool) -> None:
    signature = one_in()
    outputs = [np.array(rows, np.float32)]
    call = Call((), len(rows), Form.INSTANCES if named else Form.INPUTS)
    ours, other = ServingPredict(signature).encode(call, outputs), PredictJson(signature).encode(call, outputs)

    texts = {"NaN": b"null", "-Infinity": b"null", "Infinity": b"null"}
    as_null = ours
    for token, null in texts.items():
        as_null = as_null.replace(token.encode(), null)
    assert as_null == other
    (found,) = json.loads(ours).values()
    assert np.array(found, np.float32).tobytes() == np.array(rows, np.float32).tobytes() or np.isnan(outputs[0]).any()
    np.testing.assert_array_equal(np.array(found, np.float32), outputs[0])


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("gap", ["", " ", "\n\t"])
def test_a_name_of_a_signature_is_cut_off_without_a_loss(place: str, gap: str) -> None:
    name, rows = f'"signature_name"{gap}:{gap}"\u00e9 x"', f'"instances"{gap}:{gap}[[1,2,3,4]]'
    pairs = [name, rows] if place == "first" else [rows, name]
    body = f"{gap}{{{gap}{f'{gap},{gap}'.join(pairs)}{gap}}}{gap}".encode()

    found = cut_signature(body)

    assert found is not None
    assert found[0] == "\u00e9 x"
    assert json.loads(found[1]) == {"instances": [[1, 2, 3, 4]]}


@pytest.mark.parametrize(
    "body",
    [
        '{"instances":[[1,2,3,4]]}',
        '{"signature_name":"a\\u0062","instances":[1]}',
        '{"instances":[{"signature_name":"a"}]}',
        '{"signature_name":7,"instances":[1]}',
        '{"signature_name":"a"}',
        '["signature_name":"a"]',
    ],
)
def test_nothing_else_is_cut_off(body: str) -> None:
    assert cut_signature(body.encode()) is None


@settings(max_examples=many(300))
@given(st.data())
def test_a_body_without_the_name_is_json_if_and_only_if_the_whole_is(data: st.DataObject) -> None:
    parts = ['"signature_name"', ":", '"a"', ",", "{", "}", '"instances"', "[", "]", "1", '"x"', " ", '"']
    body = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=14)))
    whole = data.draw(st.sampled_from([body, '{"signature_name":"a",' + body, body + ',"signature_name":"a"}']))

    found = cut_signature(whole.encode())

    if found is not None:
        document, rest = parsed(whole.encode()), parsed(found[1])
        assert (document is None) == (rest is None) or rest == {}
        if document is not None and rest is not None:
            assert {"signature_name": "a", **rest} == {**rest, **document}


def parsed(body: bytes) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(body)
    except ValueError:
        return None
    return document


def test_a_signature_of_another_name_is_for_another_codec() -> None:
    for body in (
        '{"signature_name":"z","inputs":1}',
        '{"inputs":1,"signature_name":"z"}',
        '{"signature_name":"\\u007a"}',
    ):
        with pytest.raises(OtherSignature) as other:
            decode(one_in(), body)
        assert other.value.name == "z"


@pytest.mark.parametrize(
    ("number", "found"),
    [("-1e400", "found -1e400"), ("1" * 500 + "e9", "found " + "1" * 80), ("9" * 5000, "an integer of more than 4300")],
)
def test_a_number_beyond_doubles_is_refused_and_shown(number: str, found: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        decode(one_in(), f'{{"instances":[[1,2,3,{number}]]}}')
    assert "JSON Parse error: Number too big to be stored in double, " in refused.value.message
    assert found in refused.value.message
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("first", ["z", "serving_default", ""])
def test_of_a_signature_that_is_named_more_than_once_the_last_name_counts(first: str) -> None:
    """Were it not the same one each time, two codecs could send a body to each other for ever."""
    body = f'{{"signature_name":"{first}","instances":[[1,2,3,4]],"signature_name":"%s"}}'

    with pytest.raises(OtherSignature) as other:
        decode(one_in(), body % "y")
    assert other.value.name == "y"
    assert decode(one_in(), body % "serving_default").rows == 1


def test_a_name_that_is_no_text_is_still_said() -> None:
    with pytest.raises(OtherSignature) as other:
        decode(one_in(), '{"signature_name":"\\ud800"}')
    assert other.value.message.encode().endswith(b'"\\ud800" not found in signature def')


# Large bodies are read in pieces


@pytest.fixture
def _in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_pieces, "LARGE", 16)
    monkeypatch.setattr(json_pieces, "_PIECE", 24)


@pytest.mark.usefixtures("_in_pieces")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"instances":[[1,2,3,4],[1,2,3,4],[1,2,"a",4]]}', "expected type: float (instances[2][2]"),
        (
            '{"instances":[[1,2,3,4],[1,2,3,4],[1,2,true,4]]}',
            "Failed to process element: 2 of 'instances' list. Error: ",
        ),
        ('{"instances":[[1,2,3,4],[1,2,3,4],[1,2,3]]}', "Expecting tensor size: 4 but got: 3 (instances[2]"),
        (
            '{"instances":[[1,2,3,4],[1,2,3,4],x]}',
            "JSON Parse error: Expecting value, found 'x]' among the first instances",
        ),
        ('{"instances":[[1,2,3,4],[1,2,3,1e400]]}', "JSON Parse error: Number too big to be stored in double"),
        ('{"instances":[{"x":[1,2,3,4]},{"x":[1,2,3,4]},{"z":[1,2,3,4]}]}', "Failed to process element: 2 key: z"),
    ],
)
def test_what_is_wrong_in_a_large_body_is_said_in_the_same_words(text: str, words: str) -> None:
    assert words in refusal(one_in(), text)


@pytest.mark.usefixtures("_in_pieces")
@pytest.mark.parametrize("head", ["", '"signature_name":"serving_default",'])
def test_a_large_body_is_read_in_pieces_with_a_name_before_it_too(head: str) -> None:
    rows = [[float(index), 0.5, -1.0, 1e39] for index in range(20)]
    call = decode(one_in(), f'{{{head}"instances":{json.dumps(rows)}}}')

    assert call.inputs[0].tolist() == [[row[0], 0.5, -1.0, float("inf")] for row in rows]


# Rows and columns


def test_rows_of_a_model_without_a_batch_dimension_must_be_as_many_as_its_tensor_has() -> None:
    signature = one_in(shape=(2, 2))

    assert decode(signature, '{"instances":[[1,2],[3,4]]}').inputs[0].tolist() == [[[1, 2], [3, 4]]]
    assert decode(signature, '{"instances":[{"x":[1,2]},{"x":[3,4]}]}').form is Form.INSTANCES
    assert "send 'inputs'" in refusal(signature, '{"instances":[[1,2],[3,4],[5,6]]}')
    assert "send 'inputs'" in refusal(one_in(shape=()), '{"instances":[1]}')


def test_outputs_without_a_batch_dimension_make_rows_where_they_have_as_many() -> None:
    signature = make_signature("s", (spec("x", shape=(2, 2)),), (spec("y", shape=(2,)), spec("z", shape=(-1, 1))))
    codec = ServingPredict(signature)
    call = codec.decode(b'{"instances":[[1,2],[3,4]]}')

    rows = codec.encode(call, [np.array([[1, 2]], "f4"), np.array([[[3], [4]]], "f4")])
    assert rows == b'{"predictions":[{"y":1.0,"z":[3.0]},{"y":2.0,"z":[4.0]}]}'
    with pytest.raises(InvalidArgument, match="Tensor name: z has inconsistent batch size: 1 expecting: 2"):
        codec.encode(call, [np.array([[1, 2]], "f4"), np.array([[[3]]], "f4")])


def test_rows_of_several_outputs_have_tokens_and_bytes_in_their_places() -> None:
    signature = make_signature(
        "s", (spec("x"),), (spec("y", shape=(-1, 2)), spec("null_bytes", "string", (-1,)), spec("s", "string", (-1, 1)))
    )
    outputs = [
        np.array([[np.nan, 1], [-np.inf, 2]], "f4"),
        np.array([b"null", b"\xff"], object),
        np.array([[b"null"], [b"n"]], object),
    ]

    answer = ServingPredict(signature).encode(Call((), 2, Form.INSTANCES), outputs)

    assert answer == (
        b'{"predictions":[{"y":[NaN,1.0],"null_bytes":{"b64":"bnVsbA=="},"s":["null"]},'
        b'{"y":[-Infinity,2.0],"null_bytes":{"b64":"/w=="},"s":["n"]}]}'
    )


def test_an_input_called_b64_is_given_by_name_or_in_base64() -> None:
    signature = make_signature("s", (spec("b64", "string", (-1,)),), (spec("y", "string", (-1,)),))

    assert decode(signature, '{"instances":[{"b64":"YQ=="}]}').inputs[0].tolist() == [b"a"]
    assert decode(signature, '{"instances":[{"b64":{"b64":"YQ=="}}]}').inputs[0].tolist() == [b"a"]
    assert "Unable to base64 decode" in refusal(signature, '{"instances":[{"b64":"*"}]}')


def test_extra_keys_of_rows_are_refused_and_those_of_columns_are_not_looked_at() -> None:
    row = '{"age":[1],"body":[1,2,3],"more":"x"}'

    assert "does not have named input: more" in refusal(two_in(), f'{{"instances":[{row}]}}')
    columns = '{"age":[[1]],"body":[[1,2,3]],"more":"x"}'
    assert decode(two_in(), f'{{"inputs":{columns}}}').rows == 1


def test_bytes_that_are_no_text_are_refused_with_their_place() -> None:
    with pytest.raises(InvalidArgument, match="Invalid encoding in string, byte 0xff at offset: 14"):
        ServingPredict(one_in()).decode(b'{"instances":[\xff]}')


def test_a_byte_order_mark_and_what_comes_behind_the_document_are_passed_over() -> None:
    body = b'\xef\xbb\xbf {"instances":[[1,2,3,4]]}\x00\x00'

    assert ServingPredict(one_in()).decode(body).inputs[0].tolist() == [[1, 2, 3, 4]]
