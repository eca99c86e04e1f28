"""How each peer is started, with the settings that its own documentation gives for production."""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Callable, Mapping

from benchmarks.models import Model
from benchmarks.paths import PEERS as FOLDERS
from benchmarks.peers import environment
from benchmarks.servers.base import WORKERS, Launch, Server, predict
from benchmarks.wire import Instances, OpenInference, Wire

Command = Callable[[Launch], list[str]]
Env = Mapping[str, str]

INSTANCES = Instances()

# Every peer's: no reporting to its makers, no colours in the log.
QUIET = {"BENTOML_DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}


def v2(_model: Model) -> str:
    return "/v2/models/model/infer"


def peer(
    name: str,
    title: str,
    about: str,
    command: Command,
    *,
    folder: str = "",
    path: Callable[[Model], str] = predict,
    wire: Wire = INSTANCES,
    env: Callable[[Launch], Env] = lambda _launch: {},
) -> Server:
    """A server in `peers/FOLDER`, by default named as itself; its environment is told the model and the port."""
    folder = folder or name

    def whole_env(launch: Launch) -> Env:
        scripts = environment.venv(folder) / "bin"
        return {
            **QUIET,
            "PATH": f"{scripts}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": f"{FOLDERS / 'common'}:{FOLDERS / folder}",
            "HOME": str(launch.scratch),
            "TMPDIR": str(launch.scratch),
            "BENCH_PORT": str(launch.port),
            "BENCH_TFLITE": str(launch.model.tflite("float32")),
            **env(launch),
        }

    return Server(
        name=name,
        title=title,
        group="peer",
        about=about,
        command=command,
        path=path,
        json=wire,
        env=whole_env,
        prepare=functools.partial(environment.make, folder),
        versions=functools.partial(environment.versions, folder),
        cwd=FOLDERS / folder,
        start_limit=180,
    )


def script(folder: str, *options: str) -> Command:
    return lambda _launch: [environment.python(folder), "server.py", *options]


def program(folder: str, name: str, *options: str) -> Command:
    return lambda _launch: [str(environment.venv(folder) / "bin" / name), *options]


def bentoml(launch: Launch) -> list[str]:
    where = ("--host", "127.0.0.1", "--port", str(launch.port))
    return program("bentoml", "bentoml", "serve", "-q", "service:Predictor", *where)(launch)


def kserve(launch: Launch) -> list[str]:
    quiet = ("--enable_grpc", "false", "--enable_latency_logging", "false", "--log_config_file", "log.yaml")
    workers = ("--workers", str(WORKERS), "--event-loop", "uvloop")
    return [environment.python("kserve"), "server.py", "--http_port", str(launch.port), *workers, *quiet]


def mlserver_env(workers: int, launch: Launch) -> Env:
    return {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(launch.port),
        "MLSERVER_GRPC_PORT": str(launch.port + 1),
        "MLSERVER_METRICS_PORT": str(launch.port + 2),
        "MLSERVER_PARALLEL_WORKERS": str(workers),
        "MLSERVER_DEBUG": "false",
        "MLSERVER_METRICS_DIR": str(launch.scratch),
        "MLSERVER_ENVIRONMENTS_DIR": str(launch.scratch),
    }


def triton_env(launch: Launch) -> Env:
    """Its Python stub must find the library of this Python's version, and not the system's."""
    return {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")), "PYTRITON_HOME": str(launch.scratch)}


def triton_grpc_env(launch: Launch) -> Env:
    return {**triton_env(launch), "BENCH_GRPC_PORT": str(launch.port + 1)}


def ray_env(haproxy: bool, launch: Launch) -> Env:
    """Ray rewrites 127.0.0.1 to the machine's address unless it takes itself for a cluster of one.

    HAProxy's own pages and the replicas listen on all interfaces all the same; nothing is sent to them.
    """
    base = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    if not haproxy:
        return base
    return {
        **base,
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(launch.scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(launch.scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(launch.scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(launch.scratch / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(launch.port + 1),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(launch.port + 2),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
    }


TRITON_NATIVE = peer(
    "triton-native",
    "Triton, Python backend",
    "two instances of its own Python backend, dynamic batching without delay",
    lambda _launch: [environment.python("triton"), "native.py"],
    folder="triton",
    path=v2,
    wire=OpenInference(),
    env=triton_env,
)
# For the wire formats: the same with gRPC.
TRITON_GRPC = peer(
    "triton-native",
    "Triton, Python backend",
    "two instances of its own Python backend, dynamic batching without delay, gRPC",
    lambda _launch: [environment.python("triton"), "native.py"],
    folder="triton",
    path=v2,
    wire=OpenInference(),
    env=triton_grpc_env,
)
PEERS = (
    peer("litserve", "LitServe", "two workers, two API servers, fast queue", script("litserve")),
    peer("bentoml", "BentoML", "two workers, access log off", bentoml),
    peer(
        "mlserver",
        "MLServer",
        "one process, no parallel workers: its quicker way for small models",
        program("mlserver", "mlserver", "start", "."),
        path=v2,
        wire=OpenInference(),
        env=functools.partial(mlserver_env, 0),
    ),
    peer(
        "mlserver-parallel",
        "MLServer, parallel",
        "two parallel workers",
        program("mlserver", "mlserver", "start", "."),
        folder="mlserver",
        path=v2,
        wire=OpenInference(),
        env=functools.partial(mlserver_env, WORKERS),
    ),
    peer(
        "kserve",
        "KServe Python server",
        "two workers, uvloop, gRPC and latency log off",
        kserve,
        path=lambda _model: "/v1/models/model:predict",
    ),
    peer(
        "triton",
        "Triton (PyTriton)",
        "two infer callables, dynamic batching without delay",
        script("triton"),
        path=v2,
        wire=OpenInference(),
        env=triton_env,
    ),
    TRITON_NATIVE,
    peer("ray", "Ray Serve", "two replicas, Python proxy", script("ray"), env=functools.partial(ray_env, False)),
    peer(
        "ray-haproxy",
        "Ray Serve, HAProxy",
        "two replicas, HAProxy and its throughput mode",
        script("ray"),
        folder="ray",
        env=functools.partial(ray_env, True),
    ),
)
