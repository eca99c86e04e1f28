"""Messages between a worker and its parent, over pipes."""

import os
from collections.abc import Iterator

import pytest

from app import errors
from app.errors import Internal, LitepoolError, ModelError, NotFound, QueueFull, Unavailable
from app.server.channel import Message, Reader, Writer, encode, error_from_json, error_to_json


class Pipe:
    """A pipe whose ends are closed at the end, unless that was done before."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self._open = {self.read, self.write}

    def close(self, *ends: int) -> None:
        for end in ends or tuple(self._open):
            os.close(end)
            self._open.discard(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_messages_that_come_together_are_told_apart(pipe: Pipe) -> None:
    os.write(pipe.write, encode({"settled": True}) + encode({"order": 1}))

    assert Reader(pipe.read).read() == [{"settled": True}, {"order": 1}]


def test_a_message_that_comes_in_pieces_is_whole_with_the_last(pipe: Pipe) -> None:
    reader = Reader(pipe.read)
    sent = encode({"model": "a name\nof two lines, and ünïcode"})
    seen: list[Message] = []
    for place in range(len(sent)):
        assert seen == []
        os.write(pipe.write, sent[place : place + 1])
        seen += reader.read()

    assert seen == [{"model": "a name\nof two lines, and ünïcode"}]


def test_the_end_of_the_other_side_is_told_after_what_it_has_said(pipe: Pipe) -> None:
    reader = Reader(pipe.read)
    os.write(pipe.write, encode({"done": 1}) + b'{"do')
    pipe.close(pipe.write)

    assert reader.read() == [{"done": 1}]
    with pytest.raises(EOFError):
        reader.read()


def test_a_reader_that_does_not_read_keeps_the_writer_from_nothing_and_gets_all_in_order_later(pipe: Pipe) -> None:
    writer = Writer(pipe.write)
    messages = [{"order": number, "model": "m" * 1000} for number in range(500)]
    whole = [writer.send(message) for message in messages]
    assert whole[0]
    assert not whole[-1], "half a megabyte is more than a pipe holds"

    reader = Reader(pipe.read)
    seen: list[Message] = []
    while len(seen) < len(messages):
        seen += reader.read()
        writer.flush()

    assert seen == messages
    assert writer.flush()


def test_a_reader_that_is_dead_is_no_error_of_the_writer(pipe: Pipe) -> None:
    writer = Writer(pipe.write)
    pipe.close(pipe.read)

    assert writer.send({"settled": True})


def kinds(kind: type[LitepoolError] = LitepoolError) -> list[type[LitepoolError]]:
    return [
        kind,
        *(below for each in kind.__subclasses__() if each.__module__ == errors.__name__ for below in kinds(each)),
    ]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_an_error_of_every_kind_comes_out_with_its_code_and_message(kind: type[LitepoolError]) -> None:
    error = error_from_json(error_to_json(kind("what was found")))

    assert error is not None
    assert error.code is kind.code
    assert error.message == "what was found"


@pytest.mark.parametrize("kind", [NotFound, ModelError, Unavailable, Internal])
def test_an_error_whose_code_is_its_own_comes_out_as_it_was(kind: type[LitepoolError]) -> None:
    assert type(error_from_json(error_to_json(kind("x")))) is kind


@pytest.mark.parametrize("seconds", [None, 7])
def test_when_to_try_again_is_kept(seconds: int | None) -> None:
    error = error_from_json(error_to_json(QueueFull("full", seconds)))

    assert isinstance(error, Unavailable)
    assert error.retry_after == seconds


def test_no_error_is_none() -> None:
    assert error_to_json(None) is None
    assert error_from_json(None) is None
