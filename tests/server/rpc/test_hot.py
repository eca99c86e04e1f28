"""What a call is for, by the beginning of its message; and that it makes no difference how that was written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidArgument, NotFound
from app.protocols import protobuf
from app.protocols.call import Wire
from app.repository.manager import Target
from app.server.predict import Caller
from app.server.rpc.hot import (
    Hot,
    Sought,
    beginning_of_infer,
    beginning_of_serving,
    hot_calls,
    sought_by_infer,
    sought_by_serving,
)
from app.server.rpc.messages import new
from tests.server.inprocess import InProcess
from tests.server.rpc.served import infer_request, model_spec, predict_request

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)


async def told(call: Hot, *messages: Any) -> list[object]:
    """What each message's caller is told."""
    callers = [Caller() for _ in messages]
    for message, caller in zip(messages, callers, strict=True):
        call(message.SerializeToString(), None, caller)
    return [await caller.reply for caller in callers]


@given(NAMES, st.none() | st.integers(-(2**63), 2**63 - 1), st.text(max_size=9), st.text(max_size=200))
def test_a_model_spec_is_read_as_it_was_written(name: str, version: int | None, label: str, signature: str) -> None:
    request = new("tensorflow.serving.PredictRequest", model_spec=model_spec(name, version, label, signature))
    message = request.SerializeToString() + protobuf.write_bytes(2, b"\x0a\x01x\x12\x00")

    beginning = message[: beginning_of_serving(message)]

    wanted = Target(name, None if label else version, label or None)
    assert sought_by_serving(message, beginning) == Sought(wanted, signature)
    assert sought_by_serving(message, b"") == Sought(wanted, signature), "as when the beginning is not known"
    assert message.startswith(beginning)


@given(NAMES, st.none() | st.integers(0, 2**63 - 1), st.text(max_size=200))
def test_a_name_and_a_version_are_read_as_they_were_written(name: str, version: int | None, identity: str) -> None:
    shown = "" if version is None else str(version)
    request = new("inference.ModelInferRequest", model_name=name, model_version=shown, id=identity)
    message = request.SerializeToString() + protobuf.write_bytes(7, b"1234")

    beginning = message[: beginning_of_infer(message)]

    assert sought_by_infer(message, beginning) == Sought(Target(name, version))
    assert sought_by_infer(message, b"") == Sought(Target(name, version))


def test_the_beginning_says_all_that_the_rest_does_not() -> None:
    message = infer_request("affine", id="7").SerializeToString()
    assert message[: beginning_of_infer(message)] == b"\x0a\x06affine"

    message = infer_request("affine", model_version="2").SerializeToString()
    assert message[: beginning_of_infer(message)] == b"\x0a\x06affine\x12\x012"


def test_fields_in_another_order_are_found() -> None:
    name, version = protobuf.write_bytes(1, b"affine"), protobuf.write_bytes(2, b"2")
    late = protobuf.write_bytes(7, b"1234") + version + name

    assert beginning_of_infer(late) == 0
    assert sought_by_infer(late, b"") == Sought(Target("affine", 2))

    spec = protobuf.write_bytes(1, protobuf.write_bytes(1, b"affine"))
    late = protobuf.write_bytes(2, b"\x0a\x01x") + spec
    assert beginning_of_serving(late) == 0
    assert sought_by_serving(late, b"") == Sought(Target("affine"))


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_message_that_ends_too_soon_has_a_beginning_that_is_refused(size: int) -> None:
    serving, infer = b"\x0a\x08\x0a\x06affine"[:size], b"\x0a\x06affine\x12"[:size]

    with pytest.raises(InvalidArgument):
        sought_by_serving(serving, serving[: beginning_of_serving(serving)])
    with pytest.raises(InvalidArgument):
        sought_by_infer(infer, infer[: beginning_of_infer(infer)])


def test_a_route_is_looked_for_once_for_each_beginning(application: InProcess) -> None:
    call = hot_calls(application.services.dataplane)[Wire.GRPC_INFER]

    answers = application.run(told(call, *[infer_request("affine", id=str(number)) for number in range(3)]))

    assert all(isinstance(answer, tuple) for answer in answers)
    assert list(call._routes) == [b"\x0a\x06affine"]
    call.refresh()
    assert not call._routes


def test_only_so_many_beginnings_are_kept(application: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server.rpc.hot._KEPT", 2)
    call = hot_calls(application.services.dataplane)[Wire.GRPC_INFER]

    requests = [infer_request("affine", model_version=version) for version in ("", "1", "2", "01", "001")]
    answers = application.run(told(call, *requests))

    assert all(isinstance(answer, tuple) for answer in answers)
    assert [bytes(beginning) for beginning in call._routes] == [
        b"\x0a\x06affine\x12\x0201",
        b"\x0a\x06affine\x12\x03001",
    ]


def test_what_is_refused_is_not_kept(application: InProcess) -> None:
    call = hot_calls(application.services.dataplane)[Wire.GRPC_PREDICT]

    (error,) = application.run(told(call, predict_request("none")))

    assert isinstance(error, NotFound)
    assert not call._routes


def test_a_signature_that_the_request_names_is_found_at_once(application: InProcess) -> None:
    call = hot_calls(application.services.dataplane)[Wire.GRPC_PREDICT]
    application.run(told(call, predict_request("two", signature="add")))

    (route,) = call._routes.values()
    assert route.bound.servable.signature.name == "add"
