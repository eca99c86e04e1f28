"""Connections given by one process and taken by another; here both sides are in one."""

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from app.server.handover import GRPC, HTTP, Giver, Taker


class Pair:
    """A giver and its taker, and connections to give."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.giver = Giver()
        # The worker has them by inheritance, which leaves the giver's own to be closed.
        channel, count = map(os.dup, self.giver.passed)
        self.giver.handed()
        self.taker = Taker(channel, count)
        stack.callback(self.giver.close)
        stack.callback(self.taker.close)

    def give(self) -> socket.socket:
        """Give one end of a connection; the other."""
        near, far = socket.socketpair()
        self._stack.callback(near.close)
        try:
            assert self.giver.give(far)
        finally:
            far.close()
        return near

    def take(self) -> list[socket.socket]:
        taken = [each for each, _ in self.taker.take()]
        for each in taken:
            self._stack.callback(each.close)
        return taken


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


def test_what_is_given_is_taken_in_order_and_works(pair: Pair) -> None:
    near = [pair.give() for _ in range(3)]

    taken = pair.take()
    for number, each in enumerate(taken):
        each.send(b"%d" % number)

    assert [each.recv(1) for each in near] == [b"0", b"1", b"2"]
    assert not any(each.getblocking() for each in taken)


def test_what_is_spoken_on_a_connection_goes_with_it(pair: Pair) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert pair.giver.give(far, GRPC)
        pair.give()
        (given, kind), (other, usual) = pair.taker.take()
        given.close()
        other.close()

    assert (kind, usual) == (GRPC, HTTP)


def test_nothing_is_taken_when_nothing_was_given(pair: Pair) -> None:
    assert pair.take() == []


def test_open_connections_are_those_given_less_those_closed(pair: Pair) -> None:
    assert pair.giver.open == 0

    pair.give()
    pair.give()
    assert pair.giver.open == 2, "also before they are taken"

    pair.take()
    pair.taker.closed()
    assert pair.giver.open == 1


def test_what_was_given_before_the_giver_s_end_is_taken_still(pair: Pair) -> None:
    pair.give()
    pair.giver.close()

    assert len(pair.take()) == 1
    with pytest.raises(EOFError):
        pair.take()
    assert not pair.giver.usable


def test_a_taker_that_refuses_takes_what_it_was_given_and_the_giver_learns_of_it(pair: Pair) -> None:
    pair.give()
    pair.taker.refuse()

    near, far = socket.socketpair()
    with near, far:
        assert pair.giver.give(far) is False
    assert not pair.giver.usable
    assert len(pair.take()) == 1
    with pytest.raises(EOFError):
        pair.take()


def test_a_taker_that_died_is_no_longer_usable(pair: Pair) -> None:
    pair.taker.close()

    near, far = socket.socketpair()
    with near, far:
        assert pair.giver.give(far) is False
    assert not pair.giver.usable


def test_a_giver_that_is_full_says_so_and_has_room_again_once_something_is_taken(pair: Pair) -> None:
    near, far = socket.socketpair()
    given = 0
    with near, far:
        with suppress(BlockingIOError):
            while pair.giver.give(far):
                given += 1
        with pytest.raises(BlockingIOError):
            pair.giver.give(far)
        assert pair.giver.open == given
        assert pair.giver.usable
        assert select.select([], [pair.giver], [], 0)[1] == []

        taken = 0
        while batch := pair.take():
            taken += len(batch)

        assert taken == given
        assert select.select([], [pair.giver], [], 0)[1] == [pair.giver]
        assert pair.giver.give(far)


def test_when_the_system_cannot_pass_a_connection_on_the_worker_is_usable_still(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ETOOMANYREFS, "too many references")

    near, far = socket.socketpair()
    with near, far:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "send_fds", fail)
            with pytest.raises(OSError, match="too many references"):
                pair.giver.give(far)
        assert pair.giver.usable
        assert pair.giver.open == 0
        assert pair.giver.give(far)


def test_a_connection_that_comes_without_its_descriptor_counts_as_closed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pair.give()
    messages: Iterator[object] = iter([(b".", [], 0, None)])

    def out_of_files(*_: object) -> object:
        try:
            return next(messages)
        except StopIteration:
            raise BlockingIOError from None

    monkeypatch.setattr(socket, "recv_fds", out_of_files)
    assert pair.take() == []

    assert pair.giver.open == 0
    assert "as many open files as it may" in caplog.text
