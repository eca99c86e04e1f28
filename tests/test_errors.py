import re

import pytest

from app import errors
from app.errors import Code, InvalidArgument, LitepoolError, QueueFull, Unavailable

CODES = {
    "LitepoolError": Code.INTERNAL,
    "InvalidArgument": Code.INVALID_ARGUMENT,
    "NotFound": Code.NOT_FOUND,
    "TooLarge": Code.TOO_LARGE,
    "UnsupportedFormat": Code.UNSUPPORTED_FORMAT,
    "Unavailable": Code.UNAVAILABLE,
    "QueueFull": Code.UNAVAILABLE,
    "DeadlineExceeded": Code.DEADLINE_EXCEEDED,
    "Internal": Code.INTERNAL,
    "ModelError": Code.FAILED_PRECONDITION,
    "RunnerLost": Code.FAILED_PRECONDITION,
}


def family(kind: type[LitepoolError]) -> dict[str, type[LitepoolError]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        if child.__module__ == "app.errors":
            found |= family(child)
    return found


def test_every_error_has_its_canonical_code() -> None:
    assert {name: kind.code for name, kind in family(LitepoolError).items()} == CODES


def test_every_code_belongs_to_some_error() -> None:
    assert {kind.code for kind in family(LitepoolError).values()} == set(Code)


def test_a_code_is_called_what_it_says() -> None:
    assert all(code.name == code.value for code in Code)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"^(?:[│ ]*[├└]── )?(\w+)(?: {2,}|$)", (errors.__doc__ or "").partition("\n\n")[2], re.MULTILINE)
    branches = re.findall(r"^(│   )└── (\w+)", errors.__doc__ or "", re.MULTILINE)

    assert set(drawn) == set(family(LitepoolError))
    assert [name for _, name in branches] == ["QueueFull"]
    assert QueueFull.__bases__ == (Unavailable,)


@pytest.mark.parametrize("kind", family(LitepoolError).values(), ids=lambda kind: str(kind.__name__))
def test_an_error_keeps_its_message_for_the_caller_and_for_the_log(kind: type[LitepoolError]) -> None:
    error = kind("instances[3]: expected a list of 4")

    assert error.message == "instances[3]: expected a list of 4"
    assert str(error) == error.message


def test_unavailable_says_after_how_many_seconds_to_come_back() -> None:
    assert QueueFull("full", retry_after=1).retry_after == 1


def test_unavailable_without_seconds_says_that_waiting_does_not_help() -> None:
    assert Unavailable("failed").retry_after is None


def test_a_queue_that_is_full_is_caught_as_unavailable_and_not_as_the_caller_s_fault() -> None:
    with pytest.raises(Unavailable):
        raise QueueFull("full")
    assert not issubclass(QueueFull, InvalidArgument)


@pytest.mark.parametrize("kind", [errors.InvalidArgument, errors.NotFound, errors.TooLarge, errors.UnsupportedFormat])
def test_what_a_message_repeats_of_a_request_stays_on_one_line_that_utf8_can_hold(kind: type[LitepoolError]) -> None:
    message = kind("no input 'a\nb\x00\u202e\ud800 \u00fc'").message

    assert message == "no input 'a\\nb\\x00\\u202e\\ud800 \u00fc'"
    assert message.encode().decode() == message
