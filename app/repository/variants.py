"""The forms of one model that its conversion gives, by how weights are held: measured, compared, and chosen from."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from app.errors import LitepoolError, ModelError
from app.repository.cache import Stopped
from app.repository.model_config import ModelConfig
from app.repository.trial import Examined, Question, Trial

INT8 = "int8"

ALL = ("none", "float16", "dynamic", INT8)

SHOWN_ROWS = (1, 8, 32)
"""The batch sizes by which variants are compared."""


_ABOUT = 1.1
"""Costs that differ by no more than this differ by how they were measured."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of a model, as it was found to be on this machine.

    Args:
        rung: by which way of conversion it was made.
        bytes: of the TFLite file.
        invoke_us: cost of an invoke of so many records.
        difference: the largest from TensorFlow's answers, relative to an output's scale.
        top_class: of outputs that may be scores, the share of records whose largest is TensorFlow's too; None else.
    """

    name: str
    file: str
    rung: str
    bytes: int
    invoke_us: dict[int, float]
    difference: float
    top_class: float | None

    def to_json(self) -> dict[str, Any]:
        """For a report; `invoke_us` by strings, as JSON has it."""
        found = asdict(self)
        del found["file"], found["name"]
        return found | {"invoke_us": {str(rows): round(cost, 1) for rows, cost in self.invoke_us.items()}}


class Variants:
    """Those of one conversion, whose candidates come one after another.

    Args:
        folder: where the candidates are, beside TensorFlow's answers in `parity.npz`.
    """

    def __init__(self, trial: Trial, folder: Path, config: ModelConfig) -> None:
        self._trial = trial
        self._folder = folder
        self._config = config
        self._good: dict[str, Variant] = {}

    @property
    def wanted(self) -> list[str]:
        """Which are to be made: none where TensorFlow is to run the model."""
        if self._config.engine == "tensorflow":
            return []
        return list(ALL) if self._config.quantization == "auto" else [self._config.quantization]

    def judge(self, candidate: dict[str, Any]) -> dict[str, Any]:
        """Open a candidate, compare and measure it: the reply to who made it, and may have others."""
        name, file = str(candidate["variant"]), str(candidate["file"])
        choosing = self._config.quantization == "auto" and name != "none"
        question = Question(
            threads=self._config.lane.threads,
            # Of several to choose from, how far each is off is what one wants to see.
            tolerance=math.inf if choosing else self._config.allowed_difference,
            quantized=name != "none",
            reference=self._folder / "parity.npz",
            references=candidate["signatures"],
        )
        try:
            found = self._trial.of(self._folder / file, question, keep=False)
        except Stopped:
            raise
        except LitepoolError as error:
            return {"ok": False, "reason": error.message}
        size = (self._folder / file).stat().st_size
        self._good[name] = _variant(name, file, str(candidate["rung"]), size, found.signatures[0])
        return {"ok": True}

    def choose(self, failed: dict[str, str]) -> Variant:
        """The fastest of those within the tolerance; of several that are about as fast the one that is closest.

        Args:
            failed: why others could not be made.

        Raises:
            ModelError: there is none.
        """
        allowed = self._config.allowed_difference
        within = [variant for variant in self._good.values() if variant.difference <= allowed]
        if not within:
            reasons = failed | {
                name: f"it differs from TensorFlow by {variant.difference:.2g} of the scale, more than {allowed:g}"
                for name, variant in self._good.items()
            }
            several = len(self.wanted) > 1
            raise ModelError("; ".join(f"{name}: {why}" if several else why for name, why in reasons.items()))
        sizes = [rows for rows in SHOWN_ROWS if all(rows in variant.invoke_us for variant in within)]
        costs = {variant.name: geometric_mean([variant.invoke_us[rows] for rows in sizes]) for variant in within}
        fast = [variant for variant in within if costs[variant.name] <= _ABOUT * min(costs.values())]
        return min(fast, key=lambda variant: variant.difference)

    def table(self, chosen: Variant, failed: dict[str, str]) -> dict[str, Any]:
        """All of them for a report."""
        table: dict[str, Any] = {
            name: variant.to_json() | {"served": variant is chosen} for name, variant in self._good.items()
        }
        return table | {name: {"served": False, "error": reason} for name, reason in failed.items()}


def _variant(name: str, file: str, rung: str, size: int, found: Examined) -> Variant:
    costs = {rows: found.profile.invoke_us[rows] for rows in SHOWN_ROWS if rows in found.profile.invoke_us}
    differences = list(found.parity.differences.values()) if found.parity is not None else []
    shares = [item.top_class for item in differences if item.top_class is not None]
    worst = max((item.relative for item in differences), default=0.0)
    return Variant(name, file, rung, size, costs, worst, min(shares, default=None))
