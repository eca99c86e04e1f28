"""What a build takes over from this machine: its package mirror, its pip configuration and its certificate authorities.

All of it is read when the check runs and reaches a build as secrets, so that no layer holds any of it.
"""

import ast
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from container import CheckError

# Command -> the Debian package that has it.
TOOLS = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux", "setpriv": "util-linux"}
PIP_OPTIONS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "proxy",
    "default-timeout",
    "timeout",
    "retries",
)
FREE_BYTES = 12 * 2**30


def require_machine(cache: Path) -> None:
    """Linux, root, Debian's tools and room on the disk; otherwise say what is missing."""
    if sys.platform != "linux":
        raise CheckError("The container check needs Linux: elsewhere, build the images with an engine.")
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise CheckError(f"These Debian packages are missing: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise CheckError("The container check must run as root: it makes mounts and changes users.")
    free = shutil.disk_usage(cache).free
    if free < FREE_BYTES:
        raise CheckError(f"{cache} has {free / 1e9:.1f} GB free and the builds need {FREE_BYTES / 1e9:.0f} GB.")


def debian_mirror(suite: str) -> str | None:
    """The mirror that apt uses for `suite` here; without one debootstrap takes its own default."""
    if shutil.which("apt-get") is None:
        return None
    fields = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", fields, "Identifier: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        release, component, uri = line.split(" ", 2)
        if release == suite and component == "main":
            return uri
    return None


def pip_configuration() -> dict[str, str]:
    """pip's options as they are in force here; the environment is over the files, as it is for pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in sections:
            sections[section][option] = str(ast.literal_eval(value))
    return sections["global"] | sections["install"] | sections[":env:"]


def authorities(options: dict[str, str]) -> Path | None:
    """The bundle of certificate authorities that pip trusts here."""
    candidates = (
        options.get("cert"),
        os.environ.get("SSL_CERT_FILE"),
        os.environ.get("REQUESTS_CA_BUNDLE"),
        ssl.get_default_verify_paths().cafile,
    )
    return next((Path(name) for name in candidates if name and Path(name).is_file()), None)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class FolderServer:
    """Package folders of this machine on its loopback, which a build shares: so that no folder must be mounted."""

    def __init__(self) -> None:
        self._servers: list[ThreadingHTTPServer] = []

    def url(self, folder: Path) -> str:
        """An address for `folder`. Its parent is the root of the server, for indexes with links to a sister folder."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder.parent)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/{folder.name}/"

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def reachable(self, value: str) -> str:
        """`value` of a pip option with every folder of this machine replaced by an address."""
        return " ".join(self._reachable(word) for word in value.split())

    def _reachable(self, word: str) -> str:
        path = Path(unquote(urlsplit(word).path)) if word.startswith("file:") else Path(word)
        return self.url(path) if path.is_absolute() and path.is_dir() else word


@contextmanager
def build_secrets(folder: Path) -> Iterator[list[str]]:
    """The `--secret` arguments of a build that may use what this machine uses."""
    options = pip_configuration()
    server = FolderServer()
    try:
        lines = [f"{name} = {server.reachable(options[name])}" for name in PIP_OPTIONS if name in options]
        arguments = []
        bundle = authorities(options)
        if bundle:
            lines.append("cert = /run/secrets/ca")
            arguments += ["--secret", f"id=ca,src={bundle}"]
        settings = folder / "pip.conf"
        settings.write_text("\n".join(["[global]", *lines, ""]))
        yield [*arguments, "--secret", f"id=pip,src={settings}"]
    finally:
        server.close()
