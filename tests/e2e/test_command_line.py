"""What cannot be served is told in a sentence on standard error, with an exit code and no traceback."""

import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.process import LITEPOOL, MODELS, PATIENCE, ROOT, Litepool, environment

pytestmark = pytest.mark.slow


def refusal(*arguments: str | Path, **settings: str | Path) -> tuple[int, str]:
    """The exit code of `litepool serve` and its one line on standard error."""
    child = subprocess.run(
        [LITEPOOL, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=ROOT,
        env=environment(**settings),
    )
    assert child.stdout == ""
    assert child.stderr.count("\n") == 1, child.stderr
    assert "Traceback" not in child.stderr
    return child.returncode, child.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_told_with_its_number(workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        code, said = refusal(MODELS, "--port", str(port), "--workers", workers)

    assert code == 1
    assert said == f"litepool: 127.0.0.1 port {port} cannot be listened on: Address already in use\n"


def test_a_host_that_is_nobodys_is_told_with_its_name() -> None:
    code, said = refusal(MODELS, "--port", "0", "--host", "256.0.0.1")

    assert code == 1
    assert "256.0.0.1" in said


def test_a_missing_models_folder_is_told_with_what_to_do(tmp_path: Path) -> None:
    code, said = refusal(tmp_path / "nowhere")

    assert code == 2
    assert str(tmp_path / "nowhere") in said
    assert "put a model in it" in said


def test_a_file_in_place_of_the_models_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")

    code, said = refusal(tmp_path / "models")

    assert code == 2
    assert "found a file" in said


@pytest.mark.parametrize(
    ("arguments", "settings", "named", "expected"),
    [
        (["--port", "http"], {}, "--port=http", "valid integer"),
        (["--port", "65536"], {}, "--port=65536", "65535"),
        (["--workers", "0"], {}, "--workers=0", "greater than or equal to 1"),
        (["--log-level", "loud"], {}, "--log-level=loud", "'debug'"),
        ([], {"workers": "many"}, "LITEPOOL_WORKERS=many", "valid integer"),
        ([], {"default_model": "a/b"}, "LITEPOOL_DEFAULT_MODEL=a/b", "match"),
        ([], {"request_timeout": "0"}, "LITEPOOL_REQUEST_TIMEOUT=0", "greater than 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_value_is_told_by_the_name_it_was_given_with_and_what_was_expected(
    arguments: list[str], settings: dict[str, str | Path], named: str, expected: str
) -> None:
    code, said = refusal(MODELS, *arguments, **settings)

    assert code == 2
    assert named in said
    assert expected in said


def test_an_option_on_the_command_line_comes_before_the_environment(tmp_path: Path) -> None:
    code, said = refusal(MODELS, "--workers", "0", workers="many")

    assert code == 2
    assert "--workers=0" in said
    assert "many" not in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_empty_models_folder_is_served_with_a_sentence_that_says_what_to_do(tmp_path: Path, workers: str) -> None:
    with Litepool(tmp_path, "--workers", workers, settings={"cache_dir": tmp_path / ".cache"}) as litepool:
        litepool.wait_ready()
        said = litepool.out.text()
        assert said.startswith(f"Litepool serves nothing on {litepool.url}: no model in {tmp_path}: put one there")
        with litepool.client() as client:
            health = client.get("/healthz")
            refused = client.post("/predict", {"instance": [1]})

        assert health.status == 503
        assert health.json()["status"] == "failed"
        assert refused.status == 503
        assert "put one there" in refused.json()["error"]
        assert litepool.stop() == 0
