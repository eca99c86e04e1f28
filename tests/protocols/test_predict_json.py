import json
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.errors import InvalidArgument
from app.protocols.call import Call, Form
from app.protocols.predict_json import PredictJson
from app.tensors import Array, Signature, make_signature
from tests.examples import many
from tests.signatures import one_in, spec, two_in

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
KEYS = "expected an object with exactly one of the keys instance, instances, inputs"


def decode(signature: Signature, text: str) -> Call:
    return PredictJson(signature).decode(text.encode())


def refusal(signature: Signature, text: str | bytes) -> str:
    body = text.encode() if isinstance(text, str) else text
    with pytest.raises(InvalidArgument) as refusal:
        PredictJson(signature).decode(body)
    return refusal.value.message


def encode(signature: Signature, form: Form, *outputs: npt.ArrayLike) -> Any:
    arrays = [np.asarray(output, dtype=spec.dtype) for output, spec in zip(outputs, signature.outputs, strict=True)]
    rows = arrays[0].shape[0]
    body = PredictJson(signature).encode(Call((), rows, form), arrays)
    return json.loads(body, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))


# Requests that are taken


@pytest.mark.parametrize(
    ("text", "form", "rows"),
    [
        ('{"instance": [1, 2, 3, 4]}', Form.INSTANCE, [[1, 2, 3, 4]]),
        ('{"instance": {"x": [1, 2, 3, 4]}}', Form.INSTANCE, [[1, 2, 3, 4]]),
        ('{"instances": [[1, 2, 3, 4]]}', Form.INSTANCES, [[1, 2, 3, 4]]),
        ('{"instances": [[1, 2, 3, 4], [5, 6, 7, 8]]}', Form.INSTANCES, [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ('{"instances": [{"x": [1, 2, 3, 4]}, {"x": [5, 6, 7, 8]}]}', Form.INSTANCES, [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ('{"instances": [{"x": [1, 2, 3, 4]}, [5, 6, 7, 8]]}', Form.INSTANCES, [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ('{"instances": [[1, 2, 3, 4], {"x": [5, 6, 7, 8]}]}', Form.INSTANCES, [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ('{"inputs": [[1, 2, 3, 4], [5, 6, 7, 8]]}', Form.INPUTS, [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ('{"inputs": {"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}}', Form.INPUTS, [[1, 2, 3, 4], [5, 6, 7, 8]]),
        (' {\n"instance"\t:[1,2,3,4.0e0] } ', Form.INSTANCE, [[1, 2, 3, 4]]),
        ('{"inst\\u0061nce": [1, 2, 3, 4]}', Form.INSTANCE, [[1, 2, 3, 4]]),
    ],
)
@pytest.mark.parametrize("batch", [-1, 1])
def test_a_model_with_one_input_takes_bare_records_and_objects_in_all_three_forms(
    text: str, form: Form, rows: list[list[int]], batch: int
) -> None:
    call = decode(one_in(shape=(batch, 4)), text)

    assert (call.form, call.rows) == (form, len(rows))
    assert call.inputs[0].dtype == np.float32
    assert call.inputs[0].tolist() == rows


@pytest.mark.parametrize(
    ("text", "form", "ages", "bodies"),
    [
        ('{"instance": {"age": [7], "body": [1, 2, 3]}}', Form.INSTANCE, [[7]], [[1, 2, 3]]),
        ('{"instance": {"body": [1, 2, 3], "age": [7]}}', Form.INSTANCE, [[7]], [[1, 2, 3]]),
        (
            '{"instances": [{"body": [1, 2, 3], "age": [7]}, {"age": [8], "body": [4, 5, 6]}]}',
            Form.INSTANCES,
            [[7], [8]],
            [[1, 2, 3], [4, 5, 6]],
        ),
        (
            '{"inputs": {"body": [[1, 2, 3], [4, 5, 6]], "age": [[7], [8]]}}',
            Form.INPUTS,
            [[7], [8]],
            [[1, 2, 3], [4, 5, 6]],
        ),
    ],
)
def test_several_inputs_are_taken_by_name_in_any_order(text: str, form: Form, ages: Any, bodies: Any) -> None:
    call = decode(two_in(), text)

    assert (call.form, call.rows) == (form, len(ages))
    assert [array.tolist() for array in call.inputs] == [ages, bodies]
    assert [array.dtype.name for array in call.inputs] == ["int32", "float32"]


@pytest.mark.parametrize(
    ("text", "form", "values"),
    [
        ('{"instance": 3}', Form.INSTANCE, [3]),
        ('{"instance": {"x": 3}}', Form.INSTANCE, [3]),
        ('{"instances": [3, 4]}', Form.INSTANCES, [3, 4]),
        ('{"instances": [{"x": 3}, {"x": 4}]}', Form.INSTANCES, [3, 4]),
        ('{"inputs": [3, 4]}', Form.INPUTS, [3, 4]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_record_of_rank_0_is_a_bare_number(text: str, form: Form, values: list[int], dtype: str) -> None:
    call = decode(one_in(dtype, (-1,)), text)

    assert (call.form, call.rows) == (form, len(values))
    assert call.inputs[0].tolist() == values


@pytest.mark.parametrize(
    ("text", "form", "rows"),
    [
        ('{"instance": [[1, 2], [3, 4]]}', Form.INSTANCE, 1),
        ('{"instances": [[[1, 2], [3, 4]], [[1, 2], [3, 4]]]}', Form.INSTANCES, 2),
        ('{"inputs": [[1, 2], [3, 4]]}', Form.INPUTS, 1),
    ],
)
def test_where_there_is_no_batch_dimension_a_record_is_the_whole_tensor(text: str, form: Form, rows: int) -> None:
    call = decode(one_in(shape=(2, 2)), text)

    assert (call.form, call.rows) == (form, rows)
    assert call.inputs[0].tolist() == [[[1, 2], [3, 4]]] * rows


@pytest.mark.parametrize("text", ['{"instance": 3}', '{"inputs": 3}', '{"instances": [3]}'])
def test_a_whole_tensor_may_be_one_number(text: str) -> None:
    assert decode(one_in(shape=()), text).inputs[0].tolist() == [3]


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ('{"instance": [[1, 2, 3]]}', (1, 1, 3)),
        ('{"instance": [[1, 2, 3], [4, 5, 6]]}', (1, 2, 3)),
        ('{"instances": [[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]]}', (2, 2, 3)),
        ('{"inputs": {"x": [[[1, 2, 3]]]}}', (1, 1, 3)),
    ],
)
def test_the_caller_chooses_a_free_inner_dimension(text: str, shape: tuple[int, ...]) -> None:
    assert decode(one_in(shape=(-1, -1, 3)), text).inputs[0].shape == shape


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_a_good_body_of_numbers_takes_the_fast_road(dtype: str) -> None:
    codec = PredictJson(one_in(dtype))

    for text in (
        '{"instance": [1, 2, 3, 4]}',
        '{"instance": {"x": [1, 2, 3, 4]}}',
        '{"instances": [[1, 2, 3, 4], [5, 6, 7, 8]]}',
        '{"instances": [{"x": [1, 2, 3, 4]}, {"x": [1, 2, 3, 4]}]}',
        '{"inputs": [[1, 2, 3, 4]]}',
        '{"inputs": {"x": [[1, 2, 3, 4]]}}',
    ):
        assert codec._decode_fast(text.encode()) is not None, text


# A list of one record, whose brackets are looked at by a shorter way


def read_flat(signature: Signature, text: str) -> tuple[Form, Array] | None:
    """What the road without nested lists makes of a body; None where it leaves it to another."""
    reader = PredictJson(signature)._reader
    assert reader is not None
    return reader.read(text.encode())


@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize(
    "text",
    [
        "[[1,2]]",
        "[[1.0, 2e0]]",
        "[ [1 ,2 ] ] ",
        "\n[\t[\r1\n,\t2 \r]\n]\t",
        "[[1" + " " * 3000 + ",2]]",
    ],
    ids=["plain", "points", "spaces", "all white space", "much white space"],
)
@pytest.mark.parametrize("batch", [-1, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_list_of_one_record_is_read_flat(key: str, text: str, batch: int, dtype: str) -> None:
    signature = one_in(dtype, (batch, 2))
    for body in (f'{{"{key}":{text}}}', f' \n{{ "{key}" : {text} }}\n\t '):
        read = read_flat(signature, body)
        assert read is not None, "it takes another road"
        call = decode(signature, body)

        assert (read[0], call.form, call.rows) == (Form(key), Form(key), 1)
        assert read[1].tolist() == call.inputs[0].tolist() == [[1, 2]]
        assert call.inputs[0].dtype == read[1].dtype == np.dtype(dtype)


def test_a_record_that_is_a_list_of_one_list_is_read_flat_too() -> None:
    read = read_flat(one_in(shape=(-1, 1, 2)), '{"instance": [[1, 2]]}')

    assert read is not None
    assert read[1].tolist() == [[1, 2]]
    assert decode(one_in(shape=(-1, 1, 2)), '{"instance": [[1, 2]]}').inputs[0].tolist() == [[[1, 2]]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"instances": [[1,2],3]}',
            "instances[1]: expected a list of 2 float32 values for input 'x', found the number 3",
        ),
        (
            '{"instances": [1,[2,3]]}',
            "instances[0]: expected a list of 2 float32 values for input 'x', found the number 1",
        ),
        (
            '{"instances": [[1],2]}',
            "instances[0]: expected a list of 2 float32 values for input 'x', found a list of 1",
        ),
        (
            '{"instances": [1,[2]]}',
            "instances[0]: expected a list of 2 float32 values for input 'x', found the number 1",
        ),
        ('{"inputs": [1,[2]]}', "inputs[0]: expected a list of 2 float32 values for input 'x', found the number 1"),
        ('{"inputs": [[1],2]}', "inputs[0]: expected a list of 2 float32 values for input 'x', found a list of 1"),
        ('{"instances": [[1,2]],}', "the body is not JSON: "),
        ('{"instances": [[1,2],]}', "the body is not JSON: "),
        ('{"instances": [[1,2,]]}', "the body is not JSON: "),
        ('{"instances": [,[1,2]]}', "the body is not JSON: "),
        ('{"instances": [[]]}', "instances[0]: expected a list of 2 float32 values for input 'x', found an empty list"),
        ('{"inputs": [[]]}', "inputs[0]: expected a list of 2 float32 values for input 'x', found an empty list"),
        (
            '{"instances": [[ ]]}',
            "instances[0]: expected a list of 2 float32 values for input 'x', found an empty list",
        ),
        ('{"instances": [[1]]}', "instances[0]: expected a list of 2 float32 values for input 'x', found a list of 1"),
        (
            '{"instances": [[1,2,3]]}',
            "instances[0]: expected a list of 2 float32 values for input 'x', found a list of 3",
        ),
        (
            '{"instances": [[1,2,3,4]]}',
            "instances[0]: expected a list of 2 float32 values for input 'x', found a list of 4",
        ),
        (
            '{"instances": [[[1,2]]]}',
            "instances[0]: expected a list of 2 float32 values for input 'x', found a list of 1",
        ),
        ('{"instances": [[1,[2]]]}', "instances[0][1]: expected one float32 number for input 'x', found a list of 1"),
        ('{"instances": [[1,{}]]}', "instances[0][1]: expected one float32 number for input 'x', found an object"),
        ('{"instances": [[1,null]]}', "instances[0][1]: expected one float32 number for input 'x', found null"),
        ('{"instances": [[1,true]]}', "instances[0][1]: expected one float32 number for input 'x', found true"),
        ('{"instances": [[1,"2"]]}', "instances[0][1]: expected one float32 number for input 'x', found the string"),
        ('{"instances": [[1,1e39]]}', "instances[0][1]: the number 1e+39 is beyond float32"),
        ('{"instances": [[1,2]]} x', "the body is not JSON: "),
        ('{"instances": [[1,2]] x}', "the body is not JSON: "),
        ('{"instances": [[1,2] x]}', "the body is not JSON: "),
        ('{"instances": [[1,2]]}}', "the body is not JSON: "),
        ('{"instances": [[1,2]]]}', "the body is not JSON: "),
        ('{"instances": [[1,2]]]', "the body is not JSON: "),
        ('{"instances": [[1,2]}]', "the body is not JSON: "),
        ('{"instances": [[1,2]]', "the body is not JSON: "),
        ('{"instances": [[1,2]', "the body is not JSON: "),
        ('{"instances": [[1,2', "the body is not JSON: "),
        ('{"instances": [[1 2]]}', "the body is not JSON: "),
        ('{"instances": [[1,2\x0b]]}', "the body is not JSON: "),
        ('{"instances": [\x0c[1,2]]}', "the body is not JSON: "),
        ('{"instances": [[1,2]\x0c]}', "the body is not JSON: "),
        ('{"instances": [[1,2]]\x0b}', "the body is not JSON: "),
        ('{"instances": [[1,2]]}\x00', "the body is not JSON: "),
        ('[{"instances": [[1,2]]}', "the body is not JSON: "),
        ('[[{"instances": [[1,2]]}', "the body is not JSON: "),
        ('{"instances" [[1,2]]}', "the body is not JSON: "),
        ('{{"instances": [[1,2]]}', "the body is not JSON: "),
        ('{"instances": 1, [[1,2]]}', "the body is not JSON: "),
        ('{"instances": [[1,2]], "instances": [[1,2]]}', None),
        ('[{"instances": [[1,2]]}]', "the body: expected an object with exactly one of the keys"),
        ('[[1,2], "instances"]', "the body: expected an object with exactly one of the keys"),
    ],
)
def test_what_is_nearly_a_list_of_one_record_is_refused_for_what_it_is(text: str, expected: str | None) -> None:
    assert read_flat(one_in(shape=(-1, 2)), text) is None
    if expected is None:
        assert decode(one_in(shape=(-1, 2)), text).inputs[0].tolist() == [[1, 2]]
    else:
        assert refusal(one_in(shape=(-1, 2)), text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"instances": [[1,2],[3,4]]}', [[1, 2], [3, 4]]),
        ('{"instances": [{"x": [1,2]}]}', [[1, 2]]),
        ('{"inputs": {"x": [[1,2]]}}', [[1, 2]]),
        ('{"instances": [[1,NaN]]}', [[1, math.nan]]),
        ('{"instances": [[1,2]]}', [[1, 2]]),
    ],
)
def test_what_is_nearly_a_list_of_one_record_and_right_is_taken_by_another_road(text: str, rows: list[Any]) -> None:
    assert np.array_equal(decode(one_in(shape=(-1, 2)), text).inputs[0], np.array(rows, np.float32), equal_nan=True)


def test_a_list_of_one_list_is_no_whole_tensor_of_more_rows() -> None:
    whole = one_in(shape=(2, 2))

    assert refusal(whole, '{"inputs": [[1, 2]]}').startswith("inputs: expected lists of float32 values of shape [2, 2]")
    assert refusal(whole, '{"instance": [[1, 2, 3, 4]]}').startswith("instance: expected lists of float32 values")
    assert decode(whole, '{"inputs": [[1, 2], [3, 4]]}').inputs[0].tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [("int8", "-128, 127", "1, 128"), ("uint8", "0, 255", "-1, 0"), ("int64", "0, -9223372036854775808", "0, 1.0")],
)
def test_integers_of_one_record_are_taken_within_their_range_only(dtype: str, good: str, bad: str) -> None:
    signature = one_in(dtype, (-1, 2))

    read = read_flat(signature, f'{{"instances": [[{good}]]}}')
    assert read is not None
    assert read[1].tolist() == [json.loads(f"[{good}]")]
    assert read_flat(signature, f'{{"instances": [[{bad}]]}}') is None
    assert refusal(signature, f'{{"instances": [[{bad}]]}}').startswith("instances[0]")


PIECES = ["[", "[", "]", "]", "1", "2", ",", " ", "\n", "{}", "null", "1.5"]


@settings(max_examples=many(500))
@given(
    st.sampled_from(["instances", "inputs", "instance"]),
    st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
        st.builds(
            lambda pieces, at, more: "".join([*pieces[:at], more, *pieces[at + 1 :]]),
            st.just(["[", " ", "[", "1", ",", " ", "2", "]", " ", "]"]),
            st.integers(0, 9),
            st.sampled_from([*PIECES, ""]),
        ),
    ),
    st.sampled_from(["}", " }", "} ", "}}", "", "]}", ",}"]),
    st.sampled_from([(-1, 2), (1, 2), (-1, 1), (-1, 1, 2), (2, 2)]),
)
@example("instances", "[[1,2]]", "}", (-1, 2))
@example("inputs", "[[1,2]]", "}", (2, 2))
def test_whatever_stands_where_a_list_of_one_record_does_is_read_as_the_slow_road_reads_it(
    key: str, value: str, end: str, shape: tuple[int, ...]
) -> None:
    codec = PredictJson(one_in(shape=shape))
    body = f'{{"{key}": {value}{end}'.encode()

    def outcome(road: Callable[[bytes], Call]) -> object:
        try:
            call = road(body)
        except InvalidArgument as error:
            return error.message
        return call.form, call.rows, call.inputs[0].shape, call.inputs[0].tobytes()

    assert outcome(codec.decode) == outcome(codec._decode_slow)


def test_a_good_body_for_several_inputs_takes_the_fast_road() -> None:
    codec = PredictJson(two_in())
    record = '{"age": [7], "body": [1, 2, 3]}'

    for text in (
        f'{{"instance": {record}}}',
        f'{{"instances": [{record}, {record}]}}',
        '{"inputs": {"age": [[7]], "body": [[1, 2, 3]]}}',
    ):
        assert codec._decode_fast(text.encode()) is not None, text


# Requests that are refused: the object


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", "an object without keys"),
        ("[]", "a list of 0"),
        ("[1, 2, 3, 4]", "a list of 4"),
        ("null", "null"),
        ("3", "the number 3"),
        ('"instance"', 'the string "instance"'),
        ("true", "true"),
        ('{"instanse": [1, 2, 3, 4]}', 'an object with the key "instanse"'),
        ('{"Instance": [1, 2, 3, 4]}', 'an object with the key "Instance"'),
        ('{"instance": [1, 2, 3, 4], "instances": [[1, 2, 3, 4]]}', 'an object with the keys "instance", "instances"'),
        ('{"instances": [[1, 2, 3, 4]], "inputs": [[1, 2, 3, 4]]}', 'an object with the keys "instances", "inputs"'),
        ('{"instance": [1, 2, 3, 4], "signature_name": "x"}', 'an object with the keys "instance", "signature_name"'),
        ('{"prediction": [1, 2, 3, 4]}', 'an object with the key "prediction"'),
    ],
)
def test_a_body_is_an_object_with_exactly_one_of_the_three_keys(text: str, found: str) -> None:
    assert refusal(one_in(), text) == f"the body: {KEYS}, found {found}"


@pytest.mark.parametrize("body", [b"", b" \n", b"{", b'{"instance": [1, 2, 3, 4', b"\xff", b"x", b"[" * 100_000])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    assert refusal(one_in(), body).startswith("the body is ")


@pytest.mark.parametrize(
    ("value", "found"),
    [("5", "the number 5"), ("null", "null"), ('"a"', 'the string "a"'), ('{"x": [1]}', 'an object with the key "x"')],
)
def test_instances_are_a_list(value: str, found: str) -> None:
    message = refusal(one_in(), f'{{"instances": {value}}}')

    assert message == f"instances: expected a list of records, found {found}"


@pytest.mark.parametrize("signature", [one_in(), one_in(shape=(2, 2)), two_in()])
def test_no_instances_at_all_are_refused(signature: Signature) -> None:
    assert refusal(signature, '{"instances": []}') == "instances: expected at least one record, found an empty list"


def test_no_rows_of_inputs_at_all_are_refused() -> None:
    assert refusal(one_in(), '{"inputs": []}').endswith("for input 'x', found an empty list")


# Requests that are refused: names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"instance": {"z": [1]}}', "instance: expected an object with the key 'x', "
         "found no input 'x' and an unknown input 'z'"),
        ('{"instance": {"x": [1, 2, 3, 4], "z": 1}}', "instance: expected an object with the key 'x', "
         "found an unknown input 'z'"),
        ('{"instance": {}}', "instance: expected an object with the key 'x', found no input 'x'"),
        ('{"inputs": {"z": [[1, 2, 3, 4]]}}', "inputs: expected an object with the key 'x', "
         "found no input 'x' and an unknown input 'z'"),
        ('{"instances": [{"x": [1, 2, 3, 4]}, {"z": 1}]}', "instances[1]: expected an object with the key 'x', "
         "found no input 'x' and an unknown input 'z'"),
    ],
)  # fmt: skip
def test_an_unknown_or_missing_name_is_refused_for_one_input(text: str, expected: str) -> None:
    assert refusal(one_in(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"instance": {"age": [7]}}', "instance: {keys}, found no input 'body'"),
        ('{"instance": {"age": [7], "body": [1, 2, 3], "sex": 1}}', "instance: {keys}, found an unknown input 'sex'"),
        ('{"instance": [1, 2, 3]}', "instance: {keys}, found a list of 3"),
        ('{"inputs": [[1, 2, 3]]}', "inputs: {keys}, found a list of 1"),
        ('{"inputs": {"age": [[7]]}}', "inputs: {keys}, found no input 'body'"),
        ('{"instances": [[7, 1, 2, 3]]}', "instances[0]: {keys}, found a list of 4"),
        (
            '{"instances": [{"age": [7], "body": [1, 2, 3]}, {"age": [7]}]}',
            "instances[1]: {keys}, found no input 'body'",
        ),
        (
            '{"instances": [{"age": [7], "body": [1, 2, 3]}, null]}',
            "instances[1]: {keys}, found null",
        ),
    ],
)
def test_an_unknown_or_missing_name_is_refused_for_several_inputs(text: str, expected: str) -> None:
    keys = "expected an object with the keys 'age', 'body'"

    assert refusal(two_in(), text) == expected.format(keys=keys)


# Names and strings


NAMES = [
    *("13", "a/b:0", "\u00e9\U0001f600", "", 'q"uo"te', "it's"),
    *("instances", "instance", "b64", "}, {", "back\\slash", " "),
]


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs_may_have_any_name(name: str) -> None:
    one = make_signature("s", (spec(name, shape=(-1, 2)),), (spec(name, shape=(-1, 2)),))
    both = (spec(name, shape=(-1, 2)), spec("z", "int8", (-1,)))
    two = make_signature("s", both, both)
    records = [{name: [1.0, 2.5], "z": 3}, {name: [4.0, -1.0], "z": 5}]
    texts: list[tuple[str, Any]] = [
        ("instance", records[0]),
        ("instances", records),
        ("inputs", {name: [record[name] for record in records], "z": [3, 5]}),
    ]
    for key, value in texts:
        for escaped in (True, False):
            call = decode(two, json.dumps({key: value}, ensure_ascii=escaped))
            rows = 1 if key == "instance" else 2
            assert [array.tolist() for array in call.inputs] == [[[1, 2.5], [4, -1]][:rows], [3, 5][:rows]]
            (answer,) = json.loads(PredictJson(two).encode(call, call.inputs)).values()
            assert answer == value
    for named in (records[0][name], {name: records[0][name]}):
        assert decode(one, json.dumps({"instance": named})).inputs[0].tolist() == [[1, 2.5]]
        assert decode(one, json.dumps({"instances": [named, named]})).inputs[0].tolist() == [[1, 2.5]] * 2


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_below_any_name_is_found(name: str) -> None:
    signature = make_signature("s", (spec(name, shape=(-1, 2)), spec("z", shape=(-1,))), (spec("y"),))
    body = json.dumps({"instance": {name: [1, None], "z": 1}})

    assert refusal(signature, body) == f"instance.{name}[1]: expected one float32 number for input {name!r}, found null"


BYTES = '{"b64": "/w=="}'


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"instance": "a"}', [b"a"]),
        (f'{{"instance": {BYTES}}}', [b"\xff"]),
        ('{"instance": {"x": "a"}}', [b"a"]),
        (f'{{"instance": {{"x": {BYTES}}}}}', [b"\xff"]),
        (f'{{"instances": ["a", {BYTES}, {{"x": "b"}}, {{"x": {BYTES}}}]}}', [b"a", b"\xff", b"b", b"\xff"]),
        (f'{{"instances": [{BYTES}, {BYTES}]}}', [b"\xff", b"\xff"]),
        (f'{{"inputs": ["a", {BYTES}]}}', [b"a", b"\xff"]),
        (f'{{"inputs": {{"x": [{BYTES}, ""]}}}}', [b"\xff", b""]),
    ],
)
def test_strings_are_taken_bare_by_name_and_as_base64(text: str, values: list[bytes]) -> None:
    assert decode(one_in("string", (-1,)), text).inputs[0].tolist() == values


def test_a_whole_tensor_of_one_string_may_be_base64() -> None:
    assert decode(one_in("string", ()), f'{{"inputs": {BYTES}}}').inputs[0].tolist() == [b"\xff"]
    assert decode(one_in("string", ()), f'{{"inputs": {{"x": {BYTES}}}}}').inputs[0].tolist() == [b"\xff"]


def test_an_object_with_the_key_b64_holds_an_input_of_that_name() -> None:
    signature = make_signature("s", (spec("b64", "string", (-1,)),), (spec("y"),))

    assert decode(signature, f'{{"instance": {BYTES}}}').inputs[0].tolist() == [b"/w=="]
    assert decode(signature, f'{{"instance": {{"b64": {BYTES}}}}}').inputs[0].tolist() == [b"\xff"]
    assert decode(signature, f'{{"instances": ["a", {BYTES}]}}').inputs[0].tolist() == [b"a", b"/w=="]
    assert decode(signature, f'{{"inputs": [{BYTES}]}}').inputs[0].tolist() == [b"\xff"]


def test_base64_is_no_number() -> None:
    assert refusal(one_in("float32", (-1,)), f'{{"instance": {BYTES}}}') == (
        "instance: expected an object with the key 'x', found no input 'x' and an unknown input 'b64'"
    )


def test_strings_stand_among_numbers_in_a_model_of_several_inputs() -> None:
    signature = make_signature("s", (spec("name", "string", (-1,)), spec("n", "uint64", (-1, 2))), (spec("y"),))
    records = f'{{"name": "}},{{", "n": [0, {2**64 - 1}]}}, {{"n": [1, 2], "name": {BYTES}}}'

    call = decode(signature, f'{{"instances": [{records}]}}')

    assert [array.tolist() for array in call.inputs] == [[b"},{", b"\xff"], [[0, 2**64 - 1], [1, 2]]]
    assert refusal(signature, f'{{"instances": [{records}, {{"name": 1, "n": [1, 2]}}]}}').startswith(
        "instances[2].name: expected one string, "
    )


@pytest.mark.parametrize("text", ["[]", "[[]]", "[[[]]]"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bool", "string", "complex64"])
@pytest.mark.parametrize("key", ["instance", "instances", "inputs"])
def test_nothing_may_be_empty(key: str, dtype: str, text: str) -> None:
    assert refusal(one_in(dtype, (-1, -1, -1, -1)), f'{{"{key}": {text}}}').endswith("found an empty list")


# Requests that are refused: values and places


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"instance": 5}', "instance: expected a list of 4 float32 values for input 'x', found the number 5"),
        ('{"instance": null}', "instance: expected a list of 4 float32 values for input 'x', found null"),
        ('{"instance": [[1, 2, 3, 4]]}', "instance: expected a list of 4 float32 values for input 'x', "
         "found a list of 1"),
        ('{"instance": [1, 2, 3]}', "instance: expected a list of 4 float32 values for input 'x', found a list of 3"),
        ('{"instance": [1, 2, null, 4]}', "instance[2]: expected one float32 number for input 'x', found null"),
        ('{"instance": {"x": [1, 2, null, 4]}}', "instance.x[2]: expected one float32 number for input 'x', "
         "found null"),
        ('{"instances": [1, 2, 3, 4]}', "instances[0]: expected a list of 4 float32 values for input 'x', "
         "found the number 1"),
        ('{"instances": [[[1, 2, 3, 4]]]}', "instances[0]: expected a list of 4 float32 values for input 'x', "
         "found a list of 1"),
        ('{"inputs": [1, 2, 3, 4]}', "inputs[0]: expected a list of 4 float32 values for input 'x', "
         "found the number 1"),
        ('{"inputs": {"x": [[1, 2, 3, 4], [1, 2]]}}', "inputs.x[1]: expected a list of 4 float32 values "
         "for input 'x', found a list of 2"),
        ('{"inputs": {"x": [[1, 2, 3, "4"]]}}', "inputs.x[0][3]: expected one float32 number for input 'x', "
         "found the string \"4\""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("batch", [-1, 1])
def test_a_wrong_rank_length_or_type_is_refused_at_its_place(text: str, expected: str, batch: int) -> None:
    assert refusal(one_in(shape=(batch, 4)), text) == expected


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ("true", "true"),
        ("false", "false"),
        ("null", "null"),
        ('"7"', 'the string "7"'),
        ("[7]", "a list of 1"),
        ('{"a": 7}', 'an object with the key "a"'),
    ],
)
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_one_bad_value_deep_in_a_good_batch_is_found(dtype: str, bad: str, found: str) -> None:
    rows = [["1"] * 9 for _ in range(50)]
    rows[3][7] = bad
    kind = "number" if dtype in FLOATS else "integer"
    expected = f"expected one {dtype} {kind} for input 'x', found {found}"
    text = "[" + ", ".join("[" + ", ".join(row) + "]" for row in rows) + "]"
    signature = one_in(dtype, (-1, 9))

    assert refusal(signature, f'{{"instances": {text}}}') == f"instances[3][7]: {expected}"
    assert refusal(signature, f'{{"inputs": {text}}}') == f"inputs[3][7]: {expected}"
    assert refusal(signature, f'{{"inputs": {{"x": {text}}}}}') == f"inputs.x[3][7]: {expected}"


@pytest.mark.parametrize("bad", ["true", "null", '"7"'])
def test_one_bad_value_in_a_good_record_of_several_inputs_is_found(bad: str) -> None:
    message = refusal(two_in(), f'{{"instance": {{"age": [7], "body": [1, 2, {bad}]}}}}')

    assert message.startswith("instance.body[2]: expected one float32 number for input 'body', found ")


def test_one_bad_value_in_the_rows_of_several_inputs_is_found() -> None:
    good = '{"age": [7], "body": [1, 2, 3]}'
    bad = '{"age": [7.5], "body": [1, 2, 3]}'

    assert refusal(two_in(), f'{{"instances": [{good}, {good}, {bad}, {good}]}}') == (
        "instances[2].age[0]: expected one int32 integer for input 'age', found the number 7.5"
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"instances": [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3], [1, 2]]}', "instances[2]"),
        ('{"inputs": [[1, 2, 3, 4], [1, 2, 3, 4, 5], [1]]}', "inputs[1]"),
        ('{"instances": [{"x": [1, 2, 3, 4]}, {"x": [1, 2, 3]}]}', "instances[1].x"),
    ],
)
def test_ragged_rows_are_refused_with_the_index_of_the_first_bad_one(text: str, place: str) -> None:
    message = refusal(one_in(), text)

    assert message.startswith(f"{place}: expected a list of 4 float32 values for input 'x', found a list of ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"instance": [[1, 2, 3], [4, 5, 6], [7, 8]]}',
            "instance[2]: expected a list of 3 float32 values for input 'x', found a list of 2",
        ),
        (
            '{"instances": [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]}',
            "instances[1]: expected lists of float32 values of shape [1, 3] for input 'x', found a list of 2",
        ),
        (
            '{"inputs": [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]}',
            "inputs[1]: expected lists of float32 values of shape [1, 3], as in the first list at this depth, "
            "for input 'x', found a list of 2",
        ),
        (
            '{"instance": []}',
            "instance: expected lists of float32 values of shape [-1, 3] for input 'x', found an empty list",
        ),
    ],
)
def test_records_of_one_request_share_their_free_dimensions(text: str, expected: str) -> None:
    assert refusal(one_in(shape=(-1, -1, 3)), text) == expected


def test_inputs_of_different_numbers_of_records_are_refused_with_the_numbers() -> None:
    assert refusal(two_in(), '{"inputs": {"age": [[7], [8]], "body": [[1, 2, 3]]}}') == (
        "inputs: expected as many records in each input, found 'age': 2, 'body': 1"
    )


def test_whole_tensors_of_several_inputs_need_no_common_size() -> None:
    signature = make_signature("s", (spec("a", shape=(2,)), spec("b", shape=(3,))), (spec("y", shape=(1,)),))

    call = decode(signature, '{"inputs": {"a": [1, 2], "b": [1, 2, 3]}}')

    assert [array.shape for array in call.inputs] == [(1, 2), (1, 3)]
    assert call.rows == 1


# Requests: numbers at the edges


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_taken_to_both_ends_of_their_range_and_no_further(dtype: str) -> None:
    limits = np.iinfo(dtype)
    signature = one_in(dtype, (-1, 2))

    for low, high in ((limits.min, limits.max), (limits.max, limits.min), (limits.max, limits.max)):
        call = decode(signature, f'{{"instances": [[{low}, {high}]]}}')
        assert call.inputs[0].tolist() == [[low, high]]
        assert call.inputs[0].dtype == np.dtype(dtype)
    for value in (limits.min - 1, limits.max + 1, 2**64, -(2**63) - 1, 10**30):
        assert refusal(signature, f'{{"instances": [[1, 2], [1, {value}]]}}') == (
            f"instances[1][1]: the number {value} is out of range for {dtype}, {limits.min} to {limits.max}, "
            "for input 'x'"
        )


@pytest.mark.parametrize("text", ["1.0", "1e2", "0.5", "-0.0", "NaN", "1e400"])
def test_a_number_with_a_fraction_is_no_integer_though_its_neighbours_are(text: str) -> None:
    message = refusal(one_in("int32", (-1, 2)), f'{{"instances": [[1, 2], [3, {text}]]}}')

    assert message.startswith("instances[1][1]: expected one int32 integer for input 'x', found the number ")


@pytest.mark.parametrize("text", ["3.4028236e38", "-3.5e38", "1e39", "1e200", "1e400", "-1e400", "1" + "0" * 39])
def test_a_number_beyond_float32_is_refused_and_not_made_infinite(text: str) -> None:
    message = refusal(one_in(), f'{{"instances": [[1, 2, 3, 4], [1, {text}, 3, 4]]}}')

    assert message.startswith("instances[1][1]: the number ")
    assert "is beyond float32, whose largest is 3.4028234663852886e+38, for input 'x'" in message


def test_the_largest_and_smallest_float32_are_taken() -> None:
    call = decode(one_in(), '{"instance": [3.4028234663852886e38, -3.4028234663852886e38, 1e-45, 1e-60]}')

    info = np.finfo(np.float32)
    assert call.inputs[0].tolist() == [[float(info.max), float(info.min), float(info.smallest_subnormal), 0.0]]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "text",
    [
        '{"instance": [NaN, Infinity, -Infinity, 1]}',
        '{"instances": [[NaN, Infinity, -Infinity, 1]]}',
        '{"inputs": {"x": [[NaN, Infinity, -Infinity, 1]]}}',
    ],
)
def test_numbers_that_are_not_finite_are_read_by_their_tokens(dtype: str, text: str) -> None:
    values = decode(one_in(dtype), text).inputs[0].tolist()[0]

    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 1.0]


@pytest.mark.parametrize("number", [2**60 + 2**36 + 1, 2**62 + 2**38 + 1, -(2**60) - 2**36 - 1])
def test_an_integer_for_a_float_input_means_the_same_with_and_without_a_point(number: int) -> None:
    signature = one_in(shape=(-1, 1))
    read = [
        decode(signature, text.format(number)).inputs[0][0].tolist()
        for text in (
            '{{"instance": [{}]}}',
            '{{"instance": [{}.0]}}',
            '{{"instance": {{"x": [{}]}}}}',
            '{{"instances": [[{}], [1]]}}',
            '{{"instances": [[{}], [1.5]]}}',
            '{{"instances": [[{}], [NaN]]}}',
        )
    ]

    assert read == read[:1] * len(read)


def test_booleans_are_taken_by_a_boolean_input_only() -> None:
    assert decode(one_in("bool"), '{"instance": [true, false, true, true]}').inputs[0].tolist() == [
        [True, False, True, True]
    ]
    assert refusal(one_in("bool"), '{"instance": [true, 0, true, true]}') == (
        "instance[1]: expected one value true or false for input 'x', found the number 0"
    )


def test_one_long_string_among_many_short_ones_does_not_take_memory_for_all_of_them() -> None:
    body = b'{"instances": [["' + b"a" * 5_000 + b'"' + b', "b"' * 5_000 + b"]]}"
    tracemalloc.start()
    try:
        message = refusal(one_in(), body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert message.startswith("instances[0]: expected a list of 4")
    assert peak < 100 * len(body)


# Answers


def test_the_answer_has_the_form_of_the_question() -> None:
    signature = one_in(shape=(-1, 2))

    assert encode(signature, Form.INSTANCE, [[1, 2]]) == {"prediction": [1, 2]}
    assert encode(signature, Form.INSTANCES, [[1, 2], [3, 4]]) == {"predictions": [[1, 2], [3, 4]]}
    assert encode(signature, Form.INPUTS, [[1, 2], [3, 4]]) == {"outputs": [[1, 2], [3, 4]]}


def test_several_outputs_are_objects_by_name() -> None:
    risks, scores = [[1, 2], [3, 4]], [5, 6]

    assert encode(two_in(), Form.INSTANCE, risks[:1], scores[:1]) == {"prediction": {"risk": [1, 2], "score": 5}}
    assert encode(two_in(), Form.INSTANCES, risks, scores) == {
        "predictions": [{"risk": [1, 2], "score": 5}, {"risk": [3, 4], "score": 6}]
    }
    assert encode(two_in(), Form.INPUTS, risks, scores) == {"outputs": {"risk": risks, "score": scores}}


def test_records_of_rank_0_are_answered_as_bare_numbers() -> None:
    signature = one_in(shape=(-1,))

    assert encode(signature, Form.INSTANCE, [3]) == {"prediction": 3}
    assert encode(signature, Form.INSTANCES, [3, 4]) == {"predictions": [3, 4]}
    assert encode(signature, Form.INPUTS, [3, 4]) == {"outputs": [3, 4]}


def test_a_whole_tensor_is_answered_without_a_batch_dimension() -> None:
    signature = one_in(shape=(2, 2))
    record = [[1, 2], [3, 4]]

    assert encode(signature, Form.INSTANCE, [record]) == {"prediction": record}
    assert encode(signature, Form.INPUTS, [record]) == {"outputs": record}
    assert encode(signature, Form.INSTANCES, [record, record]) == {"predictions": [record, record]}
    assert encode(one_in(shape=()), Form.INPUTS, [3]) == {"outputs": 3}


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_that_are_not_finite_are_written_as_null(form: Form, dtype: str) -> None:
    answer = encode(one_in(dtype), form, [[math.nan, math.inf, -math.inf, 1]])

    record = answer["prediction"] if form is Form.INSTANCE else next(iter(answer.values()))[0]
    assert record == [None, None, None, 1]


def test_a_bare_number_that_is_not_finite_is_written_as_null_too() -> None:
    assert encode(one_in(shape=(-1,)), Form.INSTANCE, [math.nan]) == {"prediction": None}
    assert encode(two_in(), Form.INSTANCES, [[math.inf, 1]], [math.nan]) == {
        "predictions": [{"risk": [None, 1], "score": None}]
    }


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(-1, 2), (-1,)])
def test_integers_are_written_exactly(dtype: str, shape: tuple[int, ...]) -> None:
    limits = np.iinfo(dtype)
    rows = [[limits.min, limits.max]] if len(shape) == 2 else [limits.max]

    assert encode(one_in(dtype, shape), Form.INSTANCES, rows) == {"predictions": rows}
    assert encode(one_in(dtype, shape), Form.INSTANCE, rows) == {"prediction": rows[0]}


def test_booleans_are_written_as_true_and_false() -> None:
    signature = one_in("bool", (-1, 2))

    assert PredictJson(signature).encode(Call((), 1, Form.INSTANCE), [np.array([[True, False]])]) == (
        b'{"prediction":[true,false]}'
    )


def test_an_array_in_another_order_of_memory_is_written_by_its_meaning() -> None:
    output = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))

    for form in Form:
        answer = encode(one_in(shape=(-1, 3)), form, output)
        assert next(iter(answer.values())) == ([0, 1, 2] if form is Form.INSTANCE else [[0, 1, 2], [3, 4, 5]])


def digits(text: str) -> int:
    return len(text.lower().partition("e")[0].replace(".", "").replace("-", "").strip("0"))


@given(hnp.arrays(np.float32, (1, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_float32_is_written_by_the_shortest_text_that_reads_back_to_it(output: Array) -> None:
    body = PredictJson(one_in()).encode(Call((), 1, Form.INSTANCE), [output])

    tokens = body.removeprefix(b'{"prediction":[').removesuffix(b"]}").decode().split(",")
    again = decode(one_in(), f'{{"instance": [{",".join(tokens)}]}}').inputs[0]
    assert again.tobytes() == output.tobytes()
    assert [digits(token) for token in tokens] == [digits(np.format_float_scientific(value)) for value in output[0]]


@given(hnp.arrays(np.float64, (1, 4), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_a_float64_is_read_back_as_it_was_written(output: Array) -> None:
    body = PredictJson(one_in("float64")).encode(Call((), 1, Form.INSTANCE), [output])

    again = decode(one_in("float64"), body.decode().replace("prediction", "instance")).inputs[0]
    assert again.tobytes() == output.tobytes()
