"""A model's own samples, run as requests before it serves."""

import json
import logging
from collections.abc import Callable

import orjson

from app.bound import Codecs, identity_of
from app.errors import LitepoolError, ModelError
from app.protocols.call import Wire
from app.repository.loader import Opened
from app.repository.samples import differs
from app.runtime import batching
from app.runtime.runners import AnyRunner

log = logging.getLogger(__name__)


def try_samples(opened: Opened, runner: Callable[[], AnyRunner]) -> None:
    """Run a model's samples as requests, and leave out those that it does not take: they are shown as examples.

    Args:
        runner: gives what runs one sample.

    Raises:
        ModelError: an answer is not the one that the sample gives.
    """
    offered, samples = opened.default, opened.samples
    codec = Codecs(identity_of(opened, offered.signature), offered.signature, opened.config.numbers == "real").of(
        Wire.PREDICT
    )
    for index, sample in reversed(list(enumerate(samples))):
        try:
            # Not by orjson, which has no numbers that are not finite.
            call = codec.decode(json.dumps(sample.request).encode())
            own = runner().of(offered.signature.name)
            outputs = batching.run(own, offered.contract.batching, call.inputs, call.rows)
            text = codec.encode(call, outputs)
            assert isinstance(text, bytes)
            answer = orjson.loads(text)
        except LitepoolError as error:
            log.warning("%s: samples.json[%d] is left out: %s", opened.source.name, index, error.message)
            del samples[index]
            continue
        if sample.answer is not None:
            tolerance = opened.config.allowed_difference if sample.tolerance is None else sample.tolerance
            difference = differs(answer, sample.answer, tolerance)
            if difference is not None:
                raise ModelError(f"samples.json[{index}] is answered otherwise: {difference}")
