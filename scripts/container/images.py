"""Images without an engine: buildah with a storage of its own, and a base image made of Debian's packages."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from container import CheckError
from container.host import debian_mirror

BASE_PACKAGES = "python3,python3-venv,ca-certificates"
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILD_TIMEOUT = 3600


def tail(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def logged(command: Sequence[str | Path], log: Path, timeout: float, environment: dict[str, str] | None = None) -> None:
    """Run a command with its output in `log`; a failure shows the end of it."""
    with log.open("w") as output:
        try:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise CheckError(f"`{command[0]}` was not done after {timeout:.0f} s. Its log: {log}") from None
    if done.returncode != 0:
        raise CheckError(f"`{command[0]}` failed with {done.returncode}. The end of {log}:\n{tail(log)}")


@dataclass(frozen=True)
class Config:
    """What an image says about how it is started."""

    user: str
    environment: dict[str, str]
    command: list[str]
    health: list[str]

    @property
    def uid(self) -> int:
        uid = self.user.partition(":")[0]
        return int(uid) if uid.isdigit() else -1


@dataclass
class Store:
    """A storage of images that belongs to the check alone."""

    root: Path
    run: Path
    containers: list[str] = field(default_factory=list)

    def command(self, *arguments: str | Path) -> list[str]:
        # An empty setting of the driver leaves the choice to buildah: overlay where the kernel has it, else vfs.
        driver = os.environ.get("STORAGE_DRIVER", "")
        chosen = ["--storage-driver", driver] if driver else []
        return ["buildah", "--root", str(self.root), "--runroot", str(self.run), *chosen, *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        loopback = ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1"]))
        return os.environ | {"BUILDAH_ISOLATION": "chroot", "no_proxy": loopback}

    def call(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            self.command(*arguments), env=self.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CheckError(f"`buildah {arguments[0]}` failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def driver(self) -> str:
        return str(json.loads(self.call("info"))["store"]["GraphDriverName"])

    def has(self, name: str) -> bool:
        probe = subprocess.run(self.command("inspect", "--type", "image", name), capture_output=True, check=False)
        return probe.returncode == 0

    def container(self, image: str) -> str:
        identity = self.call("from", "--pull-never", image)
        self.containers.append(identity)
        return identity

    def mount(self, container: str) -> Path:
        return Path(self.call("mount", container))

    def remove(self, container: str) -> None:
        self.call("rm", container)
        self.containers.remove(container)

    def config(self, image: str) -> Config:
        said = json.loads(self.call("inspect", "--type", "image", image))["Docker"]["config"]
        return Config(
            user=said.get("User") or "0",
            environment=dict(pair.split("=", 1) for pair in said.get("Env") or []),
            command=[*(said.get("Entrypoint") or []), *(said.get("Cmd") or [])],
            health=list((said.get("Healthcheck") or {}).get("Test") or []),
        )

    def left_behind(self) -> None:
        """Containers of a run that was killed: the storage is the check's own, so nobody else's."""
        for identity in self.call("containers", "--quiet", "--notruncate").split():
            self.call("rm", identity)

    def clean(self, keep_images_of: str | None) -> None:
        """Remove the containers that were made, and all images but one: the base, which costs most to make again."""
        for identity in list(self.containers):
            self.remove(identity)
        if keep_images_of is None:
            return
        images: list[dict[str, Any]] = json.loads(self.call("images", "--all", "--json"))
        names = [image["id"] for image in images if keep_images_of not in (image["names"] or [])]
        if names:
            self.call("rmi", "--force", *names)


def base_name(dockerfile: Path) -> str:
    """The image that the Dockerfile starts from."""
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile.read_text(), re.MULTILINE)
    if not found:
        raise CheckError(f"{dockerfile} has no `ARG PYTHON_IMAGE=…`, which names the image to start from.")
    return found[1]


def make_base(store: Store, name: str, logs: Path) -> None:
    """A Debian with Python under the name that the Dockerfile asks for, in the check's own storage only."""
    wanted = re.search(r"python:(3\.\d+)-slim-(\w+)$", name)
    if not wanted:
        raise CheckError(f"No Debian release can be read from the base image {name}: expected python:3.N-slim-RELEASE.")
    version, suite = wanted[1], wanted[2]
    container = store.call("from", "scratch")
    store.containers.append(container)
    root = store.mount(container)
    mirror = debian_mirror(suite)
    command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", suite, str(root)]
    logged([*command, mirror] if mirror else command, logs / "debootstrap.log", timeout=1200)
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    if not (root / f"usr/bin/python{version}").exists():
        raise CheckError(f"Debian {suite} has no Python {version}, which {name} promises.")
    store.call("config", "--env", f"PATH={BASE_PATH}", "--cmd", "python3", container)
    store.call("commit", "--format", "docker", container, name)
    store.remove(container)


def build(store: Store, context: Path, target: str, secrets: Sequence[str], log: Path) -> str:
    """Build one target of the Dockerfile in `context` and give the image's name.

    The format is Docker's: OCI's has no HEALTHCHECK.

    With overlay the layers are kept, so that the targets share what they have in common. With vfs each layer is a full
    copy, and only the last one of a stage is made.
    """
    image = f"localhost/litepool:{target}"
    layers = "true" if store.driver() == "overlay" else "false"
    options = ["--format", "docker", "--pull-never", f"--layers={layers}", "--target", target, "--tag", image]
    command = store.command("bud", *options, *secrets, context)
    logged(command, log, BUILD_TIMEOUT, store.environment())
    return image


def unpacked_bytes(root: Path) -> int:
    """Bytes of the files of an unpacked image, hard links once."""
    seen: set[int] = set()
    total = 0
    for folder, _, files in os.walk(root):
        for name in files:
            status = (Path(folder) / name).lstat()
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_size
    return total
