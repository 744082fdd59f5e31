"""How commands read and write: output formats, durations, secrets, the deployment they work on."""

import os
import pwd
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import IO, Any, TypeVar

import click
import msgspec

from chalicelib import journal, openapi, settings
from chalicelib.inventory import Deployment, open_deployment
from chalicelib.model import IDENTIFIER_FORM, USER_FORM

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")

output_option = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table",
                             show_default=True, help="How data is printed.")


class Network(click.ClickException):
    """A server cannot be reached, an address cannot be listened on."""

    exit_code = 3


@cache
def deployment() -> Deployment:
    """What the environment's settings describe."""
    journal.start()
    found = settings.load()
    journal.calls.disabled = found.log != "debug"
    return open_deployment(found)


def operator() -> str:
    """Who runs the command, for the audit: the operating system knows it better than the environment."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def say(text: str) -> None:
    click.echo(text, err=True)


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """The items as they come; a bar on a terminal's standard error."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console  # slow to import; the other commands need no bar
    from rich.progress import track

    yield from track(items, label, total, console=Console(stderr=True), transient=True)


def show(output: str, rows: Sequence[dict[str, Any]] | dict[str, Any]) -> None:
    """Print one record or a list of records: JSON as they are, or a table of them."""
    if output == "json":
        click.echo(msgspec.json.encode(rows).decode())
    elif isinstance(rows, dict):
        width = max(map(len, rows))
        for name, value in rows.items():
            click.echo(f"{name:<{width}}  {cell(value)}")
    else:
        if rows:
            table(list(rows[0]), [[cell(value) for value in row.values()] for row in rows])


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # not for the commands that print no table
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()          # elsewhere nothing is cut and nothing coloured
    console = Console(file=sys.stdout, width=None if terminal else 10_000, highlight=False, markup=False)
    drawn = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold")
    for name in names:
        drawn.add_column(name.upper(), no_wrap=not terminal)
    for row in rows:
        drawn.add_row(*(Text(value) for value in row))          # what a party calls a machine is text, not markup
    console.print(drawn)


def cell(value: object) -> str:
    """One value as text for a person: what no terminal should get is shown as a replacement character."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value))    # type: ignore[reportUnknownArgumentType]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def when(unix: int) -> str:
    return openapi.instant(unix)


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
    if file is None and sys.stdin.isatty():
        say(f"Type {what} and end with Ctrl-D.")
    raw = (file or sys.stdin.buffer).read(most + 1)
    if len(raw) > most:
        raise click.UsageError(f"{what} is longer than {most} bytes.")
    try:
        return raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError(f"{what} is not UTF-8 text.") from None
