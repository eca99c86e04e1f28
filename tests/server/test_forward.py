"""Sequences between workers: which worker a request goes to, and that it comes out as it would from one worker."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.errors import InvalidArgument
from app.server.forward import FORWARDED, Forwarding, Peers, frame, read_frame
from app.server.inlet import Farewell, Inlet
from app.server.sequence import sequence_of
from tests.server.inprocess import PATIENCE, call_raw

HEADER = b"litepool-sequence-id"
MAX_BODY = 1 << 20
LATER = 30.0

Scope = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]
Message = dict[str, Any]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, PATIENCE))


class Endpoint:
    """Answers with its own name and the body; it keeps what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scopes: list[Scope] = []
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.gone = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.entered.set()
        if not self.go_on.is_set():
            answered = asyncio.ensure_future(self.go_on.wait())
            left = asyncio.ensure_future(receive())
            done, pending = await asyncio.wait((answered, left), return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            if left in done:
                assert left.result() == {"type": "http.disconnect"}
                self.gone.set()
                return
        headers = [(b"content-type", b"text/x"), (b"x-twice", b"1"), (b"x-twice", b"\xe9")]
        await send({"type": "http.response.start", "status": 207, "headers": headers})
        await send({"type": "http.response.body", "body": self.name.encode() + b":", "more_body": True})
        await send({"type": "http.response.body", "body": body})


class Crew:
    """Two workers in one process, each with its socket; for one loop."""

    def __init__(self, folder: Path, apps: tuple[App, App] | None = None) -> None:
        self.ends = [Endpoint("first"), Endpoint("second")]
        self.peers = [Peers(folder, index, 2, MAX_BODY, LATER) for index in (0, 1)]
        apps = apps or (self.ends[0], self.ends[1])
        self.apps = [Forwarding(app, peers) for app, peers in zip(apps, self.peers, strict=True)]
        ended, held = os.pipe()
        self.inlets = []
        for app, peers in zip(self.apps, self.peers, strict=True):
            farewell = Farewell(os.dup(ended), os.dup(held))
            self.inlets.append(Inlet(app, peers.socket_of(peers.index), MAX_BODY, farewell))
        os.close(ended)
        os.close(held)
        self._open = set[int]()

    async def open(self, *indexes: int) -> None:
        for index in indexes:
            await self.inlets[index].open()
            self._open.add(index)

    async def close(self, index: int, seconds: float = PATIENCE, *, alone: bool = True) -> None:
        self._open.discard(index)
        await self.inlets[index].close(seconds, alone)

    async def close_all(self) -> None:
        for index in tuple(self._open):
            await self.close(index)
        for peers in self.peers:
            peers.close()

    def name_of(self, owner: int) -> bytes:
        """A sequence that is one worker's."""
        return next(name for name in map(str, range(100)) if self.peers[0].owner_of(name) == owner).encode()


def crew_test(check: Callable[[Crew], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """A test with a crew whose workers both listen."""

    async def whole(folder: Path) -> None:
        crew = Crew(folder)
        await crew.open(0, 1)
        try:
            await check(crew)
        finally:
            await crew.close_all()

    def test(tmp_path: Path) -> None:
        run(whole(tmp_path))

    test.__name__ = check.__name__
    return test


def request(body: bytes = b"body") -> list[Message]:
    return [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]


async def ask(crew: Crew, index: int, sequence: bytes | None, body: bytes = b"body") -> tuple[int, bytes]:
    """Send a request to one worker; the status and the body of the answer."""
    _, status, answer = await ask_fully(crew, index, [] if sequence is None else [(HEADER, sequence)], [body])
    return status, answer


async def ask_fully(
    crew: Crew, index: int, headers: list[tuple[bytes, bytes]], pieces: list[bytes]
) -> tuple[list[tuple[bytes, bytes]], int, bytes]:
    """The same with any headers, and a body in pieces; with the headers of the answer."""
    messages = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces)}
        for place, piece in enumerate(pieces, 1)
    ]
    waiting = asyncio.Event()

    class Client:
        """Waits for its answer when it has sent everything."""

        def __init__(self) -> None:
            self.sent: list[Message] = []

        async def receive(self) -> Message:
            if messages:
                return messages.pop(0)
            await waiting.wait()
            return {"type": "http.disconnect"}

        async def send(self, message: MutableMapping[str, Any]) -> None:
            self.sent.append(dict(message))

    client = Client()
    await crew.apps[index](scope_with(headers), client.receive, client.send)
    start, *bodies = client.sent
    return start["headers"], start["status"], b"".join(each["body"] for each in bodies)


def scope_with(headers: list[tuple[bytes, bytes]]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/predict/é",
        "raw_path": b"/predict/%C3%A9",
        "query_string": b"a=\xff",
        "root_path": "",
        "headers": headers,
        "client": ("10.0.0.7", 1234),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "path_params": {"model": "é"},
    }


# The header


def test_a_request_without_the_header_is_in_no_sequence() -> None:
    assert sequence_of([(b"accept", b"*/*")]) is None


def test_the_header_names_the_sequence() -> None:
    assert sequence_of([(b"accept", b"*/*"), (HEADER, b"user 7/a")]) == "user 7/a"


@pytest.mark.parametrize(
    "values", [[b""], [b"x" * 129], [b"\xe9"], [b"a\tb"], [b"a", b"a"]], ids=["empty", "long", "latin", "tab", "two"]
)
def test_a_header_that_names_none_is_refused(values: list[bytes]) -> None:
    with pytest.raises(InvalidArgument, match=r"^Litepool-Sequence-Id: expected "):
        sequence_of([(HEADER, value) for value in values])


@crew_test
async def test_a_header_that_names_none_is_400_and_the_rest_of_its_body_is_dropped(crew: Crew) -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": more} for more in (True, True, False)]

    sent = await call_raw(crew.apps[0], "/predict", messages, [(HEADER, b"")])

    assert sent[0]["status"] == 400
    assert b'{"error":"Litepool-Sequence-Id' in sent[1]["body"]
    assert crew.ends[0].scopes == []


# Owners


def test_the_owner_of_a_sequence_is_the_same_for_every_worker_and_in_every_run(tmp_path: Path) -> None:
    peers = [Peers(tmp_path, index, 5, MAX_BODY, LATER) for index in range(5)]

    assert {each.owner_of("a sequence") for each in peers} == {1}


def test_sequences_are_spread_over_the_workers(tmp_path: Path) -> None:
    peers = Peers(tmp_path, 0, 4, MAX_BODY, LATER)

    counts = Counter(peers.owner_of(f"client-{number}") for number in range(4000))

    assert counts.keys() == {0, 1, 2, 3}
    assert min(counts.values()) > 850


# The way there and back


@crew_test
async def test_a_sequence_is_answered_by_its_owner_wherever_it_comes_in(crew: Crew) -> None:
    for owner, name in enumerate((b"first", b"second")):
        for index in (0, 1):
            assert await ask(crew, index, crew.name_of(owner)) == (207, name + b":body")


@crew_test
async def test_a_request_by_itself_is_answered_where_it_comes_in(crew: Crew) -> None:
    assert await ask(crew, 0, None) == (207, b"first:body")
    assert await ask(crew, 1, None) == (207, b"second:body")


@crew_test
async def test_request_and_answer_are_the_same_as_without_the_way(crew: Crew) -> None:
    headers = [(HEADER, crew.name_of(1)), (b"x-a", b"\xff"), (b"x-b", b"1"), (b"x-b", b"2")]
    pieces = [bytes(range(256)) * 1000, b"", b"the end"]

    there = await ask_fully(crew, 0, headers, pieces)
    here = await ask_fully(crew, 1, headers, pieces)

    assert there == here
    assert there[2] == b"second:" + b"".join(pieces)
    passed, own = crew.ends[1].scopes
    for name in own.keys() - {"path_params", "state"}:
        assert passed[name] == own[name], name
    assert FORWARDED in passed["extensions"]


@crew_test
async def test_many_requests_at_once_each_get_their_own_answer(crew: Crew) -> None:
    bodies = [b"%d" % number * 1000 for number in range(50)]

    answers = await asyncio.gather(*(ask(crew, 0, crew.name_of(1), body) for body in bodies))

    assert answers == [(207, b"second:" + body) for body in bodies]


def test_a_request_is_passed_on_but_once_even_where_owners_are_seen_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        crew = Crew(tmp_path)
        for peers, owner in zip(crew.peers, (1, 0), strict=True):
            monkeypatch.setattr(peers, "owner_of", lambda _, owner=owner: owner)
        await crew.open(0, 1)
        assert await ask(crew, 0, b"x") == (207, b"second:body")
        await crew.close_all()

    run(check())


@crew_test
async def test_a_body_that_is_too_large_is_413_where_it_comes_in(crew: Crew) -> None:
    _, status, answer = await ask_fully(crew, 0, [(HEADER, crew.name_of(1))], [b"x" * MAX_BODY, b"x"])

    assert status == 413
    assert b"the most that the server takes" in answer
    assert crew.ends[1].scopes == []


@crew_test
async def test_a_connection_between_workers_is_kept_for_the_next_request(crew: Crew) -> None:
    for number in range(20):
        assert await ask(crew, 0, crew.name_of(1), b"%d" % number) == (207, b"second:%d" % number)

    assert len(crew.inlets[1]._connections) == 1


@crew_test
async def test_no_more_connections_are_kept_than_may(crew: Crew) -> None:
    second = crew.ends[1]
    second.go_on.clear()
    asked = [asyncio.ensure_future(ask(crew, 0, crew.name_of(1))) for _ in range(50)]
    while len(second.scopes) < 50:  # noqa: ASYNC110  the turns of the loop
        await asyncio.sleep(0)
    second.go_on.set()
    await asyncio.gather(*asked)

    while len(crew.inlets[1]._connections) > 32:  # noqa: ASYNC110  as above
        await asyncio.sleep(0)
    assert await ask(crew, 0, crew.name_of(1)) == (207, b"second:body")


# What goes wrong


def test_a_sequence_whose_owner_is_gone_is_503_and_told_when_to_try_again(tmp_path: Path) -> None:
    async def check() -> None:
        crew = Crew(tmp_path)
        await crew.open(0)
        headers, status, answer = await ask_fully(crew, 0, [(HEADER, crew.name_of(1))], [b"body"])
        assert status == 503
        assert (b"retry-after", b"1") in headers
        assert answer.startswith(b'{"error":"the worker that kept this sequence is gone')
        await crew.open(1)
        assert await ask(crew, 0, crew.name_of(1)) == (207, b"second:body")
        await crew.close_all()

    run(check())


def test_an_owner_that_dies_over_a_request_is_503(tmp_path: Path) -> None:
    async def check() -> None:
        async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_frame(reader)
            writer.writelines((frame({"status": 200, "headers": []}, b"an answer")[0], b"an ans"))
            writer.close()

        crew = Crew(tmp_path)
        server = await asyncio.start_unix_server(die, crew.peers[0].socket_of(1))
        status, _ = await ask(crew, 0, crew.name_of(1))
        assert status == 503
        server.close()
        await server.wait_closed()

    run(check())


def test_an_owner_that_hangs_is_504(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[asyncio.Timeout] = []
    new = asyncio.timeout

    def kept(seconds: float) -> asyncio.Timeout:
        assert seconds == LATER + 1.0
        limits.append(new(seconds))
        return limits[-1]

    async def check() -> None:
        crew = Crew(tmp_path)
        await crew.open(1)
        second = crew.ends[1]
        second.go_on.clear()
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "timeout", kept)
            asked = asyncio.ensure_future(ask(crew, 0, crew.name_of(1)))
            await second.entered.wait()
        (limit,) = limits
        limit.reschedule(0.0)
        status, answer = await asked
        assert status == 504
        assert b"has not answered within 31 s" in answer
        await second.gone.wait()
        await crew.close_all()

    run(check())


@crew_test
async def test_the_owner_learns_that_the_client_has_gone(crew: Crew) -> None:
    crew.ends[1].go_on.clear()
    headers = [(HEADER, crew.name_of(1))]

    sent = await call_raw(crew.apps[0], "/predict", request(), headers)

    assert sent == []
    await crew.ends[1].gone.wait()
    crew.ends[1].go_on.set()
    assert await ask(crew, 0, crew.name_of(1), b"another") == (207, b"second:another")


def test_an_application_that_fails_answers_what_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        async def fails_before(scope: Scope, receive: Any, send: Any) -> None:
            raise RuntimeError("no answer")

        async def fails_behind(scope: Scope, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"sorry"})
            raise RuntimeError("behind the answer")

        crew = Crew(tmp_path, apps=(fails_before, fails_behind))
        await crew.open(0, 1)
        assert await ask(crew, 0, crew.name_of(1)) == (500, b"sorry")
        assert (await ask(crew, 1, crew.name_of(0)))[0] == 503
        await crew.close_all()

    run(check())
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0" * 5, b"\xff" * 12, b"\0\0\0\2" + (MAX_BODY + 1).to_bytes(8) + b"{}", b"\0\0\0\1" + bytes(8) + b"{"],
    ids=str,
)
def test_what_is_no_frame_ends_the_connection_and_nothing_else(tmp_path: Path, sent: bytes) -> None:
    async def check() -> None:
        crew = Crew(tmp_path)
        await crew.open(0, 1)
        reader, writer = await asyncio.open_unix_connection(crew.peers[0].socket_of(1))
        writer.write(sent)
        writer.write_eof()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert await ask(crew, 0, crew.name_of(1)) == (207, b"second:body")
        await crew.close_all()

    run(check())


# The end


@crew_test
async def test_requests_under_way_are_answered_before_the_end(crew: Crew) -> None:
    second = crew.ends[1]
    second.go_on.clear()
    asked = asyncio.ensure_future(ask(crew, 0, crew.name_of(1)))
    await second.entered.wait()
    closed = asyncio.ensure_future(crew.close(1))
    await asyncio.sleep(0)
    assert not closed.done()

    second.go_on.set()

    await closed
    assert await asked == (207, b"second:body")


@crew_test
async def test_what_takes_longer_than_the_end_may_is_cut_off(crew: Crew) -> None:
    second = crew.ends[1]
    second.go_on.clear()
    asked = asyncio.ensure_future(ask(crew, 0, crew.name_of(1)))
    await second.entered.wait()

    await crew.close(1, 0.0)

    assert (await asked)[0] == 503


@crew_test
async def test_a_worker_that_ends_with_the_others_takes_what_they_pass_on_until_none_of_them_does(crew: Crew) -> None:
    closed = asyncio.ensure_future(crew.close(1, alone=False))
    await asyncio.sleep(0)
    assert await ask(crew, 0, crew.name_of(1)) == (207, b"second:body")
    assert not closed.done()

    await crew.close(0, alone=False)

    await closed
    assert (await ask(crew, 0, crew.name_of(1)))[0] == 503


@crew_test
async def test_a_worker_does_not_wait_for_the_others_longer_than_it_may(crew: Crew) -> None:
    await crew.close(1, 0.0, alone=False)


def test_a_replacement_takes_over_the_socket_of_one_that_has_died(tmp_path: Path) -> None:
    async def check() -> None:
        dead, crew = Crew(tmp_path), Crew(tmp_path)
        await dead.open(1)
        assert await ask(crew, 0, crew.name_of(1)) == (207, b"second:body")
        await crew.open(1)
        await dead.close_all()
        ((kept, _),) = crew.peers[0]._idle[1]
        assert await kept.read() == b""
        assert await ask(crew, 0, crew.name_of(1)) == (207, b"second:body")
        assert [len(each.ends[1].scopes) for each in (dead, crew)] == [1, 1]
        await crew.close_all()

    run(check())
