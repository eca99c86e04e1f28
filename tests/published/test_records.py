"""The records of published models are unlike each other, and the same in every process."""

from dataclasses import replace

import numpy as np

from tests.published.catalogue import FREE, SERVED, Input, Published
from tests.published.records import record, records


def model(given: Input, rows: int = 14) -> Published:
    return Published("any", "any", "any.tflite", "", "", (("x", given),), rows=rows)


def test_records_of_a_model_are_the_same_each_time_and_others_for_another_size() -> None:
    given = model(Input((FREE, 2)))
    first, again, larger = (records(given, size)["x"] for size in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first.shape, larger.shape) == ((14, 3, 2), (14, 4, 2))


def test_real_numbers_are_of_all_sizes_and_no_two_records_but_zeros_are_alike() -> None:
    made = records(model(Input((50,))), 0)["x"]
    assert made.dtype == np.float32
    sizes = np.abs(made).max(1)
    assert sizes[1] == 0
    assert sizes[2] > 1000
    assert sizes[3] < 1e-5
    assert np.ptp(made[4]) == 0
    assert sorted(made[5])[-2:] == [0, 1]
    np.testing.assert_array_equal(made[6, 25:], -1)
    assert len(np.unique(made, axis=0)) >= 12


def test_sound_is_never_silent_nor_one_value() -> None:
    assert (np.ptp(records(model(Input((50, 1), "sound")), 0)["x"], axis=(1, 2)) > 0).all()


def test_indices_and_raw_integers_keep_to_their_range_and_reach_its_ends() -> None:
    indices = records(model(Input((40,), "index", "int64", below=9), rows=33), 0)["x"]
    assert (indices.dtype.name, indices.min(), indices.max()) == ("int64", 0, 8)
    raw = records(model(Input((40,), "int8", "int8"), rows=33), 0)["x"]
    assert (raw.dtype.name, raw.min(), raw.max()) == ("int8", -128, 127)


def test_texts_are_bytes_for_tensorflow_and_strings_in_a_request() -> None:
    made = records(model(Input((), "text", "object"), rows=9), 0)
    assert all(isinstance(text, bytes) for text in made["x"])
    assert record(made, 5) == "größer → 数学 🙂"
    assert len(set(made["x"].tolist())) == 9


def test_a_record_is_bare_for_one_input_and_by_name_for_several() -> None:
    two = {"a": np.ones((1, 2)), "b": np.zeros((1, 3))}
    assert list(record(two, 0)) == ["a", "b"]
    np.testing.assert_array_equal(record({"a": two["a"]}, 0), [1, 1])


def test_every_served_model_has_records_for_all_its_sizes() -> None:
    for each in SERVED:
        for size in each.sizes:
            (array,) = records(replace(each, rows=2), size).values()
            assert array.shape == (2, *(size if length == FREE else length for length in each.inputs[0][1].shape))
