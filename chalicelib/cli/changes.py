"""The command `twocloud changes`: what appeared, changed and vanished, from the store or from a server."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from . import completion, contexts
from .output import deployment, kept, list_options, say, show, waiting

Pairs = list[tuple[str, str]]
_PATH = "/twocloud/changes"
_PART = 10_000                              # changes that one request to a server asks for
_TOO_LARGE = 413
_COLUMNS = ("what", "id", "name", "party", "region", "fields", "at", "tenant_id", "account", "values")


@click.command()
@click.option("--tenant", "tenant_id", required=True, metavar="ID", shell_complete=completion.tenants,
              help="The tenant, several separated by commas, or all.")
@click.option("--since", required=True, metavar="TIME", help="RFC 3339, such as 2026-11-23T08:00:00Z.")
@click.option("--party", metavar="P", shell_complete=completion.parties,
              help="The cloud, several separated by commas, or all (default).")
@click.option("--account", metavar="NAME", shell_complete=completion.accounts,
              help="The tenant's account at the party, several separated by commas, or all (default).")
@click.option("--region", metavar="R", shell_complete=completion.regions,
              help="The region, several separated by commas, or all (default).")
@click.option("--kind", metavar="KIND", shell_complete=completion.kinds,
              help="Only appeared, changed or vanished, several separated by commas.")
@click.option("--from", "f", metavar="N", help="First change, counted from 1, the oldest.")
@click.option("--to", "t", metavar="N", help="Last change, included.")
@click.option("--url", metavar="URL", help="Query this server with the token in TWOCLOUD_TOKEN. Default: the current "
                                           "context, or the store.")
@list_options
def changes(url: str | None, output: str, **options: str | None) -> None:
    """List what appeared, changed (from what to what) and vanished since a time, oldest first, from the snapshots.

    No cloud is queried, and the first list of a source is no change. The table shows times in UTC, to the second.
    """
    pairs = [(name, value) for name, value in options.items() if value is not None]
    there = contexts.there(url)
    with waiting(lambda: "reading changes"):
        events, warning = _from_server(there, pairs) if there else _from_store(pairs)
    if warning:
        say(warning)
    rows = [_row(event) for event in events]
    if output == "table" and not kept("columns"):
        show(output, [_as_row(row) for row in rows], _table_columns(rows, options["tenant_id"] or ""))
    elif output == "table":
        show(output, [_as_row(row) for row in rows], _COLUMNS)
    else:
        show(output, rows, _COLUMNS)


def _from_store(pairs: Pairs) -> tuple[list[dict[str, Any]], str]:
    whole = _of_store(pairs)
    return whole["changes"], whole["msg"]


def _of_store(pairs: Pairs) -> dict[str, Any]:
    from ..fleet.changes import FROM_SNAPSHOTS, history
    from ..fleet.changes_query import parse_changes
    from ..fleet.lookup import Lookup
    from ..http.formats.events import write_changes

    query, here = parse_changes(pairs), deployment()
    lookup = Lookup(here, FROM_SNAPSHOTS, query=query)
    body = write_changes(history(lookup), query, here.settings.timezone, lookup.arrived, None).body
    return msgspec.json.decode(body, type=dict[str, Any])


def _from_server(there: contexts.There, pairs: Pairs) -> tuple[list[dict[str, Any]], str]:
    """(all changes of the query, in as many parts as they need; the warning to print beside them)."""
    if {"f", "t"} & {name for name, _ in pairs}:
        whole = _ask(there, pairs)
        return whole["changes"], whole["msg"]
    rows, warning = list[dict[str, Any]](), ""
    for part in _parts(there, pairs):
        rows += part["changes"]
        warning = part["msg"]
    return rows, warning


def _parts(there: contexts.There, pairs: Pairs) -> Iterator[dict[str, Any]]:
    from .remote import Answered  # slow to import

    first, size = 1, _PART
    while True:
        try:
            part = _ask(there, [*pairs, ("f", str(first)), ("t", str(first + size - 1))])
        except Answered as refused:
            if refused.status != _TOO_LARGE or size == 1:
                raise
            size //= 2
            continue
        yield part
        if len(part["changes"]) < size:
            return
        first += size


def read_part(there: contexts.There | None, pairs: Pairs) -> dict[str, Any]:
    """The changes of a query, as the API answers them."""
    return _ask(there, pairs) if there else _of_store(pairs)


def _ask(there: contexts.There, pairs: Pairs) -> dict[str, Any]:
    from . import remote

    response = remote.get(there, _PATH, urlencode(pairs, errors="surrogateescape"))
    body = remote.read_json(there, response, _PATH)
    if not isinstance(body.get("msg"), str) or not remote.are_records(body.get("changes"), ("at", "kind", "instance_id",
                                                                                            "party", "region")):
        raise remote.stranger(there, response)
    return body


# ---------------------------------------------------------------- as rows

def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    """`fields`: as the command has always called them; `values`: before and after, under the API's names."""
    from ..http.formats.events import SERVER_FIELDS

    values: dict[str, list[Any]] = event.get("fields") or {}
    return {"what": event["kind"], "id": event["instance_id"], "name": event.get("instance_name"),
            "party": event["party"], "region": event["region"],
            "fields": [SERVER_FIELDS.get(name, name) for name in values], "at": event["at"],
            "tenant_id": event.get("tenant_id"), "account": event.get("account"), "values": values}


def _as_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """For a table: what changed in words, and the time to the second."""
    values = ", ".join(f"{name}: {_word(before)} -> {_word(after)}" for name, (before, after) in row["values"].items())
    return {**row, "at": f"{row['at'][:19]}Z", "fields": values, "values": values}


def _word(value: object) -> str:
    if value is None:
        return "unknown"
    return value if isinstance(value, str) and value else msgspec.json.encode(value).decode()


def _table_columns(rows: Sequence[Mapping[str, Any]], tenant_id: str) -> list[str]:
    tenants = ["tenant_id"] if tenant_id == "all" or "," in tenant_id else []
    accounts = ["account"] if any(row["account"] not in (None, "default") for row in rows) else []
    return ["at", "what", "id", "name", *tenants, "party", *accounts, "region", "fields"]
