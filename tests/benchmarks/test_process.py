"""Ending servers, tried in a process of its own, because it takes in every orphan below it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
from benchmarks import process

process.become_subreaper()
process.LAST_S = 0.1
log = Path(sys.argv[1])
seen = {}
# An orphan that ignores SIGTERM, left by a shell that is the server.
orphan = "trap '' TERM; echo up; while :; do read x <&3; done"
command = f'mkfifo fifo; exec 3<>fifo; (setsid sh -c "{orphan}" &) ; read y <&3'
with process.running(["sh", "-c", command], {}, log.parent, log) as child:
    while "up" not in child.log_end():
        child.require_alive()
    seen["during"] = len(child.tree())
seen["after"] = len(child.tree())
try:
    with process.running(["sh", "-c", "echo no such model; exit 3"], {}, log.parent, log) as child:
        while True:
            child.require_alive()
except process.StartError as error:
    seen["error"] = str(error)
print(json.dumps(seen))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux hands orphans to a grandparent")
def test_a_server_takes_its_orphans_with_it_and_its_log_tells_why_it_ended(tmp_path: Path) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "log")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    seen = json.loads(done.stdout)
    assert seen["during"] >= 2
    assert seen["after"] == 0
    assert seen["error"] == "ended with 3:\nno such model\n"
