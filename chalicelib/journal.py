"""What is logged: one JSON line per request, and one per change of a user, token or account.

Never a token, a secret, a URL with a query, or what a party wrote. JSON escapes every control character.
"""

import logging
import sys

import msgspec

log = logging.getLogger("twocloud")


class Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {"at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
                                     "level": record.levelname, "event": record.getMessage()}
        fields |= getattr(record, "fields", {})
        if record.exc_info:                 # where it broke, but not what was said: that may hold a caller's text
            kind, _, trace = record.exc_info
            fields["exception"] = kind.__name__ if kind else ""
            frames: list[str] = []
            while trace is not None:
                code = trace.tb_frame.f_code
                frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
                trace = trace.tb_next
            fields["frames"] = frames
        return msgspec.json.encode(fields).decode()


def start(level: int = logging.INFO) -> None:
    """Write lines to standard error; once per process."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Lines())
        log.addHandler(handler)
        log.propagate = False
    log.setLevel(level)


def request(**fields: object) -> None:
    log.info("request", extra={"fields": fields})


def audit(who: str, what: str, **fields: object) -> None:
    """Who did what to which user, token or account; `at` is the line's own time."""
    log.info("audit", extra={"fields": {"who": who, "what": what, **fields}})


def failure(**fields: object) -> None:
    """Our own fault, with the place where it happened; call it while handling the exception."""
    log.error("failure", exc_info=True, extra={"fields": fields})
