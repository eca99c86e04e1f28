"""Runs the client programs of `scripts/`, each in the environment that has its client, and knows their calls."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.e2e.process import ROOT

SCRIPTS = Path(__file__).parent / "scripts"
ENVIRONMENT = ROOT / ".venv-clients"

PATIENCE = 240.0
"""Seconds within which a program is done."""


def python_of_clients() -> Path:
    """The interpreter of the environment that `make clients` sets up."""
    return _of_clients("python")


def perf_analyzer() -> Path:
    return _of_clients("perf_analyzer")


def _of_clients(name: str) -> Path:
    program = ENVIRONMENT / "bin" / name
    ready = (ENVIRONMENT / ".ready").exists() and program.exists()
    assert ready, f"{program} is not there: `make clients` sets up what these tests need"
    return program


@dataclass(frozen=True)
class Program:
    """One of the scripts.

    Args:
        own: whether its client lives in the environment of the suite and not in that of the clients.
    """

    name: str
    own: bool = False

    def calls(self) -> Iterator[str]:
        """What it will call, read from its text and from those of ours that it imports."""
        yield from _calls(SCRIPTS / f"{self.name}.py")

    def run(self, http: str, grpc: str) -> dict[str, str | None]:
        """Make all calls against a server: of each what went wrong, None for nothing."""
        python = Path(sys.executable) if self.own else python_of_clients()
        command: list[str | Path] = [python, SCRIPTS / f"{self.name}.py", http, grpc]
        try:
            done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False, cwd=ROOT)
        except subprocess.TimeoutExpired as late:
            printed, end = late.stdout or b"", f"the program was not done after {PATIENCE:.0f} s"
        else:
            printed, end = done.stdout, done.stderr.decode(errors="replace")
        lines = [orjson.loads(line) for line in printed.splitlines() if line.startswith(b"{")]
        made = {line["call"]: line["failure"] for line in lines}
        return {name: made.get(name, f"never made: {end}") for name in self.calls()}


PROGRAMS = (
    Program("triton_http"),
    Program("triton_http_aio"),
    Program("triton_grpc"),
    Program("triton_grpc_aio"),
    Program("serving_rest"),
    Program("serving_grpc", own=True),
    Program("kserve_rest"),
    Program("kserve_grpc"),
    Program("grpclib_aio"),
)


def _calls(script: Path) -> Iterator[str]:
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (sibling := SCRIPTS / f"{node.module}.py").exists():
            yield from _calls(sibling)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            isinstance(decorator, ast.Name) and decorator.id == "call" for decorator in node.decorator_list
        ):
            yield node.name
