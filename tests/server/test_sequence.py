"""The headers by which a request names its place in a sequence."""

import pytest

from app.errors import InvalidArgument
from app.runtime.job import Step
from app.server.sequence import SEQUENCE_HEADERS, step_of

ID, START, END = b"litepool-sequence-id", b"litepool-sequence-start", b"litepool-sequence-end"


def test_without_any_of_them_a_request_is_by_itself() -> None:
    assert step_of([(b"accept", b"*/*")]) is None
    assert {ID, START, END} == SEQUENCE_HEADERS


@pytest.mark.parametrize(
    ("headers", "step"),
    [
        ([(ID, b"a")], Step("a")),
        ([(START, b"true"), (ID, b"a")], Step("a", start=True)),
        ([(ID, b"a"), (END, b"1")], Step("a", end=True)),
        ([(ID, b"a"), (START, b" TRUE "), (END, b"True")], Step("a", start=True, end=True)),
        ([(ID, b"a"), (START, b"false"), (END, b"0")], Step("a")),
        ([(ID, b"~" * 128)], Step("~" * 128)),
        ([(ID, b"with spaces, and: signs")], Step("with spaces, and: signs")),
    ],
)
def test_a_name_and_two_words_say_where_in_a_sequence_it_is(headers: list[tuple[bytes, bytes]], step: Step) -> None:
    assert step_of(headers) == step


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([(ID, b"")], "Litepool-Sequence-Id: expected 1 to 128 printable ASCII characters, found ''"),
        ([(ID, b"x" * 129)], "Litepool-Sequence-Id: expected 1 to 128 printable ASCII characters, found 'xxx"),
        ([(ID, b"a\x00")], "Litepool-Sequence-Id: expected 1 to 128 printable ASCII characters, found 'a\\x00'"),
        ([(ID, b"\xe9")], "Litepool-Sequence-Id: expected 1 to 128 printable ASCII characters, found '\u00e9'"),
        ([(ID, b"a"), (ID, b"a")], "Litepool-Sequence-Id: expected one, found 2"),
        ([(START, b"true")], "Litepool-Sequence-Start without Litepool-Sequence-Id: name the sequence"),
        ([(END, b"false")], "Litepool-Sequence-End without Litepool-Sequence-Id: name the sequence"),
        ([(ID, b"a"), (START, b"yes")], "Litepool-Sequence-Start: expected true or false, found 'yes'"),
        ([(ID, b"a"), (END, b"")], "Litepool-Sequence-End: expected true or false, found ''"),
    ],
)
def test_what_is_no_place_in_a_sequence_is_refused(headers: list[tuple[bytes, bytes]], message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        step_of(headers)

    assert refused.value.message.startswith(message)
    assert len(refused.value.message) < 200
