"""From a model on disk to a servable: convert, open, compare with TensorFlow, measure."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from app.repository.convert import Converter
from app.repository.layout import Kind, Source
from app.repository.model_config import ModelConfig, read_config
from app.repository.parity import Parity, compare, read_reference
from app.repository.samples import Sample, read_samples
from app.runtime import batching
from app.runtime.independence import why_dependent
from app.runtime.interpreter import Model, Runner
from app.runtime.plan import Plan, make_plan
from app.runtime.profile import Profile, measure, workable_inputs
from app.runtime.servable import Lanes, Servable
from app.tensors import Array, Batching, Signature

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that LiteRT runs, checked and measured, with all that is known of it."""

    source: Source
    config: ModelConfig
    model: Model
    size: int
    """Bytes of the TFLite model."""
    signature: Signature
    stateful: bool
    """Whether it keeps variables between invokes."""
    unpredictable: bool
    """Whether what an invoke costs depends on its input."""
    profile: Profile
    example: list[Array]
    """One record of each input, `[1, *record]`, that the model runs on."""
    mixing: str | None
    """Why requests may not share an invoke; None when they may."""
    profile_ms: float
    """How long measuring `profile` took."""
    open_ms: float = 0.0
    """How long all of `open_model` took."""
    samples: list[Sample] = field(default_factory=list)
    conversion: dict[str, Any] | None = None
    parity: Parity | None = None

    def plan(self, inline_us: float) -> Plan:
        """How it is to be run; `inline_us` as in `make_plan`, which may raise ModelError."""
        return make_plan(
            self.profile, self.mixing, self.stateful, self.unpredictable, inline_us, self.config.lane.wishes()
        )

    def example_request(self) -> dict[str, Any]:
        """A body of `/predict` that works: the first sample, or one record that the model was seen to run on."""
        if self.samples:
            return self.samples[0].request
        names = [spec.name for spec in self.signature.inputs]
        values = {name: array[0].tolist() for name, array in zip(names, self.example, strict=True)}
        return {"instance": next(iter(values.values())) if len(values) == 1 else values}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A servable with what the repository knows of it."""

    servable: Servable
    opened: Opened


def open_model(
    source: Source, converter: Converter, progress: Callable[[str], None], quantization: str | None = None
) -> Opened:
    """Convert if need be, and open.

    Args:
        quantization: in place of what model.toml says.

    Raises:
        ModelError: in one sentence, why the model is not served.
    """
    start = monotonic()
    opened = _open(source, converter, progress, quantization)
    return replace(opened, open_ms=(monotonic() - start) * 1000)


def _open(source: Source, converter: Converter, progress: Callable[[str], None], quantization: str | None) -> Opened:
    config = read_config(source.folder)
    if quantization is not None:
        config = config.model_copy(update={"quantization": quantization})
    samples = read_samples(source.folder)
    if source.kind is Kind.TFLITE:
        progress(f"loading {source.path.name}")
        model = converter.keep(source)
        # What checks and measures a model is not what serves it: large batches leave an interpreter large.
        runner = Runner(model, config.lane.threads)
        example = workable_inputs(runner, runner.signature())
        return _measured(source, config, model, samples, runner, example)
    entry = converter.convert(source, config, progress)
    progress("comparing with TensorFlow")
    runner = Runner(entry.model, config.lane.threads)
    inputs, expected = read_reference(entry.parity, entry.report, runner.signature())
    parity = compare(runner, runner.signature(), inputs, expected, config.allowed_difference)
    opened = _measured(source, config, entry.model, samples, runner, inputs)
    return replace(opened, conversion=entry.report, parity=parity)


def _measured(
    source: Source, config: ModelConfig, model: Model, samples: list[Sample], runner: Runner, records: list[Array]
) -> Opened:
    signature = runner.signature()
    config.check_labels(signature)
    example = [array[:1] for array in records]
    start = monotonic()
    profile = measure(runner, signature, records)
    profile_ms = (monotonic() - start) * 1000
    return Opened(
        source=source,
        config=config,
        model=model,
        size=len(model) if isinstance(model, bytes) else model.stat().st_size,
        signature=signature,
        stateful=runner.stateful(),
        unpredictable=runner.unpredictable(),
        profile=profile,
        example=example,
        mixing=why_dependent(runner, signature, example),
        profile_ms=profile_ms,
        samples=samples,
    )


def load(source: Source, converter: Converter, lanes: Lanes, progress: Callable[[str], None]) -> Loaded:
    """Open a model and make it ready to serve; one log line says what came of it.

    Raises:
        ModelError: in one sentence, why the model is not served.
    """
    start = monotonic()
    opened = open_model(source, converter, progress)
    plan = opened.plan(lanes.inline_us)
    first = Runner(opened.model, plan.threads)
    batching.run(first, opened.signature.batching, opened.example, 1)
    servable = Servable(source.name, source.version, opened.model, first, plan, opened.example, lanes)
    log.info("%s %d: ready in %.1f s; %s", source.name, source.version, monotonic() - start, summary(opened))
    return Loaded(servable, opened)


def batch_class(opened: Opened) -> str:
    """The word for how the servable treats batches."""
    if opened.stateful:
        return "stateful"
    if opened.mixing is None:
        return "merged"
    return {Batching.FREE: "batched", Batching.ONE: "looped", Batching.NONE: "whole"}[opened.signature.batching]


def summary(opened: Opened) -> str:
    """The comparison that matters most, in one line: times of one record, and the difference from TensorFlow."""
    interpreter = opened.profile.invoke_us[1]
    parts = []
    if opened.conversion is not None:
        timings = opened.conversion["timings_us"]
        parts += [f"model.predict {show_us(timings['predict'])}"] if "predict" in timings else []
        parts.append(f"model(x) {show_us(timings['call'])}")
    parts.append(f"interpreter {show_us(interpreter)}")
    line = "one record: " + ", ".join(parts)
    if opened.parity is not None:
        worst = opened.parity.worst
        line += f"; largest difference from TensorFlow {worst.absolute:.1e} ({worst.relative:.1e} of the scale)"
    return line


def show_us(microseconds: float) -> str:
    """`46 ms`, `1.8 ms`, `17 us`."""
    if microseconds < 1000:
        return f"{microseconds:.3g} us"
    return f"{microseconds / 1000:.3g} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.3g} s"
