"""The model as every peer runs it: one TFLite interpreter with one thread, resized when the batch size changes."""

import os
import threading

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Model:
    """Safe for threads: a lock is held for the invoke."""

    def __init__(self) -> None:
        self._interpreter = Interpreter(model_path=os.environ["BENCH_TFLITE"], num_threads=1)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shape = None
        self._lock = threading.Lock()
        signature = self._interpreter.get_input_details()[0]["shape_signature"]
        self.record = tuple(int(size) for size in signature[1:])
        self.outputs = int(self._interpreter.get_output_details()[0]["shape"][-1])
        self(np.zeros((1, *self.record), np.float32))

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """A server that sends its model to another process gets a new one there."""
        return Model, ()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        with self._lock:
            if self._shape != batch.shape:
                self._interpreter.resize_tensor_input(self._input, batch.shape)
                self._interpreter.allocate_tensors()
                self._shape = batch.shape
            self._interpreter.set_tensor(self._input, batch)
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output)
