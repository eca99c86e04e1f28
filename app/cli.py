"""The command line. What a command needs is imported when it runs, so that `--help` answers at once."""

# ruff: noqa: PLC0415

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from app import __version__
from app.errors import LitepoolError
from app.settings import PREFIX, Settings, explain, unknown_variables

_ARGUMENTS = ("models_dir",)
_OF_CONVERSION = ("cache_dir", "conversion_timeout", "conversion_memory")
"""The settings of the commands that work without a server."""

_QUANTIZATION = ["none", "float16", "dynamic", "int8", "auto"]


class Failure(click.ClickException):
    """A sentence on standard error, and exit code 1."""

    def show(self, file: Any = None) -> None:  # noqa: ARG002
        click.echo(f"litepool: {self.message}", err=True)


class WrongSetting(Failure):
    """The same with exit code 2, as for every wrong use of the command."""

    exit_code = 2


def settings_options(command: Any) -> Any:
    """Give a command one option for each setting, with the setting's own description."""
    for name, field in reversed(Settings.model_fields.items()):
        if name not in _ARGUMENTS:
            command = _option(name, field)(command)
    return click.argument("models_dir", required=False)(command)


def _option(name: str, field: FieldInfo) -> Any:
    flag = "--" + name.replace("_", "-")
    default = "" if field.default_factory or field.default is None else f" Default: {field.default}."
    text = f"{field.description}{default} [{PREFIX}{name.upper()}]"
    if field.annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    is_choice = get_origin(field.annotation) is Literal
    metavar = f"[{'|'.join(get_args(field.annotation))}]" if is_choice else "VALUE"
    return click.option(flag, name, default=None, metavar=metavar, help=text)


def read_settings(given: dict[str, Any]) -> Settings:
    """Settings from the command line, then the environment, then the defaults."""
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**chosen)
    except ValidationError as error:
        raise WrongSetting(explain(error, chosen)) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="litepool")
def main() -> None:
    """Serve Keras and TFLite models over HTTP at the speed of the interpreter."""


@main.command()
@settings_options
def serve(**given: Any) -> None:
    """Serve the models of a folder (default: models)."""
    # Until the server has its own handlers; process 1 of a container would otherwise not hear a signal at all.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    for line in unknown_variables():
        click.echo(f"litepool: {line}", err=True)
    settings = read_settings(given)
    from app.server.handover import GRPC, HTTP
    from app.server.listen import allow_many_connections, url_of
    from app.telemetry import logging

    allow_many_connections()
    sock = _listen(settings.host, settings.port)
    socks = {HTTP: sock}
    url = url_of(sock)
    if settings.grpc_port is not None:
        socks[GRPC] = _listen(settings.host, settings.grpc_port)
    grpc_url = url_of(socks[GRPC], "grpc") if GRPC in socks else ""

    def ready(report: dict[str, Any]) -> None:
        click.echo(ready_line(url, settings.workers, report, grpc_url))

    if settings.workers == 1:
        from app.server.worker import report, work

        work(settings, sock, lambda services: ready(report(services)), grpc_sock=socks.get(GRPC))
        return
    logging.configure(settings.log_level, settings.log_format)
    from app.server.supervisor import Supervisor

    sys.exit(Supervisor(settings, socks, ready).run())


def _listen(host: str, port: int) -> Any:
    from app.server.listen import listen

    try:
        return listen(host, port)
    except OSError as error:
        raise Failure(f"{host} port {port} cannot be listened on: {error.strerror or error}") from None


def ready_line(url: str, workers: int, report: dict[str, Any], grpc_url: str = "") -> str:
    """The one line that says that the server is settled."""
    where = f"{url} and {grpc_url}" if grpc_url else url
    if not report["serving"]:
        return f"Litepool serves nothing on {where}: {report['reason']}"
    line = f"Litepool is ready on {where}: {', '.join(report['serving'])} ({workers} worker{'s' * (workers > 1)})"
    return line + (f"; not served, see {url}/healthz: {', '.join(report['failed'])}" if report["failed"] else "")


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--quantization", type=click.Choice(_QUANTIZATION), help="Default: as model.toml says; auto: compare all."
)
@click.option("--profile", is_flag=True, help="With all that was measured, and what follows from it.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON, with the profile.")
@click.option("--cache-dir", default=None, metavar="DIR", help="Folder of converted models.")
def inspect(model: Path, quantization: str | None, profile: bool, as_json: bool, cache_dir: str | None) -> None:
    """Print a model's signature, shapes, dtypes, size, measured cost and conversion report."""
    import orjson

    from app.repository.inspect import open_by_hand, table

    settings = _cache_settings(cache_dir, (*_OF_CONVERSION, "inline_us"))
    report = _or_fail(lambda: open_by_hand(model, quantization, settings, _tell))
    if as_json:
        click.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    else:
        click.echo(table(report, profile))


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file to write. Default: MODEL's name, .tflite."
)
@click.option("--quantization", type=click.Choice(_QUANTIZATION), help="Default: as model.toml says.")
@click.option("--cache-dir", default=None, metavar="DIR", help="Folder of converted models.")
def convert(model: Path, output: Path | None, quantization: str | None, cache_dir: str | None) -> None:
    """Write a Keras model, HDF5 file or SavedModel as a .tflite file."""
    from app.repository.inspect import convert_by_hand

    settings = _cache_settings(cache_dir)
    written = _or_fail(lambda: convert_by_hand(model, output, quantization, settings, _tell))
    click.echo(f"{written}: {written.stat().st_size:,} bytes")


@main.command("warm-cache")
@click.argument("models_dir", type=click.Path(path_type=Path))
@click.option("--cache-dir", default=None, metavar="DIR", help="Folder of converted models.")
def warm_cache(models_dir: Path, cache_dir: str | None) -> None:
    """Convert every model of a folder, so that a server without TensorFlow can serve it."""
    from app.repository.inspect import fill_cache

    failed = _or_fail(lambda: fill_cache(models_dir, _cache_settings(cache_dir), _tell))
    if failed:
        raise Failure("; ".join(f"{name}: {reason}" for name, reason in failed.items()))


@main.command()
@click.argument("model", required=False)
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="The running server.")
@click.option("--connections", default="1,8,32", show_default=True, help="How many at once; several runs by commas.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Length of each run.",
)
def bench(model: str | None, url: str, connections: str, seconds: float) -> None:
    """Measure a running server with MODEL's first sample (default: the default model)."""
    from app import bench as load

    parts = [part.strip() for part in connections.split(",")]
    counts = [int(part) for part in parts if part.isdecimal() and int(part)]
    if len(counts) < len(parts):
        raise WrongSetting(f"--connections={connections}: expected whole numbers of 1 or more, separated by commas")
    path, body = _or_fail(lambda: load.example_request(url.rstrip("/"), model))
    click.echo(f"{'connections':>11}  {'requests/s':>10}  {'p50 us':>8}  {'p99 us':>8}  {'failed':>6}")
    for count in counts:
        result = _or_fail(lambda count=count: load.run(url, path, body, count, seconds))
        p50, p99 = result.percentile(0.5), result.percentile(0.99)
        click.echo(f"{count:>11}  {result.per_second:>10,.0f}  {p50:>8,.0f}  {p99:>8,.0f}  {result.failed:>6}")


def _cache_settings(cache_dir: str | None, wanted: Sequence[str] = _OF_CONVERSION) -> Settings:
    chosen: dict[str, Any] = {"models_dir": "."} | ({} if cache_dir is None else {"cache_dir": cache_dir})
    # What only a server needs is not read: its variables may well be wrong here.
    others = {
        name: field.get_default(call_default_factory=True)
        for name, field in Settings.model_fields.items()
        if name not in wanted
    }
    try:
        return Settings(**others | chosen)
    except ValidationError as error:
        raise WrongSetting(explain(error, chosen)) from None


def _tell(stage: str) -> None:
    click.echo(stage, err=True)


def _or_fail(run: Any) -> Any:
    try:
        return run()
    except LitepoolError as error:
        raise Failure(error.message) from None


if __name__ == "__main__":
    main()
