"""What is logged: one JSON line per request, refresh and run of the schedule, per call to a party that failed, and per
change of a user, token or account. docs/watch.md names the fields; alarms read them.

Never a token, a secret, a URL with a query, or what a party wrote. Control characters are escapes.
"""

import logging
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from types import MappingProxyType
from typing import ParamSpec, TypeVar

import msgspec

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger("twocloud")
calls = logger.getChild("calls")               # apart: a command leaves them out, for it says itself what went wrong
audits = logger.getChild("audit")             # apart: on a terminal a command's own sentence says the same
_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))


class Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {"at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
                                     "level": record.levelname, "event": record.getMessage()}
        fields |= _about.get()
        fields |= getattr(record, "fields", {})
        fields = {name: value for name, value in fields.items() if value is not None}
        if record.exc_info:                 # where it broke, but not the message: that may hold a caller's text
            kind, _, trace = record.exc_info
            fields["exception"] = kind.__name__ if kind else ""
            frames: list[str] = []
            while trace is not None:
                code = trace.tb_frame.f_code
                frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
                trace = trace.tb_next
            fields["frames"] = frames
        return escaped(msgspec.json.encode(fields).decode())


def escaped(json: str, keep: str = "") -> str:
    """JSON text in which each character that cannot be seen, so that it could control a terminal, is an escape; except
    those to `keep`."""
    return json if json.isprintable() else "".join(c if c.isprintable() or c in keep else escape(c) for c in json)


def escape(c: str) -> str:
    """A character as an escape of JSON."""
    code = c.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[at:at + 4]}" for at in range(0, len(code), 4))


def start(level: int = logging.INFO) -> None:
    """Write lines to standard error; once per process."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Lines())
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(level)


@contextmanager
def about(**fields: object) -> Generator[None]:
    """Every line written in the block says these fields too: which request it belongs to, which message. Those that
    are None are left out."""
    before = _about.set({**_about.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _about.reset(before)


def carried(call: Callable[P, T]) -> Callable[P, T]:
    """The call, for another thread: the lines that it writes there say what they would say here."""
    return partial(copy_context().run, call)


def call(*, failed: bool, **fields: object) -> None:
    """One call to a party: a listing may make hundreds, so those that went well are logged at level debug alone."""
    calls.log(logging.INFO if failed else logging.DEBUG, "call", extra={"fields": fields})


def request(**fields: object) -> None:
    logger.info("request", extra={"fields": fields})


def audit(who: str, what: str, **fields: object) -> None:
    """Who did what to which user, token or account; `at` is the line's own time."""
    audits.info("audit", extra={"fields": {"who": who, "what": what, **fields}})


def failure(**fields: object) -> None:
    """Our own fault, with the place where it happened; call it while handling the exception."""
    logger.error("failure", exc_info=True, extra={"fields": fields})
