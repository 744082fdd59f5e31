"""The operator's page, block by block as it stands, on one machine; and the rights that it names."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from botocore.client import BaseClient
from moto import mock_aws

from chalicelib import cli, parties
from chalicelib.access import accounts, tokens, users
from chalicelib.access.sealing import LocalSealer
from chalicelib.cli import output
from chalicelib.errors import AccountNotFound, Unauthorized
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.storage.dynamodb import DynamoStore
from chalicelib.storage.sqlite import SqliteStore
from chalicelib.storage.store import Entry
from tests import ROOT, canaries
from tests.canaries import secret
from tests.fixtures import AWS, GZ, TABLE, App

AMAZONS = ROOT / ".tools/aws/bin/aws"
pytestmark = pytest.mark.timeout(600)


def blocks(page: str = "docs/operate.md") -> dict[str, list[str]]:
    """Heading -> its blocks."""
    parts = re.split(r"(?m)^## (.*)$", (ROOT / page).read_text())
    return {heading: re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
            for heading, text in zip(["", *parts[1::2]], parts[::2], strict=True)}


PAGE = blocks()


def run(script: str, folder: Path, **environment: str) -> str:
    """What it printed. The console script is the clone's own."""
    command = folder / "bin"
    command.mkdir(exist_ok=True)
    (command / "twocloud").write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
                                      "from chalicelib.cli import main\nsys.exit(main())\n")
    (command / "twocloud").chmod(0o755)
    if not (command / "aws").exists():
        (command / "aws").symlink_to(AMAZONS)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TWOCLOUD_", "AWS_"))}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True,
                          timeout=300,
                          env={**clean, "PATH": f"{command}:{os.environ['PATH']}", "HOME": str(folder), **environment})
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def rights() -> dict[str, tuple[set[str], set[str]]]:
    """What for -> (on the table, on the key)."""
    table = re.search(r"\| for \|.*?\n\n", (ROOT / "docs/operate.md").read_text(), re.DOTALL)
    assert table

    def actions(cell: str, service: str) -> set[str]:
        return {f"{service}:{name.partition(':')[2] or name}" for name in re.findall(r"`([\w:]+)`", cell)}

    rows = [line.split("|")[1:-1] for line in table[0].strip().splitlines()[2:]]
    return {row[0].strip(): (actions(row[1], "dynamodb"), actions(row[2], "kms")) for row in rows}


# ---------------------------------------------------------------- on one machine

@pytest.fixture
def mine(served: App) -> dict[str, str]:
    """The settings of the served app, whose clock goes with the command's."""
    settings, served.clock.now = served.deployment.settings, time.time()
    user = users.find(served.deployment.store, "ann")
    assert user
    served.token = served.issue(user)
    return {"TWOCLOUD_STORE": settings.store, "TWOCLOUD_KEY": settings.key, "TWOCLOUD_LOCAL": "1"}


def test_credentials(served: App, mine: dict[str, str], tmp_path: Path) -> None:
    cloud = served.clouds["qcloud"]
    assert isinstance(cloud, Qcloud)
    assert served.get(GZ).status_code == 200
    (script,) = PAGE["Rotate a party's credentials"]
    script = script.replace("new-keys.json", "new-keys.secret")
    (tmp_path / "new-keys.secret").write_text(json.dumps({"secret_id": "AKIDnew", "secret_key": secret("new")}))
    with pytest.raises(AssertionError, match="wrong key"):
        run(script, tmp_path, **mine)
    assert served.get(GZ).status_code == 200
    cloud.keys["AKIDnew"] = json.loads((tmp_path / "new-keys.secret").read_text())["secret_key"]
    run(script, tmp_path, **mine)
    del cloud.keys["AKIDtest"]
    assert served.get(GZ).status_code == 200
    cloud.keys.clear()
    with pytest.raises(AssertionError, match="wrong key"):
        run("twocloud account put 123 qcloud --replace --check --credentials-file new-keys.secret --endpoint "
            + cloud.url, tmp_path, **mine)
    # the list is still there
    assert served.get(GZ).headers["Cache-Status"] == "twocloud; hit; detail=party_denied"


def test_a_files_key(served: App, mine: dict[str, str], tmp_path: Path) -> None:
    script = next(block for block in PAGE["Change the key that seals the credentials"] if "key-2" in block)
    script = script.replace("file:.twocloud/key ", "file:.twocloud/key ").replace(
        "TWOCLOUD_OLD_KEY=file:.twocloud/key", f"TWOCLOUD_OLD_KEY={mine['TWOCLOUD_KEY']}")
    again = PAGE["Change the key that seals the credentials"][-1]
    assert again == "twocloud account list\ntwocloud account reseal\n"
    store, old = served.deployment.store, served.deployment.sealer()
    for row in accounts.every(store):       # as version 0.1.0 stored it
        keys = accounts.load(store, lambda: old, row.tenant_id, row.party, local=True).credentials
        sealed = old.seal(json.dumps(dict(keys)).encode(),
                          {"tenant": row.tenant_id, "party": row.party, "purpose": "credentials"})
        store.put("account", f"{row.tenant_id}/{row.party}",
                  msgspec.json.encode(msgspec.structs.replace(row, sealed=sealed, bound=False)))
    run(again, tmp_path, **mine)
    assert {(row.key, row.bound) for row in accounts.every(store)} == {(old.name, True)}
    listing = run(script + "twocloud account list -o json", tmp_path, **mine)
    new = LocalSealer.of_file(tmp_path / ".twocloud/key-2", make=False)
    rows = accounts.every(served.deployment.store)
    assert {row.key for row in rows} == {new.name}
    assert new.name in listing
    assert accounts.load(served.deployment.store, lambda: new, "123", "qcloud",
                         local=True).credentials["secret_id"] == "AKIDtest"


def test_passwords_and_tokens(served: App, mine: dict[str, str], tmp_path: Path) -> None:
    store, old, new = served.deployment.store, secret("old"), secret("new")
    user = users.change(store, "ann", lambda row: users.with_password(row, users.hash_password(old), time.time()))
    assert user
    text, token = tokens.issue(store, user, tokens.Limits(), 864_000, time.time())
    (tmp_path / "new-password.secret").write_text(new)
    (script,) = PAGE["Change a password or a token"]
    shown = run(script.replace("new-password ", "new-password.secret ").replace("rotate", "rotate -o json"), tmp_path,
                **mine, TOKEN_ID=token.token_id)
    rotated = canaries.watch(json.loads(shown)["token"])
    for password in (old, new):
        assert users.check_password(store, "ann", password, time.time()).name == "ann"
    for header in (canaries.watch(text), rotated):
        assert tokens.identify(store, f"Bearer {header}", time.time()).user.name == "ann"
    with pytest.raises(Unauthorized):
        users.check_password(store, "ann", old, time.time() + 12 * 3600)
    with pytest.raises(Unauthorized):
        tokens.identify(store, f"Bearer {text}", time.time() + 86_400)


def test_a_backup_of_a_file_that_is_written_to(tmp_path: Path) -> None:
    (script,) = (block for block in PAGE["Back up and restore"] if "VACUUM" in block)
    store, stopped = SqliteStore(f"{tmp_path}/.twocloud/twocloud.db", time.time), threading.Event()
    store.write([Entry("chunk", f"{n:05}", os.urandom(300), 1, None) for n in range(5000)])
    store.put("zz", "second", b"0")
    store.put("aa", "first", b"0")

    def write() -> None:
        n = 0
        while not stopped.is_set():
            n += 1
            store.put("zz", "second", b"%d" % n)
            store.put("aa", "first", b"%d" % n)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        if not shutil.which("sqlite3"):     # the other line of the block
            script = script.splitlines()[0]
        run(script, tmp_path)
    finally:
        stopped.set()
        writer.join()
        store.close()
    for name in ("backup.db", *(["backup-2.db"] if "sqlite3 " in script else [])):
        copy = SqliteStore(str(tmp_path / name), time.time)
        first, second = copy.get("aa", "first"), copy.get("zz", "second")
        assert first
        assert second
        assert int(second.value) - int(first.value) in (0, 1)
        assert len(list(copy.list("chunk"))) == 5000
        copy.close()


# ---------------------------------------------------------------- rights

def test_the_rights_that_the_page_names_are_those_that_are_used(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of every command that writes or reads the store, recorded."""
    used: set[str] = set()
    real = BaseClient._make_api_call        # type: ignore[attr-defined]

    def record(self: Any, operation: str, arguments: Any) -> Any:
        service = self.meta.service_model.service_name
        used.update({f"{service}:{name}" for name in (("ReEncryptFrom", "ReEncryptTo") if operation == "ReEncrypt"
                                                      else (operation,))})
        return real(self, operation, arguments)

    def twocloud(*arguments: str) -> None:
        output.deployment.cache_clear()
        assert cli.main(arguments) == 0, arguments

    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.secret").write_text(json.dumps({"secret_id": "AKID", "secret_key": secret("rights")}))
    (tmp_path / "password.secret").write_text(secret("password"))
    source = SqliteStore(f"{tmp_path}/a.db", time.time)
    with mock_aws():
        for name, value in AWS.items():
            monkeypatch.setenv({"region_name": "AWS_DEFAULT_REGION"}.get(name, name.upper()), value)
        client, kms = boto3.client("dynamodb", **AWS), boto3.client("kms", **AWS)
        for table in ("twocloud", "copied"):
            client.create_table(TableName=table, **TABLE)
        one, two = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
        monkeypatch.setenv("TWOCLOUD_STORE", "dynamodb://twocloud")
        monkeypatch.setenv("TWOCLOUD_KEY", f"kms:{one}")
        monkeypatch.setattr(BaseClient, "_make_api_call", record)
        keys = ("--credentials-file", "keys.secret")
        for line in (
                ("user", "add", "ann", "--tenant", "123", "--tenant", "7"),
                ("user", "set", "ann", "--password-file", "password.secret", "--grace", "1h"),
                ("user", "disable", "ann"), ("user", "enable", "ann"), ("user", "list"), ("user", "show", "ann"),
                ("account", "put", "123", "qcloud", *keys),
                ("account", "put", "7", "qcloud", *keys), ("account", "list"), ("account", "show", "123", "qcloud"),
                ("account", "remove", "7", "qcloud"), ("token", "revoke", "--all")):
            twocloud(*line)
        store = DynamoStore("twocloud", time.time, client)
        user = users.find(store, "ann")
        assert user
        for verb in ("rotate", "show", "revoke"):
            before, used = used, set()
            _, made = tokens.issue(store, user, tokens.Limits(tenants=("123",)), 600, time.time())
            used = before
            with monkeypatch.context() as quiet:
                quiet.setattr("click.echo", lambda *_, **__: None)          # a token is shown
                twocloud("token", verb, made.token_id)
        with monkeypatch.context() as quiet:
            quiet.setattr("click.echo", lambda *_, **__: None)
            twocloud("token", "issue", "--user", "ann")
        twocloud("token", "list")
        twocloud("tenant", "remove", "7")
        named = rights()
        assert (used - {"kms:Encrypt"}, used & {"kms:Encrypt"}) == named["users, tokens, accounts, tenants"]
        sentence = re.search(r"These commands need (.*?) on the table", (ROOT / "docs/deploy.md").read_text(),
                             re.DOTALL)
        assert sentence
        assert {f"dynamodb:{name}" for name in re.findall(r"`(?:dynamodb:)?(\w+)`",
                                                          sentence[1])} == named["users, tokens, accounts, tenants"][0]

        used = set()
        twocloud("account", "rotate", "123", "qcloud", "--no-check", *keys)
        assert used <= set().union(*named["`account rotate` without `--trust-settings`"])
        assert {"kms:Encrypt", "kms:Decrypt"} <= used

        used = set()
        monkeypatch.setenv("TWOCLOUD_OLD_KEY", f"kms:{one}")
        monkeypatch.setenv("TWOCLOUD_KEY", f"kms:{two}")
        twocloud("account", "reseal")
        assert used == set().union(*named["`account reseal`"])
        assert accounts.find(store, "123", "qcloud").key == f"kms:{two}"

        used = set()
        monkeypatch.delenv("TWOCLOUD_OLD_KEY")
        monkeypatch.setenv("TWOCLOUD_KEY", f"file:{tmp_path}/key")
        accounts.put(source, LocalSealer.of_file(tmp_path / "key"), accounts.check(
            "123", parties.load("qcloud"), {"secret_id": "A", "secret_key": "k"}, project=None, regions=(), deep=False,
            endpoint=None, local=False), 0)
        for _ in range(2):
            twocloud("store", "copy", f"sqlite:///{tmp_path}/a.db", "dynamodb://copied", "--to-key", f"kms:{two}")
            source.put("user", "more", b"{}")
            with suppress(AccountNotFound):                     # the first time removed it
                accounts.remove(source, "123", "qcloud")
        assert used == named["`store copy` to the table"][0] | named["users, tokens, accounts, tenants"][0] - {
            "dynamodb:Query"} | {"kms:Encrypt"}
