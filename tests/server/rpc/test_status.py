"""Canonical codes as gRPC has them."""

import grpc

from app.errors import Code, InvalidArgument, QueueFull, TooLarge
from app.server.rpc.status import STATUS_OF, Refused, number_and_text, status_of


def test_every_code_has_a_status() -> None:
    assert STATUS_OF.keys() == set(Code)


def test_a_status_has_the_number_that_goes_over_the_wire() -> None:
    assert number_and_text(InvalidArgument("no")) == (3, "no")
    assert number_and_text(TooLarge("no")) == (8, "no")
    assert number_and_text(QueueFull("no", retry_after=1)) == (14, "no")


def test_what_no_code_stands_for_has_its_own_status() -> None:
    assert status_of(Refused(grpc.StatusCode.PERMISSION_DENIED, "no")) is grpc.StatusCode.PERMISSION_DENIED
