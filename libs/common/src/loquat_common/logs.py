"""Logs: one JSON object a line, an event name plus fields; what looks like a secret or a person is taken out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import orjson
import structlog
from pydantic import SecretBytes, SecretStr

_SECRET_NAME: Final = re.compile(
    r"password|passwd|secret|token|authorization|api_?key|dsn|cookie|credential|private|signing|key_ring", re.IGNORECASE
)
_PERSON_NAME: Final = re.compile(
    r"^(text|body|caption|phone|phone_number|wa_id|from|to|address|addresses|contact_name|raw)$", re.IGNORECASE
)
# Bearer tokens, Loquat's API keys, Meta's tokens, passwords inside URLs.
_SECRET_VALUE: Final = re.compile(r"(Bearer\s+)\S+|(lq_)[A-Za-z0-9_-]{16,}|(EAA)[A-Za-z0-9]{16,}|(://[^:/@\s]+:)[^@\s]+(?=@)")
REDACTED: Final = "[redacted]"


def redact(value: object, name: str = "") -> object:
    """`value` without secrets: whole when the field's `name` says so, else by what it looks like."""
    if isinstance(value, SecretStr | SecretBytes) or _SECRET_NAME.search(name) or _PERSON_NAME.match(name):
        return REDACTED
    if isinstance(value, str):
        return _SECRET_VALUE.sub(lambda m: next(g for g in m.groups() if g) + REDACTED, value)
    if isinstance(value, dict):
        return {str(k): redact(v, str(k)) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(v) for v in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


def _redacting(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {k: redact(v, k) for k, v in fields.items()}


def _render(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> str:
    return orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Sets up logging for this process. Libraries that use the standard module come out in the same form."""
    out = stream or sys.stderr
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, _redacting, _render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_foreign, _redacting, _render]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))  # libraries' chatter is not ours
    structlog.contextvars.bind_contextvars(service=service)


def _foreign(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record: logging.LogRecord = fields.pop("_record")
    fields.pop("_from_structlog")
    return {**fields, "logger": record.name}


def get_logger(**fields: object) -> structlog.typing.FilteringBoundLogger:
    """A logger: `await`-less calls `log.info("event.name", field=value)`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**fields)
    return logger
