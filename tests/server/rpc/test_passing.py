"""gRPC's calls for sequences that another worker keeps."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from app.errors import DeadlineExceeded, InvalidArgument, LitepoolError, Unavailable
from app.protocols.call import Wire
from app.server.forward import Peers
from app.server.inlet import Farewell, Inlet
from app.server.predict import Caller
from app.server.rpc.calls import joined
from app.server.rpc.hot import PATHS, Hot
from app.server.rpc.messages import new
from app.server.rpc.passing import elsewhere, routes
from tests.server.inprocess import InProcess, call_raw
from tests.server.rpc.served import floats, infer_request

MOST = 1 << 20


class Crew:
    """Two workers: the first passes on, the second takes what it is passed. They share their models here."""

    def __init__(self, served: InProcess, folder: Path) -> None:
        self.served = served
        self.dataplane = served.services.dataplane
        self.peers = [Peers(folder, index, 2, MOST, 5.0) for index in range(2)]
        self.call = Hot(Wire.GRPC_INFER, self.dataplane, elsewhere(self.peers[0]))
        self.name = next(name for name in map(str, range(99)) if self.peers[0].is_elsewhere(name))
        self.arrived: list[str] = []
        app = Starlette(routes=routes(self.dataplane, MOST))

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            self.arrived.append(scope["path"])
            await app(scope, receive, send)

        self._inlet = Inlet(watched, self.peers[1].socket_of(1), MOST, Farewell(*os.pipe()))

    def open(self) -> None:
        self.served.run(self._inlet.open())

    def close(self) -> None:
        self.peers[0].close()
        self.served.run(self._inlet.close(1.0, True))

    async def told(self, message: bytes, seconds: float | None = None) -> Any:
        caller = Caller()
        self.call(message, seconds, caller)
        told = await caller.reply
        if isinstance(told, LitepoolError):
            raise told
        answer = new("inference.ModelInferResponse")
        answer.ParseFromString(joined(told[0]))
        return answer


@pytest.fixture
def crew(application: InProcess, tmp_path: Path) -> Iterator[Crew]:
    made = Crew(application, tmp_path)
    made.open()
    yield made
    made.close()


def step(sequence: str, start: bool = False, **fields: Any) -> bytes:
    parameters: dict[str, Any] = {"sequence_id": {"string_param": sequence}, "sequence_start": {"bool_param": start}}
    message: bytes = infer_request("state", [[1, 1, 1, 1]], parameters.items(), **fields).SerializeToString()
    return message


def test_a_sequence_of_another_worker_is_answered_there(crew: Crew) -> None:
    async def run() -> list[float]:
        answers = [await crew.told(step(crew.name, start), 9.0) for start in (True, False, False)]
        return [floats(answer.raw_output_contents)[0] for answer in answers]

    assert crew.served.run(run()) == [1, 2, 3]
    assert crew.arrived == [PATHS[Wire.GRPC_INFER]] * 3


def test_calls_of_one_sequence_that_do_not_wait_for_each_other_keep_their_order(crew: Crew) -> None:
    async def run() -> list[float]:
        # The first of them is long, and takes the longest on its way.
        messages = [step(crew.name, True, id="x" * 900_000), *(step(crew.name) for _ in range(9))]
        answers = await asyncio.gather(*map(crew.told, messages))
        return [floats(answer.raw_output_contents)[0] for answer in answers]

    assert crew.served.run(run()) == [float(number) for number in range(1, 11)]


def test_waiting_for_its_turn_is_part_of_a_call_s_time(crew: Crew) -> None:
    async def run() -> list[Any]:
        calls = (crew.told(step(crew.name, True)), crew.told(step(crew.name), 1e-9), crew.told(step(crew.name)))
        return list(await asyncio.gather(*calls, return_exceptions=True))

    first, second, third = crew.served.run(run())

    assert isinstance(second, DeadlineExceeded)
    assert [floats(answer.raw_output_contents)[0] for answer in (first, third)] == [1, 2]


def test_ones_own_sequence_goes_nowhere(crew: Crew) -> None:
    own = next(name for name in map(str, range(99)) if not crew.peers[0].is_elsewhere(name))
    answer = crew.served.run(crew.told(step(own, True)))

    assert floats(answer.raw_output_contents)[0] == 1
    assert not crew.arrived


def test_what_the_other_worker_refuses_is_refused(crew: Crew) -> None:
    with pytest.raises(InvalidArgument, match="odd"):
        crew.served.run(crew.told(step(crew.name, True, outputs=[{"name": "odd"}])))


def test_a_worker_that_is_gone_is_told_of(application: InProcess, tmp_path: Path) -> None:
    crew = Crew(application, tmp_path)
    with pytest.raises(Unavailable, match="is gone"):
        application.run(crew.told(step(crew.name, True)))
    assert not crew.arrived


def test_a_call_that_nobody_waits_for_is_passed_on_no_longer(crew: Crew) -> None:
    async def run() -> None:
        caller = Caller()
        job = crew.call(step(crew.name, True), None, caller)
        assert job is not None
        assert not job.abandoned
        job.abandoned = True
        await asyncio.wait((job._task,))  # type: ignore[attr-defined]
        assert job.abandoned
        assert not caller.reply.done()

    crew.served.run(run())


def test_nobody_else_may_ask_for_it(application: InProcess) -> None:
    app = Starlette(routes=routes(application.services.dataplane, MOST))
    messages = [{"type": "http.request", "body": step("any", True), "more_body": False}]

    sent = application.run(call_raw(app, PATHS[Wire.GRPC_INFER], messages))

    assert sent[0]["status"] == 404
