"""gRPC in one worker: its port, and the end of it."""

import asyncio
from pathlib import Path

import grpc
import pytest

from app.server.listen import listen
from app.server.rpc.edge import Edge
from app.settings import Settings
from tests.server.inprocess import InProcess
from tests.server.rpc.served import INFERENCE, LANE, infer_request, serving

ALONE = (("grpc.use_local_subchannel_pool", 1),)


def test_each_end_of_a_connection_is_told(application: InProcess, folder: Path) -> None:
    async def run() -> None:
        sock = listen("127.0.0.1", 0)
        closed: asyncio.Queue[None] = asyncio.Queue()
        edge = Edge(Settings(models_dir=folder, grpc_port=0), sock, closed=lambda: closed.put_nowait(None))
        listener = await edge.open(application.services)
        assert listener is not None
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        for _ in range(3):
            async with grpc.aio.insecure_channel(address, ALONE) as channel:
                request = infer_request("affine").SerializeToString()
                await channel.unary_unary(f"{INFERENCE}/ModelInfer")(request)
                assert closed.empty()
            await closed.get()
        listener.close()
        await edge.drain(1)
        assert closed.empty()

    application.run(run())


def test_nothing_is_left_of_it(
    application: InProcess, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    edge = Edge(Settings(models_dir=folder, grpc_port=0))

    listener = application.run(edge.open(application.services))

    assert listener is None, "it is given its connections"
    (made,) = tmp_path.iterdir()
    assert [path.name for path in made.iterdir()] == ["0.grpc"]
    assert made.stat().st_mode & 0o077 == 0
    application.run(edge.drain(1))
    assert not list(tmp_path.iterdir())


def test_what_was_never_open_is_drained_at_once(folder: Path) -> None:
    edge = Edge(Settings(models_dir=folder, grpc_port=0))
    edge.refresh()
    asyncio.run(edge.drain(1))


@pytest.mark.parametrize("access_log", [True, False])
def test_calls_have_lines_in_the_access_log_where_requests_have(
    application: InProcess, folder: Path, access_log: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "uvicorn.access")

    async def run() -> None:
        async with serving(application, LANE, folder, access_log=access_log) as rpc:
            await rpc.call(f"{INFERENCE}/ModelInfer", infer_request("affine"))
            await rpc.refused(f"{INFERENCE}/ModelInfer", infer_request("none"))
            await rpc.call(f"{INFERENCE}/ServerLive", b"")

    application.run(run())
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    words = ['ModelInfer HTTP/2" OK', 'ModelInfer HTTP/2" NOT_FOUND', 'ServerLive HTTP/2" OK']
    assert len(lines) == (3 if access_log else 0)
    for line, said in zip(lines, words, strict=False):
        assert line.startswith("127.0.0.1:")
        assert said in line
