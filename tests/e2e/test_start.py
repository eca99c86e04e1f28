"""A server that has just been started from the cache: ready, right, small, and without TensorFlow."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import pytest

from tests.e2e.process import MODELS, ROOT, Litepool, environment, poll
from tests.e2e.reference import FILES

pytestmark = pytest.mark.slow

SAMPLED = ("digits", "diabetes")


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[Litepool]:
    settings: dict[str, str | Path] = {"default_model": "digits", "cache_dir": cache}
    with Litepool(MODELS, "--workers", "1", settings=settings) as litepool:
        yield litepool.wait_ready()


def samples(model: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MODELS / model / "samples.json").read_text(encoding="utf-8"))
    return found


def distance(have: Any, wanted: Any, scale: float) -> float:
    """The largest difference between two lists of numbers, relative to `scale`."""
    return float(np.abs(np.array(have) - np.array(wanted)).max() / scale)


def test_the_first_prediction_of_a_real_digit_is_right(cache: Path) -> None:
    seven = samples("digits")[7]
    start = perf_counter()
    settings: dict[str, str | Path] = {"default_model": "digits", "cache_dir": cache}
    with Litepool(MODELS, "--workers", "1", settings=settings) as litepool:
        litepool.wait_ready()
        print(f"\nready from the cache after {perf_counter() - start:.2f} s")
        with litepool.client() as client:
            reply = client.post("/predict", seven["request"])

        assert reply.status == 200
        scores = reply.json()["prediction"]
        assert scores.index(max(scores)) == 7
        assert distance(scores, seven["answer"]["prediction"], 1) <= 1e-5


@pytest.mark.parametrize(
    ("model", "index"), [(model, index) for model in SAMPLED for index in range(len(samples(model)))]
)
def test_a_sample_is_answered_as_it_says(server: Litepool, model: str, index: int) -> None:
    sample = samples(model)[index]
    with server.client() as client:
        reply = client.post(f"/predict/{model}", sample["request"])

    assert reply.status == 200
    have, wanted = reply.json()["prediction"], sample["answer"]["prediction"]
    if model == "digits":
        have, wanted = {"scores": have}, {"scores": wanted}
    assert have.keys() == wanted.keys()
    for output, values in wanted.items():
        # The shipped answers have six digits; progression goes up to 346, scores to 1.
        assert distance(have[output], values, 346 if output == "progression" else 1) <= 1e-5


def test_ready_is_one_line_on_standard_output_that_names_the_models(server: Litepool) -> None:
    assert server.out.text() == f"Litepool is ready on {server.url}: diabetes, digits, mlp (1 worker)"


def test_healthz_is_ok_when_the_ready_line_is_out(server: Litepool) -> None:
    with server.client() as client:
        reply = client.get("/healthz")

    assert reply.status == 200
    assert reply.json() == {
        "status": "ok",
        "models": {name: {"1": {"state": "AVAILABLE", "reason": ""}} for name in sorted(FILES)},
    }


def test_every_example_of_the_api_documentation_works_as_it_stands(server: Litepool) -> None:
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
        predictions = {path: item["post"] for path, item in paths.items() if path.startswith("/predict")}
        assert predictions.keys() == {"/predict", *(f"/predict/{name}" for name in FILES)}
        for path, operation in predictions.items():
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            assert examples
            for example in examples.values():
                reply = client.post(path, example["value"])

                assert reply.status == 200, (path, reply)
                assert reply.json().keys() == {"prediction"}


@pytest.mark.parametrize("model", FILES)
def test_a_model_shows_how_close_it_is_to_tensorflow_and_how_much_faster(server: Litepool, model: str) -> None:
    with server.client() as client:
        conversion = client.get(f"/models/{model}").json()["conversion"]

    assert 0 < conversion["one_record_us"]["interpreter"] < conversion["one_record_us"]["model(x)"]
    assert conversion["one_record_us"]["model(x)"] < conversion["one_record_us"]["model.predict"]
    differences = conversion["parity"]["differences"].values()
    assert all(difference["relative"] <= 1e-5 for difference in differences)


def test_no_library_of_tensorflow_is_mapped_into_the_server(server: Litepool) -> None:
    maps = Path(f"/proc/{server.pid}/maps").read_text(encoding="utf-8")

    assert "/ai_edge_litert/" in maps, "the interpreter's own library should be there"
    assert "/tensorflow/" not in maps
    assert "/keras/" not in maps


def test_no_module_of_tensorflow_is_imported_where_the_models_are_served(cache: Path) -> None:
    program = """
import asyncio, sys
import httpx
from app.main import app

async def main():
    settled = asyncio.Event()
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://litepool") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            answer = await client.post("/predict/mlp", json={"instance": [0.0] * 256})
            assert len(answer.json()["prediction"]) == 32, answer.text

asyncio.run(main())
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    child = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env=environment(models_dir=MODELS, cache_dir=cache),
    )

    assert child.returncode == 0, child.stderr
    modules = child.stdout.splitlines()[-1].split()
    assert "ai_edge_litert" in modules
    assert not {"tensorflow", "keras"} & set(modules)


def test_a_worker_that_has_served_all_three_models_takes_less_than_90_mb(server: Litepool) -> None:
    with server.client() as client:
        for model in SAMPLED:
            assert client.post(f"/predict/{model}", samples(model)[0]["request"]).status == 200
        assert client.post("/predict/mlp", {"instance": [0.0] * 256}).status == 200

    memory = psutil.Process(server.pid).memory_full_info()

    print(f"\nPSS of the only worker: {memory.pss / 1e6:.1f} MB (RSS {memory.rss / 1e6:.1f})")
    assert memory.pss < 90e6


def test_uvicorn_serves_the_application_by_itself(cache: Path) -> None:
    seven = samples("digits")[7]
    settings: dict[str, str | Path] = {
        "default_model": "digits",
        "models_dir": MODELS,
        "cache_dir": cache,
        "grpc_port": "1",
    }
    command: list[str | Path] = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"]
    with Litepool(settings=settings, command=command) as litepool:
        litepool.wait_listening()
        with litepool.client() as client:
            poll("readiness", lambda: client.get("/readyz").status == 200)
            reply = client.post("/predict", seven["request"])

        assert reply.status == 200
        assert distance(reply.json()["prediction"], seven["answer"]["prediction"], 1) <= 1e-5
        litepool.log.wait_for("LITEPOOL_GRPC_PORT=1: uvicorn by itself speaks no gRPC")
        litepool.process.terminate()
        # uvicorn's own way to end: it raises the signal again once it is done.
        assert litepool.wait() in (0, -15)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_folder_called_app_where_the_server_is_started_is_none_of_its_business(
    cache: Path, tmp_path: Path, workers: str
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('another application')\n")

    with Litepool(MODELS, "--workers", workers, settings={"cache_dir": cache}, cwd=tmp_path) as litepool:
        litepool.wait_ready()

        assert litepool.stop() == 0
