"""The command `twocloud store …`."""

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
from ..storage.store import open_store, shown
from .output import kept, operator, output_option, say, show, start_log
from .terminal import coloured, lively


class StoreName(click.ParamType[str]):
    """A store URL like TWOCLOUD_STORE. A file's path is made absolute: the copy records where it came from."""

    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not settings.is_store(value):
            self.fail("must be sqlite:///PATH, postgresql://… or dynamodb://TABLE", param, ctx)
        scheme, _, rest = value.partition("://")
        return f"sqlite:///{Path(rest.removeprefix('/')).resolve()}" if scheme == "sqlite" else value


class KeyName(click.ParamType[str]):
    """A key like TWOCLOUD_KEY."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not settings.is_key(value):
            self.fail("must be file:PATH, env:VARIABLE or kms:KEY", param, ctx)
        return value


@click.group()
def store() -> None:
    """Copy the whole store."""


@store.command("copy")
@click.argument("source", metavar="FROM", type=StoreName())
@click.argument("target", metavar="TO", type=StoreName())
@click.option("--to-key", type=KeyName(), metavar="KEY", help="Seal the credentials under this key in the copy; "
              "TWOCLOUD_KEY opens them. Required to and from DynamoDB.")
@output_option
def copy_store(source: str, target: str, to_key: str | None, output: str) -> None:
    """Copy a store: FROM and TO are sqlite:///PATH, postgresql://USER@HOST/DATABASE or dynamodb://TABLE.

    TO must be empty or an unused copy of FROM. An interrupted copy resumes where it stopped; a repeated one copies
    what has changed since. Each written row is read back and compared. A copy from SQLite or PostgreSQL is
    consistent while others write; before a copy from DynamoDB, stop the writers. Exit code 5: a row differs.
    """
    if source == target:
        raise click.UsageError("FROM and TO are the same store.")
    if to_key is None and source.startswith("dynamodb:") != target.startswith("dynamodb:"):
        raise click.UsageError("Name the key that seals the credentials in the copy with --to-key: kms:KEY on AWS, "
                               "file:PATH on one machine.")
    if source.startswith("sqlite:") and not Path(source.removeprefix("sqlite:///")).is_file():
        raise click.UsageError(f"There is no store at {source}.")
    start_log()
    mine = settings.load()
    seals = (open_sealer(mine.key, mine.old_key, make=False), open_sealer(to_key)) if to_key else None
    here, there = open_store(source, time.time), open_store(target, time.time)
    source, target, counted = shown(source), shown(target), Count()
    try:
        with _bar() as (started, copied):
            for counted in copying.copy(here, source, there, seals, started):
                copied(counted.rows)
    finally:
        here.close()
        there.close()
    counts = msgspec.to_builtins(counted)
    log.audit(operator(), "store copy", source=source, target=target, **counts)
    if output == "json":
        show(output, counts)
    say(f"{counted.rows} rows, {counted.written} of them written now; removed {counted.removed} that {source} no "
        "longer has.")
    if counted.different:
        raise Internal(f"{counted.different} rows of {target} differ from what was written. Stop whatever else writes "
                       "to it, then copy again.")


@contextmanager
def _bar() -> Generator[tuple[Callable[[int | None], None], Callable[[int], None]]]:
    """(set the total, set how many are done) of a progress bar, drawn if standard error is a terminal."""
    if kept("quiet") or not lively(sys.stderr):
        yield lambda total: None, lambda rows: None
        return
    from rich.console import Console  # slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("copy"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                  console=Console(stderr=True, no_color=not coloured(sys.stderr)), transient=True) as bar:
        task = bar.add_task("copy", total=None)
        yield lambda total: bar.update(task, total=total), lambda rows: bar.update(task, completed=rows)
