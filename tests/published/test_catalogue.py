"""The catalogue fits the packages that are pinned, and what is asked of it."""

import re

from tests.published.catalogue import CATALOGUE, REFUSED, SERVED
from tests.published.fetch import REQUIREMENTS


def test_the_pinned_packages_are_those_of_the_catalogue_and_each_has_a_hash() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([a-z0-9-]+)==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    assert [pin[1] if pin else "" for pin in pins] == sorted({model.package for model in CATALOGUE})


def test_every_model_is_either_served_or_refused_and_has_a_name_of_its_own() -> None:
    assert all(bool(model.classes) != bool(model.refused) for model in CATALOGUE)
    assert all(model.inputs for model in SERVED)
    assert len({model.name for model in CATALOGUE}) == len(CATALOGUE)


def test_at_least_twelve_models_of_all_formats_are_served_and_some_are_refused() -> None:
    assert len(SERVED) >= 12
    assert {model.format for model in SERVED} == {".h5", ".hdf5", ".keras", ".tflite", "SavedModel"}
    assert len(REFUSED) >= 3
