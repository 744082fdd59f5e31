"""twocloud servers, twocloud parties: the same answers as over HTTP."""

import ipaddress
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from chalicelib import formats, inventory, openapi, parties, query, settings
from chalicelib.cli.output import Network, cell, deployment, output_option, show, table
from chalicelib.errors import TwocloudError
from chalicelib.inventory import Filter

_COLUMNS = (("name", "instance_name"), ("id", "instance_id"), ("status", "status"), ("cpu", "cpu_num"),
            ("mem", "mem_size"), ("disk", "disk_size"), ("lan", "lan_ip_set"), ("wan", "wan_ip_set"),
            ("created", "create_at"), ("updated", "update_at"))


class _Answered(TwocloudError):
    """A server's own error, told again. `status` decides the exit code."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status                # type: ignore[misc]


@click.command()
@click.option("--party", required=True, metavar="P", help="The cloud.")
@click.option("--tenant", "tenant_id", required=True, metavar="ID", help="The tenant.")
@click.option("--region", required=True, metavar="R", help="The party's region code or an alias of it.")
@click.option("--from", "f", metavar="N", help="First position, counted from 1.")
@click.option("--to", "t", metavar="N", help="Last position, included.")
@click.option("--view", metavar="basic|full", help="The ten fields, or all.")
@click.option("--status", metavar="WORD", help="Only servers with this status.")
@click.option("--name", metavar="PART", help="Only servers whose name holds this.")
@click.option("--ip", metavar="ADDRESS", help="Only servers with exactly this address.")
@click.option("--max-age", metavar="SECONDS", help="A list this young will do; 0 asks the party.")
@click.option("--on-error", metavar="stale|fail", help="What to do if the party fails.")
@click.option("--url", metavar="URL", help="Ask this server with the token in TWOCLOUD_TOKEN; default: no server.")
@output_option
def servers(url: str | None, output: str, **asked: str | None) -> None:
    """The servers of one tenant at one party in one region: the API's answer, without HTTP or from a server."""
    pairs = [(name, value) for name, value in asked.items() if value is not None]
    body = _ask_server(url, pairs) if url else _ask_store(pairs)
    if output == "json":
        click.echo(body.decode())
        return
    rows: list[dict[str, Any]] = msgspec.json.decode(body)["vm_servers"]
    table([name for name, _ in _COLUMNS], [[cell(row[key]) for _, key in _COLUMNS] for row in rows])


def _ask_store(pairs: list[tuple[str, str]]) -> bytes:
    wanted = query.parse(pairs)
    source = inventory.source_of(wanted.tenant_id, wanted.party, wanted.region)
    found = inventory.list_servers(deployment(), source, wanted.window, Filter(wanted.status, wanted.name, wanted.ip))
    return formats.list_json(formats.rows(found, wanted.view, deployment().settings.timezone))


def _ask_server(url: str, pairs: list[tuple[str, str]]) -> bytes:
    import requests  # slow to import

    token = settings.load().token
    if not token:
        raise click.UsageError("Set TWOCLOUD_TOKEN to a token of this server.")
    _check_url(url)
    try:
        answer = requests.get(f"{url.rstrip('/')}/twocloud/servers?{urlencode(pairs)}", auth=(token, ""), timeout=30,
                              allow_redirects=False, headers={"Accept": "application/json"})
    except requests.RequestException as problem:
        raise Network(f"{url} cannot be asked: {type(problem).__name__}.") from None
    try:
        body = msgspec.json.decode(answer.content)
        if answer.status_code == 200 and "vm_servers" in body:
            return answer.content
        raise _Answered(answer.status_code, f"{body['msg']} (request id {body['request_id']})")
    except (msgspec.DecodeError, KeyError, TypeError):
        raise Network(f"{url} is no twocloud server; it answered HTTP {answer.status_code}.") from None


def _check_url(url: str) -> None:
    try:
        there = urlsplit(url)
        host = there.hostname or ""
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        there, host, loopback = urlsplit("https:" if url.startswith("https:") else ""), url, False
    if not host or not (there.scheme == "https" or (there.scheme == "http" and loopback)):
        raise Network("--url must be https, or http on this machine: a token must not travel in the open.")


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
