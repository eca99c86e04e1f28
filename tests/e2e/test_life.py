"""Two workers through what servers live through; the long form of it is `python -m benchmarks --life`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep

import pytest

from tests.e2e.life import hostile, mixing, models, reloads, swaps
from tests.e2e.life.clients import Clients, Seen
from tests.e2e.process import Client, Litepool, poll
from tests.e2e.test_workers import connect_to_all

pytestmark = pytest.mark.slow

RECORD = {"instance": [1.0, 2.0, 3.0, 4.0]}


# Scenarios that are measured as well


@pytest.mark.parametrize(
    ("make", "width"), [(models.multiplier, 4), (models.heavy_multiplier, 64)], ids=["light", "1 MB of weights"]
)
def test_versions_are_swapped_under_load_and_each_answer_is_one_version_s(
    tmp_path: Path, make: Callable[[int], bytes], width: int
) -> None:
    found = swaps.swap(tmp_path, make, width, rounds=1, swaps_each=4)

    print(f"\n{found}")
    assert found.faults == []
    assert found.versions == 5
    assert found.served >= 2, "nothing was swapped while somebody looked"


def test_hostile_files_harm_nobody_and_are_told_of(tmp_path: Path) -> None:
    found = hostile.besiege(tmp_path, hostile.THREATS, flips=20)

    print(f"\n{found}")
    assert found.faults == []
    assert 0 < found.served < found.flips


def test_loading_and_unloading_leaves_nothing_behind(tmp_path: Path) -> None:
    found = reloads.reload_often(tmp_path, 20, every=5, warm_up=5)

    print(f"\n{found}")
    assert found.faults == []
    # The model alone has 1 MB of weights, and an interpreter of it in each worker.
    # Kept, it would be 20 times that; the allocator may hold on to a page here and there.
    assert found.growth_mb < max(found.noise_mb, 4.0)
    first, last = found.readings[0], found.readings[-1]
    assert last.processes == first.processes
    # Kept, it would be 40; a worker that looks into the folder or writes its counts has one open for a moment.
    assert abs(last.descriptors - first.descriptors) <= 4
    # In each worker the thread of the last load may still be about to end.
    assert abs(last.threads - first.threads) <= 2


def test_no_answer_depends_on_another_request_in_any_class(tmp_path: Path) -> None:
    found = mixing.mix(tmp_path, 4000, patience=300)

    print(f"\n{found}")
    assert found.faults == []
    assert found.answered == 4000
    assert set(found.by_model) == set(mixing.MODELS)


# What is done to the folder while clients ask


@contextmanager
def asked(litepool: Litepool, path: str) -> Iterator[Callable[[], Seen]]:
    """Clients of a model `y = kx`, and what they have seen when they have ended; k must never fall."""
    with Clients(litepool.url, swaps.OneVersion(path, 4), connections=8) as clients:
        yield lambda: clients.seen
    assert clients.seen.faults == []


def factor(client: Client, path: str) -> float | None:
    """By what a model multiplies; None when it is not served."""
    reply = client.post(path, RECORD)
    return reply.json()["prediction"][0] if reply.status == 200 else None


def wait_for(clients: list[Client], path: str, wanted: float | None) -> None:
    for client in clients:
        poll(f"{wanted} at {path}", lambda client=client: factor(client, path) == wanted)  # type: ignore[misc]


def write(path: Path, text: str) -> None:
    """As an editor does it that never leaves half a file."""
    path.with_name(".new").write_text(text)
    path.with_name(".new").rename(path)


def test_labels_and_versions_change_with_model_toml_under_load_in_both_workers(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    for version in (1, 2, 3):
        (folder / str(version)).mkdir(parents=True)
        (folder / str(version) / "model.tflite").write_bytes(models.multiplier(version))
    write(folder / "model.toml", "labels = {stable = 1, canary = 2}\nversions.specific = [1, 2]\n")
    settings = swaps.SETTINGS | {"cache_dir": tmp_path / "cache"}
    with Litepool(folder.parent, "--workers", "2", settings=settings) as litepool, ExitStack() as stack:
        litepool.wait_ready()
        clients = connect_to_all(litepool, litepool.workers(), stack)
        with asked(litepool, "/predict/m/labels/stable") as seen:
            wait_for(clients, "/predict/m/labels/stable", 1.0)
            wait_for(clients, "/predict/m/labels/canary", 2.0)
            wait_for(clients, "/predict/m", 2.0)

            write(folder / "model.toml", "labels = {stable = 2}\nversions.specific = [1, 2]\n")
            wait_for(clients, "/predict/m/labels/stable", 2.0)
            wait_for(clients, "/predict/m/labels/canary", None)

            write(folder / "model.toml", "labels = {stable = 3}\n")
            wait_for(clients, "/predict/m/labels/stable", 3.0)
            wait_for(clients, "/predict/m/versions/1", None)

            # No label of a version that is not there: what is served stays, and /healthz says why.
            write(folder / "model.toml", "labels = {stable = 9}\n")
            for client in clients:
                poll("the complaint", lambda client=client: "labels.stable = 9" in client.get("/healthz").body.decode())  # type: ignore[misc]
                assert factor(client, "/predict/m/labels/stable") == 3.0
        assert set(seen().judge.first_seen) == {1, 2, 3}


def test_a_folder_mounted_by_kubernetes_is_swapped_by_its_link_under_load(tmp_path: Path) -> None:
    mount = tmp_path / "models"
    mount.mkdir()

    def put(version: int) -> None:
        place = mount / f"..2026_11_22_{version}"
        place.mkdir()
        (place / "m.tflite").write_bytes(models.multiplier(version))
        (mount / "..data_tmp").symlink_to(place.name)
        (mount / "..data_tmp").rename(mount / "..data")

    put(1)
    (mount / "m.tflite").symlink_to("..data/m.tflite")
    settings = swaps.SETTINGS | {"cache_dir": tmp_path / "cache"}
    with Litepool(mount, "--workers", "2", settings=settings) as litepool, ExitStack() as stack:
        litepool.wait_ready()
        clients = connect_to_all(litepool, litepool.workers(), stack)
        with asked(litepool, "/predict/m") as seen:
            for version in (2, 3):
                put(version)
                # The kubelet takes the old one away at once.
                (mount / f"..2026_11_22_{version - 1}" / "m.tflite").unlink()
                wait_for(clients, "/predict/m", float(version))
        assert set(seen().judge.first_seen) == {1, 2, 3}


def test_a_file_that_is_copied_slowly_is_not_loaded_before_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.tflite").write_bytes(models.heavy_multiplier(1))
    settings = swaps.SETTINGS | {"cache_dir": tmp_path / "cache", "settle_seconds": "5"}
    with Litepool(folder.parent, "--workers", "2", settings=settings) as litepool, ExitStack() as stack:
        litepool.wait_ready()
        clients = connect_to_all(litepool, litepool.workers(), stack)
        content = models.heavy_multiplier(2)
        (folder / "2").mkdir()
        with (folder / "2" / "model.tflite").open("wb", buffering=0) as file:
            for start in range(0, len(content), size := len(content) // 8 + 1):
                file.write(content[start : start + size])
                # So does a copy over a slow line.
                sleep(0.5)
                for client in clients:
                    versions = client.get("/healthz").json()["models"]["m"]
                    assert versions["1"]["state"] == "AVAILABLE"
                    assert versions.get("2", {"state": "START"})["state"] == "START"
        body = {"instance": [1.0] * models.WIDTH}
        for client in clients:
            poll("version 2", lambda client=client: client.post("/predict/m", body).json()["prediction"][0] == 2.0)  # type: ignore[misc]
    assert "not served" not in litepool.log.text()
