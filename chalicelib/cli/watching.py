"""--watch: repeat a query and show what changed since the last answer."""

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import msgspec

from ..errors import PartyError, RateLimited, TwocloudError
from ..model import DEFAULT_ACCOUNT
from .output import Network, echo, when
from .terminal import draw, lively, plain, screen, wrapped

Row = dict[str, Any]
Sources = Collection[tuple[str, str, str, str]]         # (tenant, party, account, region); region "all": all of them
Ask = Callable[[], tuple[list[Row], str, Sources]]
_MARKS = {"appeared": "+", "changed": "~", "vanished": "-"}
_LONGEST = 300                              # seconds between two tries while the query fails
_TIMELESS = ("seen",)                       # differs each time and is no change of the server


@dataclass(slots=True)
class _State:
    """The last list, when it came (Unix time, 0.0: never), and how many queries in a row failed since."""

    rows: dict[tuple[object, ...], Row] = field(default_factory=dict[tuple[object, ...], Row])
    at: float = 0.0
    failures: int = 0


def watch(ask: Ask, every: int, names: Sequence[str], fields: Mapping[str, str], output: str) -> None:
    """Repeat the query until Ctrl-C, or until it is refused. `ask` returns (rows, warning, sources that are missing
    from them). `names`: the columns; `fields`: what ndjson calls them.

    A failure of the first query is raised. Later failures double the pause, or make it as long as Retry-After says.
    """
    drawing = output == "table"
    if drawing and not lively(sys.stdout):
        raise click.UsageError("--watch with -o table needs a terminal. Use -o ndjson, which prints a line for each "
                               "change.")
    state = _State()
    while True:
        pause, now, failure, warning = float(every), time.time(), "", ""
        rows, before = list[Row](), state.rows
        try:
            rows, warning, missing = ask()
        except (TwocloudError, Network) as error:
            if not before and not state.at:
                raise
            failure, pause = _why(error), _pause(error, every, state)
            state.failures += 1
        else:
            listed = {_key(row): row for row in rows}
            state.rows, state.failures = {**listed, **_of_missing_sources(before, listed, missing)}, 0
        changes = [] if failure or not state.at else list(_changes(before, state.rows))
        if drawing:
            _draw(state, names, changes, failure or warning, now, pause)
        else:
            first = [] if state.at or failure else [("listed", row, list[str]()) for row in rows]
            _print([*first, *changes], failure, warning, now, {name: fields[name] for name in names}, fields)
        if not failure:
            state.at = now
        time.sleep(pause)


def _why(error: Exception) -> str:
    """The text of a temporary failure. Raises any other."""
    if isinstance(error, TwocloudError) and not isinstance(error, PartyError) and error.status < 500 \
            and error.status != 429:
        raise error                         # such as a revoked token, a removed account
    return error.text if isinstance(error, TwocloudError) else error.format_message() if isinstance(
        error, click.ClickException) else str(error)


def _pause(error: Exception, every: int, state: _State) -> float:
    wanted = error.retry_after if isinstance(error, PartyError | RateLimited) else getattr(error, "retry_after", None)
    return max(every, wanted or 0.0, min(_LONGEST, every * 2 ** min(state.failures, 10)))


def _key(row: Row) -> tuple[object, ...]:
    return (*_source(row, row.get("region")), row["id"])


def _source(row: Row, region: object) -> tuple[object, ...]:
    return row.get("tenant"), row.get("party"), row.get("account", DEFAULT_ACCOUNT), region


def _of_missing_sources(before: Mapping[tuple[object, ...], Row], listed: Collection[tuple[object, ...]],
                        missing: Sources) -> dict[tuple[object, ...], Row]:
    """Rows that may still exist: their source did not answer, or the view does not name their source."""
    return {key: row for key, row in before.items() if missing and key not in listed and (
        "region" not in row or not {_source(row, row["region"]), _source(row, "all"), _source(
            {**row, "account": str(row.get("account", "")).partition(":")[0]}, "all")}.isdisjoint(missing))}


def _changes(before: Mapping[tuple[object, ...], Row], after: Mapping[tuple[object, ...], Row]) -> list[
        tuple[str, Row, list[str]]]:
    changes = list[tuple[str, Row, list[str]]]()
    for key, row in after.items():
        if key not in before:
            changes.append(("appeared", row, []))
        elif fields := [name for name in row if name not in _TIMELESS and row[name] != before[key].get(name)]:
            changes.append(("changed", row, fields))
    return changes + [("vanished", row, []) for key, row in before.items() if key not in after]


# ---------------------------------------------------------------- shown

def _print(changes: Sequence[tuple[str, Row, list[str]]], failure: str, warning: str, now: float,
           names: Mapping[str, str], fields: Mapping[str, str]) -> None:
    if failure or warning:
        echo(msgspec.json.encode({"at": when(int(now)), "event": "failed" if failure else "warning",
                                  "msg": failure or warning}))
    for what, row, other in changes:
        echo(msgspec.json.encode({"at": when(int(now)), "event": what,
                                  "fields": [fields[name] for name in other],
                                  "server": {field: row[name] for name, field in names.items() if name in row}}))
    sys.stdout.flush()


def _draw(state: _State, names: Sequence[str], changes: Sequence[tuple[str, Row, list[str]]], warning: str, now: float,
          pause: float) -> None:
    """Redraw the whole screen; lines that do not fit are counted."""
    to = screen()
    width, height = to.width or 80, to.height or 24
    marks = {_key(row): _MARKS[what] for what, row, _ in changes}
    gone = [row for what, row, _ in changes if what == "vanished"]
    rows = [{**row, "": marks.get(_key(row), " ")} for row in [*state.rows.values(), *gone]]
    counts = ", ".join(f"{len(these)} {what}" for what in _MARKS if (these := [c for c in changes if c[0] == what]))
    head = f"{time.strftime('%H:%M:%S', time.localtime(now))}  {len(state.rows)} servers" + (
        f", {counts}" if counts else "") + f"; next query in {pause:.0f} s, Ctrl-C to stop"
    top = wrapped(plain(head), width)
    if warning:
        old = f"This list is from {time.strftime('%H:%M:%S', time.localtime(state.at))}. " if state.failures else ""
        lines = wrapped(plain(f"! {old}{warning}"), width)
        top += [click.style(line, fg="yellow") for line in lines] if to.colour else lines
    body, _ = draw(rows, ["", *names], to, spare=("updated", "created", "disk", "mem", "cpu", "wan"))
    room = max(2, height - len(top) - 1)
    if len(body) > room:
        body = [*body[:room - 1], f"… {len(body) - room + 1} more lines; filter the list or enlarge the terminal to "
                                  "see them"]
    written = "".join(f"{line}\x1b[K\r\n" for line in [*top, *body])
    click.echo(f"\x1b[H{written}\x1b[J", nl=False, color=True)
    sys.stdout.flush()
