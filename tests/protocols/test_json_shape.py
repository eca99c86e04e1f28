"""The brackets and commas of a text against the shape that its numbers should have."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocols.json_shape import Skeleton


def fits(shape: tuple[int, ...], text: bytes) -> bool:
    """Whether a text is a list of lists of this shape, its first size among it."""
    return Skeleton(shape[1:]).fits(text, shape[0])


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The obviously right way: the shape of nested lists of numbers; None for ragged ones."""
    if not isinstance(value, list):
        return ()
    inner = {shape_of(item) for item in value}
    if len(inner) != 1 or None in inner:
        return None
    return (len(value), *(next(iter(inner)) or ()))


nested = st.recursive(st.integers(-9, 9), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=20).filter(
    lambda value: isinstance(value, list)
)


@given(shapes)
def test_lists_of_the_shape_fit(shape: tuple[int, ...]) -> None:
    text = json.dumps(np.zeros(shape).tolist()).encode()
    assert fits(shape, text)


@given(nested, shapes, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", ":")]))
def test_lists_fit_just_when_they_have_the_shape(value: Any, shape: tuple[int, ...], commas: tuple[str, str]) -> None:
    text = json.dumps(value, separators=commas).encode()
    found = shape_of(value)
    assert fits(shape, text) == (found == shape)
    if found:
        assert fits(found, text)


@pytest.mark.parametrize("text", [b"[[1,2,3],[4,5]]", b"[[1],[2,3,4,5]]", b"[[1,2],[3,4],[5]]", b"[1,2,3,4,5]"])
def test_as_many_numbers_in_other_lists_do_not_fit(text: bytes) -> None:
    assert not fits((1, 5), text)
    assert not fits((5, 1), text)


@pytest.mark.parametrize("text", [b"[[1],[2,3,4]]", b"[[1,2,3],[4]]"])
def test_a_number_in_the_neighbouring_list_does_not_fit(text: bytes) -> None:
    assert not fits((2, 2), text)


@given(st.lists(st.integers(2, 4), min_size=2, max_size=3).map(tuple), st.data())
def test_a_number_moved_to_the_next_list_does_not_fit(shape: tuple[int, ...], data: st.DataObject) -> None:
    value = np.arange(np.prod(shape)).reshape(-1, shape[-1]).tolist()
    place = data.draw(st.integers(0, len(value) - 2))
    value[place + 1].insert(0, value[place].pop())
    whole: Any = value
    for size in reversed(shape[1:-1]):
        whole = [whole[index : index + size] for index in range(0, len(whole), size)]
    assert not fits(shape, json.dumps(whole).encode())


def test_what_surrounds_the_lists_is_passed_over() -> None:
    assert fits((2, 2), b'{"instances" : [ [1, 2.5e-3] , [-3,4] ] }')
