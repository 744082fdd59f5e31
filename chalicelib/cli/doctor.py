"""The command `twocloud doctor`: check what could be wrong, one thing after the other, and say what to do."""

import os
import platform
import shutil
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from .. import __version__, files, settings
from ..access import accounts, users
from ..cloud import sockets
from ..cloud.calls import CallStats
from ..errors import AccountNotFound, InvalidParameter, PartyError, SettingsError, TwocloudError
from ..fleet import schedule
from ..fleet.check import check_account
from ..fleet.deployment import trusted_authorities
from ..fleet.party_call import open_account
from ..route import Proxy, parse_proxy
from ..storage import snapshots, sqlite
from ..storage.store import shown
from . import contexts
from .authorities import authorities_in
from .output import account_arguments, deployment, echo, output_option, waiting
from .terminal import coloured_word, plain, screen, wrapped

if TYPE_CHECKING:
    from ..fleet.deployment import Deployment

_SECONDS = 20.0                             # for all accounts together
_PROXY_SECONDS = 5.0                        # for a connection to a proxy
_SOON = timedelta(days=30)
_SKEW = 60                                  # seconds that a clock may differ; parties refuse at about 300
_FREE = 100 * 1024 * 1024                   # bytes of disk below which a store is in danger


@dataclass(frozen=True, slots=True)
class Finding:
    """`state`: ok, warn or fail. `todo`: what to do about it, "" if nothing."""

    check: str
    state: str
    text: str
    todo: str = ""


class Unwell(click.ClickException):
    """A check failed; its finding was printed already."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        pass


@click.command()
@click.option("--url", metavar="URL", help="Check this server over HTTP, with the token in TWOCLOUD_TOKEN.")
@click.option("--offline", is_flag=True, help="Make no network calls, neither to parties nor to a server.")
@output_option
def doctor(url: str | None, offline: bool, output: str) -> None:
    """Check settings, store, key, clock, accounts and snapshots, and say what to do. Exit code 1: a check failed.

    Doctor changes nothing and creates nothing; it makes one cheap signed call for each account. With a server (--url
    or a context) it checks connection, TLS, version, health, clock and token instead.
    """
    there = None
    with suppress(SettingsError):           # of the contexts file: _here reports it
        there = contexts.there(url)
    checks = _server(there, offline) if there else _here(offline)
    findings = list(checks if output == "json" else _shown(checks))
    if output == "json":
        echo(msgspec.json.encode(findings))
    bad = sum(finding.state == "fail" for finding in findings)
    if output == "table":
        warned = sum(finding.state == "warn" for finding in findings)
        click.echo(f"{len(findings)} checks: {bad} failed, {warned} with warnings.")
    if bad:
        raise Unwell("")


def _shown(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Print each finding as it comes, with what to do below it."""
    to = screen()
    for finding in findings:
        state = coloured_word(f"{finding.state:<4}", colour=to.colour)
        for n, line in enumerate(wrapped(plain(finding.text), (to.width or 10_000) - 21)):
            lead = f"{state}  {finding.check:<13}" if n == 0 else " " * 19
            click.echo(f"{lead}  {line}", color=True)
        for line in wrapped(plain(finding.todo), (to.width or 10_000) - 24) if finding.todo else ():
            click.echo(f"{'':19}  -> {line}")
        yield finding


# ---------------------------------------------------------------- this machine

def _here(offline: bool) -> Iterator[Finding]:
    yield Finding("program", "ok", f"twocloud {__version__}, Python {platform.python_version()}, "
                                   f"{platform.system()} {platform.machine()}")
    yield _contexts_file()
    try:
        loaded = settings.load()
    except SettingsError as problem:
        yield Finding("settings", "fail", problem.text, "Correct it; docs/settings.md lists the settings.")
        return
    yield Finding("settings", "ok", f"store {shown(loaded.store)}, key {loaded.key}, times in {loaded.timezone.key}")
    if loaded.local:
        yield Finding("local", "warn", "TWOCLOUD_LOCAL=1 allows accounts to use plain http on this machine.",
                      "Unset it if this store holds real accounts.")
    if loaded.ca_file:
        try:
            yield _authorities(loaded.ca_file, trusted_authorities(loaded.ca_file))
        except SettingsError as problem:
            yield Finding("authorities", "fail", problem.text, "Correct TWOCLOUD_CA_FILE, or unset it.")
            return
    if loaded.ignored_proxy and not loaded.proxy:
        yield Finding("proxy", "ok", f"{loaded.ignored_proxy} is set but not used. If parties are behind it, set "
                                     "TWOCLOUD_PROXY.")
    if loaded.proxy and not offline:
        yield _proxy("TWOCLOUD_PROXY", loaded.proxy)
    yield from _store_file(loaded.store)
    yield from _key_file(loaded)
    if loaded.store.startswith("sqlite:") and not Path(loaded.store.removeprefix("sqlite:///")).is_file():
        return
    try:
        here = deployment()
    except SettingsError as problem:
        yield Finding("store", "fail", problem.text, "Correct TWOCLOUD_STORE, or restore the store from a backup.")
        return
    try:
        yield from _in_store(here, offline)
    except Exception as problem:            # a broken store may fail anywhere, and is what doctor must report
        yield Finding("store", "fail", f"{type(problem).__name__}: {problem}",
                      "Check its folder, permissions and disk, or restore it from a backup.")


def _authorities(name: str, pem: str) -> Finding:
    """Whose certificates they are, and the first that expires."""
    certificates = authorities_in(pem)
    first, now = min(certificates, key=lambda it: it.expires_at), datetime.now(UTC)
    text = f"{name}: {', '.join(it.subject for it in certificates)}"
    if first.expires_at <= now:
        return Finding("authorities", "fail", f"{text}. {first.subject} expired on {first.expires_at:%Y-%m-%d}.",
                       "Replace it by the authority's present certificate.")
    if first.expires_at <= now + _SOON:
        return Finding("authorities", "warn", f"{text}. {first.subject} expires on {first.expires_at:%Y-%m-%d}.",
                       "Add the authority's next certificate.")
    return Finding("authorities", "ok", f"{text}, until {first.expires_at:%Y-%m-%d}")


def _proxy(name: str, proxy: Proxy) -> Finding:
    try:
        sockets.reach(proxy, _PROXY_SECONDS)
    except PartyError as failure:
        return Finding("proxy", "fail", f"{name}: {proxy.url}. {failure.text}", "Correct it, or start the proxy.")
    return Finding("proxy", "ok", f"{name}: {proxy.url} accepts connections")


def _routes(rows: list[accounts.AccountRow], offline: bool) -> Iterator[Finding]:
    """The authorities, proxies and plain http of accounts."""
    proxies = dict[str, Proxy]()
    for row in rows:
        name = account_arguments(row.tenant_id, row.party, row.account)
        if row.authorities:
            yield _authorities(name, row.authorities)
        if row.allow_http:
            yield Finding("plain http", "warn", f"{name}: --allow-http, so credentials may travel unencrypted.",
                          f"If the cloud has https, store it without: twocloud account put --replace {name}")
        if row.proxy:
            with suppress(InvalidParameter):
                proxies.setdefault(row.proxy, parse_proxy(name, row.proxy))
    if proxies and not offline:
        with ThreadPoolExecutor(16, thread_name_prefix="twocloud-doctor") as pool:
            yield from pool.map(partial(_proxy, "accounts"), proxies.values())


def _contexts_file() -> Finding:
    path = settings.client().config
    try:
        file = contexts.read(path)
    except SettingsError as problem:
        return Finding("contexts", "fail", problem.text)
    return Finding("contexts", "ok", f"{len(file.contexts)} in {path}, current: {file.current or contexts.LOCAL}"
                   if file.contexts else "none; commands use the store on this machine")


def _store_file(url: str) -> Iterator[Finding]:
    if not url.startswith("sqlite:///"):
        return
    path = Path(url.removeprefix("sqlite:///"))
    if not path.is_file():
        yield Finding("store", "warn", f"{path.absolute()} does not exist yet.",
                      "It is created on first use. If you expected a store, check the current folder and "
                      "TWOCLOUD_STORE.")
        return
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.exists() and files.is_exposed(file):
            mode = stat.S_IMODE(file.stat().st_mode)
            yield Finding("store", "fail", f"Other users can access {file} (mode {mode:04o}).", f"chmod 600 {file}")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield Finding("store", "fail", f"{path} or its folder is not writable.", "Run the command as its owner.")
    free = shutil.disk_usage(path.parent).free
    state = "ok" if free >= _FREE else "fail"
    yield Finding("disk", state, f"{free // 1_000_000} MB free; the store takes "
                                 f"{path.stat().st_size // 1000} kB",
                  "" if state == "ok" else "Free disk space: a full disk stops every write.")


def _key_file(loaded: settings.Settings) -> Iterator[Finding]:
    if not loaded.key.startswith("file:"):
        return
    path = Path(loaded.key.removeprefix("file:"))
    if not path.is_file():
        yield Finding("key", "warn", f"{path} does not exist yet.",
                      "`serve` or the first account creates it. If the store already holds accounts, restore the key "
                      "from its backup: without it they cannot be opened.")
    elif files.is_exposed(path):
        yield Finding("key", "fail", f"Other users can read {path} (mode {stat.S_IMODE(path.stat().st_mode):04o}).",
                      f"chmod 600 {path}")
    elif path.absolute().parent == Path(loaded.store.removeprefix("sqlite:///")).absolute().parent:
        yield Finding("key", "ok", f"{path}, readable by its owner only. It is in the store's folder: keep its backup "
                                   "apart from the store's.")
    else:
        yield Finding("key", "ok", f"{path}, readable by its owner only.")


def _in_store(here: "Deployment", offline: bool) -> Iterator[Finding]:
    here.store.get("health", "probe")
    version = f", schema version {sqlite.SCHEMA_VERSION}" if here.settings.store.startswith("sqlite:") else ""
    yield Finding("store", "ok", f"readable{version}")
    people = users.every(here.store)
    yield Finding("users", "ok" if people else "warn", f"{len(people)}, {sum(u.disabled for u in people)} disabled",
                  "" if people else "Nobody can query over HTTP yet. Add a user: twocloud user add NAME --tenant ID")
    readable, damaged = accounts.sort_out(accounts.rows(here.store))
    rows = [*readable.values()]
    for place, problem in damaged.items():
        yield Finding(account_arguments(*snapshots.owner_of_key(place[1])), "fail", problem.text)
    if not rows:
        if not damaged:
            yield Finding("accounts", "warn", "none", "Add one: twocloud account put TENANT PARTY")
        return
    closed = list(_closed(here, rows))
    yield from closed
    shut = {finding.check for finding in closed}
    if not closed:
        yield Finding("seals", "ok", f"the key opens all {len(rows)} accounts")
    if "seals" in shut:                     # checking would create another key
        return
    yield from _routes(rows, offline)
    if offline:
        yield Finding("accounts", "warn", f"{len(rows)}, not checked (--offline)")
    else:
        yield from _checked(here, [row for row in rows
                                   if account_arguments(row.tenant_id, row.party, row.account) not in shut])
    yield from _snapshots(here)


def _closed(here: "Deployment", rows: list[accounts.AccountRow]) -> Iterator[Finding]:
    if here.settings.key.startswith("file:") and not Path(here.settings.key.removeprefix("file:")).is_file():
        yield Finding("seals", "fail", f"The store holds {len(rows)} accounts, and their key does not exist.",
                      "Restore the key from its backup, or store the accounts again with `account put --replace`.")
        return
    for row in rows:
        try:
            open_account(here, row.tenant_id, row.party, row.account)
        except SettingsError as problem:
            yield Finding("seals", "fail", problem.text)
            return
        except (TwocloudError, ValueError) as problem:
            yield Finding(account_arguments(row.tenant_id, row.party, row.account), "fail", str(problem),
                          f"Restore the key that sealed it, or store it again: twocloud account put --replace "
                          f"{account_arguments(row.tenant_id, row.party, row.account)}")


def _checked(here: "Deployment", rows: list[accounts.AccountRow]) -> Iterator[Finding]:
    """Make one cheap call for each account, in parallel, so that a party that hangs does not delay the others."""
    until = time.monotonic() + _SECONDS
    pool = ThreadPoolExecutor(16, thread_name_prefix="twocloud-doctor")
    skews = dict[str, float]()

    def check(row: accounts.AccountRow) -> tuple[str, float]:
        began, stats = time.monotonic(), CallStats()
        try:
            region = check_account(here, row.tenant_id, row.party, None, until, stats, row.account)
            return region, time.monotonic() - began
        finally:                            # a refusal carries a Date too
            with suppress(ValueError, TypeError, IndexError):
                date = parsedate_to_datetime(stats.made[-1].date).timestamp()
                skews[account_arguments(row.tenant_id, row.party, row.account)] = date - here.clock()

    answers = [(row, pool.submit(check, row)) for row in rows]
    try:
        for row, answer in answers:
            name = account_arguments(row.tenant_id, row.party, row.account)
            again = f"twocloud account check {name}"
            try:
                with waiting(lambda name=name: f"checking {name}"):
                    code, took = answer.result(max(0.1, until + 1 - time.monotonic()))
                yield Finding(name, "ok", f"{code} answered in {took * 1000:.0f} ms")
            except AccountNotFound:         # removed meanwhile
                continue
            except TwocloudError as failure:
                yield Finding(name, "fail", failure.text, f"When it is corrected: {again}")
            except TimeoutError:
                yield Finding(name, "fail", f"did not answer in {_SECONDS:.0f} s", f"Check it alone: {again}")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    yield _clock(dict(skews))


def _clock(skews: dict[str, float]) -> Finding:
    """Compare the clock with the median of the Date headers: one party's clock may be wrong."""
    if not skews:
        return Finding("clock", "warn", "Clock not checked: no response carried a Date header.")
    middle = sorted(skews.values())[len(skews) // 2]
    if abs(middle) > _SKEW:
        way = "behind" if middle > 0 else "ahead"
        return Finding("clock", "fail", f"{abs(middle):.0f} s {way} of the Date headers of {len(skews)} servers",
                       "Set the clock by NTP: parties refuse signatures with a wrong time, and the ages of snapshots "
                       "are wrong.")
    return Finding("clock", "ok", f"within {max(1, round(abs(middle)))} s of the Date headers of {len(skews)} servers")


def _snapshots(here: "Deployment") -> Iterator[Finding]:
    known, now = schedule.known(here), here.clock()
    heads = dict(snapshots.heads(here.store))
    missing = [source for source in known if source not in heads]
    old = [source for source in known if source in heads and now - heads[source].seen_at > here.settings.stale_if_error]
    if ahead := [source for source, head in heads.items() if head.seen_at > now + _SKEW]:
        yield Finding("snapshots", "fail", f"{len(ahead)} snapshots are from the future.",
                      "A clock was wrong when they were taken. Correct it, then: twocloud refresh")
    if missing or old:
        yield Finding("snapshots", "warn", f"of {len(known)} sources, {len(missing)} have no snapshot and {len(old)} "
                                           "one "
                                           "that is too old to serve while the party fails",
                      "Take them now: twocloud refresh; or regularly: twocloud serve --refresh 5m")
    elif known:
        oldest = max(now - heads[source].seen_at for source in known)
        yield Finding("snapshots", "ok", f"{len(known)} sources, the oldest {oldest:.0f} s old")


# ---------------------------------------------------------------- a server

def _server(there: contexts.There, offline: bool) -> Iterator[Finding]:
    yield Finding("program", "ok", f"twocloud {__version__}, Python {platform.python_version()}")
    yield Finding("server", "ok", f"{there.url}, chosen by {there.chosen}")
    if offline:
        return
    from . import remote  # slow to import

    try:
        response = remote.get(there, "/twocloud/health", with_token=False)
        body = remote.read_json(there, response)
    except remote.Answered as refused:
        yield Finding("health", "fail", refused.text, "Search the server's log for this request id.")
        return
    except click.ClickException as problem:
        yield Finding("connection", "fail", problem.message)
        return
    secure = "TLS certificate trusted" if there.url.startswith("https:") else "plain http, on this machine"
    yield Finding("connection", "ok", f"in {response.milliseconds:.0f} ms; {secure}")
    version = str(body.get("version", "?"))
    yield Finding("health", "ok" if body.get("status") == "ok" else "warn", f"{body.get('status')}, twocloud {version}")
    if version.split(".")[:2] != __version__.split(".")[:2]:
        yield Finding("version", "warn", f"the server is version {version}, this command is {__version__}",
                      "Upgrade the older one.")
    with suppress(ValueError, TypeError):
        skew = parsedate_to_datetime(response.headers.get("Date", "")).timestamp() - time.time()
        yield _clock({"the server": skew})
    if not there.token:
        yield Finding("token", "warn", "none set", "Set TWOCLOUD_TOKEN, or add a context: twocloud context add")
        return
    try:
        remote.read_json(there, remote.get(there, "/twocloud/parties"))
        yield Finding("token", "ok", "accepted")
    except remote.Answered as refused:
        yield Finding("token", "fail", refused.text, "It may be mistyped, revoked or expired. Issue another: "
                                                     "twocloud token issue")
    except click.ClickException as problem:
        yield Finding("token", "fail", problem.message)
