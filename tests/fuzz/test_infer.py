"""The targets of `infer.py` for a while: bodies that are damaged, and bodies that are anything."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import infer
from tests.fuzz.budget import budget, try_all

SEEDS = infer.seeds()

SPLICES = [
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"-1", b"1e999", b"NaN", b"null", b"true", b"\\u0000", b"9" * 40),
    *(b"\x00", b"\xff", b"\x80", b"\x3a\x04", b"\x1a\x01"),
    *(b'"data"', b'"data":[1]', b'"shape":[1]', b'"binary_data_size":4'),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A body that is read, with a few pieces cut out, doubled or put in."""
    body = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 8)))
        piece = draw(st.one_of(st.sampled_from(SPLICES), st.binary(max_size=3), st.just(body[start:end] * 2)))
        body = body[:start] + piece + body[end:]
    return body


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """JSON of the right outline with values of any kind in it."""
    odd = draw(st.integers(0, 9))
    pick = {
        "name": st.sampled_from(["x", "age", "body", "y"]),
        "shape": st.lists(st.integers(-1, 4), max_size=3),
        "datatype": st.sampled_from(["FP32", "INT32", "BYTES", "BOOL", "FP16", "INT8", "UINT64", "BF16"]),
        "data": st.lists(st.integers(0, 3) | st.floats(width=32) | st.booleans(), max_size=8),
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "shared_memory_region", "other"]), st.integers(0, 20), max_size=1
        ),
    }
    item = {
        key: draw(json_values if place == odd else value)
        for place, (key, value) in enumerate(pick.items())
        if draw(st.booleans()) or key in ("name", "shape", "datatype")
    }
    document = {"inputs": [item] * draw(st.integers(1, 2))}
    for key in ("id", "outputs", "parameters"):
        if draw(st.integers(0, 3)) == 0:
            document[key] = draw(json_values)
    return json.dumps(document).encode("utf-8", "surrogatepass") + draw(st.binary(max_size=12))


@budget
def test_damaged_bodies_are_refused_or_read_right(share: int) -> None:
    try_all("infer damaged", damaged(), infer.check, share, 400)


@budget
def test_documents_of_odd_values_are_refused_or_read_right(share: int) -> None:
    try_all("infer documents", documents(), infer.check, share, 300)


@budget
def test_any_bytes_are_refused_or_read_right(share: int) -> None:
    examples = st.tuples(st.binary(max_size=80), st.integers(0, 100))
    try_all("infer bytes", examples, lambda example: infer.check_headed(*example), share, 300)


def test_the_seeds_are_read() -> None:
    for body in SEEDS:
        infer.check(body)
