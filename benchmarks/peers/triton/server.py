"""Triton by PyTriton: two infer callables, dynamic batching without delay, two HTTP threads."""

import os
import signal
from collections.abc import Callable

import numpy as np
import tfl
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def infer_function() -> Callable:
    model = tfl.Model()

    @batch
    def infer(x: np.ndarray) -> dict:
        return {"y": model(x)}

    return infer


if __name__ == "__main__":
    port = int(os.environ["BENCH_PORT"])
    shape = tfl.Model()
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        http_thread_count=2,
        allow_grpc=False,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=[infer_function(), infer_function()],
            inputs=[Tensor(name="x", dtype=np.float32, shape=shape.record)],
            outputs=[Tensor(name="y", dtype=np.float32, shape=(shape.outputs,))],
            config=ModelConfig(max_batch_size=256, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            strict=False,
        )
        signal.signal(signal.SIGTERM, lambda *_: triton.stop())
        triton.serve()
