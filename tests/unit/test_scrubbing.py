"""What `account put --replace`, `account rotate`, `account reseal` and the removals replace is in no byte of SQLite's
files."""

import base64
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from chalicelib import cli, parties
from chalicelib.access import accounts, users
from chalicelib.access.accounts import AccountRow
from chalicelib.access.sealing import LocalSealer
from chalicelib.cli import output
from chalicelib.storage import sqlite
from chalicelib.storage.sqlite import SqliteStore
from tests.canaries import secret


def keys(name: str) -> dict[str, str]:
    return {"secret_id": "AKIDscrub", "secret_key": secret(name.replace(" ", "-"))}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """With an account of tenant 123 at qcloud, among neighbours whose rows share its pages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TWOCLOUD_STORE", raising=False)
    monkeypatch.delenv("TWOCLOUD_KEY", raising=False)
    store = SqliteStore(".twocloud/twocloud.db", time.time)
    sealer = LocalSealer.of_file(Path(".twocloud/key"))
    for number in range(40):
        made = accounts.check(str(100 + number), parties.load("qcloud"), keys(f"scrub-{number}"), project=None,
                              regions=("gz",) * (number % 2),
                              deep=False, endpoint=None, local=False)
        accounts.put(store, sealer, made, 1)
    users.add(store, users.User(name="ann", uid="1", tenants=("123",)))
    output.deployment.cache_clear()
    yield store
    store.close()


def traces(sealed: bytes) -> list[str]:
    """The files of the store's folder in which a part of the sealed bytes stands, raw or as the row has them."""
    text = base64.b64encode(sealed)
    assert len(text) > 200
    parts = {it[at:at + 24] for it in (sealed, text) for at in range(0, len(it) - 24, 12)}
    names = [path.name for path in Path(".twocloud").iterdir() if path.is_file()
             and any(part in path.read_bytes() for part in parts)]
    return sorted(names)


def row(store: SqliteStore, tenant: str = "123") -> AccountRow:
    return accounts.find(store, tenant, "qcloud")


CASES: dict[str, tuple[list[str], str]] = {
    "put": (["account", "put", "123", "qcloud", "--replace"], "credentials"),
    "put as json": (["account", "put", "123", "qcloud", "--replace", "-o", "json"], "credentials"),
    "rotate": (["account", "rotate", "123", "qcloud", "--no-check"], "credentials"),
    "remove": (["account", "remove", "123", "qcloud"], ""),
    "remove the tenant": (["tenant", "remove", "123"], ""),
    "reseal": (["account", "reseal"], "a new key"),
}


@pytest.mark.parametrize("name", CASES)
def test_no_old_sealed_row_stays_in_any_file(name: str, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    line, what = CASES[name]
    old = row(store).sealed
    assert traces(old)
    assert Path(".twocloud/twocloud.db-wal").stat().st_size
    if what == "a new key":
        monkeypatch.setenv("TWOCLOUD_OLD_KEY", "file:.twocloud/key")
        monkeypatch.setenv("TWOCLOUD_KEY", "file:.twocloud/key-2")
    if what == "credentials":
        Path("new.json").write_bytes(msgspec.json.encode(keys("scrub-new")))
        line = [*line, "--credentials-file", "new.json"]
    assert cli.main(line) == 0
    Path("new.json").unlink(missing_ok=True)
    assert traces(old) == []
    if "remove" not in name:
        assert traces(row(store).sealed) == ["twocloud.db"]                     # and the new one is there


@pytest.mark.parametrize("seed", [5, 7])
def test_no_copy_stays_where_rows_move_between_pages(seed: int, tmp_path: Path) -> None:
    """With these seeds SQLite's secure_delete alone leaves a copy in the free part of a page."""
    chance = random.Random(seed)
    folder = tmp_path / "moving"
    store = SqliteStore(f"{folder}/store.db", lambda: 0.0)
    old: list[bytes] = []
    now: dict[int, bytes] = {}
    for longest in (1, 3000, 3000, 3000, 3000, 3000, 3000):
        for number in range(40):
            old += [now[number]] if number in now else []
            now[number] = base64.b64encode(chance.randbytes(300 + (chance.randrange(longest) if longest > 1 else 0)))
            store.put("account", str(number), now[number])
    store.scrub()
    data = b"".join(path.read_bytes() for path in folder.iterdir())
    assert [it for it in old if any(it[at:at + 24] in data for at in range(0, len(it) - 24, 24))] == []
    assert {key: row.value for key, row in store.list("account")} == {str(number): value
                                                                      for number, value in now.items()}
    store.close()


def test_a_reader_that_stays_is_reported(store: SqliteStore, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    """Never silence: the log cannot be emptied, so the command ends with 5; the next one empties it."""
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.3)
    old = row(store).sealed
    with closing(sqlite3.connect(".twocloud/twocloud.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entry").fetchone()
        assert cli.main(["account", "remove", "123", "qcloud"]) == 5
        assert "is being read" in capsys.readouterr().err
        assert traces(old)
        reader.execute("ROLLBACK")
    assert cli.main(["account", "remove", "122", "qcloud"]) == 0
    assert traces(old) == []
