"""twocloud servers, twocloud parties: the same answers as over HTTP."""

import ipaddress
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from chalicelib import accounts, api, formats, inventory, openapi, parties, query, schedule, settings
from chalicelib.cli.output import Network, cell, deployment, output_option, progress, say, show, table
from chalicelib.errors import PartyError, TwocloudError

_COLUMNS = (("name", "instance_name"), ("id", "instance_id"), ("status", "status"), ("cpu", "cpu_num"),
            ("mem", "mem_size"), ("disk", "disk_size"), ("lan", "lan_ip_set"), ("wan", "wan_ip_set"),
            ("created", "create_at"), ("updated", "update_at"))


class _Answered(TwocloudError):
    """A server's own error, told again. `status` decides the exit code."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status                # type: ignore[misc]


@click.command()
@click.option("--party", required=True, metavar="P", help="The cloud; several with commas; or all.")
@click.option("--tenant", "tenant_id", required=True, metavar="ID", help="The tenant.")
@click.option("--region", required=True, metavar="R",
              help="The party's region code or an alias of it; several with commas; or all.")
@click.option("--from", "f", metavar="N", help="First position, counted from 1.")
@click.option("--to", "t", metavar="N", help="Last position, included.")
@click.option("--view", metavar="basic|full", help="The ten fields, or all.")
@click.option("--status", metavar="WORD", help="Only servers with this status.")
@click.option("--name", metavar="PART", help="Only servers whose name holds this.")
@click.option("--ip", metavar="ADDRESS", help="Only servers with exactly this address.")
@click.option("--max-age", metavar="SECONDS", help="A list this young will do; 0 asks the party.")
@click.option("--on-error", metavar="stale|fail|partial", help="What to do if a party fails.")
@click.option("--changed-since", metavar="TIME", help="Only servers that appeared or changed after it (RFC 3339).")
@click.option("--port", metavar="N", help="Only with -o prometheus: the port of each target.")
@click.option("--address", metavar="lan|wan", help="Only with -o prometheus: which address is the target.")
@click.option("--url", metavar="URL", help="Ask this server with the token in TWOCLOUD_TOKEN; default: no server.")
@click.option("-o", "--output", type=click.Choice(["table", *query.FORMATS]), default="table", show_default=True,
              help="How data is printed.")
def servers(url: str | None, output: str, **asked: str | None) -> None:
    """The servers of one tenant at one party in one region: the API's answer, without HTTP or from a server."""
    pairs = [(name, value) for name, value in asked.items() if value is not None]
    if output not in ("table", "json"):
        pairs.append(("format", output))
    body, told = _ask_server(url, pairs, output) if url else _ask_store(pairs)
    if told:
        say(told)
    if output == "table":
        rows: list[dict[str, Any]] = msgspec.json.decode(body)["vm_servers"]
        table([name for name, _ in _COLUMNS], [[cell(row[key]) for _, key in _COLUMNS] for row in rows])
    else:
        click.echo(body, nl=output not in ("csv", "ndjson"))    # their last line has its end


def _ask_store(pairs: list[tuple[str, str]]) -> tuple[bytes, str]:
    """The answer's body, of any length, and what must be told beside it."""
    asked, here = query.parse(pairs), deployment()
    fleet = inventory.answer(here, asked, api.policy_of(asked, "", here.settings), None,
                             time.monotonic() + inventory.REQUEST_SECONDS)
    written = formats.write(fleet, asked, here.settings.timezone, most=None)
    return written.body, " ".join(filter(None, (
        formats.message(fleet, several=asked.several), _without_address(written.without_address or 0))))


def _without_address(count: int) -> str:
    return f"Without such an address, and so no target: {count} of the servers." if count else ""


def _ask_server(url: str, pairs: list[tuple[str, str]], output: str) -> tuple[bytes, str]:
    import requests  # slow to import

    token = settings.load().token
    if not token:
        raise click.UsageError("Set TWOCLOUD_TOKEN to a token of this server.")
    _check_url(url)
    try:
        answer = requests.get(f"{url.rstrip('/')}/twocloud/servers?{urlencode(pairs)}", auth=(token, ""), timeout=30,
                              allow_redirects=False)
    except requests.RequestException as problem:
        raise Network(f"{url} cannot be asked: {type(problem).__name__}.") from None
    given, is_json = answer.headers, output in ("table", "json")
    is_list = answer.status_code == 200 and "ETag" in given and "X-Request-Id" in given
    if is_list and not is_json and given.get("Content-Type") == formats.MEDIA_TYPES[output]:
        return answer.content, _told_by(given)
    try:
        body = msgspec.json.decode(answer.content)
        if is_list and is_json and "vm_servers" in body:
            return answer.content, body["msg"]
        raise _Answered(answer.status_code, f"{body['msg']} (request id {body['request_id']})")
    except (msgspec.DecodeError, KeyError, TypeError):
        raise Network(f"{url} is no twocloud server; it answered HTTP {answer.status_code}.") from None


def _told_by(headers: Mapping[str, str]) -> str:
    """What formats without room for it leave to the headers: that a list is old, that servers are no targets."""
    failed = re.search(r"detail=(\w+)", headers.get("Cache-Status", ""))
    old = f"This is the last good list, {headers.get('Age', '?')} s old ({failed[1]})." if failed else ""
    return " ".join(filter(None, (old, _without_address(int(headers.get("X-Without-Address", "0"))))))


def _check_url(url: str) -> None:
    try:
        there = urlsplit(url)
        host = there.hostname or ""
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        there, host, loopback = urlsplit("https:" if url.startswith("https:") else ""), url, False
    if not host or not (there.scheme == "https" or (there.scheme == "http" and loopback)):
        raise Network("--url must be https, or http on this machine: a token must not travel in the open.")


@click.command()
@click.option("--party", required=True, metavar="P", help="The cloud; several with commas; or all.")
@click.option("--tenant", "tenant_id", required=True, metavar="ID", help="The tenant.")
@click.option("--region", required=True, metavar="R", help="The region; several with commas; or all.")
@click.option("--since", required=True, metavar="TIME", help="RFC 3339, such as 2026-11-23T08:00:00Z.")
@output_option
def changes(party: str, tenant_id: str, region: str, since: str, output: str) -> None:
    """What appeared, changed (which fields) and vanished since a time, from the kept lists."""
    asked, here = query.parse([("party", party), ("tenant_id", tenant_id), ("region", region),
                               ("changed_since", since)]), deployment()
    assert asked.changed_since is not None
    found, failed = inventory.sources(here, asked, None)
    for part in failed:
        assert part.error
        raise part.error
    rows: list[dict[str, Any]] = []
    for source in found:
        changed = inventory.list_changes(here, source, asked.changed_since)
        where = {"party": source.party, "region": source.region}
        rows += [{"what": "changed" if changed.fields.get(server.id) else "appeared", "id": server.id,
                  "name": server.name, **where, "fields": list(changed.fields.get(server.id, ()))}
                 for server in changed.answer.servers]
        rows += [{"what": "vanished", "id": server.id, "name": server.name, **where, "fields": []}
                 for server in changed.vanished]
    show(output, rows)


@click.command("refresh")
@click.option("--tenant", "tenant_id", metavar="ID", help="Only this tenant's.")
@click.option("--party", metavar="P", help="Only this party's.")
@click.option("--region", metavar="R", help="Only this region's.")
@output_option
def refresh_command(tenant_id: str | None, party: str | None, region: str | None, output: str) -> None:
    """List sources now and keep the lists: the regions that accounts name, and what was asked for in the last month.

    A tenant, a party and a region given together need not be known yet. Ends with 5 if one of them failed.
    """
    here = deployment()
    if tenant_id and party and region:
        wanted = [inventory.source_of(tenant_id, party, region)]
        accounts.find(here.store, tenant_id, party)
    else:
        wanted = [source for source in schedule.known(here)
                  if tenant_id in (None, source.tenant_id) and party in (None, source.party)
                  and source.region in (region or source.region, parties.load(source.party).aliases.get(region or ""))]
    if not wanted:
        say("No source is known: name regions on the account, or give --tenant, --party and --region.")
    results = list(progress(schedule.run(here, wanted), len(wanted), "refresh"))
    results.sort(key=lambda result: (result.source.tenant_id, result.source.party, result.source.region))
    rows = [{"tenant_id": r.source.tenant_id, "party": r.source.party, "region": r.source.region,
             "state": "failed" if r.error else "ok", "count": r.total, "error": r.error.word if r.error else "",
             "msg": r.error.text if r.error else ""} for r in results]
    show(output, rows)
    bad = [result.error for result in results if result.error]
    say(f"{len(rows) - len(bad)} of {len(rows)} lists refreshed.")
    if bad:
        raise PartyError(f"{len(bad)} of {len(rows)} lists could not be refreshed; the last good ones stay.")


@click.command("parties")
@click.argument("name", required=False)
@output_option
def parties_command(name: str | None, output: str) -> None:
    """What each party needs: credential fields, narrowest permission, regions."""
    chosen = [parties.load(known) for known in (parties.names() if name is None else [name])]
    rows = [msgspec.to_builtins(openapi.party_row(party)) for party in chosen]
    if output == "json":
        show(output, rows[0] if name else rows)
    elif name:
        row = rows[0]
        show(output, {**row, "credentials": " or ".join(", ".join(form) for form in row["credentials"]),
                      "regions": [f"{code} ({', '.join(names)})" for code, names in row["regions"].items()]})
    else:
        table(["name", "title", "credentials", "permission"],
              [[row["name"], row["title"], " or ".join(", ".join(form) for form in row["credentials"]),
                ", ".join(row["permissions"])] for row in rows])
