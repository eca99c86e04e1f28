"""The ways in which servers are asked, without starting any."""

import socket
from collections.abc import Iterator
from concurrent import futures
from contextlib import closing

import grpc
import numpy as np
import pytest

from benchmarks.check import WrongAnswerError
from benchmarks.messages import GRPC
from benchmarks.models import MLP, records
from benchmarks.servers.apps.floor_sized import SIZES, answer
from benchmarks.ways import FLOOR, HOSTS, LITEPOOL, TRITON, Host, Way, call
from benchmarks.wire import Request

PAIRS = [(host, way) for host in HOSTS for way in host.ways]
BY_NAME = {way.name: way for way in LITEPOOL.ways}


def test_each_way_of_a_server_is_named_once() -> None:
    for host in HOSTS:
        assert len({way.name for way in host.ways}) == len({way.title for way in host.ways}) == len(host.ways)


@pytest.mark.parametrize(("host", "way"), PAIRS, ids=lambda each: each.name if isinstance(each, Way) else "")
def test_grpc_is_asked_on_the_port_after_that_of_http(host: Host, way: Way) -> None:
    assert host.ways
    assert way.request(18000, records(MLP, 1)).port == (18001 if way.wire.content_type == GRPC else 18000)


def test_litepool_and_triton_are_asked_the_same_but_for_the_models_name() -> None:
    batch = records(MLP, 32)
    for way in TRITON.ways:
        ours, theirs = BY_NAME[way.name].request(1, batch), way.request(1, batch)
        assert theirs.body in (ours.body, ours.body.replace(b"\x0a\x03mlp", b"\x0a\x05model", 1))
        assert ours.more == theirs.more


def test_a_binary_request_says_where_its_json_ends() -> None:
    ask = BY_NAME["v2-binary"].request(1, records(MLP, 2))
    length = int(ask.headers["Inference-Header-Content-Length"])
    assert ask.body[length - 1 : length] == b"}"
    assert ask.body[length:] == records(MLP, 2).tobytes()


def test_the_floor_reads_and_answers_as_many_bytes_as_the_model_does() -> None:
    binary = next(way for way in FLOOR.ways if way.name == "binary")
    ask = binary.request(1, records(MLP, 256))
    assert ask.body == BY_NAME["v2-binary"].request(1, records(MLP, 256)).body
    start, body = answer(ask.path)
    assert len(body["body"]) == 256 * MLP.outputs * 4
    assert (b"content-length", b"32768") in start["headers"]


def test_the_floor_has_a_handler_for_every_message_that_it_is_asked_for() -> None:
    way = next(way for way in FLOOR.ways if way.over_grpc)
    assert [way.path(size) for size in way.sizes] == [f"/floor.Answer/{size}" for size in SIZES]


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Answers what it is told, and to an empty message an error."""
    if not request:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an empty message")
    return request


@pytest.fixture
def port() -> Iterator[int]:
    with futures.ThreadPoolExecutor(1) as pool:
        handler = grpc.method_handlers_generic_handler("a.B", {"C": grpc.unary_unary_rpc_method_handler(echo)})
        server = grpc.server(pool, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(None).wait()


def test_a_call_gets_the_answers_message_as_it_came(port: int) -> None:
    message = np.arange(300_000, dtype=np.uint8).tobytes()
    assert call(Request(port, "/a.B/C", GRPC, message)) == message


def test_a_call_that_is_refused_is_a_wrong_answer_with_the_status_in_it(port: int) -> None:
    with pytest.raises(WrongAnswerError, match="INVALID_ARGUMENT: an empty message"):
        call(Request(port, "/a.B/C", GRPC, b""))


def test_an_http_answer_that_is_no_2xx_is_a_wrong_answer() -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull"
    with closing(socket.create_server(("127.0.0.1", 0))) as listening, futures.ThreadPoolExecutor(1) as pool:

        def refuse() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(refusal)

        refused = pool.submit(refuse)
        way = BY_NAME["predict-json"]
        with pytest.raises(WrongAnswerError, match="full"):
            way.fetch(way.request(listening.getsockname()[1], records(MLP, 1)))
        refused.result()
