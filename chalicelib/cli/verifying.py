"""The command `twocloud verify`: a source listed through us and by the vendor's own client, and a redacted report.

A report holds counts, versions and a date alone: no name, address, id, region or host. As live.json in a party's
folder it raises the party's grade in the documents.
"""

import importlib
import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import click
import msgspec

from .. import __version__, parties
from ..access import accounts
from ..access.accounts import AccountRow
from ..errors import AccountNotFound, PartyDenied, TwocloudError
from ..fleet import organisations, verification
from ..fleet.deployment import Deployment
from ..fleet.lookup import Lookup
from ..fleet.verification import Comparison, Records
from ..model import DEFAULT_ACCOUNT, Account, Member
from ..route import is_loopback
from . import completion
from .output import Identifier, deployment, hint, say, show, waiting
from .terminal import plain

_SECRET = 8                                 # characters of a credential that an error's text may not show
_SHOWN = 50                                 # differences that are printed as a table
_PLACES = ("endpoint", "auth_url", "host")  # what says where a party's server is: an option, and credentials


class FieldCount(msgspec.Struct, forbid_unknown_fields=True):
    compared: int
    equal: int


class MemberCount(msgspec.Struct, forbid_unknown_fields=True, order=True):
    ours: int
    theirs: int
    both: int
    agrees: bool


class Report(msgspec.Struct, forbid_unknown_fields=True):
    """What a user can send in. `place`: `vendor` for the vendor's own hosts, `private` for another one, `loopback` for
    this machine. `reference`: distributions and their versions. `moved`: servers that differ only because they came,
    went or changed meanwhile. `members`: of an account with --discover, each that was compared, by its counts, so that
    their order says nothing. `refused`: how many neither side may list."""

    twocloud: str
    party: str
    date: date
    place: Literal["vendor", "private", "loopback"]
    deep: bool
    reference: dict[str, str]
    python: str
    agrees: bool
    ours: int
    theirs: int
    both: int
    only_ours: int
    only_theirs: int
    moved: int
    fields: dict[str, FieldCount]
    members: list[MemberCount] = []
    refused: int = 0

    @property
    def is_live(self) -> bool:
        """Whether it proves that both lists of a real cloud agreed."""
        agreed = self.agrees and not self.only_ours and not self.only_theirs and all(
            count.compared == count.equal for count in self.fields.values())
        return agreed and self.place != "loopback" and self.both > 0 and len(self.fields) > 2


_decoder = msgspec.json.Decoder(Report)


def read_report(text: bytes, party: str) -> Report:
    """Raises ValueError if it is no such report of this party."""
    report = _decoder.decode(text)
    words = (report.twocloud, report.python, *report.reference, *report.reference.values(), *report.fields)
    if report.party != party or not all(re.fullmatch(r"[A-Za-z0-9._+-]{1,64}", word, re.ASCII) for word in words):
        raise ValueError(f"not a report of {party}")
    return report


class Disagreed(click.ClickException):
    """The two lists differ; the differences were printed already."""

    exit_code = 1


class ReferenceFailed(click.ClickException):
    """The vendor's client failed."""

    exit_code = 5


@click.command()
@click.argument("tenant_id", metavar="TENANT", type=Identifier(), shell_complete=completion.tenants)
@click.argument("party", shell_complete=completion.parties)
@click.option("--account", "name", default=DEFAULT_ACCOUNT, metavar="NAME", shell_complete=completion.accounts,
              help="Which account of the tenant at the party. NAME:ID is one of the members behind it.")
@click.option("--region", type=Identifier(), metavar="R", shell_complete=completion.regions,
              help="The region to list. Default: the account's first, or the party's own.")
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Where to write the report. Default: twocloud-verify-PARTY.json in the current folder.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True,
              help="Output format.")
def verify(tenant_id: str, party: str, name: str, region: str | None, path: Path | None, output: str) -> None:
    """Compare a source's list with the one of the vendor's own client, record by record.

    List the source through twocloud, with that client, and through twocloud again; of an account with --discover, one
    member after the other. Print each difference, and write a report that you can send in: it holds counts, versions
    and the date, but no name, address, id or region. The vendor's client runs here with the account's credentials and
    only reads. Exit code 1: the lists differ.
    """
    description = parties.load(party)
    reference = _reference(party)
    here = deployment()
    row = accounts.find(here.store, tenant_id, party, name)
    door = accounts.opened(row, here.sealer, local=here.settings.local)
    code = description.region(region) if region else (*door.regions, description.home(door))[0]
    opened = [accounts.opened(row, here.sealer, member, local=here.settings.local)
              for member in _members(here, row, name)]
    parts, refused = _compared(here, opened, code, reference)
    comparison = verification.together(parts)
    report = _report(party, door, reference, comparison)
    if row.discover:
        report.members = sorted(MemberCount(it.ours, it.theirs, it.both, it.agrees) for it in parts)
        report.refused = refused
    target = path or Path(f"twocloud-verify-{party}.json")
    _write(target, report)
    if output == "json":
        show("json", {**msgspec.to_builtins(report), "report": str(target), "differences": list(_rows(comparison))})
    else:
        _print(comparison)
        if row.discover:
            click.echo(f"{len(parts)} members compared, {refused} refused to both.")
    hint(f"Report written to {target}. It holds no name, address, id or region; docs/verify.md says where to send it.")
    if not comparison.agrees:
        raise Disagreed(f"The lists differ in {len(comparison.differences)} places.")


def _reference(party: str) -> ModuleType:
    """The module that lists with the vendor's client. Raises UsageError if there is none, or no such client here."""
    package = parties.__name__
    try:
        return importlib.import_module(f"{package}.{party}.reference")
    except ImportError as missing:
        if missing.name == f"{package}.{party}.reference":
            known = ", ".join(name for name in parties.names() if importlib.util.find_spec(
                f"{package}.{name}.reference"))
            raise click.UsageError(f"There is no reference for {party}: twocloud knows no client of its vendor. "
                                   f"Parties with one: {known}.") from None
        wanted = " ".join(packages_of(party))
        raise click.UsageError(f"`twocloud verify` needs the vendor's client (no module {missing.name}): pip install "
                               f"{wanted}") from None


def packages_of(party: str) -> list[str]:
    """What a party's reference needs, read from its text, for it may not be importable; [] if there is none."""
    path = Path(parties.__path__[0], party, "reference.py")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    line = re.search(r"^PACKAGES = \((.*?)\)$", text, re.M | re.S)
    return re.findall(r'"([^"]+)"', line[1]) if line else []


# ---------------------------------------------------------------- both lists

def _members(here: Deployment, row: AccountRow, name: str) -> list[Member | None]:
    """Those behind a door, or the one that is named; [None]: the account is no door. Raises AccountNotFound."""
    _, _, wanted = name.partition(":")
    if not row.discover:
        if wanted:
            raise AccountNotFound()
        return [None]
    with waiting(lambda: "looking up the members"):
        behind = organisations.look_up(Lookup(here), row, now=True).open()
    members: list[Member | None] = [member for member in behind if wanted in ("", member.id)]
    if wanted and not members:
        raise AccountNotFound()
    return members


def _compared(here: Deployment, opened: list[Account], region: str, reference: ModuleType,
              ) -> tuple[list[Comparison], int]:
    """Each account's comparison, and how many accounts neither side may list: not all of them, or that is raised."""
    parts: list[Comparison] = []
    refused: list[PartyDenied] = []
    for number, account in enumerate(opened, 1):
        place = f" of member {number} of {len(opened)}" if account.member else ""
        try:
            with waiting(lambda place=place: f"listing three times{place}"):
                comparison = verification.verify(here, account, region, lambda account, region: limited(
                    reference.list_servers(account, region), account, reference))
        except (TwocloudError, click.ClickException):
            raise
        except NotImplementedError as limit:
            raise click.UsageError(f"The reference client cannot list this account: {limit}.") from None
        except Exception as problem:
            raise ReferenceFailed(f"The vendor's client failed{place}: {_line(problem, account)}") from None
        if isinstance(comparison, Comparison):
            parts.append(comparison)
            continue
        refused.append(comparison.ours)
        if account.member:
            say(f"{account.name}: refused to twocloud. {comparison.ours.text} The vendor's client failed too: "
                f"{_line(comparison.theirs, account)}")
    if refused and not parts:
        raise refused[0]
    return parts, len(refused)


def limited(records: Records, account: Account, reference: ModuleType) -> Records:
    """The records of the account's project. A reference with IN_PROJECT lists no others, one with BY_PROJECT says of
    each where it is. Raises NotImplementedError at all others."""
    project = account.project
    if project is None or getattr(reference, "IN_PROJECT", False) or project in account.credentials.values():
        return records
    if not getattr(reference, "BY_PROJECT", False):
        raise NotImplementedError("it does not say in which project a server is; put an account without --project, and "
                                  "verify that")
    return {key: record for key, record in records.items() if (record["project_id"] or "default") == project}


def _line(problem: Exception, account: Account) -> str:
    """Its type and first line, without the account's secrets: a client may quote what it sent."""
    text = str(problem).strip().partition("\n")[0]
    for secret in sorted(map(str, account.secrets.values()), key=len, reverse=True):
        if len(secret) >= _SECRET:
            text = text.replace(secret, "…")
    return f"{type(problem).__name__}: {plain(text)[:300]}"


# ---------------------------------------------------------------- the report

def _report(party: str, account: Account, reference: ModuleType, comparison: Comparison) -> Report:
    versions = {name: importlib.metadata.version(name) for name in reference.PACKAGES}
    return Report(
        twocloud=__version__, party=party, date=datetime.now(UTC).date(), place=place_of(account), deep=account.deep,
        reference=versions, python=platform.python_version(), agrees=comparison.agrees, ours=comparison.ours,
        theirs=comparison.theirs, both=comparison.both, only_ours=comparison.only_ours,
        only_theirs=comparison.only_theirs, moved=comparison.moved,
        fields={name: FieldCount(it.compared, it.equal) for name, it in sorted(comparison.fields.items())})


def place_of(account: Account) -> Literal["vendor", "private", "loopback"]:
    hosts = [account.endpoint, *(account.credentials.get(name) for name in _PLACES)]
    own = [host for host in hosts if host]
    if any(is_loopback(urlsplit(host if "//" in host else f"//{host}").hostname or "") for host in own):
        return "loopback"
    return "private" if own else "vendor"


def _write(path: Path, report: Report) -> None:
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    except OSError as problem:
        raise click.UsageError(f"{path} cannot be written: {problem.strerror}.") from None


# ---------------------------------------------------------------- on the screen

def _rows(comparison: Comparison) -> Iterable[dict[str, Any]]:
    for it in comparison.differences:
        yield {"id": it.id, "field": it.name or "(server)", "twocloud": _word(it.ours), "reference": _word(it.theirs)}


def _word(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, (set, frozenset)):
        return ",".join(sorted(map(str, cast(Collection[object], value))))
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, cast(Collection[object], value)))
    return str(value)


def _print(comparison: Comparison) -> None:
    rows = list(_rows(comparison))
    if rows:
        show("table", rows[:_SHOWN])
        if len(rows) > _SHOWN:
            say(f"{len(rows) - _SHOWN} more differences; -o json prints all.")
        click.echo()
    show("table", [{"field": name, "compared": it.compared, "equal": it.equal}
                   for name, it in sorted(comparison.fields.items())])
    click.echo()
    click.echo(f"twocloud lists {comparison.ours} servers, the reference {comparison.theirs}; {comparison.both} are in "
               f"both lists. {comparison.moved} changed meanwhile.")
