"""Whoever can write the store but cannot open the seal must not decide where credentials go."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from chalicelib import cli, parties
from chalicelib.access import accounts
from chalicelib.access.accounts import AccountRow
from chalicelib.access.sealing import KmsSealer, LocalSealer, Sealer
from chalicelib.cli import output
from chalicelib.errors import Internal, TwocloudError
from chalicelib.fleet import check
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.storage.sqlite import SqliteStore
from chalicelib.storage.store import Store
from tests.canaries import secret
from tests.fixtures import AWS, GZ, START, App, Clock

# what decides nothing about credentials
OPEN = {"sealed", "bound", "revision", "created_at", "updated_at", "key", "declared_by"}
OTHER = {                                   # another value for each field: a new field needs one here
    "tenant_id": "124", "party": "aliyun", "project": "8", "regions": ("ap-shanghai",), "deep": True,
    "endpoint": "https://evil.example", "account": "other", "discover": True, "discover_below": "ou-evil",
    "discover_role": "Administrator", "authorities": "evil", "proxy": "http://evil.example:3128", "allow_http": True}
SET = {"project": "7", "regions": ("gz",), "deep": False, "endpoint": "https://cloud.example"}
PLAIN: dict[str, Any] = {"project": None, "regions": (), "deep": False, "endpoint": None}


def put(store: Store, sealer: Sealer, settings: dict[str, Any] = PLAIN, tenant: str = "123",
        key: str = "") -> AccountRow:
    made = accounts.check(tenant, parties.load("qcloud"), {"secret_id": "AKID", "secret_key": key or secret("sealed")},
                          local=False, **settings)
    return accounts.put(store, sealer, made, START, replace=True)


def write(store: Store, row: AccountRow, key: str = "123/qcloud") -> None:
    """As who can write the store does."""
    store.put("account", key, msgspec.json.encode(row))


def as_by_0_1_0(store: Store, sealer: Sealer, row: AccountRow) -> AccountRow:
    """The row as version 0.1.0 wrote it: the credentials sealed, nothing else."""
    credentials = accounts.load(store, lambda: sealer, row.tenant_id, row.party, local=True).credentials
    context = {"tenant": row.tenant_id, "party": row.party, "purpose": "credentials"}
    old = msgspec.structs.replace(row, sealed=sealer.seal(msgspec.json.encode(dict(credentials)), context), bound=False)
    write(store, old, f"{row.tenant_id}/{row.party}")
    return old


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    made = SqliteStore(f"{tmp_path}/store.db", clock)
    yield made
    made.close()


@contextmanager
def sealers(kind: str, folder: Path) -> Iterator[Callable[[str], Sealer]]:
    with mock_aws():
        client = boto3.client("kms", **AWS)
        made: dict[str, Sealer] = {}
        yield lambda name: made.setdefault(name, LocalSealer.of_file(folder / name) if kind == "file" else KmsSealer(
            client.create_key()["KeyMetadata"]["KeyId"], client))


def refuses(store: Store, sealer: Sealer) -> None:
    """It neither opens nor takes new credentials, and the error names the account."""
    with pytest.raises(Internal, match=r"[Aa]ccount (row )?123[ /]qcloud") as refused:
        accounts.load(store, lambda: sealer, "123", "qcloud", local=True)
    if "its settings in the store" in refused.value.text:
        with pytest.raises(Internal):       # and where it opens, no operator can trust it
            accounts.verify(sealer, accounts.find(store, "123", "qcloud"), trusting=True)


# ---------------------------------------------------------------- each field, one by one

def test_every_field_of_the_row_is_sealed_or_decides_nothing() -> None:
    assert set(AccountRow.__struct_fields__) == OPEN | OTHER.keys()
    assert not OPEN & OTHER.keys()


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", ["file", "kms"])
@pytest.mark.parametrize("settings", [PLAIN, SET], ids=["plain", "set"])
@pytest.mark.parametrize("field", sorted(OTHER))
def test_a_field_that_was_changed_in_the_store_is_refused(field: str, settings: dict[str, Any], kind: str,
                                                          store: SqliteStore, tmp_path: Path) -> None:
    with sealers(kind, tmp_path) as made:
        sealer = made("key")
        row = put(store, sealer, settings)
        default = next((it.default for it in msgspec.structs.fields(AccountRow) if it.name == field), None)
        for value in (OTHER[field], *([default] if default not in (msgspec.NODEFAULT, getattr(row, field)) else [])):
            for bound in (True, False):     # also where the row claims to be an old one
                write(store, msgspec.structs.replace(row, **{field: value}, bound=bound))
                refuses(store, sealer)
        write(store, row)
        assert accounts.load(store, lambda: sealer, "123", "qcloud", local=True).endpoint == settings["endpoint"]
        for name in OPEN - {"sealed", "bound"}:                 # and what decides nothing may differ
            write(store, msgspec.structs.replace(row, **{name: "x" if isinstance(getattr(row, name), str) else 1}))
            accounts.load(store, lambda: sealer, "123", "qcloud", local=True)


def test_rows_swapped_between_tenants_and_mixed_of_two_times(store: SqliteStore, tmp_path: Path) -> None:
    sealer = LocalSealer.of_file(tmp_path / "key")
    first = put(store, sealer, {**SET, "endpoint": "https://old.example"})
    mine = put(store, sealer, SET)
    theirs = put(store, sealer, PLAIN, tenant="124")
    for row in (theirs, msgspec.structs.replace(theirs, tenant_id="123"),
                msgspec.structs.replace(mine, sealed=theirs.sealed),
                msgspec.structs.replace(first, sealed=mine.sealed), msgspec.structs.replace(mine, sealed=first.sealed)):
        write(store, row)
        refuses(store, sealer)
    write(store, first)                     # a whole row of before: its own credentials go to its own address, as then
    assert accounts.load(store, lambda: sealer, "123", "qcloud", local=True).endpoint == "https://old.example"


def test_a_row_that_lies_about_whose_it_is_gives_no_list(store: SqliteStore, tmp_path: Path) -> None:
    row = put(store, LocalSealer.of_file(tmp_path / "key"))
    write(store, row, "9/qcloud")
    with pytest.raises(Internal, match="9/qcloud in the store names another account"):
        accounts.every(store)


# ---------------------------------------------------------------- over the wire

def test_an_endpoint_changed_in_sqlite_gets_no_byte(served: App) -> None:
    path = Path(served.deployment.settings.store.removeprefix("sqlite:///"))
    with Qcloud({}, {}) as foreign:
        with closing(sqlite3.connect(path)) as thief:
            (value,), = thief.execute(
                "SELECT value FROM entry WHERE kind = 'account' AND key = '123/qcloud'").fetchall()
            row = msgspec.json.decode(value)
            for change in ({"endpoint": foreign.url}, {"endpoint": foreign.url, "bound": False}, {"endpoint": None}):
                thief.execute("UPDATE entry SET value = ? WHERE kind = 'account' AND key = '123/qcloud'",
                              (msgspec.json.encode({**row, **change}),))
                thief.commit()
                answer = served.get(GZ)
                assert (answer.status_code, answer.json()["error"]) == (500, "internal"), answer.text
                with pytest.raises(Internal, match="Account 123 qcloud: its settings"):
                    check.check_account(served.deployment, "123", "qcloud")
        assert foreign.calls == []
    # the others go on
    assert served.get(GZ.replace("qcloud", "aws").replace("gz", "us-east-1")).status_code == 200


def test_rotating_sends_the_new_credentials_nowhere_else(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    settings, store = app.deployment.settings, app.deployment.store
    for name, value in (("STORE", settings.store), ("KEY", settings.key), ("LOCAL", "1")):
        monkeypatch.setenv(f"TWOCLOUD_{name}", value)
    (tmp_path / "new.secret").write_text(
        msgspec.json.encode({"secret_id": "AKIDnew", "secret_key": secret("new")}).decode())
    row = accounts.find(store, "123", "qcloud")
    with Qcloud({}, {}) as foreign:
        write(store, msgspec.structs.replace(row, endpoint=foreign.url))
        for more in ((), ("--no-check",)):
            output.deployment.cache_clear()
            assert cli.main(("account", "rotate", "123", "qcloud", "--credentials-file", str(tmp_path / "new.secret"),
                             *more)) == 5
            assert "Account 123 qcloud: its settings" in capsys.readouterr().err
        assert foreign.calls == []
        assert accounts.find(store, "123", "qcloud").sealed == row.sealed


# ---------------------------------------------------------------- rows of 0.1.0

@pytest.mark.parametrize("kind", ["file", "kms"])
def test_an_old_row_opens_and_is_sealed_under_the_same_key(kind: str, store: SqliteStore, tmp_path: Path) -> None:
    with sealers(kind, tmp_path) as made:
        sealer, key = made("key"), secret("old")
        old = as_by_0_1_0(store, sealer, put(store, sealer, SET, key=key))
        assert accounts.load(store, lambda: sealer, "123", "qcloud", local=True).credentials["secret_key"] == key
        assert accounts.reseal(store, old, sealer, sealer)
        row = accounts.find(store, "123", "qcloud")
        assert row.bound
        assert row == msgspec.structs.replace(old, sealed=row.sealed, bound=True)
        assert not accounts.reseal(store, old, sealer, sealer)
        write(store, msgspec.structs.replace(row, endpoint="https://evil.example"))
        refuses(store, sealer)


@pytest.mark.parametrize("kinds", ["file file", "kms kms", "file kms", "kms file"])
def test_another_key_seals_old_rows_with_their_settings(kinds: str, store: SqliteStore, tmp_path: Path) -> None:
    first, second = kinds.split()
    with sealers(first, tmp_path) as one, sealers(second, tmp_path) as two:
        old, new = one("old"), two("new")
        row = as_by_0_1_0(store, old, put(store, old, SET))
        value = store.get("account", "123/qcloud")
        assert value
        resealed = accounts.resealed(value.value, ("account", "123/qcloud"), old, new)
        assert msgspec.json.decode(resealed, type=AccountRow).bound
        assert accounts.reseal(store, row, old, new)
        for endpoint, good in (("https://cloud.example", True), ("https://evil.example", False)):
            write(store, msgspec.structs.replace(accounts.find(store, "123", "qcloud"), endpoint=endpoint))
            if good:
                assert accounts.load(store, lambda: new, "123", "qcloud", local=True).endpoint == endpoint
            else:
                refuses(store, new)


@pytest.mark.parametrize("kind", ["file", "kms"])
def test_sealing_under_another_key_does_not_launder_a_change(kind: str, store: SqliteStore, tmp_path: Path) -> None:
    """Whatever the row says of itself, a digest that does not fit is not replaced by one that does."""
    with sealers(kind, tmp_path) as made:
        old, new = made("old"), made("new")
        row = put(store, old, SET)
        for bound in (True, False):
            write(store, msgspec.structs.replace(row, endpoint="https://evil.example", bound=bound))
            try:
                accounts.reseal(store, row, old, new)
            except TwocloudError as refused:
                assert "Account 123 qcloud" in refused.text
            refuses(store, new)
        # an old row that claims to be sealed is not believed
        lying = msgspec.structs.replace(as_by_0_1_0(store, old, put(store, old, SET)), bound=True)
        write(store, lying)
        refuses(store, old)


def test_the_command_seals_old_rows(app: App, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    settings, store = app.deployment.settings, app.deployment.store
    for name, value in (("STORE", settings.store), ("KEY", settings.key), ("LOCAL", "1")):
        monkeypatch.setenv(f"TWOCLOUD_{name}", value)
    for row in accounts.every(store):
        as_by_0_1_0(store, app.deployment.sealer(), row)
    capsys.readouterr()
    for _ in range(2):
        output.deployment.cache_clear()
        assert cli.main(("account", "list", "-o", "json")) == 0
        shown = msgspec.json.decode(capsys.readouterr().out)
        assert cli.main(("account", "reseal")) == 0
        capsys.readouterr()
    assert [row["settings_sealed"] for row in shown] == [True, True]


# ---------------------------------------------------------------- who may seal, but not open

def test_an_operator_who_may_not_open_rotates_only_what_leads_nowhere_else(store: SqliteStore, tmp_path: Path,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    with sealers("kms", tmp_path) as made:
        sealer = made("key")
        assert isinstance(sealer, KmsSealer)

        def denied(**_: object) -> object:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Decrypt")

        plain, there = put(store, sealer, PLAIN, tenant="7"), put(store, sealer, SET)
        monkeypatch.setattr(sealer._client, "decrypt", denied)
        accounts.verify(sealer, plain)
        with pytest.raises(Internal, match=r"Account 123 qcloud: .* kms:Decrypt .*\(endpoint\) .*--trust-settings"):
            accounts.verify(sealer, there)
        accounts.verify(sealer, there, trusting=True)
        write(store, msgspec.structs.replace(plain, endpoint="https://evil.example"), "7/qcloud")
        with pytest.raises(Internal):
            accounts.verify(sealer, accounts.find(store, "7", "qcloud"))


def test_a_long_service_account_fits_into_kms(store: SqliteStore, tmp_path: Path) -> None:
    """A key file of Google's with an RSA key of 2048 bits holds some 2,400 bytes."""
    with sealers("kms", tmp_path) as made:
        row = put(store, made("key"), SET, key="k" * 3900)
        assert accounts.load(store, lambda: made("key"), "123", "qcloud", local=True).regions == row.regions
        with pytest.raises(TwocloudError, match="at most 4096 bytes"):
            put(store, made("key"), SET, key="k" * 3960)
