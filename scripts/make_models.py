"""Train and write the models that ship with Litepool: mlp, digits and diabetes.

All randomness is seeded, and the files hold no clock and no memory address, so that a second run on the same kind of
processor with the same versions writes the same bytes. A digits model that misses its mark on the held-out images is
not written, and the script exits with 1.
"""

import argparse
import json
import platform
import re
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import sklearn
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

MODELS = Path(__file__).resolve().parent.parent / "models"
SEED = 20240229
HELD_OUT = 0.2
DIGITS_MARK = 0.98
RISKS = ("low", "medium", "high")


class Split(NamedTuple):
    """Row numbers of a data set, int64: the model never sees `held_out` before it is measured."""

    train: Integers
    held_out: Integers


def split(rows: int, strata: Integers | None = None) -> Split:
    """Set a fifth of `rows` aside; with `strata` (one class a row) each class keeps its share in both parts."""
    train, held_out = train_test_split(np.arange(rows), test_size=HELD_OUT, stratify=strata, random_state=SEED)
    return Split(np.sort(train), np.sort(held_out))


# mlp: the benchmark model


def build_mlp() -> keras.Model:
    """The benchmark model, x [256] -> y [32], untrained: speed does not depend on what the weights say.

    The initialization keeps N(0, 1) inputs at about unit scale through the elu layers; the last layer is scaled down so
    that tanh answers over most of its range without sticking to its ends. Biases are small but not zero, so that a
    conversion that lost them would show.
    """
    keras.utils.set_random_seed(SEED)
    x = keras.Input((256,), name="x")
    hidden = x
    for number, width in enumerate((384, 384, 256, 128), start=1):
        hidden = dense(width, "elu", f"hidden_{number}", scale=1.5)(hidden)
    return keras.Model(x, dense(32, "tanh", "y", scale=0.5)(hidden), name="mlp")


def dense(width: int, activation: str, name: str, scale: float) -> layers.Dense:
    """A dense layer whose kernel has variance `scale` / inputs, and whose biases are N(0, 0.05)."""
    kernel = keras.initializers.VarianceScaling(scale, mode="fan_in", distribution="truncated_normal")
    bias = keras.initializers.RandomNormal(stddev=0.05)
    return layers.Dense(width, activation, kernel_initializer=kernel, bias_initializer=bias, name=name)


def make_mlp(into: Path) -> None:
    """Write mlp.keras: a model in its short form, one file and nothing beside it."""
    save(build_mlp(), into / "mlp.keras")


# digits: a convolutional network on handwritten digits


def make_digits(into: Path) -> None:
    """Train on scikit-learn's 1,797 handwritten digits, measure on the held-out fifth, write the folder."""
    data = load_digits()
    images, labels = data.images.astype(np.float32), data.target.astype(np.int64)
    rows = split(len(labels), strata=labels)
    keras.utils.set_random_seed(SEED)
    model = build_digits()
    train_digits(model, images[rows.train], labels[rows.train])
    scores = answers(model, images[rows.held_out])
    accuracy = float(np.mean(scores.argmax(axis=1) == labels[rows.held_out]))
    print(f"digits: {accuracy:.4f} of {len(rows.held_out)} held-out images are read right")
    if accuracy < DIGITS_MARK:
        raise SystemExit(f"digits: held-out accuracy {accuracy:.4f} is under {DIGITS_MARK}: nothing was written")
    folder = into / "digits"
    save(model, folder / "digits.keras")
    write(folder / "model.toml", digits_toml())
    write(folder / "samples.json", readable(digit_samples(images, labels, rows.held_out, scores)) + "\n")
    write_training(folder, model, rows, {"accuracy": accuracy})


def build_digits() -> keras.Model:
    """image [8, 8], values 0..16 -> scores [10], float32, which sum to 1."""
    image = keras.Input((8, 8), name="image")
    hidden = layers.Rescaling(1 / 16, name="to_unit")(image)
    hidden = layers.Reshape((8, 8, 1), name="channel")(hidden)
    hidden = layers.Conv2D(16, 3, padding="same", activation="relu", name="strokes")(hidden)
    hidden = layers.Conv2D(32, 3, padding="same", activation="relu", name="curves")(hidden)
    hidden = layers.MaxPooling2D(name="halve")(hidden)
    hidden = layers.Conv2D(48, 3, padding="same", activation="relu", name="parts")(hidden)
    hidden = layers.MaxPooling2D(name="quarter")(hidden)
    hidden = layers.Flatten(name="flat")(hidden)
    hidden = layers.Dropout(0.4, name="dropout")(hidden)
    hidden = layers.Dense(64, "relu", name="hidden")(hidden)
    return keras.Model(image, layers.Dense(10, "softmax", name="scores")(hidden), name="digits")


def train_digits(model: keras.Model, images: Floats, labels: Integers, copies: int = 40, epochs: int = 4) -> None:
    """Fit on `copies` moved variants of each image, images [n, 8, 8], labels [n].

    The length is fixed, and not stopped early: nothing is measured on the way, so no image is needed for it.
    """
    rng = np.random.default_rng(SEED)
    moved = np.concatenate([images, *(jitter(images, rng) for _ in range(copies - 1))])
    batch = 64
    rate = keras.optimizers.schedules.CosineDecay(2e-3, decay_steps=epochs * len(moved) // batch)
    trainer = trainer_of(model)
    trainer.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    trainer.fit(moved, np.tile(labels, copies), batch_size=batch, epochs=epochs, verbose=0)


def jitter(images: Floats, rng: np.random.Generator, degrees: float = 12.0) -> Floats:
    """Turn each image [n, 8, 8] by up to `degrees` about its middle and shift it by up to one pixel each way.

    Each pixel of the answer looks up where it came from, so the motion is run backwards.
    """
    count, height, width = images.shape
    angle = np.radians(rng.uniform(-degrees, degrees, (count, 1, 1)))
    shift = rng.integers(-1, 2, (2, count, 1, 1))
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y = np.arange(height)[None, :, None] - middle_y - shift[0]
    x = np.arange(width)[None, None, :] - middle_x - shift[1]
    source_y = np.cos(angle) * y - np.sin(angle) * x + middle_y
    source_x = np.sin(angle) * y + np.cos(angle) * x + middle_x
    return look_up(images, source_y, source_x)


def look_up(images: Floats, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> Floats:
    """Read images [n, h, w] at fractional pixels y and x [n, h, w], bilinear; outside of the image is paper, 0."""
    _, height, width = images.shape
    edge = 2
    paper = np.pad(images, ((0, 0), (edge, edge), (edge, edge)))
    y, x = np.clip(y, -1, height) + edge, np.clip(x, -1, width) + edge
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, right = y - top, x - left
    each = np.arange(len(images))[:, None, None]
    upper = paper[each, top, left] * (1 - right) + paper[each, top, left + 1] * right
    lower = paper[each, top + 1, left] * (1 - right) + paper[each, top + 1, left + 1] * right
    return (upper * (1 - down) + lower * down).astype(np.float32)


def digits_toml() -> str:
    """What model.toml says, with the label of each score in order."""
    description = "Reads a handwritten digit: an 8 x 8 image with pixel values from 0 (paper) to 16 (ink)"
    labels = [str(digit) for digit in range(10)]
    return f"description = {json.dumps(description)}\nclass_labels = {json.dumps(labels)}\n"


def digit_samples(images: Floats, labels: Integers, held_out: Integers, scores: Floats) -> list[dict[str, Any]]:
    """One held-out image of each digit, the first that the model reads right; scores [held-out, 10]."""
    samples = []
    for digit in range(10):
        right = (labels[held_out] == digit) & (scores.argmax(axis=1) == digit)
        place = int(np.flatnonzero(right)[0])
        row = int(held_out[place])
        instance = images[row].astype(int).tolist()
        samples.append(sample(f"held-out image {row}: a {digit}", instance, rounded(scores[place])))
    return samples


# diabetes: two inputs, two outputs


def make_diabetes(into: Path) -> None:
    """Train on scikit-learn's 442 diabetes patients in raw units, measure on the held-out fifth, write the folder."""
    data = load_diabetes(scaled=False)
    records, target = data.data.astype(np.float32), data.target.astype(np.float32)
    rows = split(len(target))
    risk = np.digitize(target, np.quantile(target[rows.train], [1 / 3, 2 / 3])).astype(np.int64)
    keras.utils.set_random_seed(SEED)
    model = build_diabetes(records[rows.train], target[rows.train])
    train_diabetes(model, records[rows.train], target[rows.train], risk[rows.train])
    answer = answers(model, inputs_of(records[rows.held_out]))
    r2 = float(r2_score(target[rows.held_out], answer["progression"][:, 0]))
    accuracy = float(np.mean(answer["risk"].argmax(axis=1) == risk[rows.held_out]))
    print(f"diabetes: R2 {r2:.4f}, risk {accuracy:.4f} right, of {len(rows.held_out)} held-out patients")
    folder = into / "diabetes"
    save(model, folder / "diabetes.keras")
    write(folder / "model.toml", diabetes_toml())
    write(folder / "samples.json", readable(diabetes_samples(data.data, target, risk, rows.held_out, answer)) + "\n")
    write_training(folder, model, rows, {"r2": r2, "risk_accuracy": accuracy})


def inputs_of(records: Floats) -> dict[str, Floats]:
    """Records [n, 10] as the two named inputs: body [n, 4] (age, sex, bmi, bp) and serum [n, 6] (s1..s6)."""
    return {"body": records[:, :4], "serum": records[:, 4:]}


def build_diabetes(records: Floats, target: Floats) -> keras.Model:
    """body [4], serum [6], both in raw units -> progression [1] in the target's units, risk [3] which sum to 1.

    Records [n, 10] and target [n] of the training set give the scales that the model carries inside.
    """
    inputs = {name: keras.Input((values.shape[1],), name=name) for name, values in inputs_of(records).items()}
    scaled = [unit_scale(name, inputs_of(records)[name])(inputs[name]) for name in inputs]
    hidden = layers.Concatenate(name="record")(scaled)
    hidden = layers.Dense(32, "elu", kernel_regularizer=keras.regularizers.L2(3e-3), name="hidden")(hidden)
    hidden = layers.Dropout(0.3, name="dropout")(hidden)
    unit = layers.Dense(1, name="unit_progression")(hidden)
    to_units = layers.Rescaling(float(target.std()), float(target.mean()), name="progression")
    risk = layers.Dense(len(RISKS), "softmax", kernel_regularizer=keras.regularizers.L2(3e-3), name="risk")
    return keras.Model(inputs, {"progression": to_units(unit), "risk": risk(hidden)}, name="diabetes")


def unit_scale(name: str, values: Floats) -> layers.Normalization:
    """A layer that takes `values` [n, columns] to mean 0 and variance 1, column by column."""
    layer = layers.Normalization(name=f"unit_{name}")
    layer.adapt(values)
    return layer


def train_diabetes(model: keras.Model, records: Floats, target: Floats, risk: Integers, epochs: int = 120) -> None:
    """Fit both outputs at once: records [n, 10], target [n], risk [n] (0, 1, 2). The length is fixed, as for digits."""
    batch = 32
    rate = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=epochs * -(-len(target) // batch))
    trainer = trainer_of(model)
    trainer.compile(
        keras.optimizers.Adam(rate),
        loss={"progression": "mean_squared_error", "risk": "sparse_categorical_crossentropy"},
        # The squared error is in squared units of the target, thousands of times the other loss.
        loss_weights={"progression": 1 / float(target.var()), "risk": 1.0},
    )
    wanted = {"progression": target[:, None], "risk": risk[:, None]}
    trainer.fit(inputs_of(records), wanted, batch_size=batch, epochs=epochs, verbose=0)


def diabetes_toml() -> str:
    """What model.toml says; only `risk` holds class scores."""
    description = "Foretells the progression of diabetes a year on (25 to 346), and in which third of patients that is"
    return f"description = {json.dumps(description)}\n\n[class_labels]\nrisk = {json.dumps(RISKS)}\n"


def diabetes_samples(
    records: npt.NDArray[np.float64], target: Floats, risk: Integers, held_out: Integers, answer: Mapping[str, Floats]
) -> list[dict[str, Any]]:
    """Four held-out patients: the first of each third that the model finds, and the first whose third it misses."""
    said = answer["risk"].argmax(axis=1)
    found = [int(np.flatnonzero((risk[held_out] == third) & (said == third))[0]) for third in range(len(RISKS))]
    missed = int(np.flatnonzero(risk[held_out] != said)[0])
    samples = []
    for place in (*found, missed):
        row = held_out[place]
        about = f"held-out patient {row}: measured progression {target[row]:g}, risk {RISKS[risk[row]]}"
        instance = {"body": plain(records[row, :4]), "serum": plain(records[row, 4:])}
        prediction = {name: rounded(values[place]) for name, values in answer.items()}
        samples.append(sample(f"{about}; the model says {RISKS[said[place]]}", instance, prediction))
    return samples


# What every model shares


def trainer_of(model: keras.Model) -> keras.Model:
    """A model that shares the layers of `model`: compiling it leaves no optimizer in the file that is saved."""
    return keras.Model(model.input, model.output)


def answers(model: keras.Model, inputs: Any) -> Any:
    """The model's outputs for a batch, without dropout: arrays, in the structure of the outputs."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(inputs, training=False))


def sample(about: str, instance: Any, prediction: Any) -> dict[str, Any]:
    """One entry of samples.json: a body for POST /predict, and what it must answer."""
    return {"about": about, "request": {"instance": instance}, "answer": {"prediction": prediction}}


def rounded(values: Floats) -> list[float]:
    """Six significant digits: finer than float32 promises from one machine to the next, and readable."""
    return [float(f"{value:.6g}") for value in values]


def plain(values: npt.NDArray[np.float64]) -> list[float | int]:
    """Numbers as the data set writes them: 59 for 59.0."""
    return [int(value) if value == int(value) else float(value) for value in values]


def readable(value: Any, indent: str = "") -> str:
    """JSON for the eye: objects and lists of records spread out, each row of numbers on one line, images aligned."""
    inner = indent + "  "
    if isinstance(value, dict):
        entries = [f"{json.dumps(key)}: {readable(entry, inner)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(inner + entry for entry in entries) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(entry, list | dict) for entry in value):
        entries = [image_row(entry) if is_row(entry) else readable(entry, inner) for entry in value]
        return "[\n" + ",\n".join(inner + entry for entry in entries) + f"\n{indent}]"
    return json.dumps(value)


def is_row(value: Any) -> bool:
    """Whether `value` is one row of an image."""
    return isinstance(value, list) and all(isinstance(entry, int) for entry in value)


def image_row(values: Sequence[int]) -> str:
    """One row of an image (0..16), in columns of two."""
    return "[" + ", ".join(f"{value:2d}" for value in values) + "]"


def write_training(folder: Path, model: keras.Model, rows: Split, measured: Mapping[str, float]) -> None:
    """Write training.json: what was measured on the held-out rows, and what it takes to measure it again."""
    facts = {
        **measured,
        "held_out": len(rows.held_out),
        "train": len(rows.train),
        "seed": SEED,
        "parameters": model.count_params(),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
    }
    write(folder / "training.json", json.dumps(facts, indent=2) + "\n")


def write(path: Path, text: str) -> None:
    """Write a text file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def save(model: keras.Model, path: Path) -> None:
    """Write a .keras file whose bytes depend on the model alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / path.name
        model.save(fresh)
        with zipfile.ZipFile(fresh) as source, zipfile.ZipFile(path, "w") as target:
            for name in sorted(source.namelist()):
                # A new ZipInfo is dated 1980: the archive's own clock is one of the things to leave out.
                target.writestr(zipfile.ZipInfo(name), timeless(name, source.read(name)))
    print(f"{path.name}: {model.count_params():,} parameters, {path.stat().st_size:,} bytes")


def timeless(name: str, content: bytes) -> bytes:
    """A member of a .keras archive without what changes with each run: the date, and ids that are memory addresses."""
    if name == "metadata.json":
        return json.dumps({"keras_version": json.loads(content)["keras_version"]}).encode()
    if name == "config.json":
        numbers: dict[bytes, bytes] = {}
        return re.sub(
            rb'("shared_object_id": )(\d+)',
            lambda found: found[1] + numbers.setdefault(found[2], b"%d" % (len(numbers) + 1)),
            content,
        )
    return content


MAKERS = {"mlp": make_mlp, "digits": make_digits, "diabetes": make_diabetes}


def repeatable() -> None:
    """Make TensorFlow compute the same from run to run, whatever the number of cores.

    One thread, because a gradient is summed in as many parts as there are threads, and each way rounds otherwise.
    """
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def main(arguments: Sequence[str]) -> None:
    """Make the models that the command line names, or all."""
    parser = argparse.ArgumentParser(description="Train and write the models that ship with Litepool.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MAKERS)}; all when none is named")
    parser.add_argument("--into", type=Path, default=MODELS, metavar="DIR", help="where to write them (%(default)s)")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.models) - set(MAKERS))
    if unknown:
        parser.error(f"no model is called {', '.join(unknown)}: the models are {', '.join(MAKERS)}")
    repeatable()
    for name in options.models or MAKERS:
        MAKERS[name](options.into)


if __name__ == "__main__":
    main(sys.argv[1:])
