"""Every setting of the server, and the only reader of the environment.

Each field is an option of `litepool serve` and a variable `LITEPOOL_<NAME>`; docs/settings.md is written from here.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_cache_path
from pydantic import Field, StringConstraints, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "LITEPOOL_"

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]


def available_cpus() -> int:
    """How many CPUs this process may use: its affinity, and in a container the whole CPUs of the cgroup's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cpus
    if quota == "max":
        return cpus
    return max(1, min(cpus, int(quota) // int(period)))


# Kubernetes tells every pod of a Service called litepool by LITEPOOL_PORT=tcp://10.0.0.1:8000 and the like, and of one
# called litepool-grpc by LITEPOOL_GRPC_PORT.
_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://")
_BY_A_SERVICE = re.compile(rf"{PREFIX}(GRPC_)?(SERVICE_(HOST|PORT.*)|PORT_\d+_(TCP|UDP|SCTP).*)$")


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s,]+")


def split_origins(text: str) -> list[str]:
    """The setting `cors_origins`, one by one."""
    return [origin.strip() for origin in text.split(",") if origin.strip()]


class Settings(BaseSettings):
    """Validated at start; a wrong value is refused with its name and what was expected."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    models_dir: Path = Field(Path("models"), description="Folder of the models to serve.")
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 lets the system choose.")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port to listen on for gRPC; 0 lets the system choose. Default: gRPC is off.",
    )
    workers: int = Field(
        default_factory=available_cpus,
        ge=1,
        le=256,
        description="Worker processes. Default: the CPUs that this process may use.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Pool threads of each worker, for models too slow to run inline. Default: its share of the CPUs.",
    )
    default_model: ModelName | None = Field(
        None,
        description="The model that /predict serves. Default: the only one, or the one named `default`.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("litepool"),
        description="Folder of converted models. Default: the user's cache directory.",
    )
    cache_bytes: int = Field(
        20 * 2**30,
        ge=0,
        description="Bytes of converted models that are kept; beyond them those not used for longest go. 0: no limit.",
    )
    max_body_bytes: int = Field(64 * 2**20, ge=1024, description="Largest request body, in bytes; above it 413.")
    request_timeout: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that a request may wait for its model before it is answered 504.",
    )
    queue_size: int = Field(256, ge=1, description="Calls that may wait for one model in one worker; above it 503.")
    inline_us: float = Field(
        300.0,
        ge=0,
        allow_inf_nan=False,
        description="An invoke measured cheaper than this, in microseconds, runs on the event loop; 0 turns that off.",
    )
    keep_alive: float = Field(75.0, ge=0, allow_inf_nan=False, description="Seconds that an idle connection is kept.")
    drain_seconds: float = Field(
        8.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds after SIGTERM within which requests under way are finished.",
    )
    load_timeout: float = Field(
        120.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that one model may take to be opened, compared with TensorFlow and measured.",
    )
    poll_seconds: float = Field(
        2.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds between looks at the models folder for what is new, changed or gone; 0: only at start.",
    )
    settle_seconds: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that a model's files must have been left alone before they are loaded.",
    )
    conversion_timeout: float = Field(
        900.0, gt=0, allow_inf_nan=False, description="Seconds that the conversion of one model may take."
    )
    conversion_memory: int = Field(
        16 * 2**30,
        ge=2**30,
        description="Address space, in bytes, of a process that converts a model, opens it first or is its TensorFlow.",
    )
    model_control: bool = Field(
        False,
        description="Let whoever reaches a port load and unload models: `POST /models/…`, `POST /v2/repository/…`, and "
        "by gRPC.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call this server from a browser, as `https://a.example`, separated by "
        "commas; `*` for all. Default: none.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for machines.")
    access_log: bool = Field(False, description="Log a line for each request.")

    @field_validator("port", "grpc_port", mode="before")
    @classmethod
    def _port_of_a_service_is_not_ours(cls, value: object, info: ValidationInfo) -> object:
        of_a_service = isinstance(value, str) and _OF_A_SERVICE.match(value)
        return cls.model_fields[info.field_name or ""].default if of_a_service else value

    @field_validator("grpc_port")
    @classmethod
    def _grpc_has_a_port_of_its_own(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and value == info.data.get("port"):
            raise ValueError("expected another port than that of HTTP (--port), which is the same")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _cors_origins_are_origins(cls, value: str) -> str:
        for origin in split_origins(value):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"expected origins as browsers send them, or *, separated by commas, and found {origin!r}: "
                    "a scheme, a host and perhaps a port, without a path, for example https://a.example:8443"
                )
        return value

    @field_validator("models_dir")
    @classmethod
    def _models_dir_is_a_folder(cls, value: Path) -> Path:
        if not value.is_dir():
            found = "a file" if value.exists() else "nothing"
            raise ValueError(
                f"expected a folder of models and found {found} at '{value}': make it and put a model in it, "
                f"for example {value}/my_model.keras, or name another folder"
            )
        return value

    @property
    def pool_threads(self) -> int:
        """Pool threads of one worker: as set, or an even share of the CPUs."""
        return self.threads or max(1, -(-available_cpus() // self.workers))


def explain(error: ValidationError, given: dict[str, Any]) -> str:
    """One line for each wrong setting: its name where it was given, what was found, what was expected."""
    lines = []
    for fault in error.errors():
        name = str(fault["loc"][0])
        option = "--" + name.replace("_", "-") if name in given and name != "models_dir" else PREFIX + name.upper()
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{option}={fault['input']}: {message}" if name != "models_dir" else _models_dir(message, given))
    return "\n".join(lines)


def _models_dir(message: str, given: dict[str, Any]) -> str:
    if "models_dir" in given:
        return f"the argument MODELS_DIR: {message}"
    variable = f"{PREFIX}MODELS_DIR"
    return f"{variable if os.environ.get(variable) else 'models_dir'}: {message}"


def unknown_variables() -> list[str]:
    """One line for each variable that looks like a setting of ours and is none, with the nearest that is."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    lines = []
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _BY_A_SERVICE.match(name):
            near = get_close_matches(name.upper(), known, 1, cutoff=0.8)
            lines.append(f"{name!r} is no setting" + (f": did you mean {near[0]}?" if near else ", and is not read"))
    return lines
