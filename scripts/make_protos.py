"""Compile app/server/rpc/protos/*.proto, which a server reads compiled.

Needs grpcio-tools, which nothing else does: `pip install grpcio-tools`, then `python scripts/make_protos.py`.
"""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

PROTOS = Path(__file__).parents[1] / "app/server/rpc/protos"
COMPILED = PROTOS / "descriptors.bin"
OF_SOURCES = PROTOS / "descriptors.sha256"


def hash_of_sources() -> str:
    """By which the tests find out whether the compiled form is of what lies beside it."""
    return sha256(b"\0".join(path.read_bytes() for path in sorted(PROTOS.glob("*.proto")))).hexdigest()


def main() -> None:
    sources = sorted(path.name for path in PROTOS.glob("*.proto"))
    command = ["grpc_tools.protoc", f"-I{PROTOS}", "--include_imports", f"--descriptor_set_out={COMPILED}", *sources]
    subprocess.run([sys.executable, "-m", *command], check=True)
    OF_SOURCES.write_text(hash_of_sources() + "\n")


if __name__ == "__main__":
    main()
