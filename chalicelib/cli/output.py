"""What the commands share: output formats, parameter types, reading of secrets, the deployment."""

import getpass
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click
from msgspec.structs import replace

from .. import log, settings
from ..model import DEFAULT_ACCOUNT, IDENTIFIER_FORM, USER_FORM
from . import columns
from .terminal import cell, coloured, coloured_word, draw, harmless, lively, plain, screen

if TYPE_CHECKING:
    from ..fleet.deployment import Deployment

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")

output_option = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table",
                             show_default=True, help="Output format.")


def list_options(command: F) -> F:
    """Add the options that say how a list is printed; `show` reads their values."""
    for option in reversed((
            click.option("-o", "--output", type=click.Choice(["table", "json", "csv", "ndjson"]), default="table",
                         show_default=True, help="Output format."), *shape_options)):
        command = option(command)
    return command


def keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that puts the option's value into the context, where `kept` finds it."""
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
    _option("sort", "--sort", metavar="COLUMN[:desc]", help="Sort by this column; unknown values sort last."),
    _option("bare", "--no-header", is_flag=True, help="Omit the header row."),
)
everywhere = (                              # the main help shows them, and each command accepts them too
    _option("color", "--color", type=click.Choice(["auto", "always", "never"]),
            help="Colours and marks. auto: on a terminal, subject to NO_COLOR, FORCE_COLOR and TERM."),
    _option("quiet", "-q", "--quiet", is_flag=True, help="Print no hints and no progress; errors and warnings remain."),
    _option("debug", "--debug", is_flag=True, help="Log each call on standard error, without secrets."),
)


class Network(click.ClickException):
    """A server cannot be reached, or the address to listen on cannot be used."""

    exit_code = 3


def start_log() -> None:
    log.start(logging.DEBUG if kept("debug") else logging.INFO)


@cache
def deployment() -> "Deployment":
    """Open the deployment that the environment's settings describe."""
    start_log()
    from ..fleet.deployment import open_deployment  # slow to import; not for help and completion

    loaded = settings.load()
    if kept("debug"):
        loaded = replace(loaded, log="debug")
    log.calls.disabled = loaded.log != "debug"
    log.audits.disabled = _for_people() and loaded.log != "debug"
    return open_deployment(loaded)


def _for_people() -> bool:
    """Whether somebody reads standard error while the command runs, rather than a log or a program."""
    context = click.get_current_context(silent=True)
    return sys.stderr.isatty() and not (context and context.params.get("output") == "json")


def operator() -> str:
    """Who runs the command, for the audit log. The environment can be changed by the user, the user id cannot; Windows
    has no such id."""
    try:
        import pwd  # not on Windows
    except ImportError:
        return getpass.getuser()
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def say(text: str) -> None:
    """Print to standard error. The text may come from a server, so characters that move the cursor are replaced."""
    click.echo("\n".join(plain(line) for line in text.splitlines()), err=True)


# The options of the command that are not called as the API's parameters are.
_OPTIONS = {"tenant_id": "--tenant", "f": "--from", "t": "--to", "format": "-o"}


@cache
def _turns() -> re.Pattern[str]:
    """How the API's texts name its parameters: `NAME`, NAME=VALUE, or NAME where no word of English could stand."""
    from ..fleet import changes_query, query  # slow to import; not for what goes well

    names = {parameter.name for parameter in (*query.PARAMETERS, *changes_query.PARAMETERS)}
    every, unmistakable = "|".join(names), "|".join(name for name in names if "_" in name)
    return re.compile(rf"`(?P<marked>{every})`|\b(?P<set>{every})=(?P<value>\w+)(?P<more>&?)"
                      rf"|(?:^|(?<=Use )|(?<=Leave out )|(?<=than ))(?P<bare>{every})(?= must| is| only|\.$)"
                      rf"|(?<![-\w])(?P<alone>{unmistakable})\b")


def in_options(text: str) -> str:
    """A text that an answer over HTTP has too, with the options of the command in place of the API's parameters."""
    def option(match: re.Match[str]) -> str:
        name = match["marked"] or match["set"] or match["bare"] or match["alone"]
        written = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        return f"{written} {match['value']}{' ' if match['more'] else ''}" if match["set"] else written

    return _turns().sub(option, text)


def hint(text: str) -> None:
    """Print to standard error, unless --quiet is given."""
    if not kept("quiet"):
        say(text)


def echo(text: bytes, *, end: str = "\n") -> None:
    """Write data to standard output: to a file as UTF-8 whatever the locale, to a terminal without control
    characters."""
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
    """Yield the items as they come, with a progress bar if standard error is a terminal."""
    if kept("quiet") or not lively(sys.stderr):
        yield from items
        return
    from rich.console import Console  # slow to import; the other commands need no bar
    from rich.progress import track

    console = Console(stderr=True, no_color=not coloured(sys.stderr))
    yield from track(items, label, total, console=console, transient=True)


@contextmanager
def waiting(text: Callable[[], str]) -> Generator[None]:
    """Show the text and the seconds so far, if standard error is a terminal and the work takes long."""
    if kept("quiet") or not lively(sys.stderr):
        yield
        return
    ended, began = threading.Event(), time.monotonic()

    def tick() -> None:
        drawn = False
        while not ended.wait(0.2):
            if (seconds := time.monotonic() - began) > 0.6:
                sys.stderr.write(f"\r\x1b[K{plain(text())}, {seconds:.0f} s ")
                sys.stderr.flush()
                drawn = True
        if drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    ticker = threading.Thread(target=tick, daemon=True, name="twocloud-waiting")
    ticker.start()
    try:
        yield
    finally:
        ended.set()
        ticker.join()


def show(output: str, rows: Sequence[dict[str, Any]] | dict[str, Any], names: Sequence[str] = ()) -> None:
    """Print one record, or a list of records shaped by --columns and --sort. `names`: the columns, for lists that may
    be empty."""
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
    """Print a table on standard output, and a hint if columns were left out."""
    lines, dropped = draw(rows, names, screen(), header=not kept("bare"), spare=spare)
    for line in lines:
        click.echo(line, color=True)
    if dropped:
        hint(f"No room for: {', '.join(dropped)}. To see them, widen the terminal or pass --columns or -o csv.")


def when(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Duration(click.ParamType[int]):
    """`90s`, `10m`, `12h`, `90d` -> seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(0|[1-9][0-9]{0,6})([smhd])", value, re.ASCII)
        if not match:
            self.fail("must be a number and s, m, h or d: 90s, 10m, 12h, 90d", param, ctx)
        seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
        if seconds > 3650 * 86400:
            self.fail("must be at most 3650d", param, ctx)
        return seconds


class Label(click.ParamType[str]):
    """A text of up to 64 printable characters."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if len(value) > 64 or not value.isprintable():
            self.fail("must be at most 64 printable characters", param, ctx)
        return value


class UserName(click.ParamType[str]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not USER_FORM.fullmatch(value):
            self.fail("must be 1-64 letters, digits, '.', '_', '@', '+' or '-'", param, ctx)
        return value


class Port(click.ParamType[int]):
    """A port from 0 to 65535 in plain digits; 0 means any free port."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,4}", str(value), re.ASCII) or int(value) > 65535:
            self.fail("must be a number from 0 to 65535", param, ctx)
        return int(value)


class Identifier(click.ParamType[str]):
    """A name of 1-64 letters, digits, '.', '_' or '-', and not `all`. `also`: other words that are allowed."""

    name = "name"

    def __init__(self, *also: str) -> None:
        self.also = also

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.also and not IDENTIFIER_FORM.fullmatch(value):
            self.fail("must be 1-64 letters, digits, '.', '_' or '-'", param, ctx)
        if value == "all":                  # which means each of them, where a query names it
            self.fail(" ".join(("no name can be all.", *(f"For no limit, write '{word}'." for word in self.also))),
                      param, ctx)
        return value


def read_secret(file: IO[bytes] | None, what: str, most: int = 65_536) -> str:
    """Read a secret from the file, or from standard input; one line break at the end is dropped."""
    if file is None and not sys.stdin:                          # `<&-`
        raise click.UsageError(f"Cannot read {what}: standard input is closed.")
    if file is None and sys.stdin.isatty():
        say(f"Type {what}, then press Enter and Ctrl-D.")
    raw = (file or sys.stdin.buffer).read(most + 1)
    if len(raw) > most:
        raise click.UsageError(f"{what} is longer than {most} bytes.")
    try:
        return raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError(f"{what} is not UTF-8 text.") from None


def account_arguments(tenant_id: str, party: str, name: str) -> str:
    """An account as commands take it."""
    return f"{tenant_id} {party}" + ("" if name == DEFAULT_ACCOUNT else f" --account {name}")
