"""The commands `twocloud refresh` and `twocloud parties`."""

import click
import msgspec

from .. import parties
from ..errors import PartyError
from ..fleet import query, regions, schedule
from ..fleet.lookup import Lookup
from ..http import openapi
from . import completion
from .output import deployment, hint, kept, list_options, progress, say, show


@click.command("refresh")
@click.option("--tenant", "tenant_id", metavar="ID", shell_complete=completion.tenants,
              help="Only this tenant's.")
@click.option("--party", metavar="P", shell_complete=completion.parties, help="Only this party's.")
@click.option("--account", "name", metavar="NAME", shell_complete=completion.accounts,
              help="Only this account's, or a discovered member's (NAME:ID).")
@click.option("--region", metavar="R", shell_complete=completion.regions, help="Only this region's.")
@list_options
def refresh_command(tenant_id: str | None, party: str | None, name: str | None, region: str | None,
                    output: str) -> None:
    """List sources now and save the snapshots: regions that accounts name, and those queried in the last month.

    With --tenant, --party and --region together you can also list a source for the first time. Exit code 5: a source
    failed.
    """
    here = deployment()
    if party:
        parties.load(party)                 # a name that was mistyped would refresh nothing, without a word
    if tenant_id and party and region:
        pairs = [("tenant_id", tenant_id), ("party", party), ("region", region), ("account", name or "all")]
        wanted, failed = regions.sources(Lookup(here), query.parse(pairs))
        for error in failed.values():
            raise error
    else:
        wanted = [source for source in schedule.known(here)
                  if tenant_id in (None, source.tenant_id) and party in (None, source.party)
                  and name in (None, source.account, source.account.partition(":")[0])
                  and source.region in (region or source.region, parties.load(source.party).aliases.get(region or ""))]
    if not wanted:
        say("No source to refresh. Give --tenant, --party and --region, or name regions on the account.")
    results = list(progress(schedule.run(here, wanted), len(wanted), "refresh"))
    results.sort(key=lambda result: result.source.order)
    rows = [{"tenant_id": r.source.tenant_id, "party": r.source.party, "account": r.source.account,
             "region": r.source.region, "state": "failed" if r.error else "ok", "count": r.total,
             "error": r.error.code if r.error else "", "msg": r.error.text if r.error else ""} for r in results]
    show(output, rows, ("tenant_id", "party", "account", "region", "state", "count", "error", "msg"))
    bad = [result.error for result in results if result.error]
    hint(f"{len(rows) - len(bad)} of {len(rows)} sources refreshed.")
    if bad:
        raise PartyError(f"{len(bad)} of {len(rows)} sources could not be refreshed; their last snapshots stay.")


@click.command("parties")
@click.argument("name", required=False, shell_complete=completion.parties)
@list_options
def parties_command(name: str | None, output: str) -> None:
    """Show what each party needs: credential fields, narrowest permission, regions.

    A party is a cloud as the API names it.
    """
    chosen = [parties.load(known) for known in (parties.names() if name is None else [name])]
    rows = [msgspec.to_builtins(openapi.party_row(party)) for party in chosen]
    if name and output == "json":
        show(output, rows[0])
    elif name:
        row = rows[0]
        if output != "table" or kept("columns") or kept("sort"):
            raise click.UsageError("For one party, use -o table without --columns and --sort, or -o json.")
        show(output, {**row, "credentials": " or ".join(", ".join(form) for form in row["credentials"]),
                      "regions": [f"{code} ({', '.join(names)})" for code, names in row["regions"].items()]})
    elif output == "json":
        show(output, rows)
    else:
        show(output, [{"name": row["name"], "title": row["title"], "credentials": " or ".join(
            ", ".join(form) for form in row["credentials"]), "permission": ", ".join(row["permissions"])}
            for row in rows])
