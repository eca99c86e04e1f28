"""Where things are. Everything under CACHE can be thrown away."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
CACHE = PACKAGE / ".cache"
VENVS = PACKAGE / ".venvs"
PEERS = PACKAGE / "peers"
RESULTS = PACKAGE / "results"
DOCS = ROOT / "docs"
