"""The command `twocloud servers`: the API's answer from the store or from a server, in every format."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from ..cloud.calls import CallStats
from ..fleet import query
from ..model import DEFAULT_ACCOUNT
from . import columns, completion, contexts
from .expiring import Expiring
from .output import Duration, Network, deployment, echo, in_options, kept, say, shape_options, table, waiting

if TYPE_CHECKING:
    from .remote import Got

_BASIC = {"name": "instance_name", "id": "instance_id", "cpu": "cpu_num", "mem": "mem_size", "disk": "disk_size",
          "lan": "lan_ip_set", "wan": "wan_ip_set", "status": "status", "created": "create_at", "updated": "update_at"}
_FULL = {**_BASIC, "party": "party", "tenant": "tenant_id", "region": "region", "zone": "zone", "project": "project_id",
         "type": "instance_type", "party_status": "party_status", "lan6": "lan_ipv6_set", "wan6": "wan_ipv6_set",
         "tags": "tags", "seen": "seen_at", "account": "account", "image": "image_id",
         "image_name": "image_name", "os": "os", "vpc": "vpc_id", "subnet": "subnet_id", "groups": "security_group_set",
         "key": "key_name", "charge": "charge_type", "expires": "expires_at", "host": "host_id",
         "console": "console_url"}
_TABLE = ("name", "id", "status", "cpu", "mem", "disk", "lan", "wan", "created", "updated")
_SPARE = ("updated", "created", "disk", "mem", "cpu", "wan")    # left out first on a narrow terminal
_SHAPED = ("table", "csv", "ndjson")
_WATCHED = 10                               # seconds between two queries


def query_options(command: Any) -> Any:
    """Add the options that make up a query; they are the API's parameters."""
    for option in reversed((
        click.option("--party", required=True, metavar="P", shell_complete=completion.parties,
                     help="The cloud, several separated by commas, or all."),
        click.option("--tenant", "tenant_id", required=True, metavar="ID", shell_complete=completion.tenants,
                     help="The tenant, several separated by commas, or all."),
        click.option("--account", metavar="NAME", shell_complete=completion.accounts,
                     help="The tenant's account at the party, several separated by commas, or all (default)."),
        click.option("--region", required=True, metavar="R", shell_complete=completion.regions,
                     help="The party's region code or an alias of it, several separated by commas, or all."),
        click.option("--from", "f", metavar="N", help="First position, counted from 1."),
        click.option("--to", "t", metavar="N", help="Last position, included."),
        click.option("--view", metavar="basic|full", shell_complete=_words("basic", "full"),
                     help="The ten fields, or all."),
        click.option("--status", metavar="WORD", shell_complete=_statuses,
                     help="Only servers with this status, or one of several separated by commas."),
        click.option("--name", metavar="PART", help="Only servers whose name contains this."),
        click.option("--ip", metavar="ADDRESS", help="Only servers with exactly this address."),
        click.option("--tag", metavar="KEY[=VALUE]", help="Only servers with this tag."),
        click.option("--max-age", metavar="SECONDS", help="Accept a snapshot up to this many seconds old; 0 always "
                                                          "queries the cloud."),
        click.option("--on-error", metavar="stale|fail|partial", shell_complete=_words("stale", "fail", "partial"),
                     help="If a party fails: use its snapshot (stale), fail, or leave it out (partial)."),
        click.option("--changed-since", metavar="TIME",
                     help="Only servers that appeared or changed after this time (RFC 3339)."),
        click.option("--list", metavar="ID", help="Only a part of the list with this X-List-Id."),
        click.option("--url", metavar="URL", help="Query this server with the token in TWOCLOUD_TOKEN. Default: the "
                                                  "current context, or the store."),
    )):
        command = option(command)
    return command


def _words(*words: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    return lambda context, parameter, incomplete: [word for word in words if word.startswith(incomplete)]


def _statuses(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from ..model import Status

    return [word for word in Status if word.startswith(incomplete.upper())]


class _Pause(click.ParamType[int]):
    """`10`, `10s`, `5m` -> seconds, at least 2."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = f"{value}s" if str(value).isdigit() else value
        seconds = Duration().convert(text, param, ctx)
        if seconds < 2:
            self.fail("must be at least 2 seconds", param, ctx)
        return seconds


@click.command()
@query_options
@click.option("--port", metavar="N", help="Only with -o prometheus: the port of each target.")
@click.option("--address", metavar="lan|wan", shell_complete=_words("lan", "wan"),
              help="Only with -o prometheus: which address is the target.")
@click.option("-o", "--output", type=click.Choice(["table", *query.FORMATS]), default="table", show_default=True,
              help="Output format.")
@shape_options[0]
@shape_options[1]
@shape_options[2]
@click.option("--expires-within", "within", type=Duration(), metavar="30d",
              help="Only servers that end within this time, or have ended and are still listed, the soonest first.")
@click.option("--watch", type=_Pause(), is_flag=False, flag_value=str(_WATCHED), metavar="[SECONDS]",
              help=f"Query again every {_WATCHED} seconds, or every SECONDS, and mark what changed; -o ndjson prints a "
                   "line for each change. Press Ctrl-C to stop.")
def servers(url: str | None, output: str, within: int | None, watch: int | None, **options: str | None) -> None:
    """List a tenant's servers: the API's answer, from the store or from a server.

    A table on a narrow terminal leaves out columns but never cuts ids; in a file or a pipe it has its full width.
    --columns, --sort and --no-header work with table, csv and ndjson; the other formats equal the API's answer byte
    for byte.
    """
    pairs = [(name, value) for name, value in options.items() if value is not None]
    if within is not None:
        _check_expiring(dict(pairs), output)
    shape = _shape(pairs, output, expiring=within is not None)
    there = contexts.there(url)
    expiring = None if within is None else Expiring(within, None if there else deployment().settings.timezone)
    if watch:
        from .watching import watch as look_again  # not needed without --watch

        if output not in ("table", "ndjson"):
            raise click.UsageError("Use --watch with -o table on a terminal, or with -o ndjson.")
        if "max_age" not in dict(pairs):
            pairs.append(("max_age", str(watch)))
        look_again(lambda: _rows(there, pairs, shape, "json", expiring), watch, shape.columns, _FULL, output)
        return
    if expiring and output == "json":
        whole, warning = _whole(there, pairs, expiring)
        if warning:
            say(in_options(warning))
        echo(msgspec.json.encode(whole))
        return
    if output in ("json", "prometheus", "ansible") or not (output == "table" or shape.wanted or expiring):
        body, warning = ask(there, [*pairs, *([("format", output)] if output != "json" else [])], output)
        if warning:
            say(in_options(warning))
        echo(body, end="" if output in ("csv", "ndjson") else "\n")             # their last line has its end
        return
    rows, warning, _ = _rows(there, pairs, shape, "json" if output == "table" or expiring else "ndjson", expiring)
    if warning:
        say(in_options(warning))
    if output == "table":
        table(rows, _with_accounts(shape.columns, rows), _SPARE)
        return
    names = [_FULL[name] for name in shape.columns]
    written = [{_FULL[name]: row[name] for name in shape.columns} for row in rows]
    if output == "csv":
        from ..http.formats import lines

        echo(b"".join(lines.table(names, written, header=not kept("bare"))), end="")
    else:
        for row in written:
            echo(msgspec.json.encode(row))


# ---------------------------------------------------------------- which columns

@dataclass(frozen=True, slots=True)
class Shape:
    """`columns`: short names. `wanted`: one of the options that shape a list was given. `sort`: as it was given."""

    columns: list[str]
    known: Mapping[str, str]                # any name of a column -> its short name
    sort: str | None
    wanted: bool


def _check_expiring(values: Mapping[str, str], output: str) -> None:
    """Raises UsageError for what does not go together with --expires-within."""
    if output not in ("json", *_SHAPED):
        raise click.UsageError(f"Use --expires-within with json, {', '.join(_SHAPED)}; -o {output} is the API's "
                               "unchanged answer.")
    if values.get("view") == "basic":
        raise click.UsageError("--expires-within needs the full view. Omit --view.")
    if "f" in values or "t" in values:
        raise click.UsageError("--expires-within reads the whole list. Omit --from and --to.")


def _shape(pairs: list[tuple[str, str]], output: str, *, expiring: bool = False) -> Shape:
    """Read --columns and --sort. A column beyond the ten of the basic view adds view=full to the query, and so does
    `expiring`."""
    values = dict(pairs)
    names, sort = kept("columns"), kept("sort")
    wanted = any(kept(name) is not None for name in ("columns", "sort", "bare"))
    if wanted and output not in _SHAPED:
        raise click.UsageError(f"Use --columns, --sort and --no-header with {', '.join(_SHAPED)}; -o {output} is the "
                               "API's unchanged answer.")
    several = any(values[name] == "all" or "," in values[name] for name in ("party", "tenant_id", "region"))
    full = several if "view" not in values else values["view"] == "full"
    fields = _FULL if full or "view" not in values else _BASIC
    known = {**{name: name for name in fields}, **{field: name for name, field in fields.items()}}
    chosen = columns.chosen(names, known) if names is not None else None
    columns.in_order((), sort, known) if sort is not None else None
    named = {*(chosen or ()), *([known[sort.partition(":")[0]]] if sort else [])}
    if "view" not in values and (expiring or not named <= _BASIC.keys()):
        pairs.append(("view", "full"))
    usual = _FULL if full or expiring else _BASIC
    if output == "table":
        tenants = ["tenant"] if values["tenant_id"] == "all" or "," in values["tenant_id"] else []
        accounts = ["account"] if "account" in values else []
        usual = (*tenants, "party", *accounts, "region", *_TABLE) if several and full else _TABLE
        if expiring:
            place = usual.index("id") + 1
            usual = (*usual[:place], "expires", *usual[place:])
    return Shape(chosen or list(usual), known, sort, wanted)


def _with_accounts(names: list[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of a table, with the account where the servers are of named ones, unless columns were chosen."""
    if kept("columns") is not None or "party" not in names or "account" in names:
        return names
    if all(row.get("account", DEFAULT_ACCOUNT) == DEFAULT_ACCOUNT for row in rows):
        return names
    place = names.index("party") + 1
    return [*names[:place], "account", *names[place:]]


def _whole(there: contexts.There | None, pairs: list[tuple[str, str]],
           expiring: Expiring) -> tuple[dict[str, Any], str]:
    """(the answer with only those servers, the warning to print beside it). Raises Network."""
    expiring.ages.clear()
    body, warning = ask(there, pairs, "json", expiring.note)
    try:
        whole: dict[str, Any] = msgspec.json.decode(body)
        whole["vm_servers"], more = expiring.filter(whole["vm_servers"], whole.get("sources", ()), datetime.now(UTC))
    except (KeyError, ValueError):
        raise Network(_OTHER_VERSION) from None
    return whole, " ".join(filter(None, (warning, more)))


_OTHER_VERSION = ("The server's answer lacks fields that this command needs. Compare versions: twocloud "
                  "doctor")


def _rows(there: contexts.There | None, pairs: list[tuple[str, str]], shape: Shape, written: str,
          expiring: Expiring | None = None) -> tuple[list[dict[str, Any]], str, set[tuple[str, str, str, str]]]:
    """(records by the columns' short names, in order; the warning to print beside them; if `written` is json, the
    sources (tenant, party, account, region) that failed)."""
    try:
        if expiring:
            whole, warning = _whole(there, pairs, expiring)
        else:
            body, warning = ask(there, [*pairs, *([("format", written)] if written != "json" else [])], written)
            whole = msgspec.json.decode(body) if written == "json" else {
                "vm_servers": msgspec.json.Decoder(dict[str, Any]).decode_lines(body)}
        rows = [{name: row[field] for name, field in _FULL.items() if field in row or name in shape.columns}
                for row in whole["vm_servers"]]
        missing = {(part.get("tenant_id", ""), part["party"], part.get("account", DEFAULT_ACCOUNT), part["region"])
                   for part in whole.get("sources", ()) if part["state"] == "failed"}
    except (ValueError, KeyError):
        raise Network(_OTHER_VERSION) from None
    return (columns.in_order(rows, shape.sort, shape.known) if shape.sort else rows), warning, missing


# ---------------------------------------------------------------- the answer

def ask(there: contexts.There | None, pairs: list[tuple[str, str]], output: str,
        note: "Callable[[Got], None] | None" = None) -> tuple[bytes, str]:
    """(the answer's body, of any length; the warning to print beside it). `note` gets each response of a server."""
    if there:
        with waiting(lambda: f"waiting for {urlsplit(there.url).hostname}"):
            return _ask_server(there, pairs, output, note)
    stats = CallStats()
    with waiting(lambda: f"querying, {stats.calls} calls so far" if stats.calls else "querying"):
        return ask_store(pairs, stats)


def ask_store(pairs: list[tuple[str, str]], stats: CallStats) -> tuple[bytes, str]:
    from ..fleet import many_sources
    from ..fleet.lookup import Lookup
    from ..http import api, formats

    request, here = query.parse(pairs), deployment()
    lookup = Lookup(here, api.freshness_of(request, "", here.settings), stats=stats, query=request)
    fleet = many_sources.answer(lookup)
    written = formats.write(fleet, request, here.settings.timezone, most=None)
    return written.body, " ".join(filter(None, (
        formats.message(fleet), _without_address(written.without_address or 0))))


def _without_address(count: int) -> str:
    return f"{count} servers have no such address and are no targets." if count else ""


def _ask_server(there: contexts.There, pairs: list[tuple[str, str]], output: str,
                note: "Callable[[Got], None] | None") -> tuple[bytes, str]:
    """The whole list, in parts where it is too long for one answer."""
    from . import in_parts, remote  # slow to import

    def get(part: list[tuple[str, str]]) -> "tuple[Got, str]":
        response, warning = _get(there, part, output)
        if note:
            note(response)
        return response, warning

    try:
        response, warning = get(pairs)
        return response.body, warning
    except remote.Answered as refused:
        if refused.code != "too_large" or output in query.WHOLE_LISTS:
            raise
    return in_parts.read(get, pairs, "json" if output == "table" else output)


def _get(there: contexts.There, pairs: list[tuple[str, str]], output: str) -> "tuple[Got, str]":
    """(the response, the warning to print beside it). Raises Answered, Network."""
    from ..http import formats
    from . import remote

    response = remote.get(there, "/twocloud/servers", urlencode(pairs, errors="surrogateescape"))
    is_list = response.status == 200 and "ETag" in response.headers and "X-Request-Id" in response.headers
    if is_list and output not in ("table", "json"):
        if response.headers.get("Content-Type") != formats.MEDIA_TYPES[output]:
            raise remote.stranger(there, response)
        return response, _warning_in(response.headers)
    body = remote.read_list(there, response)     # errors are JSON in every format
    return response, body["msg"]


def _warning_in(headers: Mapping[str, str]) -> str:
    """The warning that formats without room for it put into headers: a stale list, servers without address."""
    failed = re.search(r"detail=(\w+)", headers.get("Cache-Status", ""))
    old = f"This is a stale snapshot, {headers.get('Age', '?')} s old ({failed[1]})." if failed else ""
    missing = headers.get("X-Without-Address", "0")
    return " ".join(filter(None, (old, _without_address(int(missing) if missing.isdigit() else 0))))
