"""Real clients of gRPC, synchronous and grpc.aio, over the loopback: what they see is what grpc.aio would show them."""

import asyncio
from collections.abc import Iterator
from typing import cast

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from app.server.h2 import replies
from app.server.h2.head import Head
from app.server.h2.relay import Sink
from tests.loops import PATIENCE
from tests.server.h2.served import UNLIMITED, Served

ECHOES = "/hot.Service/Echoes"
ECHO, WAIT, REFUSE = "/hot.Service/Echo", "/hot.Service/Wait", "/hot.Service/Refuse"
LARGE = bytes(range(256)) * (1 << 18)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address, options=(*UNLIMITED, ("grpc.use_local_subchannel_pool", 1))) as channel:
        yield channel


@pytest.mark.parametrize("path", [ECHO, "/cold.Service/echo"])
@pytest.mark.parametrize("size", [0, 1, 1000, 20_000, 1 << 20, 64 << 20])
def test_messages_of_every_size_go_both_ways(channel: grpc.Channel, path: str, size: int) -> None:
    message = LARGE[:size]
    for _ in range(3 if size < 1 << 20 else 1):
        assert channel.unary_unary(path)(message, timeout=PATIENCE) == message


@pytest.mark.parametrize("path", [ECHO, "/cold.Service/echo"])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("size", [0, 1000, 10 << 20])
def test_messages_may_be_compressed(channel: grpc.Channel, path: str, compression: grpc.Compression, size: int) -> None:
    message = bytes(size)
    assert channel.unary_unary(path)(message, timeout=PATIENCE, compression=compression) == message


def test_a_bomb_that_is_large_is_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(ECHO)(bytes(200 << 20), timeout=PATIENCE, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_error_has_its_code_and_its_message(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(REFUSE)(b"")
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "no: 5 % ☃\n"


def test_many_calls_under_way_on_one_connection_are_all_answered(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.unary_unary(WAIT)
            answers = [asyncio.ensure_future(call(b"%d" % number)) for number in range(1000)]
            jobs = [await served.jobs.get() for _ in answers]
            assert len(served.lane.connections) == 1
            for job in reversed(jobs):
                job.caller.answer(job.message * 2, "")
            assert await asyncio.gather(*answers) == [b"%d" % number * 2 for number in range(1000)]

    served.run(calls())


def test_a_call_that_is_cancelled_is_abandoned(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.unary_unary(WAIT)(b"x")
            job = await served.jobs.get()
            assert job.seconds is None
            call.cancel()
            await job.gone.wait()
            job.caller.answer(b"late", "")
            assert await channel.unary_unary(ECHO)(b"next") == b"next"

    served.run(calls())


def test_a_call_whose_deadline_passes_is_abandoned(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            # Its deadline is for the call, not for connecting.
            await channel.channel_ready()
            call = channel.unary_unary(WAIT)(b"x", timeout=1.0)
            job = await served.jobs.get()
            assert job.seconds is not None
            assert 0 < job.seconds < 2
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await job.gone.wait()

    served.run(calls())


def test_a_client_that_goes_abandons_its_calls(served: Served) -> None:
    async def calls() -> None:
        channel = served.channel()
        call = channel.unary_unary(WAIT)(b"x")
        job = await served.jobs.get()
        await channel.close()
        await job.gone.wait()
        assert call.cancelled()

    served.run(calls())


def test_calls_with_many_unlike_timeouts_and_headers_are_kept_apart(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.unary_unary(WAIT)
            for number in range(200):
                timeout = None if number % 3 == 0 else 1000.0 + 70 * number
                answer = call(b"%d" % number, timeout=timeout, metadata=(("x", str(number % 70)),))
                job = await served.jobs.get()
                assert job.message == b"%d" % number
                assert job.seconds == (timeout if timeout is None else pytest.approx(timeout, rel=0.02))
                job.caller.answer(job.message, "")
                assert await answer == job.message

    served.run(calls())


# What is behind the relay.


def test_health_is_told_once_and_watched(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
            watch = stub.Watch(request)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            await served.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await served.health.set("", health_pb2.HealthCheckResponse.SERVING)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()

    served.run(calls())


@pytest.mark.parametrize("path", ["/cold.Service/fail", "/cold.Service/none"])
def test_what_grpc_itself_says_of_a_failure_is_for_the_log(
    channel: grpc.Channel, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(b"")
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    text = caught.value.details()
    assert text.startswith("the server failed on this call; its log has it as request ")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.server.h2.relay"]
    assert text.rpartition(" ")[2] in line
    assert "a secret" in line or "Method not found!" in line


def test_metadata_goes_both_ways(channel: grpc.Channel) -> None:
    metadata = (("name", "value"), ("name", "again"), ("some-bin", b"\0\1\xff"), ("none-bin", b""))
    _, call = channel.unary_unary("/cold.Service/echo").with_call(b"x", metadata=metadata)
    initial = [pair for pair in call.initial_metadata() if pair[0] in ("name", "some-bin", "none-bin")]
    assert sorted(map(tuple, initial)) == sorted(metadata)
    assert [tuple(pair) for pair in call.trailing_metadata()] == [("trailing", "yes"), ("trailing-bin", b"\0\xff")]
    assert call.code() == grpc.StatusCode.OK


def test_an_error_has_its_code_its_message_and_its_metadata(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/cold.Service/refuse")(b"")
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "not today: 5 % ☃"
    assert [tuple(pair) for pair in caught.value.trailing_metadata()] == [("why", "because")]


def test_a_call_that_the_server_cancels_is_cancelled(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/cold.Service/cancel")(b"", timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.CANCELLED


def test_a_deadline_is_passed_on(channel: grpc.Channel) -> None:
    remaining = channel.unary_unary("/cold.Service/remaining")
    assert remaining(b"") == b"none"
    assert 80 < int(remaining(b"", timeout=100)) <= 101


def test_a_stream_that_the_client_leaves_is_cancelled(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.stream_stream("/cold.Service/wait")()
            assert await call.read() == b"begun"
            call.cancel()
            await served.methods.cancelled.wait()

    served.run(calls())


def test_metadata_comes_before_the_first_message(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.stream_stream("/cold.Service/patient")()
            assert ("ready", "yes") in [tuple(pair) for pair in await call.initial_metadata()]
            await call.write(b"x")
            assert await call.read() == b"x"
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF

    served.run(calls())


@pytest.mark.parametrize("path", [ECHOES, "/cold.Service/echo"])
def test_messages_of_a_stream_go_back_and_forth(served: Served, path: str) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.stream_stream(path)()
            for number in range(50):
                await call.write(b"%d" % number)
                assert await call.read() == b"%d" % number
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() == grpc.StatusCode.OK

    served.run(calls())


def test_a_long_stream_of_large_messages_comes_whole_and_in_order(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.stream_stream("/cold.Service/many")()
            await call.write(b"60")
            await call.done_writing()
            found = [message async for message in call]
            assert [int(message.rstrip(b"\0")) for message in found] == list(range(60))

    served.run(calls())


@pytest.mark.parametrize("coding", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_requests_of_every_size_on_one_call_are_answered_in_their_order(
    served: Served, coding: grpc.Compression
) -> None:
    sizes = [0, 3 << 20, 1, 70_000, 1 << 20, 16_379, 16_380, 2] * 3

    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.stream_stream(ECHOES)(iter(LARGE[:size] for size in sizes), compression=coding)
            assert [len(message) async for message in call] == sizes
            assert await call.code() == grpc.StatusCode.OK

    served.run(calls())


def test_a_call_of_many_requests_that_the_client_leaves_is_abandoned(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            call = channel.stream_stream("/hot.Service/Waits")()
            await call.write(b"one")
            job = await served.jobs.get()
            call.cancel()
            await job.gone.wait()

    served.run(calls())


def test_a_call_of_many_requests_ends_with_its_deadline(served: Served) -> None:
    async def calls() -> None:
        async with served.channel() as channel:
            await channel.channel_ready()
            call = channel.stream_stream("/hot.Service/Waits")(timeout=1.0)
            await call.write(b"one")
            job = await served.jobs.get()
            assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await job.gone.wait()

    served.run(calls())


def test_a_server_that_is_not_there_is_unavailable(served: Served) -> None:
    async def calls() -> None:
        lane = served.new_lane()
        lane.relay = type(served.relay)("unix:/nowhere/at/all")
        async with grpc.aio.insecure_channel(await served.listen(lane)) as channel:
            assert await channel.unary_unary(ECHO)(b"hot") == b"hot"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/cold.Service/echo")(b"")
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            details = "the part of the server that answers this call cannot be reached: try again"
            assert caught.value.details() == details, "it tells of none of the server's files"
        await lane.relay.close()

    served.run(calls())


OK = (replies.OK, "")


class Told:
    """The client's side of a call that nothing is sent on."""

    head = Head("/cold.Service/echo")

    def __init__(self) -> None:
        self.end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def finish(self, code: int, message: str, metadata: replies.Metadata = ()) -> None:
        self.end.set_result((code, message))

    def begin_answer(self, metadata: replies.Metadata) -> None:
        pass

    def passed(self, size: int) -> None:
        pass

    async def send(self, message: bytes) -> None:
        pass


def test_a_call_whose_time_is_up_as_it_begins_is_late_and_no_failure(served: Served) -> None:
    async def late(number: int) -> tuple[int, str]:
        sink = Told()
        passage = served.relay.open(cast("Sink", sink), 1e-5 * number)
        passage.put(False, bytes(100_000))
        passage.put_end()
        return await sink.end

    async def calls() -> None:
        # Of these grpc.aio calls some an internal error.
        for _ in range(10):
            ends = set(await asyncio.gather(*map(late, range(100))))
            assert ends <= {(replies.DEADLINE_EXCEEDED, replies.LATE), OK}

    served.run(calls())


def test_calls_under_way_when_the_relay_closes_are_told_so(served: Served) -> None:
    async def calls() -> None:
        lane = served.new_lane()
        lane.relay = served.new_relay()
        async with grpc.aio.insecure_channel(await served.listen(lane)) as channel:
            call = channel.stream_stream("/cold.Service/wait")()
            assert await call.read() == b"begun"
            await lane.relay.close()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    served.run(calls())


# Drain.


def test_a_drain_answers_what_is_under_way_and_closes_the_connections(served: Served) -> None:
    async def calls() -> None:
        lane = served.new_lane()
        async with grpc.aio.insecure_channel(await served.listen(lane)) as channel:
            answer = asyncio.ensure_future(channel.unary_unary(WAIT)(b"x"))
            job = await served.jobs.get()
            drained = asyncio.ensure_future(lane.drain(PATIENCE))
            await asyncio.sleep(0)
            assert not drained.done()
            job.caller.answer(b"in time", "")
            assert await answer == b"in time"
            await drained
            assert not lane.connections

    served.run(calls())


def test_a_drain_does_not_wait_for_ever_and_says_so(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    async def calls() -> None:
        lane = served.new_lane()
        async with grpc.aio.insecure_channel(await served.listen(lane)) as channel:
            answer = asyncio.ensure_future(channel.unary_unary(WAIT)(b"x"))
            job = await served.jobs.get()
            await lane.drain(0.01)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert caught.value.details() == "the server is shutting down"
            await job.gone.wait()

    served.run(calls())
    assert "1 gRPC calls were cut off: the drain took too long" in caplog.messages
