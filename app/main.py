"""`uvicorn app.main:app`: the application with its settings from the environment."""

import sys
from logging import getLogger

from pydantic import ValidationError

from app.server.app import create_app
from app.settings import Settings, explain
from app.telemetry import logging

try:
    _settings = Settings()
except ValidationError as error:
    sys.exit(explain(error, {}))
logging.configure(_settings.log_level, _settings.log_format, server=False)
if _settings.grpc_port is not None:
    getLogger(__name__).warning(
        "LITEPOOL_GRPC_PORT=%d: uvicorn by itself speaks no gRPC: `litepool serve` does", _settings.grpc_port
    )
app = create_app(_settings)
