"""New credentials, keys and passwords in place of old ones, while readers read."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import boto3
import msgspec
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from chalicelib import parties
from chalicelib.access import accounts, tokens, users
from chalicelib.access.sealing import KmsSealer, LocalSealer, Sealer, _Changing, open_sealer, reseal
from chalicelib.errors import AccountNotFound, Conflict, Internal, PartyDenied, SettingsError, Unauthorized
from chalicelib.fleet import rotation
from chalicelib.model import Account, Source
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage import snapshots
from tests.canaries import secret
from tests.fixtures import AWS, GZ, App

HERE = {"tenant": "123", "party": "qcloud", "purpose": "credentials"}
SOURCE = Source("123", "qcloud", "ap-guangzhou")


@contextmanager
def reading(app: App, query: str = GZ) -> Iterator[list[tuple[int, str, int]]]:
    """(status, what failed or "list", servers) of every answer that two readers had meanwhile; one may share the
    other's list."""
    answers: list[tuple[int, str, int]] = []
    stopped = threading.Event()

    def read() -> None:
        while not stopped.is_set():
            answer = app.get(query)
            answers.append((answer.status_code, answer.headers.get("Cache-Status", "list").partition("detail=")[2]
                            or "list", len(answer.json().get("vm_servers", ()))))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        yield answers
    finally:
        stopped.set()
        for reader in readers:
            reader.join()


def wait_for(answers: list[tuple[int, str, int]], more: int = 6) -> None:
    until, enough = time.monotonic() + 60, len(answers) + more
    while len(answers) < enough:
        assert time.monotonic() < until
        time.sleep(0.01)


# ---------------------------------------------------------------- a party's credentials

def with_key(app: App, key_id: str, key: str) -> Account:
    row = accounts.find(app.deployment.store, "123", "qcloud")
    return replace(accounts.check("123", parties.load("qcloud"), {"secret_id": key_id, "secret_key": key},
                                  project=row.project,
                                  regions=row.regions, deep=row.deep, endpoint=row.endpoint, local=True),
                   revision=row.revision)


def rotate(app: App, account: Account) -> None:
    rotation.check(app.deployment, account)
    accounts.rotate(app.deployment.store, app.deployment.sealer(), account, app.clock())


def test_a_partys_credentials_without_a_gap(served: App) -> None:
    """Two keys at the party, one after the other in twocloud, then the old one ends: no reader sees more than the
    list."""
    cloud = served.clouds["qcloud"]
    assert isinstance(cloud, Qcloud)
    before = served.get(GZ)
    old, head = dict(cloud.keys), snapshots.find(served.deployment.store, SOURCE, _revision(served))
    with reading(served) as answers:
        wait_for(answers)
        cloud.keys["AKIDnew"] = secret("new")
        wait_for(answers)
        rotate(served, with_key(served, "AKIDnew", cloud.keys["AKIDnew"]))
        wait_for(answers, 12)                                      # who began with the old one has ended
        for key in old:
            del cloud.keys[key]
        wait_for(answers)
    assert set(answers) == {(200, "list", 25)}
    assert head
    assert served.get(GZ).content == before.content
    assert served.get(f"{GZ}&changed_since=2026-09-21T14:13:21Z").status_code in (200, 400)
    assert {"AKIDnew", "AKIDtest"} <= {call.headers["authorization"].split("Credential=")[1].split("/")[0]
                                       for call in cloud.calls}


def _revision(app: App) -> str:
    return accounts.find(app.deployment.store, "123", "qcloud").revision


def test_a_typo_takes_nothing_away(served: App) -> None:
    """Refused before it is stored; and stored unasked, the stale snapshot serves, marked, as with any refusal."""
    before = served.get(GZ).json()
    row = accounts.find(served.deployment.store, "123", "qcloud")
    wrong = with_key(served, "AKIDtest", secret("typo"))
    with pytest.raises(PartyDenied, match="wrong key"):
        rotate(served, wrong)
    assert accounts.find(served.deployment.store, "123", "qcloud") == row
    accounts.rotate(served.deployment.store, served.deployment.sealer(), wrong, served.clock())
    answer = served.get(GZ)
    assert answer.json()["vm_servers"] == before["vm_servers"]
    assert answer.headers["Cache-Status"] == "twocloud; hit; detail=party_denied"
    served.clock.forward(901)                                   # no longer than any refused key is borne
    assert served.get(GZ).status_code == 502


def test_another_accounts_credentials_are_refused(served: App) -> None:
    served.get(GZ)
    key, cloud = secret("stranger"), served.clouds["qcloud"]
    with Qcloud({"AKIDother": key}, {"ap-guangzhou": Fleet(25, "stranger")}) as other:
        stranger = replace(with_key(served, "AKIDother", key), endpoint=other.url)
        proper = cloud.answer
        cloud.answer = lambda call: other.answer(call)          # type: ignore[method-assign]
        with pytest.raises(Conflict, match="None of the 25 servers"):
            rotate(served, replace(stranger, endpoint=cloud.url))
        cloud.answer = proper                                   # type: ignore[method-assign]


def test_a_key_that_lists_nothing_is_refused(served: App) -> None:
    """Some clouds hide a missing right behind an empty list."""
    served.get(GZ)
    cloud = served.clouds["qcloud"]
    assert isinstance(cloud, Qcloud)
    cloud.keys["AKIDnew"] = secret("new")
    gone, cloud.fleets["ap-guangzhou"] = cloud.fleets["ap-guangzhou"], Fleet(0)
    with pytest.raises(Conflict, match="0 that the new credentials list"):
        rotate(served, with_key(served, "AKIDnew", cloud.keys["AKIDnew"]))
    cloud.fleets["ap-guangzhou"] = gone
    rotate(served, with_key(served, "AKIDnew", cloud.keys["AKIDnew"]))


def test_an_account_put_again_meanwhile_is_not_overwritten(app: App) -> None:
    mine = with_key(app, "AKIDtest", secret("mine"))
    app.account("qcloud", {"secret_id": "AKIDelse", "secret_key": secret("else")}, app.clouds["qcloud"].url)
    with pytest.raises(Conflict, match="replaced meanwhile"):
        accounts.rotate(app.deployment.store, app.deployment.sealer(), mine, app.clock())
    accounts.remove(app.deployment.store, "123", "qcloud")
    with pytest.raises(AccountNotFound):
        accounts.rotate(app.deployment.store, app.deployment.sealer(), mine, app.clock())


# ---------------------------------------------------------------- the key that seals

@contextmanager
def kms_keys(count: int = 2) -> Iterator[list[KmsSealer]]:
    with mock_aws():
        client = boto3.client("kms", **AWS)
        yield [KmsSealer(client.create_key()["KeyMetadata"]["KeyId"], client) for _ in range(count)]


def test_another_files_key_without_a_gap(served: App, tmp_path: Path) -> None:
    """Readers' process knows both keys; every account is sealed again; then a process with the new one alone reads."""
    settings = served.deployment.settings
    both = msgspec.structs.replace(settings, key=f"file:{tmp_path}/new", old_key=settings.key)
    with reading(served, f"{GZ}&max_age=0") as answers:
        wait_for(answers, 2)
    msgspec.structs.force_setattr(served.deployment, "sealer", lambda: open_sealer(both.key, both.old_key))
    old, new = open_sealer(settings.key), open_sealer(both.key)
    with reading(served, f"{GZ}&max_age=0") as during:
        wait_for(during)
        assert [(done, refused) for _, done, refused in rotation.reseal(served.deployment, old,
                                                                        new)] == [(True, None)] * 2
        wait_for(during)
    assert set(answers + during) == {(200, "list", 25)}
    assert {row.key for row in accounts.every(served.deployment.store)} == {new.name} != {old.name}
    assert [done for _, done, _ in rotation.reseal(served.deployment, old, new)] == [False, False]
    msgspec.structs.force_setattr(served.deployment, "sealer", lambda: new)
    assert served.get(GZ).status_code == 200
    with pytest.raises(Internal):
        accounts.load(served.deployment.store, lambda: old, "123", "qcloud", local=True)


def test_resealing_goes_on_where_it_was_and_names_who_cannot(app: App, tmp_path: Path) -> None:
    old, new = app.deployment.sealer(), LocalSealer.of_file(tmp_path / "new")
    app.account("qcloud", {"secret_id": "A", "secret_key": "k"}, app.clouds["qcloud"].url, tenant="elsewhere")
    store, key = app.deployment.store, "elsewhere/qcloud"
    row = msgspec.json.decode(store.get("account", key).value, type=accounts.AccountRow)        # type: ignore[union-attr]
    stranger = LocalSealer.of_file(tmp_path / "stranger")
    store.put(
        "account", key, msgspec.json.encode(msgspec.structs.replace(row, sealed=stranger.seal(b"{}", HERE), key="")))
    results = {(it.tenant_id, it.party): (done, refused and refused.text)
               for it, done, refused in rotation.reseal(app.deployment, old, new)}
    assert (
        results["elsewhere", "qcloud"][1]
        == "Account elsewhere qcloud: These credentials were sealed with another key than TWOCLOUD_KEY."
    )
    assert results["123", "qcloud"] == results["123", "aws"] == (True, None)
    accounts.remove(store, "elsewhere", "qcloud")
    revisions = {row.revision for row in accounts.every(store)}
    assert all(not done and not refused for _, done, refused in rotation.reseal(app.deployment, old, new))
    assert {row.revision for row in accounts.every(store)} == revisions         # lists stay


def test_between_two_keys_of_kms_nothing_is_opened() -> None:
    plain = secret("kms").encode()
    with kms_keys(3) as (old, new, third):
        sealed = old.seal(plain, HERE)
        called: list[str] = []
        old._client.meta.events.register("before-call.kms", lambda model, **_: called.append(model.name))
        moved = new.take_over(sealed, HERE, old)
        assert called == ["ReEncrypt"]
        assert new.open(moved, HERE) == plain
        assert new.name != old.name
        assert new.name.startswith("kms:arn:aws:kms:")
        # moto says AccessDenied of another key; AWS IncorrectKey
        with pytest.raises(Internal, match="kms:Decrypt"):
            old.open(moved, HERE)
        for wrong in ({**HERE, "tenant": "124"}, {"tenant": "123"}):
            with pytest.raises(Internal):
                new.take_over(sealed, wrong, old)
        with pytest.raises(Internal):
            new.take_over(b"\x01" + sealed[1:], HERE, old)
        assert third.name.startswith("kms:arn:")                # without having sealed anything


@pytest.mark.parametrize("kinds", ["file file", "file kms", "kms kms", "kms file"])
def test_both_keys_open_and_the_new_one_seals(kinds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kms_keys() as keys:
        made: list[Sealer] = [keys[n] if kind == "kms" else LocalSealer.of_file(tmp_path / str(n))
                              for n, kind in enumerate(kinds.split())]
        old, new = made
        both = _Changing(new, old)
        sealed = old.seal(b"plain", HERE)
        assert both.open(sealed, HERE) == b"plain"
        assert both.name == new.name
        assert new.open(both.seal(b"plain", HERE), HERE) == b"plain"
        assert old.is_named(old.name)
        assert not old.is_named(new.name)
        assert both.is_named(new.name)
        assert not old.is_named("")
        with monkeypatch.context() as patch:                    # who is written down to have sealed it is asked alone
            patch.setattr(type(new), "open", lambda self, *_: b"plain" if self is old
                          else pytest.fail("the other was asked"))
            assert type(new) is not type(old) or both.open(sealed, HERE, old.name) == b"plain"
        assert new.open(reseal(sealed, HERE, old, new), HERE) == b"plain"
        for text, context in ((sealed, {**HERE, "tenant": "x"}), (b"junk", HERE)):
            with pytest.raises((Internal, ClientError)):
                both.open(text, context)


def test_an_old_key_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        open_sealer(f"file:{tmp_path}/new", f"file:{tmp_path}/old")
    assert not (tmp_path / "old").exists()


# ---------------------------------------------------------------- passwords and tokens

def test_a_users_password_without_a_gap(served: App) -> None:
    old, new = secret("old"), secret("new")
    served.user("bob", password=old)
    session = tokens.issue(served.deployment.store, users.find(served.deployment.store, "bob"), tokens.Limits(), 3600,     # type: ignore[arg-type]
                           served.clock())[0]

    def status(password: str) -> int:
        answer = served.session.post(f"{served.url}/twocloud/tokens", auth=("bob", password), timeout=20)
        return answer.status_code

    assert (status(old), status(new)) == (200, 401)
    users.change(served.deployment.store, "bob", lambda user: users.with_password(
        user, users.hash_password(new), served.clock(), 600))
    assert (status(old), status(new), status(secret("neither"))) == (200, 200, 401)
    served.clock.forward(599)
    assert (status(old), status(new)) == (200, 200)
    served.clock.forward(1)
    assert (status(old), status(new)) == (401, 200)
    assert served.get(GZ, token=session).status_code == 200     # tokens do not hang on the password


def test_an_old_password_ends_with_what_ends_the_user(served: App) -> None:
    store, clock, old = served.deployment.store, served.clock, secret("old")
    served.user("bob", password=old)
    third = users.hash_password(secret("third"))
    for change in (lambda user: msgspec.structs.replace(user, disabled=True),
                   lambda user: users.with_password(user, third, clock(), 0),
                   lambda user: users.with_password(user, third, clock(), 600)):
        users.change(store, "bob", lambda user: users.with_password(
            msgspec.structs.replace(user, disabled=False), users.hash_password(old), clock(), 0))
        users.change(store, "bob", lambda user: users.with_password(user, users.hash_password(secret("new")), clock(),
                                                                    600))
        assert users.check_password(store, "bob", old, clock())
        users.change(store, "bob", change)
        with pytest.raises(Unauthorized):
            users.check_password(store, "bob", old, clock())
        clock.forward(61)


def test_a_wrong_password_costs_the_same_whoever_it_is(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether there is a user, and whether an old password is right too, is not told by the time."""
    store = served.deployment.store
    served.user("bob", password=secret("bob"))
    served.user("eve", password=secret("eve"))
    served.user("none")
    users.change(store, "eve", lambda user: users.with_password(user, users.hash_password(secret("new"), user.password),
                                                                served.clock(), 600))
    counts: list[int] = []
    real = users._scrypt
    monkeypatch.setattr(users, "_scrypt", lambda *arguments: counts.__setitem__(-1, counts[-1] + 1) or real(*arguments))
    for name in ("bob", "eve", "none", "nobody"):
        counts.append(0)
        with pytest.raises(Unauthorized):
            users.check_password(store, name, "wrong", served.clock())
    assert counts == [1, 1, 1, 1]


def test_the_command_gives_a_new_password_the_salt_of_the_one_in_its_grace(served: App) -> None:
    old, new = secret("old"), secret("new")
    first = users.hash_password(old)
    second = users.hash_password(new, first)
    assert first.split("$")[4] == second.split("$")[4]
    assert first != second
    # a cost of today's
    assert users.hash_password(new, first.replace("$16$", "$8$", 1)).split("$")[:4] == first.split("$")[:4]
    store = served.deployment.store
    served.user("eve", password=old)
    # as 0.1 did
    users.change(store, "eve", lambda user: users.with_password(user, users.hash_password(new), served.clock(), 600))
    for password in (old, new):
        assert users.check_password(store, "eve", password, served.clock()).name == "eve"


def test_a_token_without_a_gap(served: App) -> None:
    row = tokens.every(served.deployment.store)[0]
    with reading(served) as answers:
        wait_for(answers, 2)
        rotated = tokens.rotate(served.deployment.store, row.token_id, 600, served.clock())
        assert rotated
        wait_for(answers, 2)
        assert served.get(GZ, token=rotated[0]).status_code == 200
    assert {status for status, _, _ in answers} == {200}
    served.clock.forward(600)
    assert (served.get(GZ).status_code, served.get(GZ, token=rotated[0]).status_code) == (401, 200)
