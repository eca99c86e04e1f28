"""`model.toml`, which may lie beside a model."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from app.errors import ModelError
from app.repository.version import LARGEST
from app.runtime.plan import Wishes
from app.tensors import FREE, Signature, show_shape

CONFIG = "model.toml"

_MOST_BYTES = 4 * 2**20
"""Room for the names of some 100,000 classes."""

Quantization = Literal["none", "float16", "dynamic", "int8", "auto"]

DEFAULT_TOLERANCE: dict[Quantization, float] = {
    "none": 1e-4,
    "float16": 1e-2,
    "dynamic": 0.1,
    "int8": 0.1,
    # Who names int8 has accepted what it costs. Where the server chooses, answers should stay right to two digits.
    "auto": 0.02,
}
"""Largest difference from TensorFlow, relative to an output's largest absolute value, that a model is served with."""


def _plain_npz(name: str) -> str:
    if not name.endswith(".npz") or name.startswith(".") or not name.isprintable() or {"/", "\\"} & set(name):
        raise ValueError("expected the name of an .npz file that lies beside model.toml")
    return name


VersionNumber = Annotated[int, Field(ge=1, le=LARGEST)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=128)]
NpzName = Annotated[str, AfterValidator(_plain_npz)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LaneConfig(_Table):
    """`[lane]`: what is fixed in place of what the measured profile says."""

    inline_rows: int | None = Field(
        None,
        ge=0,
        description="Batches of up to so many records run on the event loop, larger ones on a pool thread; 0: none do.",
    )
    merge_rows: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="The most records of different requests in one invoke; 1: requests never share one.",
    )
    threads: int = Field(1, ge=1, le=256, description="LiteRT's own threads in each interpreter.")

    def wishes(self) -> Wishes:
        return Wishes(self.inline_rows, self.merge_rows, self.threads)


class BatchingConfig(_Table):
    """`[batching]`: what batches may do, in place of what was found; but never more, unless `rows_independent`."""

    class_: Literal["batched", "looped"] | None = Field(
        None,
        alias="class",
        description="`batched`: requests never share an invoke; `looped`: records do not either. Only stricter than "
        "what is found.",
    )
    rows_independent: bool = Field(
        False,
        description="You vouch for it that no row of a batch has a say in another's answer, whatever the check finds: "
        "requests may share an invoke.",
    )

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.class_ is not None and self.rows_independent:
            raise ValueError("class keeps requests apart and rows_independent lets them share: expected one of them")
        return self


class StateConfig(_Table):
    """`[state]`: for models that keep variables between invokes, what is kept for clients that name a sequence."""

    sequences: int = Field(64, ge=0, le=65536, description="The most sequences kept at a time in each worker; 0: none.")
    idle_seconds: float = Field(
        300.0, gt=0, allow_inf_nan=False, description="A sequence that gets no request for so long is given up."
    )


class VersionsConfig(_Table):
    """`[versions]`: which versions are served, of those on disk: one of these keys."""

    latest: int | None = Field(None, ge=1, description="So many, those of the highest numbers. Without this table: 1.")
    all: Literal[True] | None = Field(None, description="`true`: all that there are.")
    specific: list[VersionNumber] | None = Field(None, min_length=1, description="Those listed, for example `[1, 3]`.")

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if len(given := [key for key in type(self).model_fields if getattr(self, key) is not None]) > 1:
            raise ValueError(f"{' and '.join(given)} are given: expected one of them")
        return self

    def words(self) -> str:
        """As model.toml has it: `versions.latest = 1`."""
        if self.specific is not None:
            return f"versions.specific = {sorted(set(self.specific))}"
        return "versions.all = true" if self.all else f"versions.latest = {self.latest or 1}"


class ModelConfig(_Table):
    """Every key is optional; docs/models.md describes them."""

    description: str = Field("", description="What the model does, for people; shown in `GET /models/{m}`.")
    class_labels: list[str] | dict[str, list[str]] = Field(
        default_factory=list,
        description="Names of the classes in the order of the scores; `{output: [names]}` for several outputs.",
    )
    quantization: Quantization = Field(
        "none",
        description="The converted model: `none`, `float16` or `dynamic` (int8) weights, `int8` (the computation too), "
        "or `auto`: the fastest of these here that keeps to the tolerance.",
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Largest difference from TensorFlow, relative to the output's scale, that is served. "
        "Default: 1e-4 for `none`, 1e-2 for `float16`, 0.1 for `dynamic` and `int8`, 0.02 for `auto`.",
    )
    calibration: NpzName | None = Field(
        None,
        description="An .npz file beside model.toml, by its name: real records for `int8` and `auto`, an array "
        "`[rows, *record]` by each input's name.",
    )
    numbers: Literal["raw", "real"] = Field(
        "raw",
        description="Quantized inputs and outputs: `raw`, the integers as the model has them, or `real`, the numbers "
        "they stand for by scale and zero point.",
    )
    signature: str | None = Field(
        None,
        min_length=1,
        description="The signature served where a request names none. Default: `serving_default`, or the first.",
    )
    engine: Literal["auto", "litert", "tensorflow"] = Field(
        "auto",
        description="What runs the model: `litert`, `tensorflow` (slow, in a process of its own), or `auto`: "
        "TensorFlow only where TFLite cannot express the model.",
    )
    labels: dict[LabelName, VersionNumber] = Field(
        default_factory=dict,
        description="Names of versions that clients may ask for: `{stable = 3, canary = 4}`, each of a version served.",
    )

    versions: VersionsConfig = Field(
        default=VersionsConfig(), description="Which versions are served, of those on disk."
    )
    batching: BatchingConfig = Field(
        default=BatchingConfig(), description="What batches may do, where less is wanted than was found possible."
    )
    state: StateConfig = Field(
        default=StateConfig(), description="For models that keep variables between invokes: sequences of requests."
    )
    lane: LaneConfig = Field(
        default=LaneConfig(), description="Where invokes run and what they share, in place of what was measured."
    )

    @property
    def allowed_difference(self) -> float:
        return self.tolerance or DEFAULT_TOLERANCE[self.quantization]

    def calibration_file(self, folder: Path | None) -> Path | None:
        """Where the calibration data lie, if there are any.

        Raises:
            ModelError: model.toml names a file that is not there.
        """
        if self.calibration is None or folder is None:
            return None
        path = folder / self.calibration
        if not path.is_file():
            raise ModelError(f"model.toml: calibration = {self.calibration!r}: no such file lies beside model.toml")
        return path

    def load_key(self) -> str:
        """All that shapes a loaded version, as text: what differs only in the rest needs no loading."""
        return self.model_dump_json(exclude={"description", "versions", "labels"})

    def check_labels(self, signature: Signature) -> None:
        """Refuse class labels that are not those of the model's outputs.

        Raises:
            ModelError: naming the output, what was found and what was expected.
        """
        if not self.class_labels:
            return
        outputs = {spec.name: spec for spec in signature.outputs}
        names = ", ".join(map(repr, outputs))
        labels = self.class_labels
        if isinstance(labels, list):
            if len(outputs) > 1:
                raise ModelError(
                    f"model.toml: class_labels is a list, and the model has the outputs {names}: "
                    "expected {output: [names]}"
                )
            labels = dict.fromkeys(outputs, labels)
        for name, classes in labels.items():
            if name not in outputs:
                raise ModelError(f"model.toml: class_labels names the output {name!r}, and the model has {names}")
            scores = signature.record_shape(outputs[name])[-1:]
            if scores and scores[0] not in (FREE, len(classes)):
                raise ModelError(
                    f"model.toml: class_labels has {len(classes)} names for output {name!r}, whose shape is "
                    f"{show_shape(signature.tensor_shape(outputs[name]))}: expected {scores[0]}"
                )


def read_config(folder: Path | None) -> ModelConfig:
    """Read `folder`/model.toml, if it is there.

    Raises:
        ModelError: naming the key, what was found and what was expected.
    """
    path = folder / CONFIG if folder else None
    given: dict[str, Any] = {}
    try:
        if path is None or not path.exists():
            return ModelConfig()
        if not path.is_file():
            raise ModelError("model.toml is no regular file")
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ModelError(f"model.toml is larger than {_MOST_BYTES >> 20} MiB")
        given = tomllib.loads(content.decode("utf-8"))
        return ModelConfig.model_validate(given, strict=True)
    except OSError as error:
        raise ModelError(f"model.toml cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ModelError("model.toml: " + _faults(error, given)) from error
    except (ValueError, RecursionError) as error:
        # Not only what tomllib and the decoding have of their own: Python refuses numbers of thousands of digits.
        raise ModelError(f"model.toml is not TOML: {error}") from error


def _faults(error: ValidationError, given: dict[str, Any]) -> str:
    """Of each wrong key its value and what is wrong with that; a key of two forms is wrong by both."""
    wrong: dict[str, list[str]] = {}
    for fault in error.errors():
        key, value, table = _place(fault["loc"], given)
        names = ", ".join(field.alias or name for name, field in table.model_fields.items())
        known = f"; the keys are {names}" if fault["type"] == "extra_forbidden" else ""
        message = fault["msg"].removeprefix("Value error, ")
        wrong.setdefault(f"{key} = {_shown(value)}", []).append(message + known)
    return "; ".join(f"{place}: {' or '.join(faults)}" for place, faults in wrong.items())


def _place(loc: tuple[int | str, ...], given: dict[str, Any]) -> tuple[str, Any, type[BaseModel]]:
    """What a fault is about: the key with those of the tables round it, its value, and the innermost of our tables."""
    first, *rest = map(str, loc)
    key, value = first, given[first]
    table: type[BaseModel] = ModelConfig
    field = ModelConfig.model_fields.get(first)
    if field is not None and isinstance(field.default, BaseModel):
        table = type(field.default)
    # What else pydantic puts into the place, such as the forms that a value may have, is no key.
    if rest and isinstance(value, dict) and rest[0] in value:
        key, value = f"{first}.{rest[0]}", value[rest[0]]
    return (key if key.isprintable() else repr(key)[1:-1])[:200], value, table


def _shown(value: Any) -> str:
    try:
        return repr(value)[:100]
    except ValueError:
        # Such numbers can be written in base 16 only.
        return "a number of thousands of digits"
