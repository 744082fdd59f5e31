"""twocloud store …"""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from .. import log, settings
from ..access import copying
from ..access.copying import Count
from ..access.sealing import open_sealer
from ..errors import Internal
from ..storage.store import open_store
from .output import kept, operator, output_option, say, show, start_journal
from .terminal import coloured, lively


class StoreName(click.ParamType[str]):
    """As TWOCLOUD_STORE; a file's path is made absolute, so that it names the same store from every folder."""

    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not settings.is_store(value):
            self.fail("a store is sqlite:///PATH or dynamodb://TABLE", param, ctx)
        scheme, _, rest = value.partition("://")
        return f"sqlite:///{Path(rest.removeprefix('/')).resolve()}" if scheme == "sqlite" else value


class KeyName(click.ParamType[str]):
    """As TWOCLOUD_KEY."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not settings.is_key(value):
            self.fail("a key is file:PATH or kms:KEY", param, ctx)
        return value


@click.group()
def store() -> None:
    """Where everything is kept, as a whole."""


@store.command("copy")
@click.argument("source", metavar="FROM", type=StoreName())
@click.argument("target", metavar="TO", type=StoreName())
@click.option("--to-key", type=KeyName(), metavar="KEY", help="Seal the credentials under this key on the way; "
              "TWOCLOUD_KEY opens them. Must be given from one sort of store to another.")
@output_option
def copy_store(source: str, target: str, to_key: str | None, output: str) -> None:
    """Copy a store: FROM and TO are sqlite:///PATH or dynamodb://TABLE.

    TO must be empty or an unused copy of FROM: broken off, it goes on where it was; run again, it takes over what
    changed. Each row that was written is read again and compared. From SQLite it is a copy of one moment, whoever
    writes meanwhile; from DynamoDB stop the writers first. Ends with 5 if a row differs.
    """
    if source == target:
        raise click.UsageError("FROM and TO are the same store.")
    if to_key is None and source.partition(":")[0] != target.partition(":")[0]:
        raise click.UsageError("Say with --to-key which key seals the credentials there: kms:KEY on AWS, file:PATH on "
                               "one machine.")
    if source.startswith("sqlite:") and not Path(source.removeprefix("sqlite:///")).is_file():
        raise click.UsageError(f"There is no store {source}.")
    start_journal()
    mine = settings.load()
    seals = (open_sealer(mine.key, mine.old_key, make=False), open_sealer(to_key)) if to_key else None
    here, there = open_store(source, time.time), open_store(target, time.time)
    told = Count()
    try:
        with _bar() as (started, seen):
            for told in copying.copy(here, source, there, seals, started):
                seen(told.rows)
    finally:
        here.close()
        there.close()
    counts = msgspec.to_builtins(told)
    log.audit(operator(), "store copy", source=source, target=target, **counts)
    if output == "json":
        show(output, counts)
    say(f"{told.rows} rows, {told.written} of them written now; {told.removed} removed that are gone from {source}.")
    if told.different:
        raise Internal(f"{told.different} rows of {target} are not what was written: somebody else writes to it.")


@contextmanager
def _bar() -> Generator[tuple[Callable[[int | None], None], Callable[[int], None]]]:
    """(tell how many there are, tell how many were seen); a bar on a terminal's standard error."""
    if kept("quiet") or not lively(sys.stderr):
        yield lambda total: None, lambda seen: None
        return
    from rich.console import Console  # slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("copy"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                  console=Console(stderr=True, no_color=not coloured(sys.stderr)), transient=True) as bar:
        task = bar.add_task("copy", total=None)
        yield lambda total: bar.update(task, total=total), lambda seen: bar.update(task, completed=seen)
