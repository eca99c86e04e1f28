"""What a worker tells of itself when it is settled, and the line that is made of it."""

from pathlib import Path

import orjson

from app.cli import ready_line
from app.server.worker import report
from tests.server.inprocess import InProcess

URL = "http://127.0.0.1:8000"


def test_a_report_names_what_serves_and_what_failed(mixed: InProcess) -> None:
    found = report(mixed.services)

    assert found["serving"] == ["affine"]
    assert found["failed"] == ["<img src=x onerror=alert(1)>", "broken"]
    assert orjson.loads(orjson.dumps(found)) == found, "it goes through a pipe as JSON"


def test_the_ready_line_names_url_models_and_workers(good: InProcess) -> None:
    line = ready_line(URL, 2, report(good.services))

    assert line.startswith(f"Litepool is ready on {URL}: affine, bool, ")
    assert line.endswith("(2 workers)")
    assert "\n" not in line


def test_the_ready_line_names_what_is_not_served(mixed: InProcess) -> None:
    line = ready_line(URL, 1, report(mixed.services))

    assert line.startswith(f"Litepool is ready on {URL}: affine (1 worker); ")
    assert line.endswith("broken")


def test_the_line_of_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with InProcess(tmp_path) as served:
        line = ready_line(URL, 1, report(served.services))

    assert line.startswith(f"Litepool serves nothing on {URL}: ")
    assert "put one there" in line
