"""Resolve requirements/*.lock from pyproject.toml and requirements/*.in, with hashes and without index addresses.

Needs `uv` on the PATH. The locks are universal: one file serves every platform and Python that pyproject.toml admits.
"""

import subprocess
import sys

PROJECT = "pyproject.toml"

# What kserve asks for as a server, and as a client never imports.
UNUSED = [
    "cffi",
    "cryptography",
    "httptools",
    "pillow",
    "pyasn1",
    "pycparser",
    "pyjwt",
    "python-dotenv",
    "uvloop",
    "websockets",
]

LOCKS = {
    "runtime": [PROJECT],
    "build": [PROJECT, "--extra", "build"],
    "serve": [PROJECT, "--extra", "build", "--extra", "convert"],
    "dev": [PROJECT, "--extra", "build", "--extra", "convert", "--extra", "dev"],
    "clients": ["requirements/clients.in", *(f"--no-emit-package={name}" for name in UNUSED)],
}


def main() -> None:
    for name, sources in LOCKS.items():
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        command += [*sources, "--output-file", f"requirements/{name}.lock", *sys.argv[1:]]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
