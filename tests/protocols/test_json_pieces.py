"""Large bodies read piece by piece are read as they would be in one."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidArgument
from app.protocols import json_pieces
from app.protocols.call import Call
from app.protocols.predict_json import PredictJson
from app.tensors import make_signature
from tests.signatures import one_in, spec, two_in


@pytest.fixture(autouse=True, scope="module")
def _everything_is_large() -> Any:
    """Pieces of a few bytes, for bodies of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "LARGE", 0)
        patch.setattr(json_pieces, "_PIECE", 12)
        yield


numbers = st.sampled_from(["1", "-2.5", "3e3", "0.1", "16777217"])
odd = st.sampled_from(["true", "null", '"7"', "NaN", "1e39", "[1]", "", "[]", "x"])


@st.composite
def bodies(draw: st.DrawFn, shape: tuple[int, ...]) -> bytes:
    """A list of records of `shape`, mostly right."""
    flawed = draw(st.booleans())

    def part(sizes: tuple[int, ...]) -> str:
        if flawed and draw(st.integers(0, 15)) == 0:
            return draw(odd)
        if not sizes:
            return draw(numbers)
        size = sizes[0] + (draw(st.integers(-1, 1)) if flawed and draw(st.integers(0, 15)) == 0 else 0)
        comma, end = draw(st.sampled_from([",", ", ", " , "])), draw(st.sampled_from(["]", " ]", "\n]"]))
        return "[" + comma.join(part(sizes[1:]) for _ in range(size)) + end

    key = draw(st.sampled_from(["instances", "inputs", "instances "]))
    tail = draw(st.sampled_from(["}", "} ", " }\n", "", "]}", ",}"])) if flawed else "}"
    return f'{{"{key}": {part((draw(st.integers(1, 6)), *shape))}{tail}'.encode()


def checked(codec: PredictJson, body: bytes) -> None:
    """That a body is the same call by pieces and as a whole, or refused by both."""
    found, wanted = outcome(codec, body, whole=False), outcome(codec, body, whole=True)
    if isinstance(wanted, str) or isinstance(found, str):
        assert isinstance(found, str), f"read by pieces, refused as a whole: {wanted}"
        assert isinstance(wanted, str), f"read as a whole, refused by pieces: {found}"
        return
    assert (found.rows, found.form) == (wanted.rows, wanted.form)
    for ours, theirs in zip(found.inputs, wanted.inputs, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def outcome(codec: PredictJson, body: bytes, whole: bool) -> Call | str:
    try:
        return codec._decode_slow(body) if whole else codec.decode(body)
    except InvalidArgument as error:
        return error.message


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1,), (2, 1, 2)])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_pieces_give_what_the_whole_gives(shape: tuple[int, ...], dtype: str) -> None:
    codec = PredictJson(one_in(dtype, (-1, *shape)))

    @given(bodies(shape))
    def check(body: bytes) -> None:
        checked(codec, body)

    check()


@given(st.data(), st.sampled_from([(4, 2), (3, 1), (2, 2, 3)]))
def test_a_single_record_in_pieces_is_what_it_is_as_a_whole(data: st.DataObject, shape: tuple[int, ...]) -> None:
    body = data.draw(bodies(shape[1:])).replace(b'"instances"', b'"instance"').replace(b'"inputs"', b'"instance"')

    checked(PredictJson(one_in(shape=(-1, *shape))), body)


def test_a_single_record_of_another_size_is_refused_with_both_sizes() -> None:
    codec = PredictJson(one_in(shape=(-1, 4, 2)))

    with pytest.raises(InvalidArgument, match=r"^instance: expected .*4.*, found a list of 5$"):
        codec.decode(json.dumps({"instance": [[1.5, 2.5]] * 5}).encode())


def few(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-9, 9), min_size=size, max_size=size)


people = st.lists(st.fixed_dictionaries({"age": few(1), "body": few(3)}), min_size=1, max_size=12)


PARTS = {
    "bool": st.booleans(),
    "float16": st.sampled_from([0.5, 65504, -1, 3]),
    "uint64": st.sampled_from([0, 2**63 - 1, 2**63, 2**64 - 1]),
    "complex64": st.tuples(st.integers(-9, 9), st.sampled_from([0.5, -1])),
    "string": st.sampled_from(["", "a", "},{", "]},{[", '"', "\\", "],[", "é", {"b64": "/w=="}]),
}


@pytest.mark.parametrize("dtype", PARTS)
def test_records_of_every_kind_are_read_in_pieces_as_they_are_as_a_whole(dtype: str) -> None:
    bare = PredictJson(one_in(dtype, (-1, 2)))
    named = PredictJson(make_signature("s", (spec("a", dtype), spec("b", dtype, (-1,))), (spec("y"),)))
    part = PARTS[dtype]

    @given(st.lists(st.tuples(part, part), min_size=1, max_size=9), st.binary(max_size=1), st.data())
    def check(records: list[Any], noise: bytes, data: st.DataObject) -> None:
        for codec, items in (
            (bare, records),
            (bare, [{"x": record} for record in records]),
            (named, [{"a": [*first, *first], "b": first[0]} for first in records]),
        ):
            body = json.dumps({"instances": items}).encode()
            place = data.draw(st.integers(0, len(body)))
            assert not isinstance(outcome(codec, body, whole=False), str)
            for text in (body, body[:place] + noise + body[place:]):
                checked(codec, text)

    check()


@given(people, st.sampled_from([None, 0, 2]), st.binary(max_size=1), st.data())
def test_records_that_are_objects_are_read_in_pieces_as_they_are_as_a_whole(
    records: list[dict[str, Any]], indent: int | None, noise: bytes, data: st.DataObject
) -> None:
    codec = PredictJson(two_in())
    body = json.dumps({"instances": records}, indent=indent).encode()
    place = data.draw(st.integers(0, len(body)))

    checked(codec, body)
    checked(codec, body[:place] + noise + body[place:])


def test_a_fault_in_a_far_object_is_named_by_its_place_in_the_whole() -> None:
    codec = PredictJson(one_in(shape=(-1, 3)))
    records: list[Any] = [{"x": [1.0, 2.0, 3.0]} for _ in range(500)]
    records[321]["x"][1] = "seven"

    with pytest.raises(InvalidArgument, match=r'^instances\[321\]\.x\[1\]: .* found the string "seven"$'):
        codec.decode(json.dumps({"instances": records}).encode())


def test_a_fault_far_into_the_list_is_named_by_its_place_in_the_whole() -> None:
    rows: list[list[Any]] = [[1.0, 2.0, 3.0] for _ in range(500)]
    rows[321][1] = "seven"
    codec = PredictJson(one_in(shape=(-1, 3)))
    with pytest.raises(InvalidArgument, match=r'^instances\[321\]\[1\]: .* found the string "seven"$'):
        codec.decode(json.dumps({"instances": rows}).encode())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_list_by_itself_is_cut_into_lists_of_items_that_together_are_the_whole(rank: int) -> None:
    values: Any = list(range(5000))
    for _ in range(1, rank):
        values = [values[start : start + 7] for start in range(0, len(values), 7)]
    text = json.dumps(values).encode()

    parts = list(json_pieces.list_pieces(text, rank))

    assert len(parts) > 2
    assert [item for part in parts for item in json.loads(part)] == values
