import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.telemetry.logging import JsonFormatter, configure


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    names = ("", "app", "uvicorn.error", "uvicorn.access")
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in names}
    yield
    for name, (level, handlers) in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = handlers


def formatted(message: str, *args: object, fault: BaseException | None = None) -> dict[str, Any]:
    exc_info = (type(fault), fault, fault.__traceback__) if fault is not None else None
    record = logging.LogRecord("app.runtime", logging.WARNING, "file.py", 1, message, args, exc_info)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_a_json_line_has_time_level_logger_process_and_message() -> None:
    entry = formatted("model %s: ready in %.1f s", "digits", 1.25)

    assert entry.pop("process") > 0
    assert entry == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "app.runtime",
        "message": "model digits: ready in 1.2 s",
    }


@pytest.fixture
def _far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_far_from_greenwich")
def test_the_time_of_a_json_line_is_utc_wherever_the_machine_is() -> None:
    assert formatted("hello")["time"] == "2023-11-14T22:13:20.250Z"


def test_a_json_line_stays_one_line_whatever_the_message_holds() -> None:
    assert formatted('two\nlines "quoted" \u2028 \x00')["message"] == 'two\nlines "quoted" \u2028 \x00'


def test_a_json_line_holds_the_traceback_of_a_fault() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        entry = formatted("it failed", fault=error)

    assert entry["traceback"].startswith("Traceback (most recent call last):\n")
    assert entry["traceback"].endswith("ValueError: why")


@pytest.mark.usefixtures("_logging_as_it_was")
@pytest.mark.parametrize(
    ("form", "pattern"), [("json", r'\{"time":".*,"message":"hello"\}'), ("text", r"\d\d:\d\d:\d\d INFO    hello")]
)
def test_log_lines_go_to_standard_error_in_the_form_that_is_set(
    form: str, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", form)

    logging.getLogger("app.anything").info("hello")
    logging.getLogger("app.anything").debug("unseen")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(pattern + "\n", captured.err)


@pytest.mark.usefixtures("_logging_as_it_was")
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_is_that_of_our_own_loggers_and_not_of_every_library_s(level: str) -> None:
    config = configure(level, "text")

    assert logging.getLogger("app").level == getattr(logging, level.upper())
    assert logging.getLogger("app.x").isEnabledFor(logging.DEBUG) == (level == "debug")
    assert not logging.getLogger("some.library").isEnabledFor(logging.INFO)
    assert config["loggers"]["app"] == {"level": level.upper()}
    assert sys.stderr is not None
