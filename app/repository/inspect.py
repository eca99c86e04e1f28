"""What the commands do with a model outside a server."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from app.errors import LitepoolError, ModelError
from app.repository import report
from app.repository.cache import Cache
from app.repository.convert import Converter
from app.repository.layout import Kind, Misplaced, Source, scan, source_of
from app.repository.loader import open_model, plans_of, show_us
from app.repository.policy import choose
from app.repository.trial import Trial
from app.repository.variants import SHOWN_ROWS
from app.runtime.engine import Engine
from app.settings import Settings

_FEW = ("1", "16", "256")
"""The batch sizes of the short table."""

Tell = Callable[[str], None]


def make_converter(settings: Settings) -> Converter:
    cache = Cache(settings.cache_dir)
    trial = Trial(cache, settings.load_timeout, settings.conversion_memory)
    return Converter(cache, trial, settings.conversion_timeout, settings.conversion_memory)


def open_by_hand(path: Path, quantization: str | None, settings: Settings, tell: Tell) -> dict[str, Any]:
    """The report of the model at a path.

    Raises:
        ModelError: there is none, or it is not one that could be served.
    """
    source = source_of(path)
    with closing(make_converter(settings)) as converter:
        opened = open_model(source, converter, tell, quantization)
    return {
        "name": source.name,
        "version": source.version,
        **report.of_source(source),
        **report.of_opened(opened, plans_of(opened, settings.inline_us)),
    }


def convert_by_hand(path: Path, output: Path | None, quantization: str | None, settings: Settings, tell: Tell) -> Path:
    """Convert a model, check it against TensorFlow, and write it.

    Raises:
        ModelError: it cannot be converted, or differs too much.
    """
    source = source_of(path)
    if source.kind is Kind.TFLITE:
        raise ModelError(f"{source.path} is a .tflite file already")
    with closing(make_converter(settings)) as converter:
        opened = open_model(source, converter, tell, quantization)
    if isinstance(opened.model, Engine):
        raise ModelError(f"TFLite cannot express {source.path.name}: {opened.slow_because}")
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
    """Convert and check every version that would be served of a folder; the reasons of those that failed, by name.

    Raises:
        ModelError: there is no model at all.
    """
    found = scan(models_dir)
    if not found:
        raise ModelError(f"no model in {models_dir}")
    failed: dict[str, str] = {}
    with closing(make_converter(settings)) as converter:
        for folder in found:
            try:
                wanted = choose(folder).wanted
            except ModelError as error:
                failed[folder.name] = error.message
                continue
            for item in wanted:
                try:
                    _fill_one(item, converter, settings, tell)
                except LitepoolError as error:
                    failed[item.name if len(wanted) == 1 else f"{item.name}/{item.version}"] = error.message
    return failed


def _fill_one(item: Source | Misplaced, converter: Converter, settings: Settings, tell: Tell) -> None:
    if isinstance(item, Misplaced):
        raise ModelError(item.reason)
    opened = open_model(item, converter, lambda stage: tell(f"{item.name}: {stage}"))
    # Which a wish in model.toml may make impossible.
    plans_of(opened, settings.inline_us)
    tell(f"{item.name}: done")


def table(found: dict[str, Any], profile: bool = False) -> str:
    """The report as lines for a terminal, with all that was measured or only some of it."""
    lines = [
        f"{found['name']}, version {found['version']}: {found['file']} ({found['format']})",
        f"  TFLite         {found['tflite_bytes']:,} bytes, quantization {found['quantization']}"
        if found["engine"] == "litert"
        else f"  TensorFlow     runs it, the slow road: {found['slow']}",
        f"  batching       {found['batching']['class']}: {found['batching']['because']}",
    ]
    if len(found["signatures"]) > 1:
        lines.append(f"  signatures     {', '.join(found['signatures'])}")
    lines += [f"  not served     signature {name}: {reason}" for name, reason in found["signatures_left_out"].items()]
    for kind in ("inputs", "outputs"):
        lines += [
            f"  {kind[:-1]:<14} {tensor['name']}  {tensor['dtype']} {tensor['shape']}"
            for tensor in found["signature"][kind]
        ]
    lines += _profile(found) if profile else _few_costs(found)
    lines += _variants(found["variants"] or {})
    conversion = found["conversion"]
    if conversion is None:
        return "\n".join(lines)
    seconds = ", ".join(f"{stage} {took:g} s" for stage, took in conversion["seconds"].items())
    lines.append(f"  converted      TensorFlow {conversion['tensorflow']}, {conversion['rung']}; {seconds}")
    lines += [f"  {way:<14} {show_us(took)} for one record" for way, took in conversion["one_record_us"].items()]
    for name, difference in conversion["parity"]["differences"].items():
        lines.append(
            f"  difference     {name}: {difference['absolute']:.2e}, {difference['relative']:.2e} of its scale "
            f"(allowed {conversion['parity']['tolerance']:g})"
        )
    return "\n".join(lines)


def _variants(variants: dict[str, Any]) -> list[str]:
    """The forms among which one was chosen."""
    if len(variants) < 2:
        return []
    heads = "".join(f"{f'of {rows}':>10}" for rows in SHOWN_ROWS)
    lines = [f"  variants       {'bytes':>12}{heads}   difference   same top class"]
    for name, found in variants.items():
        if "error" in found:
            lines.append(f"    {name:<12} {found['error']}")
            continue
        costs = "".join(f"{show_us(found['invoke_us'].get(str(rows), 0.0)):>10}" for rows in SHOWN_ROWS)
        top = "" if found["top_class"] is None else f"{found['top_class']:.1%}"
        served = "   served" * found["served"]
        lines.append(f"    {name:<12} {found['bytes']:>12,}{costs}{found['difference']:>13.1e}{top:>17}{served}")
    return lines


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
        f"  profile        {sizes} measured in {took}; opening the model took {whole}",
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
