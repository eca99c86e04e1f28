"""What the commands do with a model outside a server."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import LitepoolError, ModelError
from app.repository import report
from app.repository.cache import Cache
from app.repository.convert import Converter
from app.repository.layout import Kind, Misplaced, Source, scan, source_of
from app.repository.loader import open_model, show_us
from app.settings import Settings

_FEW = ("1", "16", "256")
"""The batch sizes of the short table."""

Tell = Callable[[str], None]


def make_converter(settings: Settings) -> Converter:
    return Converter(Cache(settings.cache_dir), settings.conversion_timeout, settings.conversion_memory)


def open_by_hand(path: Path, settings: Settings, tell: Tell) -> dict[str, Any]:
    """The report of the model at a path.

    Raises:
        ModelError: there is none, or it is not one that could be served.
    """
    source = source_of(path)
    opened = open_model(source, make_converter(settings), tell)
    return {
        "name": source.name,
        "version": source.version,
        **report.of_source(source),
        **report.of_opened(opened),
        "lane": report.of_plan(opened, opened.plan(settings.inline_us)),
    }


def convert_by_hand(path: Path, output: Path | None, quantization: str | None, settings: Settings, tell: Tell) -> Path:
    """Convert a model, check it against TensorFlow, and write it.

    Raises:
        ModelError: it cannot be converted, or differs too much.
    """
    source = source_of(path)
    if source.kind is Kind.TFLITE:
        raise ModelError(f"{source.path} is a .tflite file already")
    opened = open_model(source, make_converter(settings), tell, quantization)
    target = output or Path(f"{source.name}.tflite")
    try:
        _write(target, opened.model if isinstance(opened.model, bytes) else opened.model.read_bytes())
    except OSError as error:
        raise ModelError(f"{target} cannot be written: {error.strerror}") from error
    return target


def _write(target: Path, content: bytes) -> None:
    """Write a file whole or not at all, where a server may be reading the one that it replaces."""
    # Through a link, and not in its place; and a pipe or device is written to.
    place = target.resolve()
    if place.exists() and not place.is_file():
        place.write_bytes(content)
        return
    beside = place.with_name(f".{place.name[:200]}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def fill_cache(models_dir: Path, settings: Settings, tell: Tell) -> dict[str, str]:
    """Convert and check every model of a folder; the reasons of those that failed, by name.

    Raises:
        ModelError: there is no model at all.
    """
    found = scan(models_dir)
    if not found:
        raise ModelError(f"no model in {models_dir}")
    failed = {}
    for item in found:
        try:
            _fill_one(item, settings, tell)
        except LitepoolError as error:
            failed[item.name] = error.message
    return failed


def _fill_one(item: Source | Misplaced, settings: Settings, tell: Tell) -> None:
    if isinstance(item, Misplaced):
        raise ModelError(item.reason)
    opened = open_model(item, make_converter(settings), lambda stage: tell(f"{item.name}: {stage}"))
    # Which a wish in model.toml may make impossible.
    opened.plan(settings.inline_us)
    tell(f"{item.name}: done")


def table(found: dict[str, Any], profile: bool = False) -> str:
    """The report as lines for a terminal, with all that was measured or only some of it."""
    lines = [
        f"{found['name']}, version {found['version']}: {found['file']} ({found['format']})",
        f"  TFLite         {found['tflite_bytes']:,} bytes, quantization {found['quantization']}",
        f"  batching       {found['batching']['class']}",
    ]
    for kind in ("inputs", "outputs"):
        lines += [
            f"  {kind[:-1]:<14} {tensor['name']}  {tensor['dtype']} {tensor['shape']}"
            for tensor in found["signature"][kind]
        ]
    lines += _profile(found) if profile else _few_costs(found)
    conversion = found["conversion"]
    if conversion is None:
        return "\n".join(lines)
    seconds = ", ".join(f"{stage} {took:g} s" for stage, took in conversion["seconds"].items())
    lines.append(f"  converted      TensorFlow {conversion['tensorflow']}; {seconds}")
    lines += [f"  {way:<14} {show_us(took)} for one record" for way, took in conversion["one_record_us"].items()]
    for name, difference in conversion["parity"]["differences"].items():
        lines.append(
            f"  difference     {name}: {difference['absolute']:.2e}, {difference['relative']:.2e} of its scale "
            f"(allowed {conversion['parity']['tolerance']:g})"
        )
    return "\n".join(lines)


def _few_costs(found: dict[str, Any]) -> list[str]:
    costs = found["profile"]["invoke_us"]
    return [f"  batch of {rows:<5} {show_us(costs[rows])}" for rows in _FEW if rows in costs] + [
        f"  lane           {report.where(found['lane'])}"
    ]


def _profile(found: dict[str, Any]) -> list[str]:
    """What was measured, and what follows from it."""
    profile, lane = found["profile"], found["lane"]
    costs, together = profile["invoke_us"], lane["taken_together"]
    merges, splits = lane["merge_rows"] > 1, lane["split_rows"] is not None
    sizes = f"{len(costs)} batch size{'s' * (len(costs) > 1)}"
    took, whole = (show_us(profile[key] * 1000) for key in ("measured_ms", "opened_ms"))
    lines = [
        f"  profile        {sizes} measured, {took} of the {whole} that opening the model took",
        "    records   an invoke    a record" + "   taken together" * merges,
    ]
    for rows, cost in costs.items():
        line = f"    {rows:>7}   {show_us(cost):>9}   {show_us(profile['record_us'][rows]):>9}"
        lines.append(line + f"   {together[rows]:>14}" * merges)
    splitting = (
        f"batches of {lane['split_rows']} records or more over idle pool threads; "
        f"at most {lane['most_rows']} records in one invoke"
    )
    fixed = ", ".join(f"{key} = {value}" for key, value in lane["fixed"].items())
    return [
        *lines,
        f"  lane           {report.where(lane)}",
        f"  merging        {report.sharing(lane)}",
        f"  splitting      {splitting if splits else 'none'}",
        f"  kernel threads {lane['threads']}",
        f"  fixed          {fixed or 'nothing'} in model.toml",
    ]
