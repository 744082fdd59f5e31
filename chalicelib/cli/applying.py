"""twocloud apply."""

import sys
from pathlib import Path
from typing import Any

import click

from .. import log, settings
from ..access import declared
from ..errors import InvalidParameter
from .output import deployment, operator, output_option, say, show

_MARKS = {"create": "+", "change": "~", "replace": "!", "remove": "-"}


@click.command()
@click.option("-f", "--file", "source", metavar="F", help="The declaration, in YAML or JSON; -: standard input.")
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@click.option("--prune", is_flag=True, help="Remove what this declaration made and declares no more.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the file and end.")
@output_option
def apply(source: str | None, dry_run: bool, prune: bool, schema: bool, output: str) -> None:
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
    here = deployment()
    place = declared.Place(here.store, here.sealer, here.clock, settings.variable,
                           Path() if source == "-" else Path(source).parent, here.settings.local)
    try:
        declaration = declared.read(_text(source))
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
            here.store.scrub()
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
