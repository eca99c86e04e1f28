"""Log lines: plain for people, JSON for machines, on standard error."""

import logging
import logging.config
import time
from typing import Any

import orjson


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, process, message, and any traceback."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry).decode()


def configure(level: str, form: str, server: bool = True) -> dict[str, Any]:
    """Set up logging; returns the configuration, which uvicorn is given too.

    Args:
        server: whether uvicorn's loggers are ours to set.
    """
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"format": "%(asctime)s %(levelname)-7s %(message)s", "datefmt": "%H:%M:%S"},
            "json": {"()": "app.telemetry.logging.JsonFormatter"},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": form}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "app": {"level": level.upper()},
        },
    }
    if server:
        config["loggers"] |= {"uvicorn.error": {"level": "WARNING"}, "uvicorn.access": {"level": "INFO"}}
    logging.config.dictConfig(config)
    return config
