"""twocloud doctor: what could be wrong, looked at one by one, and what to do about it."""

import os
import platform
import shutil
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from .. import __version__, files, settings
from ..access import accounts, users
from ..cloud.sender import CallStats
from ..errors import AccountNotFound, SettingsError, TwocloudError
from ..fleet import schedule
from ..fleet.check import check_account
from ..fleet.party_call import open_account
from ..storage import snapshots, sqlite
from . import contexts
from .output import deployment, echo, output_option, waiting
from .terminal import coloured_word, plain, screen, wrapped

if TYPE_CHECKING:
    from ..fleet.deployment import Deployment

_SECONDS = 20.0                             # for all accounts together
_SKEW = 60                                  # seconds that a clock may differ; parties refuse from some 300 on
_FREE = 100 * 1024 * 1024                   # bytes of disk below which a store is in danger


@dataclass(frozen=True, slots=True)
class Finding:
    """`state`: ok, warn or fail. `todo`: what to do about it, "" if nothing."""

    check: str
    state: str
    text: str
    todo: str = ""


class Unwell(click.ClickException):
    """Something failed; it was said already."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        pass


@click.command()
@click.option("--url", metavar="URL", help="Look at this server from outside, with the token in TWOCLOUD_TOKEN.")
@click.option("--offline", is_flag=True, help="Ask nobody: neither parties nor servers.")
@output_option
def doctor(url: str | None, offline: bool, output: str) -> None:
    """Check settings, store, key, clock, accounts and kept lists, and say what to do. Ends with 1 if something failed.

    Nothing is changed or made; each account's party is asked one cheap signed question. With a server (--url, a
    context): whether it can be reached, its TLS, version, health, clock, and whether the token is taken.
    """
    there = None
    with suppress(SettingsError):           # of the file of contexts: _here tells it
        there = contexts.there(url)
    looks = _server(there, offline) if there else _here(offline)
    findings = list(looks if output == "json" else _shown(looks))
    if output == "json":
        echo(msgspec.json.encode(findings))
    bad = sum(finding.state == "fail" for finding in findings)
    if output == "table":
        warned = sum(finding.state == "warn" for finding in findings)
        click.echo(f"{len(findings)} checks: {bad} failed, {warned} to look at.")
    if bad:
        raise Unwell("")


def _shown(looks: Iterator[Finding]) -> Iterator[Finding]:
    """As they come, a line each and what to do below it."""
    to = screen()
    for finding in looks:
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
        found = settings.load()
    except SettingsError as problem:
        yield Finding("settings", "fail", problem.text, "Correct it; docs/settings.md has all of them.")
        return
    yield Finding("settings", "ok", f"store {found.store}, key {found.key}, times in {found.timezone.key}")
    if found.local:
        yield Finding("local", "warn", "TWOCLOUD_LOCAL=1 lets accounts use plain http on this machine.",
                      "Unset it where real accounts are kept.")
    yield from _store_file(found.store)
    yield from _key_file(found)
    if found.store.startswith("sqlite:") and not Path(found.store.removeprefix("sqlite:///")).is_file():
        return
    try:
        here = deployment()
    except SettingsError as problem:
        yield Finding("store", "fail", problem.text, "Name another file in TWOCLOUD_STORE, or restore this one.")
        return
    try:
        yield from _in_store(here, offline)
    except Exception as problem:            # a store that breaks in the middle is what we are here to find
        yield Finding("store", "fail", f"{type(problem).__name__}: {problem}",
                      "Restore it from its copy, or look at its folder, rights and disk.")


def _contexts_file() -> Finding:
    path = settings.client().config
    try:
        found = contexts.read(path)
    except SettingsError as problem:
        return Finding("contexts", "fail", problem.text)
    return Finding("contexts", "ok", f"{len(found.contexts)} in {path}, current: {found.current or contexts.LOCAL}"
                   if found.contexts else "none: commands work on the store itself")


def _store_file(url: str) -> Iterator[Finding]:
    if not url.startswith("sqlite:///"):
        return
    path = Path(url.removeprefix("sqlite:///"))
    if not path.is_file():
        yield Finding("store", "warn", f"{path.absolute()} is not there yet.",
                      "It is made on first use; if there was one, look at the folder you are in, or at TWOCLOUD_STORE.")
        return
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.exists() and (mode := stat.S_IMODE(file.stat().st_mode)) & 0o077:
            yield Finding("store", "fail", f"others may use {file} (mode {mode:04o}).", f"chmod 600 {file}")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield Finding("store", "fail", f"{path} or its folder cannot be written to.", "Run as its owner.")
    free = shutil.disk_usage(path.parent).free
    state = "ok" if free >= _FREE else "fail"
    yield Finding("disk", state, f"{free // 1_000_000} MB free beside the store, which has "
                                 f"{path.stat().st_size // 1000} kB",
                  "" if state == "ok" else "Make room: a full disk stops every write.")


def _key_file(found: settings.Settings) -> Iterator[Finding]:
    if not found.key.startswith("file:"):
        return
    path = Path(found.key.removeprefix("file:"))
    if not path.is_file():
        yield Finding("key", "warn", f"{path} is not there yet.",
                      "It is made by `serve` or with the first account. If accounts are kept already, bring the key "
                      "back from its copy: without it they cannot be opened.")
    elif files.is_exposed(path):
        yield Finding("key", "fail", f"others may read {path} (mode {stat.S_IMODE(path.stat().st_mode):04o}).",
                      f"chmod 600 {path}")
    elif path.absolute().parent == Path(found.store.removeprefix("sqlite:///")).absolute().parent:
        yield Finding("key", "ok", f"{path}, the owner's alone. It lies beside the store: keep its copy apart from the "
                                   "store's.")
    else:
        yield Finding("key", "ok", f"{path}, the owner's alone.")


def _in_store(here: "Deployment", offline: bool) -> Iterator[Finding]:
    here.store.get("health", "probe")
    version = f", schema version {sqlite.SCHEMA_VERSION}" if here.settings.store.startswith("sqlite:") else ""
    yield Finding("store", "ok", f"can be read{version}")
    people = users.every(here.store)
    yield Finding("users", "ok" if people else "warn", f"{len(people)}, {sum(u.disabled for u in people)} disabled",
                  "" if people else "Nobody can ask over HTTP yet: twocloud user add NAME --tenant ID")
    rows = accounts.every(here.store)
    if not rows:
        yield Finding("accounts", "warn", "none", "Put one: twocloud account put TENANT PARTY")
        return
    closed = list(_closed(here, rows))
    yield from closed
    shut = {finding.check for finding in closed}
    if not closed:
        yield Finding("seals", "ok", f"the key opens all {len(rows)} accounts")
    if "seals" in shut:                     # asking would make another key
        return
    if offline:
        yield Finding("accounts", "warn", f"{len(rows)}, not asked (--offline)")
    else:
        yield from _asked(here, [row for row in rows if f"{row.tenant_id} {row.party}" not in shut])
    yield from _lists(here)


def _closed(here: "Deployment", rows: list[accounts.AccountRow]) -> Iterator[Finding]:
    if here.settings.key.startswith("file:") and not Path(here.settings.key.removeprefix("file:")).is_file():
        yield Finding("seals", "fail", f"{len(rows)} accounts are kept, and their key is not there.",
                      "Bring it back from its copy, or put the accounts again with --replace.")
        return
    for row in rows:
        try:
            open_account(here, row.tenant_id, row.party)
        except SettingsError as problem:
            yield Finding("seals", "fail", problem.text)
            return
        except (TwocloudError, msgspec.DecodeError) as problem:
            yield Finding(f"{row.tenant_id} {row.party}", "fail", str(problem),
                          f"Bring back the key that sealed it, or put it again: twocloud account put --replace "
                          f"{row.tenant_id} {row.party}")


def _asked(here: "Deployment", rows: list[accounts.AccountRow]) -> Iterator[Finding]:
    """Each account's party one cheap question, side by side; who hangs does not hold up the others."""
    until = time.monotonic() + _SECONDS
    pool = ThreadPoolExecutor(16, thread_name_prefix="twocloud-doctor")
    skews = dict[str, float]()

    def ask(row: accounts.AccountRow) -> tuple[str, float]:
        began, stats = time.monotonic(), CallStats()
        try:
            region = check_account(here, row.tenant_id, row.party, None, until, stats)
            return region, time.monotonic() - began
        finally:                            # a party that refuses tells the time as well
            with suppress(ValueError, TypeError, IndexError):
                told = parsedate_to_datetime(stats.made[-1].date).timestamp()
                skews[f"{row.tenant_id} {row.party}"] = told - here.clock()

    answers = [(row, pool.submit(ask, row)) for row in rows]
    try:
        for row, answer in answers:
            name, again = f"{row.tenant_id} {row.party}", f"twocloud account check {row.tenant_id} {row.party}"
            try:
                with waiting(lambda name=name: f"asking {name}"):
                    code, took = answer.result(max(0.1, until + 1 - time.monotonic()))
                yield Finding(name, "ok", f"{code} answered in {took * 1000:.0f} ms")
            except AccountNotFound:         # it went meanwhile
                continue
            except TwocloudError as failure:
                yield Finding(name, "fail", failure.text, f"When it is put right: {again}")
            except TimeoutError:
                yield Finding(name, "fail", f"did not answer in {_SECONDS:.0f} s", f"Try it alone: {again}")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    yield _clock(dict(skews))


def _clock(skews: dict[str, float]) -> Finding:
    """From the Date of answers, in the middle of them: one party may be wrong itself."""
    if not skews:
        return Finding("clock", "warn", "nobody told the time, so this machine's clock was not compared")
    middle = sorted(skews.values())[len(skews) // 2]
    if abs(middle) > _SKEW:
        way = "behind" if middle > 0 else "ahead"
        return Finding("clock", "fail", f"{abs(middle):.0f} s {way} of what {len(skews)} parties say",
                       "Set it, by NTP: parties refuse signatures whose time is off, and lists look younger or older "
                       "than they are.")
    return Finding("clock", "ok", f"within {max(1, round(abs(middle)))} s of what {len(skews)} parties say")


def _lists(here: "Deployment") -> Iterator[Finding]:
    known, now = schedule.known(here), here.clock()
    heads = dict(snapshots.heads(here.store))
    missing = [source for source in known if source not in heads]
    old = [source for source in known if source in heads and now - heads[source].seen_at > here.settings.stale_if_error]
    if ahead := [source for source, head in heads.items() if head.seen_at > now + _SKEW]:
        yield Finding("lists", "fail", f"{len(ahead)} kept lists are from the future.",
                      "A clock was wrong when they were listed: correct it, then twocloud refresh")
    if missing or old:
        yield Finding("lists", "warn", f"of {len(known)} sources {len(missing)} have no kept list, {len(old)} one too "
                                       "old to serve while the party fails",
                      "twocloud refresh, or serve --refresh 5m")
    elif known:
        oldest = max(now - heads[source].seen_at for source in known)
        yield Finding("lists", "ok", f"{len(known)} kept, the oldest {oldest:.0f} s old")


# ---------------------------------------------------------------- a server

def _server(there: contexts.There, offline: bool) -> Iterator[Finding]:
    yield Finding("program", "ok", f"twocloud {__version__}, Python {platform.python_version()}")
    yield Finding("server", "ok", f"{there.url}, by {there.chosen}")
    if offline:
        return
    from . import remote  # slow to import

    try:
        got = remote.get(there, "/twocloud/health", with_token=False)
        body = remote.read_json(there, got)
    except remote.Answered as refused:
        yield Finding("health", "fail", refused.text, "Its journal has a line for this request id.")
        return
    except click.ClickException as problem:
        yield Finding("reached", "fail", problem.message)
        return
    secure = "TLS, its certificate is good" if there.url.startswith("https:") else "plain http, on this machine"
    yield Finding("reached", "ok", f"in {got.milliseconds:.0f} ms; {secure}")
    version = str(body.get("version", "?"))
    yield Finding("health", "ok" if body.get("status") == "ok" else "warn", f"{body.get('status')}, twocloud {version}")
    if version.split(".")[:2] != __version__.split(".")[:2]:
        yield Finding("version", "warn", f"the server is {version}, this command {__version__}",
                      "Update the older one.")
    with suppress(ValueError, TypeError):
        skew = parsedate_to_datetime(got.headers.get("Date", "")).timestamp() - time.time()
        yield _clock({"the server": skew})
    if not there.token:
        yield Finding("token", "warn", "none is set", "Set TWOCLOUD_TOKEN, or keep a context.")
        return
    try:
        remote.read_json(there, remote.get(there, "/twocloud/parties"))
        yield Finding("token", "ok", "is taken")
    except remote.Answered as refused:
        yield Finding("token", "fail", refused.text, "It is mistyped, revoked or has ended: issue another one with "
                                                     "twocloud token issue.")
    except click.ClickException as problem:
        yield Finding("token", "fail", problem.message)
