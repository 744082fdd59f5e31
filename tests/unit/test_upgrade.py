"""One version back and forth: rows that an earlier version wrote are read, and it reads what this one writes.

tests/rows/VERSION.json holds rows of every kind with what that version told of them, and the forms of its rows. A new
one is made with each release, by the code of that release:  python -m tests.unit.test_upgrade tests/rows/VERSION.json
"""

import base64
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalicelib import parties, settings
from chalicelib.model import Server, Source, Window
from tests import canaries


def room(*names: str) -> Any:
    """The first of these modules that this version has: the rooms were laid out after 0.1.0."""
    for name in names:
        with suppress(ModuleNotFoundError):
            return importlib.import_module(f"chalicelib.{name}")
    raise ModuleNotFoundError(names)


accounts, tokens, users = (room(f"access.{name}", name) for name in ("accounts", "tokens", "users"))
many_sources, lookup = room("fleet.many_sources", "inventory"), room("fleet.lookup", "freshness")
interest, regions = room("fleet.interest", "freshness"), room("fleet.regions", "freshness")
circuit_breaker = room("fleet.circuit_breaker", "freshness")
schedule, deployment = room("fleet.schedule", "schedule"), room("fleet.deployment", "deployment", "inventory")
snapshots, sqlite = room("storage.snapshots", "snapshots"), room("storage.sqlite", "stores.sqlite")
Freshness = getattr(lookup, "Freshness", None) or lookup.Policy
Breaker = getattr(circuit_breaker, "Breaker", None) or circuit_breaker._Breaker
ROOT = next(folder for folder in Path(__file__).parents if (folder / "tests").is_dir())

NOW = 1_790_000_000.0
SOURCE = Source("123", "qcloud", "ap-guangzhou")
PASSWORD, KEY = "canary-rows-password", "canary-rows-key"
LISTED = getattr(regions, "_Regions", None) or room("fleet.known_regions").Listed
FORMS = {"user": users.User, "token": tokens.Token, "account": accounts.AccountRow, "snapshot": snapshots.Head,
         "chunk": Server,
         "change": snapshots.Change, "vanished": snapshots.Vanished, "breaker": Breaker, "regions": LISTED,
         "message": schedule.Message, **({"health": schedule._Run} if hasattr(schedule, "_Run") else {})}
KINDS = {"health", "user", "token", "account", "snapshot", "chunk", "change", "lease", "breaker", "interest", "list",
         "rate", "regions", "try"}

NEW = {"0.1.0": {"health", "list", "rate"}}                 # kinds that came after that version
UNWRITTEN = {"message": {"account", "also"}}        # fields written only of what that version does not know


def open_at(folder: Path) -> Any:
    return deployment.open_deployment(settings.load({
        "TWOCLOUD_STORE": f"sqlite:///{folder}/store.db", "TWOCLOUD_KEY": f"file:{folder}/key", "TWOCLOUD_LOCAL": "1"}),
                                      lambda: NOW)


# ---------------------------------------------------------------- writing (an earlier version runs this too)

def fleet(size: int, cpu: int = 2) -> list[Server]:
    return [Server(id=f"ins-{n:04}", name=f"web-{n}", cpu=cpu if n == 1 else 4, memory_mib=8192,
                   lan_ipv4=(f"10.0.0.{n % 250}",))
            for n in range(size)]


def write(folder: Path) -> dict[str, Any]:
    """Rows of every kind in folder's store; what the writer knows of them."""
    here = open_at(folder)
    store = here.store
    user = users.User(name="ann", uid="u1", tenants=("123",), parties=("qcloud",), regions=("gz",),
                      password=users.hash_password(PASSWORD))
    users.add(store, user)
    if hasattr(users, "with_password"):
        users.change(store, "ann", lambda row: users.with_password(row, users.hash_password(PASSWORD), NOW, 600))
    text, _ = tokens.issue(store, user, tokens.Limits(tenants=("123",)), 86_400, NOW, "golden")
    account = accounts.check("123", parties.load("qcloud"), {"secret_id": "AKID", "secret_key": KEY}, project=None,
                             regions=("gz",),
                             deep=False, endpoint="http://127.0.0.1:9", local=True)
    row = accounts.put(store, here.sealer(), account, NOW)
    for at, servers in ((NOW - 600, fleet(450)), (NOW - 300, fleet(449, cpu=8))):
        snapshots.save(store, SOURCE, row.revision, servers, at, history=30 * 86_400)
    interest.note_reading(here, SOURCE)
    store.put("lease", "other/qcloud/x", b"12345678", expires=int(NOW) + 20)
    store.put("regions", "123/qcloud/all", msgspec.msgpack.encode(LISTED(revision=row.revision, at=NOW - 60,
                                                                         codes=("ap-guangzhou",))),
              expires=int(NOW) + 3600)
    store.put("breaker", "123/qcloud/ap-shanghai", msgspec.msgpack.encode(
        Breaker(code="party_timeout", text="late", at=NOW - 60)),
              expires=int(NOW) + 3600)
    users._count_try(store, "eve", NOW)
    with suppress(ModuleNotFoundError):
        room("storage.lists").write(store, ["123"], "id", [(snapshots.key_of(SOURCE), "generation")], NOW)
    here.close()
    return {"token": text, "message": schedule.write(schedule.Message("123", "qcloud", "ap-guangzhou", NOW))}


NAMED = "prod.eu-1"


def add_named(folder: Path) -> None:
    """A named account beside the others, with rows of every kind: only this version writes them."""
    here, source = open_at(folder), Source("123", "qcloud", "ap-guangzhou", NAMED)
    row = accounts.put(here.store, here.sealer(), accounts.check(
        "123", parties.load("qcloud"), {"secret_id": "AKID", "secret_key": KEY}, project=None, regions=("gz",),
        deep=False, endpoint=None, local=True, name=NAMED), NOW)
    for at, servers in ((NOW - 500, fleet(9)), (NOW - 200, fleet(8, cpu=8))):
        snapshots.save(here.store, source, row.revision, servers, at, history=30 * 86_400)
    interest.note_reading(here, source)
    for kind, key in (("lease", snapshots.key_of(source)), ("regions", f"{snapshots.account_key_of(source)}/all")):
        here.store.put(kind, key, b"12345678", expires=int(NOW) + 20)
    here.store.put("breaker", f"{snapshots.account_key_of(source)}/ap-shanghai", msgspec.msgpack.encode(
        Breaker(code="party_timeout", text="late", at=NOW - 60, revision=row.revision)), expires=int(NOW) + 3600)
    here.close()


# ---------------------------------------------------------------- reading (and this)

def open_regions(here: Any) -> Any:
    if hasattr(lookup, "Lookup"):
        account = lookup.NamedAccount(accounts.find(here.store, "123", "qcloud"))
        return regions.open_regions(lookup.Lookup(here, Freshness(max_age=3600)), account)
    return regions.open_regions(here, "123", "qcloud", Freshness(max_age=3600), time.monotonic() + 25)


def read(folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    """What a version tells of the rows in folder's store."""
    here = open_at(folder)
    store = here.store
    caller = tokens.identify(store, "Basic " + base64.b64encode(f"{known['token']}:".encode()).decode(), NOW)
    answer = many_sources.list_servers(here, SOURCE, Window(), lookup.Filter(), Freshness(max_age=3600))
    changes = snapshots.changes(store, SOURCE, NOW - 400)
    result = {
        "allowed": tokens.allows(caller, SOURCE), "foreign": tokens.allows(caller,
                                                                           Source("9", "qcloud", "ap-guangzhou")),
        "label": caller.token.label, "user": users.check_password(store, "ann", PASSWORD, NOW).name,
        "account": dict(accounts.load(store, here.sealer, "123", "qcloud", local=True).credentials)
        == {"secret_id": "AKID", "secret_key": KEY},
        "servers": [msgspec.to_builtins(msgspec.structs.asdict(server)) for server in answer.servers],
        "kept": answer.kept, "changes": msgspec.to_builtins(changes),
        "regions": list(open_regions(here)),
        "failed": {snapshots.key_of(source): at for source, at in circuit_breaker.last_failures(here).items()},
        "known": {snapshots.key_of(source): it.age for source, it in schedule.known(here).items()},
        "message": msgspec.to_builtins(schedule.read(known["message"])),
    }
    here.close()
    return result


def forms() -> dict[str, Any]:
    return {kind: msgspec.json.schema_components([form])[1][form.__name__] for kind, form in FORMS.items()}


def golden() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        known = write(here)
        connection = importlib.import_module("sqlite3").connect(here / "store.db")
        rows = [[kind, key, base64.b64encode(value).decode(), expires] for kind, key, value, expires in
                connection.execute("SELECT kind, key, value, expires FROM entry ORDER BY kind, key")]
        connection.close()
        result = read(here, known)
        return {"seal": (here / "key").read_text().strip(), "known": known, "told": result, "forms": forms(),
                "rows": rows}


# ---------------------------------------------------------------- the tests

def holds(new: Any, old: Any) -> bool:
    """Whether all that is in `old` is in `new`, which may have more fields."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(name in new and holds(new[name], value) for name, value in old.items())
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(holds, new, old))
    return new == old


FILES = sorted((ROOT / "tests/rows").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_an_earlier_version_wrote_is_read(path: Path, tmp_path: Path) -> None:
    old = json.loads(path.read_text())
    assert {row[0] for row in old["rows"]} == KINDS - NEW.get(path.stem, set())
    store = sqlite.SqliteStore(f"{tmp_path}/store.db", lambda: NOW)
    for kind, key, value, expires in old["rows"]:
        store.put(kind, key, base64.b64decode(value), expires=expires)
    store.close()
    (tmp_path / "key").write_text(old["seal"])
    (tmp_path / "key").chmod(0o600)
    canaries.watch(old["known"]["token"])
    result = json.loads(json.dumps(read(tmp_path, old["known"])))
    for name, value in old["told"].items():
        assert holds(result[name], value), name
    assert len(old["told"]["servers"]) == 449
    assert old["told"]["changes"]
    assert old["told"]["account"]
    assert not old["told"]["foreign"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_field_goes_changes_or_must_be_there(path: Path) -> None:
    """What either version writes has the fields that the other needs, in the same form."""
    old, new = json.loads(path.read_text())["forms"], json.loads(json.dumps(forms()))
    assert old.keys() <= new.keys()
    for kind, form in old.items():
        assert set(form["required"]) == set(new[kind]["required"]), kind
        for name, was in form["properties"].items():
            assert new[kind]["properties"][name] == was, (kind, name)
        if form.get("additionalProperties") is False:           # what is new is not written of what is old
            assert new[kind]["properties"].keys() - UNWRITTEN.get(kind, set()) == form["properties"].keys(), kind


def test_every_kind_of_row_has_its_form() -> None:
    """A kind that is new to the store needs rows and a form here."""
    written = set()
    for path in (ROOT / "chalicelib").rglob("*.py"):
        written |= set(re.findall(r"store\.put\(\"(\w+)\"", path.read_text()))
    assert written <= KINDS


def test_the_earlier_version_reads_what_this_one_writes(tmp_path: Path) -> None:
    """Its own code, from the history; a clone without history has the forms above alone."""
    old = json.loads(FILES[-1].read_text())
    result = subprocess.run(["git", "archive", old["commit"], "chalicelib"], cwd=ROOT, capture_output=True, check=False)
    if result.returncode:
        pytest.skip("the history of this clone does not go back to the earlier version")
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    (tmp_path / "old/tests").mkdir()
    (tmp_path / "old/tests/__init__.py").touch()
    for name in ("unit/test_upgrade.py", "canaries.py"):
        (tmp_path / "old/tests" / Path(name).name).write_text((ROOT / "tests" / name).read_text())
    (tmp_path / "rows").mkdir()
    known = write(tmp_path / "rows")
    alone = json.loads(json.dumps(read(tmp_path / "rows", known)))
    add_named(tmp_path / "rows")
    canaries.watch(known["token"])
    mine = json.loads(json.dumps(read(tmp_path / "rows", known)))
    code = ("import json, sys; from pathlib import Path; import chalicelib; from tests import test_upgrade as it\n"
            "assert chalicelib.__file__.startswith(sys.argv[2]), chalicelib.__file__\n"
            "print(json.dumps(it.read(Path(sys.argv[1]), json.loads(sys.stdin.read()))))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "rows"), str(tmp_path / "old")],
                          cwd=tmp_path / "old", input=json.dumps(known),
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "old")})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert holds(mine, result)
    for name in result.keys() - {"failed"}:   # a failure of an account that it does not see is never looked up
        assert holds(alone[name], result[name]), name
    assert mine["known"].keys() - result["known"].keys() == {f"123/qcloud@{NAMED}/ap-guangzhou"}


def test_a_message_for_a_named_account_waits_for_this_version() -> None:
    """The earlier one refuses it, so it comes again, and never refreshes the default account in its place."""
    body = schedule.write(schedule.Message("123", "qcloud", "ap-guangzhou", NOW, NAMED))
    old = msgspec.defstruct("Message", [("tenant_id", str), ("party", str), ("region", str), ("due", float)],
                            forbid_unknown_fields=True)         # as the form of 0.1.0 says
    assert not json.loads(FILES[0].read_text())["forms"]["message"]["additionalProperties"]
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=old)
    assert schedule.read(body).source.account == NAMED
    plain = schedule.write(schedule.Message("123", "qcloud", "ap-guangzhou", NOW))
    assert msgspec.json.decode(plain, type=old)
    assert schedule.read(plain).source == SOURCE


if __name__ == "__main__":
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    Path(sys.argv[1]).write_text(json.dumps({"commit": commit, **golden()}) + "\n")
