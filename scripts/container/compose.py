"""docker-compose.yml, as far as it can be judged without an engine."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from container import CheckError

PARSE = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def _parsed(path: Path) -> dict[str, Any] | None:
    """The file by any Python here that has PyYAML."""
    for python in dict.fromkeys([sys.executable, "/usr/bin/python3", shutil.which("python3") or sys.executable]):
        if Path(python).exists() and _run([python, "-c", "import yaml"]).returncode == 0:
            done = _run([python, "-c", PARSE], path.read_text())
            if done.returncode != 0:
                raise CheckError(f"{path.name} is no YAML: {done.stderr.strip().splitlines()[-1]}")
            parsed: dict[str, Any] = json.loads(done.stdout)
            return parsed
    return None


def _faults(name: str, service: dict[str, Any], stages: set[str]) -> list[str]:
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    wanted = {
        "read_only: true": service.get("read_only") is True,
        "cap_drop: [ALL]": service.get("cap_drop") == ["ALL"],
        "security_opt: [no-new-privileges:true]": "no-new-privileges:true" in service.get("security_opt", []),
        "a port on 127.0.0.1": all("127.0.0.1" in str(port) for port in service.get("ports", ["none"])),
        "limits of cpus and memory": {"cpus", "memory"} <= set(limits),
        "a target of the Dockerfile": service.get("build", {}).get("target") in stages,
        "a stop_grace_period": "stop_grace_period" in service,
        "a healthcheck": "healthcheck" in service,
    }
    return [f"the service {name} lacks {what}" for what, given in wanted.items() if not given]


def check_compose(path: Path, dockerfile: Path) -> str:
    """How far the file was checked; raises for a fault."""
    if shutil.which("docker") and _run(["docker", "compose", "version"]).returncode == 0:
        done = _run(["docker", "compose", "--file", str(path), "config", "--quiet"])
        if done.returncode != 0:
            raise CheckError(f"`docker compose config` refuses {path.name}: {done.stderr.strip()}")
    parsed = _parsed(path)
    if parsed is None:
        return "not parsed: neither `docker compose` nor a Python with PyYAML is here"
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile.read_text(), re.MULTILINE))
    faults = [fault for name, service in parsed["services"].items() for fault in _faults(name, service, stages)]
    if faults:
        raise CheckError(f"{path.name}: {'; '.join(faults)}.")
    return f"parsed, {len(parsed['services'])} services have the limits and restrictions they should"
