"""Pages of other sites."""

from pathlib import Path

import pytest

from app.server.browsers import not_express
from app.server.sequence import SEQUENCE_HEADERS
from app.settings import Settings
from tests.e2e.process import Litepool

BODY = b'{"instances":[[1,2,3,4]]}'


@pytest.mark.parametrize("origins", ["*", "https://a.example", " https://a.example , https://b.example:8443"])
def test_with_the_setting_requests_of_pages_are_not_express(tmp_path: Path, origins: str) -> None:
    assert not_express(Settings(models_dir=tmp_path, cors_origins=origins)) == SEQUENCE_HEADERS | {b"origin"}


@pytest.mark.parametrize("origins", ["", " , "])
def test_without_it_they_are(tmp_path: Path, origins: str) -> None:
    assert not_express(Settings(models_dir=tmp_path, cors_origins=origins)) == SEQUENCE_HEADERS


@pytest.mark.slow
def test_pages_get_their_headers_on_a_connection_that_is_express_otherwise(one_model: Path, tmp_path: Path) -> None:
    settings: dict[str, str | Path] = {"cache_dir": tmp_path / "cache", "cors_origins": "https://a.example"}
    path, allowed = "/v1/models/affine:predict", "access-control-allow-origin"
    with Litepool(one_model, "--workers", "1", settings=settings).wait_ready() as server, server.client() as client:
        for _ in range(3):
            plain = client.send("POST", path, BODY)
            page = client.send("POST", path, BODY, headers={"Origin": "https://a.example"})
            refused = client.send("POST", path, b"{}", headers={"Origin": "https://a.example"})
            stranger = client.send("POST", path, BODY, headers={"Origin": "https://c.example"})
            assert plain.body == page.body == stranger.body == b'{"predictions":[[3.0,5.0,7.0,9.0]]}'
            assert refused.status == 400
            assert allowed not in plain.headers
            assert page.headers[allowed] == refused.headers[allowed] == "https://a.example"
            assert allowed not in stranger.headers
