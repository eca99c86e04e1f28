"""A server that converts: it tells what it waits for, can be stopped or killed, and starts again."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import psutil
import pytest

from tests.e2e.process import MODELS, Litepool

pytestmark = pytest.mark.slow

RECORD = {"instance": {"body": [48, 1, 21.6, 87], "serum": [183, 103.2, 70, 3, 3.8918, 69]}}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one shipped model."""
    shutil.copytree(MODELS / "diabetes", tmp_path / "models" / "diabetes")
    return tmp_path / "models"


@contextmanager
def converting(models: Path, cache: Path) -> Iterator[tuple[Litepool, list[psutil.Process]]]:
    """A server whose conversion is under way, and the process that converts."""
    with Litepool(models, "--workers", "1", settings={"cache_dir": cache}) as litepool:
        litepool.log.wait_for("importing TensorFlow")
        children = litepool.children("conversion_child")
        assert children, litepool.log.text()
        yield litepool, children


def left_over(cache: Path) -> list[Path]:
    """What a conversion has put into the cache, without its lock."""
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("number", [SIGTERM, SIGINT], ids=lambda number: number.name)
def test_a_signal_while_a_model_is_converted_ends_the_conversion_and_the_server_with_0(
    models: Path, tmp_path: Path, number: Signals
) -> None:
    with converting(models, tmp_path / "cache") as (litepool, children):
        assert litepool.stop(number) == 0

        assert psutil.wait_procs(children, 10)[1] == []
        assert litepool.out.end() == [], "it was never ready"
        assert "Traceback" not in litepool.log.text()
    assert left_over(tmp_path / "cache") == []


def test_a_server_killed_in_the_middle_of_a_conversion_converts_and_serves_when_started_again(
    models: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with converting(models, cache) as (litepool, children):
        litepool.process.kill()
        assert litepool.wait() == -9
        assert psutil.wait_procs(children, 10)[1] == [], "the conversion outlived its server"

    with converting(models, cache) as (litepool, _):
        litepool.wait_listening()
        with litepool.client() as client:
            health = client.get("/healthz")
            ready = client.get("/readyz")
            early = client.post("/predict", RECORD)
            alive = client.get("/livez")
        assert health.status == 503
        assert health.json()["status"] == "starting"
        assert health.json()["models"]["diabetes"]["1"]["state"] == "LOADING"
        assert health.json()["models"]["diabetes"]["1"]["reason"]
        assert ready.status == 503
        assert alive.status == 200
        assert early.status == 503
        assert "retry-after" in early.headers
        assert early.json().keys() == {"error"}
        assert "loading" in early.json()["error"]

        litepool.wait_ready()
        with litepool.client() as client:
            first = client.post("/predict", RECORD)
        assert first.status == 200
        litepool.process.kill()
        assert litepool.wait() == -9

    with Litepool(models, "--workers", "1", settings={"cache_dir": cache}) as litepool:
        litepool.wait_ready()
        with litepool.client() as client:
            assert client.post("/predict", RECORD).body == first.body
        assert "importing TensorFlow" not in litepool.log.text(), "it was in the cache"


def test_a_broken_model_beside_good_ones_is_told_of_and_the_others_serve(cache: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(MODELS, models)
    (models / "x.keras").write_text("This is no model.\n")

    with Litepool(models, "--workers", "1", settings={"cache_dir": cache}) as litepool:
        litepool.wait_ready()
        assert litepool.out.text().startswith(f"Litepool is ready on {litepool.url}: diabetes, digits, mlp")
        assert litepool.out.text().endswith(": x")
        with litepool.client() as client:
            health = client.get("/healthz")
            assert health.status == 200
            assert health.json()["status"] == "degraded"
            states = {name: versions["1"]["state"] for name, versions in health.json()["models"].items()}
            assert states == {"diabetes": "AVAILABLE", "digits": "AVAILABLE", "mlp": "AVAILABLE", "x": "FAILED"}
            reason = health.json()["models"]["x"]["1"]["reason"]
            assert "x.keras" in reason
            assert "Traceback" not in reason

            refused = client.post("/predict/x", {"instance": [1]})
            assert refused.status == 503
            assert "retry-after" not in refused.headers, "waiting will not mend it"
            assert reason in refused.json()["error"]

            shown = client.get("/models/x")
            assert shown.status == 200
            assert (shown.json()["state"], shown.json()["reason"]) == ("FAILED", reason)

            assert client.get("/readyz").status == 200
            assert client.post("/predict/diabetes", RECORD).status == 200
        litepool.log.wait_for("x 1: not served: .*x.keras")
        assert litepool.stop() == 0
