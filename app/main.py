"""`uvicorn app.main:app`: the application with its settings from the environment."""

from app.server.app import create_app
from app.settings import Settings
from app.telemetry import logging

_settings = Settings()
logging.configure(_settings.log_level, _settings.log_format, server=False)
app = create_app(_settings)
