"""Converts models as the conversion child does, all in one process, for TensorFlow takes seconds to begin.

    python climb.py CHILD MODELS OUT

In OUT/<name> lies what the conversion of MODELS/<name> made, in OUT/outcomes.json what it said. Each candidate is run
by LiteRT, and taken if it answers as TensorFlow did.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

ALL = ["none", "float16", "dynamic", "int8"]

ROWS = 5
"""How many records keras_models.py keeps beside a model."""

TOLERANCE = {"none": 1e-4, "float16": 1e-2, "dynamic": 0.05, "int8": 0.05}

REAL = np.random.default_rng(9).uniform(50, 60, (6, 64)).astype(np.float32)
"""Records such as no noise gives."""

CASES: dict[str, dict[str, Any]] = {
    "lstm.keras": {"variants": ALL},
    "gru": {"samples": {"series": np.ones((3, 9, 2), np.float32)}},
    "bidirectional.keras": {},
    "legacy.h5": {},
    "decoder.keras": {},
    "each_step.keras": {},
    "vocabulary.keras": {},
    "picked": {},
    "counted": {},
    "shapeless": {},
    "looked_up": {},
    "lower": {},
    "shaken": {},
    "found": {},
    "counted_up": {},
    "in_double": {},
    "dropping.keras": {},
    "dropping_on.keras": {},
    "shapely.h5": {},
    "mixed.keras": {},
    "slotted": {},
    "asset": {},
    "asset_again": {},
    "v1_asset": {},
    "squared": {"variants": ALL, "calibration": {"x": REAL}},
    "several": {"variants": ["none", "dynamic"]},
    "v1_plain": {},
    "v1_tagged": {},
    "v1_loop": {},
    "v1_local": {},
}


def main(child: str, models: Path, out: Path) -> None:
    sys.path.insert(0, child)
    import child_conversion
    from child_reasons import Inexpressible, Refused

    # A fence is for good, and would shut out the next model.
    vars(child_conversion)["fence"] = lambda rights, allowed: None
    outcomes = {}
    for name, case in CASES.items():
        folder = out / name
        folder.mkdir(parents=True)
        request = {"source": str(models / name), "kind": kind_of(name), "variants": ["none"], "out": str(folder)}
        for key, value in case.items():
            if isinstance(value, dict):
                np.savez(folder / f"{key}.npz", allow_pickle=False, **value)
                value = str(folder / f"{key}.npz")
            request[key] = value
        said: dict[str, Any] = {"candidates": []}
        outcomes[name] = said

        def ask(candidate: dict[str, Any], folder: Path = folder, said: dict[str, Any] = said) -> str | None:
            reason = why_not(folder, candidate)
            said["candidates"].append({**candidate, "reason": reason})
            return reason

        try:
            said["report"] = child_conversion.convert(request, lambda stage: None, ask)
        except Inexpressible as error:
            said |= {"error": str(error), "engine": error.engine}
        except Refused as error:
            said["error"] = str(error)
    (out / "outcomes.json").write_text(json.dumps(outcomes))


def kind_of(name: str) -> str:
    return {".keras": "keras", ".h5": "h5"}.get(Path(name).suffix, "saved_model")


def why_not(folder: Path, candidate: dict[str, Any]) -> str | None:
    """What is wrong with a candidate, as the parent finds it."""
    with np.load(folder / "parity.npz", allow_pickle=False) as file:
        arrays = dict(file)
    for signature in candidate["signatures"]:
        number, names = signature["number"], signature["outputs"]
        inputs = {name: arrays[f"in_{number}_{i}"] for i, name in enumerate(signature["inputs"])}
        wanted = {name: arrays[f"out_{number}_{i}"] for i, name in enumerate(names)}
        # Eight bits are for records like those that they were calibrated by.
        rows = signature["samples"] if candidate["variant"] == "int8" else signature["rows"]
        whole = signature["batching"] == "none"
        try:
            found = answers(folder / candidate["file"], signature["name"], inputs, whole, rows)
        except (RuntimeError, ValueError) as error:
            return str(error)
        for name in names:
            want = wanted[name][:rows]
            if found[name].shape != want.shape:
                return f"{name} has another shape"
            if signature["random"]:
                continue
            scale = np.abs(want).max() if want.dtype.kind == "f" else 1
            if np.abs(found[name] - want).max() > TOLERANCE[candidate["variant"]] * scale:
                return f"{name} differs"
    return None


def answers(file: Path, signature: str, inputs: dict[str, Any], whole: bool, rows: int) -> dict[str, Any]:
    """LiteRT's answers to each record alone, `{name: [rows, *record]}`."""
    runner = Interpreter(model_path=str(file)).get_signature_runner(signature)
    given = {name: value.astype(object) if value.dtype.kind == "S" else value for name, value in inputs.items()}
    singles = [
        runner(**{name: value[row] if whole else value[row : row + 1] for name, value in given.items()})
        for row in range(rows)
    ]
    join = np.stack if whole else np.concatenate
    return {name: join([single[name] for single in singles]) for name in singles[0]}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
