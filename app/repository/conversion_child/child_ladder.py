"""Climbs the ladder for every variant, until the parent finds that LiteRT runs what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from child_models import Model
from child_reasons import Refused, explain, is_out_of_memory, names_operations, retold
from child_reference import Reference, described
from child_rungs import Rung, rungs_of
from child_signature import nodes_of
from child_tflite import INT8, NONE, Calibration, to_tflite

Ask = Callable[[dict[str, Any]], str | None]
"""Shows the parent a candidate; None if it is served, else why not."""


@dataclass
class Climb:
    """What came of it, as the report tells it.

    Attributes:
        variants: by variant, `file`, `rung`, `note`, `bytes` and `signatures`, or `error`.
        rungs_failed: `variant`, `rung` and `reason` of what did not do.
        left_out: `{signature: why it is not in the first variant that was made}`.
    """

    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    rungs_failed: list[dict[str, str]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return any("file" in variant for variant in self.variants.values())

    @property
    def reason(self) -> str:
        """Why nothing came of it."""
        return next(str(variant["error"]) for variant in self.variants.values())

    def reason_for(self, variant: str) -> str:
        """Why it is none: a reason that names operations, for these a person can change, else the first."""
        reasons = [each["reason"] for each in self.rungs_failed if each["variant"] == variant]
        return next(filter(names_operations, reasons), reasons[0])


_LOOP_OPS = {"While", "StatelessWhile", "Enter"}
_LOOPS = "it has loops, as of recurrent layers, in which no ranges of values can be found: use dynamic or float16"
"""The converter does not say so, but dies."""


class NotTaken(Refused):
    """The parent does not take a candidate."""


class Ladder:
    """Makes candidates of one model.

    Args:
        found: TensorFlow's answers by signature, the default first.
        out: the folder for the candidates.
        work: a folder for what is between.
    """

    def __init__(
        self,
        tf: Any,
        model: Model,
        found: list[Reference],
        calibration: Calibration,
        out: Path,
        work: Path,
        ask: Ask,
        stage: Callable[[str], None],
    ) -> None:
        self._tf, self._found, self._calibration = tf, found, calibration
        self._stateful = model.stateful
        self._rungs = rungs_of(tf, model, found, work)
        self._out, self._ask, self._stage = out, ask, stage
        self._files = 0
        self._loops = any(node.op in _LOOP_OPS for each in found for node in nodes_of(each.signature.function))
        self.served = found
        self._saved: tuple[Rung, list[Reference], Path] | None = None
        self.climb = Climb()

    def run(self, variants: list[str]) -> Climb:
        """Every variant begins where the one before it came through, and none is tried if the plain one is none."""
        rungs = self._rungs
        for variant in variants:
            if variant == INT8 and self._loops:
                self.climb.variants[variant] = {"error": _LOOPS}
                continue
            rungs = self._up(variant, rungs)
            if variant == NONE and not self.climb.done:
                break
        return self.climb

    def _up(self, variant: str, rungs: list[Rung]) -> list[Rung]:
        """Climb for one variant; the rungs from the one that did, or all of them if none did."""
        for place, rung in enumerate(rungs):
            if self.climb.variants or place:
                self._stage(f"converting: {variant}, {rung.name}")
            try:
                self.climb.variants[variant], served = self._try(variant, rung)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self.climb.rungs_failed.append({"variant": variant, "rung": rung.name, "reason": explain(error)})
                if isinstance(error, NotTaken) and self.climb.done:
                    # What another variant came through by is no fault of the rung's.
                    break
            else:
                self.served = served
                for each in served:
                    self.climb.left_out.pop(each.signature.name, None)
                return rungs[place:]
        self.climb.variants[variant] = {"error": self.climb.reason_for(variant)}
        return rungs

    def _try(self, variant: str, rung: Rung) -> tuple[dict[str, Any], list[Reference]]:
        """One candidate that the parent takes, and the signatures that are in it.

        Raises:
            NotTaken: it does not; or what the converter raises.
        """
        content, served = self._all_together(variant, rung)
        try:
            return self._show(variant, rung, content, served), served
        except NotTaken as error:
            if len(served) == 1:
                raise
            self._leave_out(served[1:], f"the model with it is not served: {error}")
        content = self._convert(variant, rung, served[:1])
        return self._show(variant, rung, content, served[:1]), served[:1]

    def _show(self, variant: str, rung: Rung, content: bytes, served: list[Reference]) -> dict[str, Any]:
        self._files += 1
        file = self._out / f"{variant}-{self._files}.tflite"
        file.write_bytes(content)
        candidate = {"file": file.name, "variant": variant, "rung": rung.name, "note": rung.note}
        why_not = self._ask({**candidate, "signatures": described(self._found, served)})
        if why_not is not None:
            file.unlink()
            raise NotTaken(retold(why_not))
        names = [each.signature.name for each in served]
        return {"file": file.name, "rung": rung.name, "note": rung.note, "bytes": len(content), "signatures": names}

    def _all_together(self, variant: str, rung: Rung) -> tuple[bytes, list[Reference]]:
        """A file with all signatures; if they cannot be, with those that can, the default among them."""
        served = self.served
        try:
            return self._convert(variant, rung, served), served
        except Exception:
            if len(served) == 1:
                raise
        alone = self._convert(variant, rung, served[:1])
        able = served[:1]
        for each in served[1:]:
            try:
                self._convert(variant, rung, [each])
            except Exception as error:
                self._leave_out([each], explain(error))
            else:
                able = [*able, each]
        if len(able) == 1:
            return alone, able
        try:
            return self._convert(variant, rung, able), able
        except Exception as error:
            self._leave_out(able[1:], f"it does not convert beside the others: {explain(error)}")
            return alone, able[:1]

    def _leave_out(self, left: list[Reference], reason: str) -> None:
        """Once a variant is done, what later ones lack is told by their own lists of signatures."""
        if not self.climb.done:
            self.climb.left_out.update(dict.fromkeys([each.signature.name for each in left], reason))

    def _convert(self, variant: str, rung: Rung, found: list[Reference]) -> bytes:
        if self._saved is None or self._saved[:2] != (rung, found):
            self._saved = rung, found, rung.make(found)
        keys = [each.signature.name for each in found]
        return to_tflite(self._tf, self._saved[2], keys, variant, self._stateful, self._calibration, found)
