"""What a server lives through, measured: `python -m benchmarks --life`. The scenarios are those of the tests, longer.

Nothing here is held against other servers: the figures are of Litepool alone, and the faults should be none.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import probe
from benchmarks.format import micros, significant
from benchmarks.stats import Summary
from benchmarks.tables import table
from tests.e2e.life import hostile, mixing, models, reloads, swaps

FORMAT = 1

SWAPPED: dict[str, tuple[Callable[[int], bytes], int]] = {
    "a few bytes": (models.multiplier, 4),
    "1 MB of weights": (models.heavy_multiplier, models.WIDTH),
}


@dataclasses.dataclass(frozen=True)
class Length:
    """How long each scenario is. `rounds` are pairs of one without swaps and one with `swaps_each`, one a second."""

    rounds: int = 6
    swaps_each: int = 10
    flips: int = 500
    reloads: int = 200
    reloads_each: int = 10
    requests: int = 100_000


QUICK = Length(rounds=1, swaps_each=3, flips=20, reloads=20, reloads_each=5, requests=4000)


@dataclasses.dataclass(frozen=True)
class Life:
    """All of it on disk. `swaps` is by what was swapped."""

    date: str
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    method: dict[str, Any]
    swaps: dict[str, dict[str, Any]]
    hostile: dict[str, Any]
    reloads: dict[str, Any]
    mixing: dict[str, Any]
    format: int = FORMAT

    def faults(self) -> list[str]:
        return [
            fault
            for each in (*self.swaps.values(), self.hostile, self.reloads, self.mixing)
            for fault in each["faults"]
        ]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def load(path: Path) -> Life:
    """Raises ValueError for a file of another format."""
    found = json.loads(path.read_text())
    if found.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, found {found.get('format')}")
    return Life(**found)


def measure(length: Length, say: Callable[[str], None] = print) -> Life:
    """Run all scenarios, one after another, each against a server of its own."""
    swapped = {}
    for name, (make, width) in SWAPPED.items():
        say(f"swapping a model of {name}")
        found = _in_folder(swaps.swap, make, width, rounds=length.rounds, swaps_each=length.swaps_each)
        swapped[name] = dataclasses.asdict(found) | {"ratio": found.ratio}
    say(f"laying {len(hostile.THREATS)} threats and {length.flips} damaged models")
    harm = _in_folder(hostile.besiege, hostile.THREATS, length.flips)
    say(f"loading and unloading {length.reloads} times")
    reloaded = _in_folder(reloads.reload_often, length.reloads, every=length.reloads_each, warm_up=length.reloads_each)
    say(f"mixing {length.requests} requests")
    mixed = _in_folder(mixing.mix, length.requests, patience=length.requests / 100)
    return Life(
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        machine=probe.machine(),
        versions=probe.versions(),
        method={
            **dataclasses.asdict(length),
            "workers": 2,
            "connections": {"swaps": swaps.CONNECTIONS, "hostile": hostile.CONNECTIONS, "mixing": mixing.CONNECTIONS},
            "settings": {name: str(value) for name, value in swaps.SETTINGS.items()},
        },
        swaps=swapped,
        hostile=dataclasses.asdict(harm),
        reloads=dataclasses.asdict(reloaded) | {"growth_mb": reloaded.growth_mb, "noise_mb": reloaded.noise_mb},
        mixing=dataclasses.asdict(mixed),
    )


def _in_folder(scenario: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with tempfile.TemporaryDirectory(prefix="litepool-life-") as folder:
        return scenario(Path(folder), *arguments, **options)


def chapter(life: Life) -> Iterator[str]:
    """The page's part."""
    yield (
        f"## Swaps, hostile files, reloads and unlike clients\n\nMeasured {life.date} by "
        f"`python -m benchmarks --life`, with two workers. Every answer was looked at; "
        f"{_count(len(life.faults()), 'fault')} seen."
    )
    seconds = life.method["settings"]["poll_seconds"], life.method["settings"]["settle_seconds"]
    yield (
        f"A new version each second, while {life.method['connections']['swaps']} connections ask as fast as they are "
        f"answered: {life.method['rounds']} rounds of {life.method['swaps_each']} swaps, and before each one as long "
        "without. Each answer is wholly of one version, and on no connection do versions go back. A version is polled "
        f"for each {seconds[0]} s, and settled after {seconds[1]} s.\n\n" + _swaps(life)
    )
    harm = life.hostile
    yield (
        f"{harm['threats']} files and folders that are no models, or damaged ones, beside a good model under load, "
        f"{harm['flips']} of them models with one bit turned over: {harm['served']} of those are models still and are "
        f"served, {harm['crashed']} crashed the child process that opens models first; no worker died, and "
        f"{harm['answered']:,} answers of the good model were right, the slowest after "
        f"{micros(harm['most_ms'] * 1000)}."
    )
    reloaded = life.reloads
    first, last = reloaded["readings"][0], reloaded["readings"][-1]
    yield (
        f"A model unloaded and loaded {reloaded['reloads']} times by HTTP, in both workers: memory that is the "
        f"server's alone (USS of all processes) {first['own_mb']:.1f} MB at first, {reloaded['growth_mb']:+.1f} MB at "
        f"last, where single readings differ by up to {reloaded['noise_mb']:.1f} MB; processes {first['processes']} "
        f"and {last['processes']}, threads {first['threads']} and {last['threads']}, "
        f"descriptors {first['descriptors']} and {last['descriptors']}."
    )
    mixed = life.mixing
    rows = [[f"`{name}`", mixed["classes"][name], f"{count:,}"] for name, count in mixed["by_model"].items()]
    yield (
        f"{mixed['answered']:,} requests of unlike clients over {life.method['connections']['mixing']} connections, "
        f"mixed over models of all classes: zeros, huge, tiny, noise, NaN, repeated and one-hot records in batches of "
        f"{', '.join(map(str, mixing.SIZES))}, in JSON and `.npy`. {mixed['exact']:,} answers were those of the plain "
        f"interpreter to the request alone, bit for bit; the largest difference was {mixed['largest']:.1e} of the "
        "answer's scale.\n\n" + table(["model", "class", "requests"], sorted(rows))
    )


def _swaps(life: Life) -> str:
    rows = []
    for name, found in life.swaps.items():
        quiet, swapped = Summary.of(found["quiet_p99_us"]), Summary.of(found["swaps_p99_us"])
        cells = [f"{found['answered']:,}", f"{found['served']} of {found['versions']}", f"{found['late_s'][0]:.2f} s"]
        cells += [micros(quiet.median), micros(swapped.median), significant(found["ratio"])]
        cells += [significant(rps) for rps in found["rps"]]
        rows.append([name, *cells])
    head = ["model", "answers", "versions that answered", "put to first answer", "p99 without swaps", "with", "ratio"]
    return table([*head, "requests/s without", "with"], rows)


def _count(number: int, word: str) -> str:
    return f"no {word} was" if not number else f"{number} {word}{'s were' if number > 1 else ' was'}"
