"""How uvicorn is set up. The drain is in tests/e2e/test_shutdown.py."""

from pathlib import Path

import pytest
from fastapi import FastAPI

from app.server.express import Express
from app.server.lane import Lane
from app.server.serve import make_config
from app.settings import Settings


@pytest.mark.parametrize(("access_log", "keep_alive"), [(True, 5.0), (False, 75.0)])
def test_settings_reach_uvicorn(tmp_path: Path, access_log: bool, keep_alive: float) -> None:
    settings = Settings(models_dir=tmp_path, access_log=access_log, keep_alive=keep_alive)
    lane = Lane(settings.max_body_bytes)

    config = make_config(FastAPI(), lane, settings, {"version": 1, "disable_existing_loggers": False})

    assert config.access_log is access_log
    assert config.timeout_keep_alive == keep_alive
    assert config.server_header is False
    assert config.lifespan == "on", "an application that cannot start must not be served"
    assert isinstance(config.http, type)
    assert issubclass(config.http, Express)
    assert config.http.lane is lane
