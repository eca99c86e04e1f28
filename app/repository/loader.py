"""From a model on disk to servables: convert, open in a child, compare with TensorFlow, measure, warm up."""

import logging
import os
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from app.errors import ModelError
from app.repository.arrays import save_arrays
from app.repository.cache import Entry, hold
from app.repository.convert import Converter, installed_tensorflow
from app.repository.layout import Kind, Source
from app.repository.model_config import ModelConfig, read_config
from app.repository.parity import Parity, compare, read_reference
from app.repository.samples import Sample, read_samples, records_of
from app.repository.trial import Examined, Question
from app.runtime import batching
from app.runtime.contract import BatchClass, Contract
from app.runtime.engine import Engine
from app.runtime.interpreter import Model, Runner
from app.runtime.plan import Plan, make_plan
from app.runtime.profile import Profile, measure
from app.runtime.runners import AnyRunner, Runners
from app.runtime.sequences import Sequences
from app.runtime.servable import Lanes, Servable
from app.tensors import Array, Batching, Signature

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

Check = Callable[["Opened", Callable[[], AnyRunner]], None]
"""Tries what has been opened on a runner that the second argument gives; it may raise ModelError."""


@dataclass(frozen=True, slots=True, eq=False)
class Offered:
    """One signature of a model, with all that is known of it."""

    signature: Signature
    examined: Examined
    contract: Contract
    """As found, or stricter where its owner wants that."""

    @property
    def example(self) -> list[Array]:
        """One record of each input, `[1, *record]`, that the model runs on."""
        return self.examined.example

    def plan(self, config: ModelConfig, inline_us: float) -> Plan:
        """How it is to be run; `inline_us` as in `make_plan`, which may raise ModelError."""
        return make_plan(
            self.examined.profile, self.contract, self.examined.unpredictable, inline_us, config.lane.wishes()
        )


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Opened:
    """A model that runs, checked and measured, with all that is known of it."""

    source: Source
    config: ModelConfig
    model: Model | Engine
    size: int
    """Bytes of the TFLite model; 0 where there is none."""
    signatures: dict[str, Offered]
    """The default first."""
    left_out: dict[str, str]
    """Signatures that are not served, and why."""
    open_ms: float = 0.0
    """How long all of `open_model` took."""
    samples: list[Sample] = field(default_factory=list)
    conversion: dict[str, Any] | None = None

    @property
    def default(self) -> Offered:
        """The signature that is served where a request names none."""
        return next(iter(self.signatures.values()))

    @property
    def signature(self) -> Signature:
        """The default one."""
        return self.default.signature

    @property
    def profile(self) -> Profile:
        """Of the default signature."""
        return self.default.examined.profile

    @property
    def parity(self) -> Parity | None:
        """Of the default signature."""
        return self.default.examined.parity

    @property
    def quantization(self) -> str:
        """What is served; with `auto`, what that came to."""
        return str((self.conversion or {}).get("quantization", self.config.quantization))

    @property
    def engine(self) -> str:
        """What runs it: `litert` or `tensorflow`."""
        return "tensorflow" if isinstance(self.model, Engine) else "litert"

    @property
    def slow_because(self) -> str | None:
        """Of what TensorFlow runs: why TFLite does not."""
        return self.conversion["engine"]["reason"] if isinstance(self.model, Engine) and self.conversion else None

    def make_runner(self) -> AnyRunner:
        """One more interpreter, of the default signature."""
        if isinstance(self.model, Engine):
            return self.model.runner()
        return Runner(self.model, self.config.lane.threads)

    def example_request(self) -> dict[str, Any]:
        """A body of `/predict` that works: the first sample, or one record that the model was seen to run on."""
        if self.samples:
            return self.samples[0].request
        names = [spec.name for spec in self.signature.inputs]
        values = {name: _plain(array[0]) for name, array in zip(names, self.default.example, strict=True)}
        return {"instance": next(iter(values.values())) if len(values) == 1 else values}


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A version that serves: its signatures, with what the repository knows of it."""

    opened: Opened
    servables: dict[str, Servable]
    """The default first."""

    @property
    def servable(self) -> Servable:
        """The default signature's."""
        return next(iter(self.servables.values()))


def open_model(source: Source, converter: Converter, progress: Progress, quantization: str | None = None) -> Opened:
    """Convert if need be, and have it opened by a child.

    Args:
        quantization: in place of what model.toml says.

    Raises:
        ModelError: in one sentence, why the model is not served.
    """
    start = monotonic()
    config = read_config(source.folder)
    if quantization is not None:
        config = config.model_copy(update={"quantization": quantization})
    samples = read_samples(source.folder)
    opened = _open(source, config, samples, converter, progress)
    opened = replace(opened, open_ms=(monotonic() - start) * 1000)
    _hold(opened)
    return opened


def _hold(opened: Opened) -> None:
    """Keep what the model was opened from in the cache for as long as it may be opened once more."""
    if isinstance(opened.model, bytes):
        return
    descriptor = hold(opened.model.parent if isinstance(opened.model, Path) else opened.model.folder.parent)
    if descriptor is not None:
        weakref.finalize(opened, os.close, descriptor)


def _open(
    source: Source, config: ModelConfig, samples: list[Sample], converter: Converter, progress: Progress
) -> Opened:
    model: Model
    conversion = None
    records: dict[str, Array] = {}
    question = Question(config.lane.threads, config.batching.rows_independent, config.allowed_difference)
    if source.kind is Kind.TFLITE:
        if config.engine == "tensorflow":
            raise ModelError(
                f'model.toml: engine = "tensorflow": {source.path.name} is a TFLite model, which only LiteRT runs'
            )
        if config.quantization != "none":
            raise ModelError(
                f'model.toml: quantization = "{config.quantization}": {source.path.name} is a TFLite model already, '
                "which is served as it is"
            )
        progress(f"loading {source.path.name}")
        model = converter.keep(source)
        records = records_of(samples)
    else:
        entry = converter.convert(source, config, records_of(samples), progress)
        if "engine" in entry.report:
            return _open_engine(source, config, samples, entry, converter, progress)
        model, conversion = entry.model, entry.report
        progress("comparing with TensorFlow")
        question = replace(
            question,
            quantized=conversion["quantization"] != "none",
            reference=entry.parity,
            references=conversion["signatures"],
        )
    with tempfile.TemporaryDirectory(prefix="litepool-records-") as folder:
        if records:
            # They show what sizes the model's free dimensions have.
            question = replace(question, records=Path(folder, "records.npz"))
            save_arrays(Path(folder, "records.npz"), records)
        findings = converter.trial.of(model, question)
    first = Runner(model, config.lane.threads)
    offered = {found.name: _offer(found, first, config) for found in findings.signatures}
    if config.signature is not None:
        if config.signature not in offered:
            names = ", ".join(map(repr, offered))
            raise ModelError(f"model.toml: signature = {config.signature!r}: the model's are {names}")
        offered = {config.signature: offered.pop(config.signature), **offered}
    left_out = findings.left_out | (conversion or {}).get("signatures_left_out", {})
    size = len(model) if isinstance(model, bytes) else model.stat().st_size
    opened = Opened(source, config, model, size, offered, left_out, samples=samples, conversion=conversion)
    config.check_labels(opened.signature)
    return opened


def _open_engine(
    source: Source, config: ModelConfig, samples: list[Sample], entry: Entry, converter: Converter, progress: Progress
) -> Opened:
    """Have TensorFlow run what TFLite cannot express: the slow road."""
    told = entry.report["engine"]
    if config.signature not in (None, told["signature"]):
        raise ModelError(
            f"model.toml: signature = {config.signature!r}: TensorFlow runs it, and of a model only its default "
            f"signature, {told['signature']!r}"
        )
    if installed_tensorflow() is None:
        raise ModelError(
            f"TFLite cannot express it ({told['reason']}), and TensorFlow, which can run it, is not installed: install "
            "litepool[tensorflow]"
        )
    progress("starting TensorFlow, because TFLite cannot express it")
    engine = Engine(
        entry.folder / "engine", told["signature"], config.lane.threads, memory=converter.memory,
        load_seconds=converter.timeout,
    )  # fmt: skip
    # Shapes may look like those of batches where the answers do not.
    runner, signature = engine.runner(), replace(engine.signature, batching=Batching(told["batching"]))
    progress("comparing with TensorFlow")
    names = {"number": 0, "inputs": list(told["inputs"]), "outputs": list(told["outputs"])}
    reference = read_reference(entry.parity, names, signature)
    contract = _of_engine(engine, signature.batching)
    parity = compare(runner, contract.batching, signature, reference, config.allowed_difference)
    start = monotonic()
    profile = measure(runner, contract.batching, reference.inputs)
    profile_ms = (monotonic() - start) * 1000
    example = [array[:1] for array in reference.inputs]
    examined = Examined(signature.name, contract, True, profile, profile_ms, parity, example)
    offered = Offered(signature, examined, contract.stricter(config.batching.class_))
    config.check_labels(signature)
    return Opened(source, config, engine, 0, {signature.name: offered}, {}, samples=samples, conversion=entry.report)


def _of_engine(engine: Engine, how: Batching) -> Contract:
    """Of a graph that nobody has read, requests share no invoke."""
    if engine.stateful:
        return Contract(BatchClass.STATEFUL, "it keeps variables between invokes", how)
    words = {Batching.FREE: BatchClass.BATCHED, Batching.ONE: BatchClass.LOOPED, Batching.NONE: BatchClass.WHOLE}
    return Contract(words[how], "TensorFlow runs it", how)


def _offer(found: Examined, runner: Runner, config: ModelConfig) -> Offered:
    signature = runner.of(found.name).signature()
    if found.contract.batch_class is BatchClass.WHOLE:
        signature = replace(signature, batching=Batching.NONE)
    return Offered(signature, found, found.contract.stricter(config.batching.class_))


def load(source: Source, converter: Converter, lanes: Lanes, progress: Progress, check: Check | None = None) -> Loaded:
    """Open a model and make it ready to serve; one log line says what came of it.

    Args:
        check: runs the model's samples, by which it is warmed up as well.

    Raises:
        ModelError: in one sentence, why the model is not served.
    """
    start = monotonic()
    opened = open_model(source, converter, progress)
    plans = plans_of(opened, lanes.inline_us)
    first: AnyRunner = opened.make_runner()
    inline = any(plan.inline_rows for plan in plans.values())
    first = _warmed(first, opened)
    if check is not None and opened.samples:
        progress("running its samples")
        check(opened, opened.make_runner if opened.default.contract.stateful else lambda: first)
    runners = Runners(opened.make_runner, first, lanes.pool.size, inline)
    state = opened.config.state
    sequences = Sequences(state.sequences, state.idle_seconds, lanes.later)
    servables = {
        name: Servable(
            source.name,
            source.version,
            offered.signature,
            runners,
            plans[name],
            offered.example,
            lanes,
            sequences if offered.contract.stateful else None,
        )
        for name, offered in opened.signatures.items()
    }
    log.info("%s %d: ready in %.1f s; %s", source.name, source.version, monotonic() - start, summary(opened))
    return Loaded(opened, servables)


def _warmed(runner: AnyRunner, opened: Opened) -> AnyRunner:
    """The runner once it has run; of a model that keeps state, one that has not, because that would leave a trace."""
    offered = opened.default
    if offered.contract.stateful:
        return runner
    batching.run(runner.of(opened.signature.name), offered.contract.batching, offered.example, 1)
    return runner


def _plain(array: Array) -> Any:
    """An array as JSON has it; strings that are no UTF-8, which examples do not hold, would be told apart no more."""
    if array.dtype == object:
        return np.vectorize(lambda value: value.decode(errors="replace"), otypes=[object])(array).tolist()
    if array.dtype.kind == "c":
        return np.stack([array.real, array.imag], axis=-1).tolist()
    return array.tolist()


def summary(opened: Opened) -> str:
    """The comparison that matters most, in one line: times of one record, and the difference from TensorFlow."""
    interpreter = opened.profile.invoke_us[1]
    parts = []
    if opened.conversion is not None:
        timings = opened.conversion.get("timings_us", {})
        parts += [f"model.predict {show_us(timings['predict'])}"] if "predict" in timings else []
        parts += [f"model(x) {show_us(timings['call'])}"] if "call" in timings else []
    parts.append(f"{'TensorFlow' if opened.engine == 'tensorflow' else 'interpreter'} {show_us(interpreter)}")
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


def plans_of(opened: Opened, inline_us: float) -> dict[str, Plan]:
    """How each signature is to be run; `inline_us` as in `make_plan`, which may raise ModelError."""
    return {name: offered.plan(opened.config, inline_us) for name, offered in opened.signatures.items()}
