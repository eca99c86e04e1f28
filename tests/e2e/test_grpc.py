"""gRPC of a real server: one worker and several, its port, its end, and what it costs who does not want it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM

import grpc
import pytest
from grpc_health.v1 import health_pb2

from app.server.rpc.messages import new
from tests import tflite
from tests.e2e.process import PATIENCE, Litepool, poll
from tests.server.rpc.served import INFERENCE, floats, infer_request

pytestmark = pytest.mark.slow

HEALTH, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "affine.tflite").write_bytes(tflite.affine())
    (folder / "state.tflite").write_bytes(tflite.running_sum())
    return folder


def start(models: Path, workers: int, **more: str) -> tuple[Litepool, str]:
    """A server that is ready, with more settings, and where it speaks gRPC."""
    arguments: list[str | Path] = [models, "--grpc-port", "0", "--workers", str(workers)]
    settings: dict[str, str | Path] = {"cache_dir": models.parent / "cache", "settle_seconds": "0", **more}
    server = Litepool(*arguments, settings=settings)
    server.wait_ready()
    return server, server.out.wait_for(r" and grpc://([^\s:]+:\d+): ", PATIENCE)[1]


def infer(channel: grpc.Channel, request: object) -> list[float]:
    answer = new("inference.ModelInferResponse")
    call = channel.unary_unary(f"{INFERENCE}/ModelInfer")
    answer.ParseFromString(call(request.SerializeToString(), timeout=PATIENCE))  # type: ignore[attr-defined]
    return floats(answer.raw_output_contents)


def step(sequence: str, number: int) -> object:
    parameters = {"sequence_id": {"string_param": sequence}, "sequence_start": {"bool_param": number == 1}}
    return infer_request("state", [[1, 1, 1, 1]], parameters.items())


@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_speaks_grpc(models: Path, workers: int) -> None:
    server, address = start(models, workers)
    with server:
        # The parent gives each connection to the worker that has the fewest.
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [grpc.insecure_channel(address, options) for _ in range(2 * workers)]
        for channel in channels:
            assert infer(channel, infer_request("affine")) == [3, 5, 7, 9]
            status = health_pb2.HealthCheckResponse.FromString(channel.unary_unary(HEALTH)(b"")).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        for sequence in map(str, range(4 * workers)):
            for number, channel in enumerate(channels, 1):
                assert infer(channel, step(sequence, number))[0] == number, "whichever worker has the connection"
        for channel in channels:
            channel.close()
        assert server.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_taken_is_answered_when_the_server_ends(models: Path, workers: int) -> None:
    server, address = start(models, workers)
    refused: list[str] = []
    answered = threading.Semaphore(0)

    def ask() -> None:
        request = infer_request("affine")
        with grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
            while True:
                try:
                    assert infer(channel, request) == [3, 5, 7, 9]
                except grpc.RpcError as error:
                    refused.append(f"{error.code()}: {error.details()}")
                    return
                answered.release()

    with server:
        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        for _ in range(500):
            assert answered.acquire(timeout=PATIENCE)
        server.process.send_signal(SIGTERM)
        assert server.wait() == 0
        for client in clients:
            client.join(PATIENCE)
    # None was cut off: gRPC's clients begin calls again that the server says it has not taken, and find nobody.
    assert len(refused) == 8
    assert all("UNAVAILABLE: failed to connect" in told for told in refused), refused
    assert "Traceback" not in server.log.text()


@pytest.mark.parametrize("workers", [1, 2])
def test_who_only_listens_does_not_hold_up_the_end(models: Path, workers: int) -> None:
    server, address = start(models, workers, drain_seconds=str(10 * PATIENCE))
    ends = threading.Event()
    request = infer_request("affine").SerializeToString()

    def once_and_silence(message: bytes) -> Iterator[bytes]:
        yield message
        ends.wait()

    with server, ExitStack() as stack:
        stack.callback(ends.set)
        calls = []
        for _ in range(2 * workers):
            channel = stack.enter_context(grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)))
            watch = channel.unary_stream(WATCH)(b"")
            statuses = (health_pb2.HealthCheckResponse.FromString(message).status for message in watch)
            # A worker may hear a moment later than we do that all are ready.
            assert health_pb2.HealthCheckResponse.SERVING in statuses
            stream = channel.stream_stream(f"{INFERENCE}/ModelStreamInfer")(once_and_silence(request))
            next(stream)
            reflection = channel.stream_stream(REFLECTION)(once_and_silence(b"\x3a\x00"))
            next(reflection)
            calls.append((statuses, stream, reflection))
        assert server.stop() == 0
        for statuses, *streams in calls:
            assert list(statuses) == [health_pb2.HealthCheckResponse.NOT_SERVING]
            for stream in streams:
                assert stream.code() is grpc.StatusCode.UNAVAILABLE
                assert stream.details() == "the server is shutting down"


def test_a_worker_that_takes_anothers_place_speaks_grpc_too(models: Path) -> None:
    server, address = start(models, 2)
    with server:
        for before in server.workers():
            before.kill()
            before.wait(PATIENCE)
        poll("two workers", lambda: len(server.workers()) == 2)
        for _ in range(4):
            # On hot roads and on the private socket, where the dead ones have listened before.
            with grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
                grpc.channel_ready_future(channel).result(PATIENCE)
                call = channel.unary_unary(f"{INFERENCE}/ModelReady")
                name = new("inference.ModelReadyRequest", name="affine").SerializeToString()
                poll("a ready model", lambda: call(name, timeout=PATIENCE) == b"\x08\x01")  # noqa: B023
                assert infer(channel, infer_request("affine")) == [3, 5, 7, 9]
        assert server.stop() == 0


def test_a_port_in_use_is_told_with_its_number(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Litepool(models, "--grpc-port", str(port), settings={"cache_dir": models.parent}) as server:
            assert server.wait() == 1
            poll("the reason", lambda: "cannot be listened on" in server.log.text())
            assert server.log.text() == f"litepool: 127.0.0.1 port {port} cannot be listened on: Address already in use"


def test_who_speaks_http_to_the_port_is_told(models: Path) -> None:
    server, address = start(models, 1)
    host, port = address.split(":")
    with server, socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"gRPC" in connection.makefile("rb").read()
