import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app import __version__
from app.cli import _OF_CONVERSION, main, ready_line
from app.settings import PREFIX, Settings
from tests import tflite


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITEPOOL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="litepool")


def refusal(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    return result.stderr


# Help


def test_help_names_every_command() -> None:
    result = run("--help")

    assert result.exit_code == 0
    for command in ("serve", "convert", "inspect", "warm-cache"):
        assert f"  {command} " in result.output


@pytest.mark.parametrize("command", ["serve", "convert", "inspect", "warm-cache"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_helps(command: str, flag: str) -> None:
    result = run(command, flag)

    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: litepool {command} [OPTIONS]")


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name != "models_dir"])
def test_serve_helps_with_every_setting_its_variable_and_its_description(name: str) -> None:
    words = " ".join(run("serve", "--help").output.split())

    assert f"--{name.replace('_', '-')}" in words
    assert f"[{PREFIX}{name.upper()}]" in words
    assert str(Settings.model_fields[name].description) in words


def test_the_version_is_told() -> None:
    assert run("--version").output == f"litepool, version {__version__}\n"


def test_help_imports_neither_the_interpreter_nor_the_web_framework() -> None:
    program = (
        "import sys\n"
        "from app.cli import main\n"
        "try:\n    main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('ai_edge_litert', 'fastapi', 'uvicorn', 'tensorflow') if name in sys.modules])\n"
    )

    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert output.splitlines()[-1] == "[]"


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "70000"], "litepool: --port=70000: Input should be less than or equal to 65535"),
        (["--workers", "none"], "litepool: --workers=none: Input should be a valid integer"),
        (["--log-level", "loud"], "litepool: --log-level=loud: Input should be 'debug', 'info', 'warning' or 'error'"),
        (["--default-model", "../x"], "litepool: --default-model=../x: "),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_starts(folder: Path, arguments: list[str], expected: str) -> None:
    message = refusal(run("serve", str(folder), *arguments), 2)

    assert message.startswith(expected)
    assert message.count("\n") == 1


def test_a_wrong_variable_is_refused_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEPOOL_QUEUE_SIZE", "0")

    assert refusal(run("serve", str(folder)), 2).startswith("litepool: LITEPOOL_QUEUE_SIZE=0: ")


def test_an_option_goes_before_its_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEPOOL_PORT", "x")
    monkeypatch.setenv("LITEPOOL_WORKERS", "0")

    message = refusal(run("serve", str(folder), "--port", "1"), 2)

    assert "PORT" not in message
    assert message.startswith("litepool: LITEPOOL_WORKERS=0: ")


@pytest.mark.usefixtures("folder")
def test_a_folder_that_is_not_there_is_refused_with_what_to_do() -> None:
    assert refusal(run("serve", "no/such"), 2).startswith(
        "litepool: the argument MODELS_DIR: expected a folder of models and found nothing at 'no/such': "
    )


@pytest.mark.usefixtures("folder")
def test_without_an_argument_the_folder_is_called_models() -> None:
    assert "found nothing at 'models'" in refusal(run("serve"), 2)


@pytest.mark.usefixtures("folder")
def test_a_variable_that_is_no_setting_is_warned_of_when_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEPOOL_MODEL_DIR", "somewhere")

    warning, refused = refusal(run("serve"), 2).splitlines()

    assert warning == "litepool: 'LITEPOOL_MODEL_DIR' is no setting: did you mean LITEPOOL_MODELS_DIR?"
    assert "found nothing at 'models'" in refused


@pytest.mark.parametrize(
    ("name", "choices"), [("log-level", "[debug|info|warning|error]"), ("log-format", "[text|json]")]
)
def test_help_shows_the_choices_there_are(name: str, choices: str) -> None:
    assert f"--{name} {choices}" in " ".join(run("serve", "--help").output.split())


@pytest.mark.parametrize("arguments", [["serve", "--colour", "blue"], ["serve", ".", "extra"], ["bake"], ["inspect"]])
def test_an_unknown_option_argument_or_command_is_refused(arguments: list[str]) -> None:
    message = refusal(run(*arguments), 2)

    assert message.startswith("Usage: litepool ")
    assert "Error: " in message


# Models by hand


@pytest.mark.parametrize("command", ["convert", "inspect"])
@pytest.mark.usefixtures("folder")
def test_a_model_that_is_not_there_is_refused_in_one_sentence(command: str) -> None:
    message = refusal(run(command, "no_such.keras"), 1)

    assert message.startswith("litepool: ")
    assert "no_such.keras" in message
    assert message.count("\n") == 1


def test_a_tflite_file_is_not_converted(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(tflite.affine())

    message = refusal(run("convert", "m.tflite"), 1)

    assert message == "litepool: m.tflite is a .tflite file already\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "m.tflite is no TFLite model: found an empty file"), (tflite.truncated(tflite.affine()), "")],
)
def test_a_broken_file_is_refused_in_a_sentence(folder: Path, content: bytes, sentence: str) -> None:
    (folder / "m.tflite").write_bytes(content)

    message = refusal(run("inspect", "m.tflite"), 1).splitlines()[-1]

    assert message.startswith(f"litepool: {sentence}")
    assert "crash" not in message


def test_a_model_that_does_not_run_is_refused(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(tflite.never_runs())

    assert "litepool: it does not run: the interpreter failed: " in refusal(run("inspect", "m.tflite"), 1)


def test_an_unknown_quantization_is_refused_with_those_there_are() -> None:
    message = refusal(run("convert", "m.keras", "--quantization", "int3"), 2)

    assert "'int3' is not one of 'none', 'float16', 'dynamic'" in message


def test_a_model_is_described_for_people(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(tflite.two_in_two_out())

    result = run("inspect", "m.tflite")

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("m, version 1: m.tflite (")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "input left float32 [-1, 3]" in lines
    assert "input right float32 [-1, 3]" in lines
    assert "output difference float32 [-1, 3]" in lines
    assert "output total float32 [-1, 1]" in lines


def test_a_profile_is_printed_when_it_is_asked_for(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(tflite.affine())

    asked, short = run("inspect", "m.tflite", "--profile"), run("inspect", "m.tflite")

    assert asked.exit_code == short.exit_code == 0
    for word in ("taken together", "merging", "splitting", "kernel threads", "nothing in model.toml"):
        assert word in asked.stdout
        assert word not in short.stdout
    assert len(short.stdout.splitlines()) < 12


def test_the_model_toml_beside_a_model_is_read(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(tflite.affine())
    (folder / "model.toml").write_text("[lane]\ninline_rows = 3\nmerge_rows = 2\nthreads = 2")

    table = run("inspect", "m.tflite", "--profile").stdout
    report = json.loads(run("inspect", "m.tflite", "--profile", "--json").stdout)

    assert "on the event loop up to 3 records" in table
    assert "up to 2 records of different requests are run together" in table
    assert "kernel threads 2" in table
    assert "inline_rows = 3, merge_rows = 2, threads = 2 in model.toml" in table
    assert report["lane"]["fixed"] == {"inline_rows": 3, "merge_rows": 2, "threads": 2}


def test_a_wish_in_model_toml_that_cannot_be_granted_is_refused(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(tflite.running_sum())
    (folder / "model.toml").write_text("[lane]\ninline_rows = 3")

    assert "litepool: model.toml: lane.inline_rows = 3: " in refusal(run("inspect", "m.tflite"), 1)


def test_the_lane_is_that_of_a_server_with_the_same_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "m.tflite").write_bytes(tflite.affine())
    monkeypatch.setenv("LITEPOOL_INLINE_US", "0")

    assert "on pool threads: an invoke of one record costs more than inline_us" in run("inspect", "m.tflite").stdout
    monkeypatch.setenv("LITEPOOL_INLINE_US", "-1")
    assert refusal(run("inspect", "m.tflite"), 2).startswith("litepool: LITEPOOL_INLINE_US=-1: ")


def test_what_only_a_server_needs_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "m.tflite").write_bytes(tflite.affine())
    for name in set(Settings.model_fields) - set(_OF_CONVERSION) - {"inline_us"}:
        monkeypatch.setenv(PREFIX + name.upper(), "\t/")

    assert run("inspect", "m.tflite").exit_code == 0
    (folder / "models").mkdir()
    (folder / "m.tflite").rename(folder / "models" / "m.tflite")
    assert run("warm-cache", "models").exit_code == 0
    assert refusal(run("convert", "models/m.tflite"), 1) == "litepool: models/m.tflite is a .tflite file already\n"


def test_what_a_conversion_needs_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "m.tflite").write_bytes(tflite.affine())
    monkeypatch.setenv("LITEPOOL_CONVERSION_TIMEOUT", "0")

    assert refusal(run("inspect", "m.tflite"), 2).startswith("litepool: LITEPOOL_CONVERSION_TIMEOUT=0: ")


def test_a_folder_of_models_is_not_inspected_as_the_one_short_form_in_it(folder: Path) -> None:
    (folder / "models" / "b").mkdir(parents=True)
    for file in ("a.tflite", "b/model.tflite"):
        (folder / "models" / file).write_bytes(tflite.affine())

    assert refusal(run("inspect", "models"), 1) == (
        "litepool: models is a folder of models: name one of those in it, a, b\n"
    )


def test_a_model_is_described_for_machines(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(tflite.affine())

    report = json.loads(run("inspect", "m.tflite", "--json").stdout)

    assert (report["name"], report["version"], report["format"]) == ("m", 1, "tflite")
    (described,) = report["signature"]["inputs"]
    assert (described["name"], described["dtype"], described["shape"]) == ("x", "float32", [-1, 4])
    assert report["profile"].keys() == {"invoke_us", "record_us", "measured_ms", "opened_ms"}
    assert report["lane"]["taken_together"].keys() == report["profile"]["invoke_us"].keys()


# Ready


def test_one_line_says_what_is_served_and_where() -> None:
    report = {"serving": ["digits", "mlp"], "failed": [], "reason": ""}

    assert ready_line("http://127.0.0.1:8000", 2, report) == (
        "Litepool is ready on http://127.0.0.1:8000: digits, mlp (2 workers)"
    )


def test_where_grpc_is_spoken_is_in_the_line() -> None:
    report = {"serving": ["digits"], "failed": ["mlp"], "reason": ""}

    assert ready_line("http://127.0.0.1:8000", 1, report, "grpc://127.0.0.1:8500") == (
        "Litepool is ready on http://127.0.0.1:8000 and grpc://127.0.0.1:8500: digits (1 worker); not served, see "
        "http://127.0.0.1:8000/healthz: mlp"
    )


def test_what_failed_is_named_in_the_line_too() -> None:
    report = {"serving": ["digits"], "failed": ["mlp"], "reason": ""}

    assert ready_line("http://[::1]:1", 1, report) == (
        "Litepool is ready on http://[::1]:1: digits (1 worker); not served, see http://[::1]:1/healthz: mlp"
    )


def test_a_server_of_nothing_says_why() -> None:
    report = {"serving": [], "failed": ["mlp"], "reason": "no model could be loaded"}

    assert ready_line("http://h:1", 1, report) == "Litepool serves nothing on http://h:1: no model could be loaded"
