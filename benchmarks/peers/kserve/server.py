"""KServe's Python server: two workers, latency log and gRPC off (by options)."""

from typing import Any

import kserve
import numpy as np
import tfl
import uvicorn

# KServe asks uvicorn for all interfaces and has no option for it.
_init = uvicorn.config.Config.__init__


def on_loopback(self: uvicorn.Config, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **{**kwargs, "host": "127.0.0.1"})


uvicorn.config.Config.__init__ = on_loopback


class Predictor(kserve.Model):
    def load(self) -> bool:
        self.model = tfl.Model()
        self.ready = True
        return self.ready

    async def predict(self, payload: dict, headers: Any = None, response_headers: Any = None) -> dict:  # noqa: ARG002
        return {"predictions": self.model(np.asarray(payload["instances"], dtype=np.float32)).tolist()}


if __name__ == "__main__":
    predictor = Predictor("model")
    predictor.load()
    kserve.ModelServer().start([predictor])
