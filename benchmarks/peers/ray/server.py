"""Ray Serve: two replicas of one CPU each, access log off; with HAProxy in front when the environment says so."""

import os
import signal
import threading

import numpy as np
import ray
import tfl
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request


@serve.deployment(num_replicas=2, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1})
class Predictor:
    def __init__(self) -> None:
        self.model = tfl.Model()

    async def __call__(self, request: Request) -> dict:
        body = await request.json()
        return {"predictions": self.model(np.asarray(body["instances"], dtype=np.float32)).tolist()}


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=os.environ["TMPDIR"] + "/ray",
    )
    logs = LoggingConfig(enable_access_log=False, log_level="WARNING")
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(os.environ["BENCH_PORT"])), logging_config=logs)
    serve.run(Predictor.bind(), route_prefix="/predict", logging_config=logs)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()
