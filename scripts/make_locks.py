"""Resolve requirements/*.lock from pyproject.toml, with hashes and without index addresses.

Needs `uv` on the PATH. The locks are universal: one file serves every platform and Python that pyproject.toml admits.
"""

import subprocess
import sys

LOCKS = {
    "runtime": [],
    "build": ["--extra", "build"],
    "serve": ["--extra", "build", "--extra", "convert"],
    "dev": ["--extra", "build", "--extra", "convert", "--extra", "dev"],
}


def main() -> None:
    for name, extras in LOCKS.items():
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        command += ["pyproject.toml", *extras, "--output-file", f"requirements/{name}.lock", *sys.argv[1:]]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
