"""twocloud apply."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from .. import log, settings
from ..access import declared
from ..errors import InvalidParameter, TwocloudError
from .output import Duration, deployment, operator, output_option, say, show

_MARKS = {"create": "+", "change": "~", "replace": "!", "remove": "-"}
_PAUSE = "10s"


@click.command()
@click.option("-f", "--file", "source", metavar="F", help="The declaration, in YAML or JSON; -: standard input.")
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@click.option("--prune", is_flag=True, help="Remove what this declaration made and declares no more.")
@click.option("--watch", "pause", type=Duration(), is_flag=False, flag_value=_PAUSE, metavar="[TIME]",
              help=f"Stay, look for changes of the file and of the secrets that it names every {_PAUSE} or every TIME, "
                   "and apply them.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the file and end.")
@output_option
def apply(source: str | None, dry_run: bool, prune: bool, pause: int | None, schema: bool, output: str) -> None:
    """Make accounts and users as a file declares them. A second run changes nothing.

    The file holds no secrets: it names the files and variables that hold them. Everything is checked before anything
    changes. An account whose credentials alone differ keeps its snapshots; one whose settings differ is replaced, and
    its snapshots and their history are dropped. Only what this declaration made is ever removed, and only with --prune.
    """
    if schema:
        click.echo(declared.schema().decode(), nl=False)
        return
    if source is None:
        raise click.UsageError("Name the declaration with --file; -: standard input.")
    if pause is None:
        _apply(_text(source), _place(source), dry_run, prune, output)
        return
    if source == "-" or dry_run or output == "json":
        raise click.UsageError("--watch needs a file, and goes neither with --dry-run nor with -o json.")
    if pause < 1:
        raise click.UsageError("--watch must be at least 1s.")
    from ..http.serve import until_stopped  # the other uses need no web server

    with until_stopped():
        _watch(source, pause, prune)


def _watch(source: str, pause: int, prune: bool) -> None:
    """Apply the file at the start and whenever it or a file that it names has changed. A problem is logged once, until
    there is another; the next look tries again."""
    place = _place(source)
    applied, last = "", ""
    while True:
        problem = ""
        try:
            text = _text(source)
            fingerprint = declared.fingerprint(text, place.folder)
            if fingerprint != applied:
                _apply(text, place, False, prune, "table")
                applied = fingerprint
        except click.UsageError as wrong:
            problem = wrong.message
        except Exception as failure:        # the store is out of reach, …
            problem = failure.text if isinstance(failure, TwocloudError) else f"{type(failure).__name__}: {failure}"
        if problem and problem != last:
            say(f"Not applied: {problem}")
        last = problem
        time.sleep(pause)


def _place(source: str) -> declared.Place:
    here = deployment()
    return declared.Place(here.store, here.sealer, here.clock, settings.variable,
                          Path() if source == "-" else Path(source).parent, here.settings.local)


def _apply(text: str, place: declared.Place, dry_run: bool, prune: bool, output: str) -> None:
    try:
        declaration = declared.read(text)
        steps = declared.plan(declaration, place)
    except InvalidParameter as problem:
        raise click.UsageError(problem.text) from None
    if not dry_run:
        for step in steps:
            if step.action != "none" and (prune or not step.prunes):
                step.run()
                log.audit(operator(), "apply", declaration=declaration.name, kind=step.kind, name=step.name,
                          action=step.action, fields=list(step.fields))
        if any(step.action in ("replace", "change", "remove") for step in steps):
            place.store.scrub()
    _print(steps, dry_run, prune, output)


def _text(source: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as problem:
        raise click.UsageError(f"{source}: {problem.strerror}.") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{source} is no UTF-8 text.") from None


def _print(steps: list[declared.Step], dry_run: bool, prune: bool, output: str) -> None:
    unpruned = [step for step in steps if step.prunes and not prune]
    done = [step for step in steps if step.action != "none" and step not in unpruned]
    if output == "json":
        rows: list[dict[str, Any]] = [{
            "kind": step.kind, "name": step.name, "action": step.action, "fields": list(step.fields),
            "applied": not dry_run and step in done} for step in steps]
        show(output, rows)
        return
    for step in done:
        differs = f" ({', '.join(step.fields)})" if step.fields else ""
        warning = "; its snapshots and their history go" if step.action == "replace" and dry_run else ""
        click.echo(f"{_MARKS[step.action]} {step.action} {step.kind} {step.name}{differs}{warning}")
    unchanged = sum(step.action == "none" for step in steps)
    say(f"{len(done)} {'to change' if dry_run else 'changed'}, {unchanged} unchanged.")
    if unpruned:
        say(f"{len(unpruned)} declared no more: {', '.join(f'{step.kind} {step.name}' for step in unpruned)}. "
            "Pass --prune to remove them.")
