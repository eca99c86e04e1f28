"""Triton itself, out of PyTriton's wheel: its own Python backend with two instances, no PyTriton on the way.

With gRPC too when it is given a port for that.
"""

import os
import shutil
import sys
from pathlib import Path

import pytriton
import tfl

CONFIG = """
name: "model"
backend: "python"
max_batch_size: 256
dynamic_batching {}
instance_group [{ kind: KIND_CPU, count: 2 }]
input [{ name: "x", data_type: TYPE_FP32, dims: [%s] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [%d] }]
"""


def lay_out(root: Path, shipped: Path) -> None:
    """A model repository, and a backend folder with the stub of this Python's version."""
    model = tfl.Model()
    repository = root / "models" / "model"
    (repository / "1").mkdir(parents=True)
    # Triton's stub takes no PYTHONPATH; the model's own folder it does look in.
    for source in (Path(__file__).with_name("model.py"), Path(tfl.__file__)):
        shutil.copy(source, repository / "1" / source.name)
    (repository / "config.pbtxt").write_text(CONFIG % (", ".join(map(str, model.record)), model.outputs))
    shutil.copytree(shipped / "backends", root / "backends")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(shipped / "python_backend_stubs" / version / "triton_python_backend_stub", root / "backends" / "python")


if __name__ == "__main__":
    shipped = Path(pytriton.__file__).parent / "tritonserver"
    root = Path(os.environ["TMPDIR"]) / "triton"
    lay_out(root, shipped)
    libraries = Path(pytriton.__file__).parent.parent / "nvidia_pytriton.libs"
    os.environ["LD_LIBRARY_PATH"] = f"{os.environ['LD_LIBRARY_PATH']}:{shipped / 'external_libs'}:{libraries}"
    options = {
        "model-repository": root / "models",
        "backend-directory": root / "backends",
        "http-address": "127.0.0.1",
        "http-port": os.environ["BENCH_PORT"],
        "http-thread-count": "2",
        "allow-grpc": "false",
        "allow-metrics": "false",
    }
    if port := os.environ.get("BENCH_GRPC_PORT"):
        options |= {"allow-grpc": "true", "grpc-address": "127.0.0.1", "grpc-port": port}
    server = str(shipped / "bin" / "tritonserver")
    os.execv(server, [server, *(f"--{name}={value}" for name, value in options.items())])
