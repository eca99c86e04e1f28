import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app import settings as settings_module
from app.settings import PREFIX, Settings, available_cpus, explain, unknown_variables

WRONG = [
    ("host", "", "at least 1 character"),
    ("port", "70000", "less than or equal to 65535"),
    ("port", "-1", "greater than or equal to 0"),
    ("port", "http", "valid integer"),
    ("grpc_port", "70000", "less than or equal to 65535"),
    ("grpc_port", "none", "valid integer"),
    ("grpc_port", "8000", "another port than that of HTTP"),
    ("workers", "0", "greater than or equal to 1"),
    ("workers", "257", "less than or equal to 256"),
    ("workers", "1.5", "valid integer"),
    ("threads", "0", "greater than or equal to 1"),
    ("threads", "many", "valid integer"),
    ("default_model", "../secret", "match pattern"),
    ("default_model", "-rf", "match pattern"),
    ("default_model", "m" * 129, "at most 128 characters"),
    ("max_body_bytes", "10", "greater than or equal to 1024"),
    ("max_body_bytes", "64MB", "valid integer"),
    ("request_timeout", "0", "greater than 0"),
    ("request_timeout", "nan", "finite number"),
    ("keep_alive", "inf", "finite number"),
    ("request_timeout", "soon", "valid number"),
    ("queue_size", "0", "greater than or equal to 1"),
    ("inline_us", "-1", "greater than or equal to 0"),
    ("keep_alive", "-1", "greater than or equal to 0"),
    ("drain_seconds", "-0.5", "greater than or equal to 0"),
    ("conversion_timeout", "0", "greater than 0"),
    ("load_timeout", "-1", "greater than 0"),
    ("poll_seconds", "-1", "greater than or equal to 0"),
    ("settle_seconds", "inf", "finite number"),
    ("cache_bytes", "-1", "greater than or equal to 0"),
    ("conversion_memory", "1000", "greater than or equal to 1073741824"),
    ("cors_origins", "a.example", "a scheme, a host and perhaps a port"),
    ("cors_origins", "https://a.example/", "found 'https://a.example/'"),
    ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
    ("log_format", "xml", "'text' or 'json'"),
    ("access_log", "perhaps", "valid boolean"),
    ("model_control", "perhaps", "valid boolean"),
]
GOOD: dict[str, tuple[str, Any]] = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "grpc_port": ("0", 0),
    "workers": ("3", 3),
    "threads": ("5", 5),
    "default_model": ("digits-v2.1_x", "digits-v2.1_x"),
    "cache_dir": ("somewhere", Path("somewhere")),
    "max_body_bytes": ("2048", 2048),
    "request_timeout": ("0.5", 0.5),
    "queue_size": ("7", 7),
    "inline_us": ("0", 0.0),
    "keep_alive": ("1", 1.0),
    "drain_seconds": ("0", 0.0),
    "conversion_timeout": ("10", 10.0),
    "load_timeout": ("20", 20.0),
    "poll_seconds": ("0", 0.0),
    "settle_seconds": ("0", 0.0),
    "cache_bytes": ("0", 0),
    "conversion_memory": (str(2**30), 2**30),
    "cors_origins": ("https://a.example, *", "https://a.example, *"),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "access_log": ("true", True),
    "model_control": ("1", True),
}


@pytest.fixture(autouse=True)
def _a_folder_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)


def explained(**given: Any) -> str:
    with pytest.raises(ValidationError) as refusal:
        Settings(**given)
    return explain(refusal.value, given)


def test_every_setting_is_in_the_tables_of_these_tests() -> None:
    names = set(Settings.model_fields) - {"models_dir"}

    assert set(GOOD) == names
    assert {name for name, _, _ in WRONG} == names - {"cache_dir"}


def test_without_a_word_the_server_is_for_this_machine_only() -> None:
    settings = Settings()

    assert (settings.host, settings.port, settings.models_dir) == ("127.0.0.1", 8000, Path("models"))
    assert settings.workers == available_cpus()
    assert settings.cache_dir.name == "litepool"
    assert settings.default_model is None


@pytest.mark.parametrize("name", GOOD)
def test_every_setting_is_read_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = GOOD[name]
    assert getattr(Settings(), name) != value
    monkeypatch.setenv(PREFIX + name.upper(), text)

    assert getattr(Settings(), name) == value


@pytest.mark.parametrize("name", GOOD)
def test_what_is_given_goes_before_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = GOOD[name]
    wrong = [text for wrong, text, _ in WRONG if wrong == name]
    monkeypatch.setenv(PREFIX + name.upper(), wrong[-1] if wrong else "elsewhere")

    given: dict[str, Any] = {name: text}
    assert getattr(Settings(**given), name) == value


@pytest.mark.parametrize(("name", "text", "expected"), WRONG)
def test_a_wrong_value_given_is_refused_with_its_option_what_it_is_and_what_was_expected(
    name: str, text: str, expected: str
) -> None:
    message = explained(**{name: text})

    assert message.startswith(f"--{name.replace('_', '-')}={text}: ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "text", "expected"), [wrong for wrong in WRONG if wrong[1]])
def test_a_wrong_value_in_the_environment_is_refused_with_its_variable(
    name: str, text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), text)

    message = explained()

    assert message.startswith(f"LITEPOOL_{name.upper()}={text}: ")
    assert expected in message


def test_every_wrong_value_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEPOOL_WORKERS", "0")

    lines = explained(port="x", log_level="loud").splitlines()

    assert sorted(line.partition("=")[0] for line in lines) == ["--log-level", "--port", "LITEPOOL_WORKERS"]


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "THREADS", "DEFAULT_MODEL"):
        monkeypatch.setenv(f"LITEPOOL_{name}", "")

    assert (Settings().port, Settings().threads, Settings().default_model) == (8000, None, None)


def test_variables_that_are_no_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEPOOL_COLOUR", "blue")
    monkeypatch.setenv("PORT", "1")

    assert Settings().port == 8000


def test_variables_that_are_no_settings_are_listed_with_the_nearest_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LITEPOOL_PROT", "LITEPOOL_COLOUR", "LITEPOOL_PORT", "litepool_host", "PROT"):
        monkeypatch.setenv(name, "1")

    assert unknown_variables() == [
        "'LITEPOOL_COLOUR' is no setting, and is not read",
        "'LITEPOOL_PROT' is no setting: did you mean LITEPOOL_PORT?",
    ]


def test_a_folder_of_models_that_is_not_there_is_refused_with_what_to_do() -> None:
    message = explained(models_dir="no/such")

    assert message.startswith("the argument MODELS_DIR: expected a folder of models and found nothing at 'no/such': ")
    assert "make it and put a model in it, for example no/such/my_model.keras" in message


def test_a_folder_of_models_that_is_a_file_is_refused_as_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert explained(models_dir="file").startswith(
        "the argument MODELS_DIR: expected a folder of models and found a file at 'file'"
    )


def test_a_folder_of_models_that_the_environment_names_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LITEPOOL_MODELS_DIR", "no/such")

    assert explained().startswith("LITEPOOL_MODELS_DIR: expected a folder of models and found nothing at 'no/such'")


def test_the_default_folder_of_models_must_be_there_too(tmp_path: Path) -> None:
    (tmp_path / "models").rmdir()

    assert explained().startswith("models_dir: expected a folder of models and found nothing at 'models'")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_settings_survive_the_way_to_a_worker_process() -> None:
    settings = Settings(threads=3, default_model="digits", cache_dir=Path("cache"))

    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("cpus", "workers", "threads", "expected"),
    [(8, 2, None, 4), (8, 3, None, 3), (2, 2, None, 1), (1, 4, None, 1), (8, 2, 7, 7)],
)
def test_pool_threads_are_the_worker_s_share_of_the_cpus_unless_set(
    cpus: int, workers: int, threads: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_module, "available_cpus", lambda: cpus)

    assert Settings(workers=workers, threads=threads).pool_threads == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 4),
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("800000 100000", 4),
        ("", 4),
        ("nonsense", 4),
    ],
)
def test_cpus_are_those_of_the_affinity_and_of_the_container_s_quota(
    quota: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: quota + "\n")

    assert available_cpus() == expected


def test_without_a_cgroup_cpus_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    monkeypatch.setattr(Path, "read_text", missing)

    assert available_cpus() == 2


def test_what_kubernetes_says_of_a_service_called_litepool_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LITEPOOL_PORT": "tcp://10.0.0.1:80",
        "LITEPOOL_SERVICE_HOST": "10.0.0.1",
        "LITEPOOL_SERVICE_PORT_HTTP": "80",
        "LITEPOOL_PORT_80_TCP_ADDR": "10.0.0.1",
        # Of one called litepool-grpc.
        "LITEPOOL_GRPC_PORT": "tcp://10.0.0.2:8500",
        "LITEPOOL_GRPC_SERVICE_HOST": "10.0.0.2",
        "LITEPOOL_GRPC_PORT_8500_TCP": "tcp://10.0.0.2:8500",
    }.items():
        monkeypatch.setenv(name, value)

    settings = Settings(models_dir=Path())
    assert settings.port == 8000
    assert settings.grpc_port is None
    assert unknown_variables() == []
