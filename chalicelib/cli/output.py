"""How commands read and write: output formats, durations, secrets, the deployment they work on."""

import logging
import os
import pwd
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from .. import log, settings
from ..model import IDENTIFIER_FORM, USER_FORM
from . import columns
from .terminal import cell, coloured, coloured_word, draw, harmless, lively, plain, screen

if TYPE_CHECKING:
    from ..fleet.deployment import Deployment

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")

output_option = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table",
                             show_default=True, help="How data is printed.")


def list_options(command: F) -> F:
    """How a list is printed; `show` finds what was chosen."""
    for option in reversed((
            click.option("-o", "--output", type=click.Choice(["table", "json", "csv", "ndjson"]), default="table",
                         show_default=True, help="How data is printed."), *shape_options)):
        command = option(command)
    return command


def keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """An option that every command understands alike: what was given is kept in the context."""
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            context.meta[f"twocloud.{name}"] = value
    return keep


def kept(name: str, default: Any = None) -> Any:
    context = click.get_current_context(silent=True)
    return context.meta.get(f"twocloud.{name}", default) if context else default


def _option(name: str, *words: str, **more: Any) -> Callable[[F], F]:
    return click.option(*words, expose_value=False, callback=keep(name), **more)


shape_options = (
    _option("columns", "--columns", metavar="A,B,C", help="Only these columns, in this order."),
    _option("sort", "--sort", metavar="COLUMN[:desc]", help="Sort by this column; what is unknown stands last."),
    _option("bare", "--no-header", is_flag=True, help="Without the line of names."),
)
everywhere = (                              # the group shows them, and each command takes them as well
    _option("color", "--color", type=click.Choice(["auto", "always", "never"]),
            help="Colours and marks; auto: on a terminal, as NO_COLOR, FORCE_COLOR and TERM say."),
    _option("quiet", "-q", "--quiet", is_flag=True, help="No hints, no progress; errors and warnings stay."),
    _option("debug", "--debug", is_flag=True, help="Say on standard error what is asked of whom. Never a secret."),
)


class Network(click.ClickException):
    """A server cannot be reached, an address cannot be listened on."""

    exit_code = 3


def start_journal() -> None:
    log.start(logging.DEBUG if kept("debug") else logging.INFO)


@cache
def deployment() -> "Deployment":
    """What the environment's settings describe."""
    start_journal()
    from ..fleet.deployment import open_deployment  # slow to import; not for help and completion

    found = settings.load()
    if kept("debug"):
        found = replace(found, log="debug")
    log.calls.disabled = found.log != "debug"
    return open_deployment(found)


def operator() -> str:
    """Who runs the command, for the audit: the operating system knows it better than the environment."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def say(text: str) -> None:
    """What must be known beside the data. It may hold what a server wrote."""
    click.echo("\n".join(plain(line) for line in text.splitlines()), err=True)


def hint(text: str) -> None:
    """What is good to know; not with --quiet."""
    if not kept("quiet"):
        say(text)


def echo(text: bytes, *, end: str = "\n") -> None:
    """Data to standard output. A file gets its bytes in UTF-8, whatever the locale; on a terminal no character of it
    can do anything."""
    if not sys.stdout.isatty():
        click.echo(text, nl=bool(end))
        return
    written = text.decode("utf-8", "replace")
    if written[:1] in ("{", "["):
        written = harmless(written, sys.stdout.encoding)
    else:
        written = "\n".join(plain(line) for line in written.replace("\r\n", "\n").split("\n"))
    click.echo(written, nl=bool(end))


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """The items as they come; a bar on a terminal's standard error."""
    if kept("quiet") or not lively(sys.stderr):
        yield from items
        return
    from rich.console import Console  # slow to import; the other commands need no bar
    from rich.progress import track

    console = Console(stderr=True, no_color=not coloured(sys.stderr))
    yield from track(items, label, total, console=console, transient=True)


@contextmanager
def waiting(text: Callable[[], str]) -> Generator[None]:
    """While something takes longer than a moment, say so on a terminal's standard error."""
    if kept("quiet") or not lively(sys.stderr):
        yield
        return
    ended, began = threading.Event(), time.monotonic()

    def tell() -> None:
        drawn = False
        while not ended.wait(0.2):
            if (seconds := time.monotonic() - began) > 0.6:
                sys.stderr.write(f"\r\x1b[K{plain(text())}, {seconds:.0f} s ")
                sys.stderr.flush()
                drawn = True
        if drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    teller = threading.Thread(target=tell, daemon=True, name="twocloud-waiting")
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def show(output: str, rows: Sequence[dict[str, Any]] | dict[str, Any], names: Sequence[str] = ()) -> None:
    """Print one record, or a list of records as --columns and --sort say. `names`: the columns, where the rows may
    not tell."""
    import msgspec

    if isinstance(rows, dict):
        if output == "json":
            echo(msgspec.json.encode(rows))
            return
        width = max(map(len, rows))
        for name, value in rows.items():
            click.echo(f"{name:<{width}}  {coloured_word(cell(value), colour=screen().colour)}", color=True)
        return
    known = list(names or (rows[0] if rows else ()))
    wanted: str | None = kept("columns")
    if known and (order := kept("sort")) is not None:
        rows = columns.in_order(rows, order, known)
    shown = columns.chosen(wanted, known) if wanted is not None and known else known
    if output == "json":
        written = rows if wanted is None else [{name: row[name] for name in shown} for row in rows]
        echo(msgspec.json.encode(written))
    elif output == "ndjson":
        for row in rows:
            echo(msgspec.json.encode({name: row[name] for name in shown}))
    elif output == "csv":
        from ..http.formats import lines  # not for the other outputs

        echo(b"".join(lines.table(shown, rows, header=not kept("bare"))), end="")
    elif rows:
        table(rows, shown)


def table(rows: Sequence[dict[str, Any]], names: Sequence[str], spare: Sequence[str] = ()) -> None:
    """On standard output. What it has no room for is said."""
    lines, dropped = draw(rows, names, screen(), header=not kept("bare"), spare=spare)
    for line in lines:
        click.echo(line, color=True)
    if dropped:
        hint(f"No room for: {', '.join(dropped)}. A wider terminal, --columns or -o csv shows them.")


def when(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Duration(click.ParamType[int]):
    """`90s`, `10m`, `12h`, `90d` -> seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(0|[1-9][0-9]{0,6})([smhd])", value, re.ASCII)
        if not found:
            self.fail("a duration is a number and s, m, h or d: 90s, 10m, 12h, 90d", param, ctx)
        seconds = int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
        if seconds > 3650 * 86400:
            self.fail("at most 3650d", param, ctx)
        return seconds


class Label(click.ParamType[str]):
    """Up to 64 printable characters."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if len(value) > 64 or not value.isprintable():
            self.fail("at most 64 printable characters", param, ctx)
        return value


class UserName(click.ParamType[str]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not USER_FORM.fullmatch(value):
            self.fail("1-64 letters, digits, '.', '_', '@', '+' or '-'", param, ctx)
        return value


class Port(click.ParamType[int]):
    """0-65535 in plain digits; 0 is any free one."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,4}", str(value), re.ASCII) or int(value) > 65535:
            self.fail("a port is a number from 0 to 65535", param, ctx)
        return int(value)


class Identifier(click.ParamType[str]):
    """1-64 letters, digits, '.', '_' or '-'. `also`: other words that are allowed."""

    name = "name"

    def __init__(self, *also: str) -> None:
        self.also = also

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.also and not IDENTIFIER_FORM.fullmatch(value):
            self.fail("1-64 letters, digits, '.', '_' or '-'", param, ctx)
        return value


def read_secret(file: IO[bytes] | None, what: str, most: int = 65_536) -> str:
    """From a file, or from standard input; a line's end at the end is not part of it."""
    if file is None and not sys.stdin:                          # `<&-`
        raise click.UsageError(f"There is no standard input to read {what} from.")
    if file is None and sys.stdin.isatty():
        say(f"Type {what} and end with Ctrl-D.")
    raw = (file or sys.stdin.buffer).read(most + 1)
    if len(raw) > most:
        raise click.UsageError(f"{what} is longer than {most} bytes.")
    try:
        return raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError(f"{what} is not UTF-8 text.") from None
