"""LitServe: two workers, two API servers, the fast queue that its documentation advises above 100 requests/s."""

import os

import litserve
import numpy as np
import tfl


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = tfl.Model()

    def decode_request(self, request) -> np.ndarray:  # noqa: ANN001 - LitServe would read the annotation
        return np.asarray(request["instances"], dtype=np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model(x)

    def encode_response(self, output: np.ndarray) -> dict:
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/predict"), accelerator="cpu", workers_per_device=2, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=2,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
