"""The operator's page, block by block as it stands: Amazon's own command and ours, against the package on MiniStack."""

import io
import json
import re
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from chalicelib import parties
from chalicelib.access import accounts, tokens, users
from chalicelib.access.sealing import KmsSealer, LocalSealer
from chalicelib.storage.dynamodb import DynamoStore
from chalicelib.storage.sqlite import SqliteStore
from deploy import emulator
from tests import canaries
from tests.aws.deployed import Stack, here, here_for_ministack, stack, template, wait
from tests.aws.test_operate import PAGE, ROOT, rights, run
from tests.canaries import secret
from tests.fixtures import TABLE

__all__ = ["here", "here_for_ministack", "stack", "template"]
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
REDEPLOY = PAGE[""][0].replace("BUCKET", "twocloud-deploy")
OUTPUTS = re.search(r"```sh\n(stack_output\(\) .*?export TWOCLOUD_STORE[^\n]*)", (ROOT / "docs/deploy.md").read_text(),
                    re.DOTALL)


@pytest.fixture
def operator(stack: Stack, here_for_ministack: Path, tmp_path: Path) -> Any:
    """Runs blocks against the stack, with the template that was deployed there as packaged.json."""
    made = emulator.for_emulator(json.loads((here_for_ministack / "template.json").read_text()), "twocloud-deploy",
                                 "twocloud-test.zip")
    (tmp_path / "packaged.json").write_text(json.dumps(made))
    assert OUTPUTS
    start = (OUTPUTS[1] + "\n" + REDEPLOY).replace("--stack-name twocloud ", "--stack-name twocloud-test ")

    def go(script: str, **environment: str) -> str:
        return run(start + "\n" + script, tmp_path, **stack.environment, **environment)

    return go


class Readers:
    """Ask for the list all the time; `answers` holds (status, number of servers)."""

    def __init__(self, stack: Stack, token: str) -> None:
        self.answers: list[tuple[int, int]] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._read, args=(stack, token))

    def _read(self, stack: Stack, token: str) -> None:
        while not self.stopped.is_set():
            answer = stack.get(token, "?party=qcloud&tenant_id=123&region=gz")
            self.answers.append((answer.status_code, len(answer.json().get("vm_servers", ()))))

    def __enter__(self) -> list[tuple[int, int]]:
        self.thread.start()
        return self.answers

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()


def key_of(stack: Stack) -> KmsSealer:
    (row,) = [row for row in accounts.every(stack.deployment.store) if row.tenant_id == "123"]
    return KmsSealer(row.key.removeprefix("kms:"), stack.client("kms"))


def check(answers: list[tuple[int, int]], deployments: int) -> None:
    """The emulator ends what a function does when it is replaced: of one reader's requests one per function, no
    more."""
    assert set(answers) <= {(200, 25), (502, 0)}, answers
    assert len(answers) > 5, answers
    assert answers.count((502, 0)) <= 2 * deployments, answers
    assert answers[-1] == (200, 25)


def test_an_upgrade_and_the_way_back_under_readers(stack: Stack, operator: Any, tmp_path: Path) -> None:
    s3, packaged = stack.client("s3"), tmp_path / "packaged.json"
    archive, before = io.BytesIO(s3.get_object(
        Bucket="twocloud-deploy", Key="twocloud-test.zip")["Body"].read()), stack.function("APIHandler")["CodeSha256"]
    with zipfile.ZipFile(archive, "a") as added:
        added.writestr("chalicelib/release.txt", "the next one")
    s3.put_object(Bucket="twocloud-deploy", Key="next.zip", Body=archive.getvalue())
    old, (script,) = packaged.read_text(), PAGE["Upgrade and roll back"]
    with Readers(stack, stack.token("123")) as answers:
        for text in (old.replace("twocloud-test.zip", "next.zip"), old):
            packaged.write_text(text)
            operator(script)
            assert (stack.function("APIHandler")["CodeSha256"] == before) == (text == old)
            wait(lambda so_far=len(answers): len(answers) > so_far + 3, 60)
    check(answers, 2)


# open: after rotating under another key the emulator's account does not open; moto's does (tests/unit/test_rotation.py)
def test_another_key_of_kms(stack: Stack, operator: Any, tmp_path: Path) -> None:
    """The emulator has no ReEncrypt (moto has: tests/unit/test_rotation.py); there the account is rotated instead."""
    first, second, third = PAGE["Change the key that seals the credentials"][:3]
    assert re.search(r"\ntwocloud account reseal$|TWOCLOUD_OLD_KEY=\S+ twocloud account reseal$", second, re.M)
    (tmp_path / "new-keys.secret").write_text(json.dumps(stack.keys))
    rotated = PAGE["Rotate a party's credentials"][0].replace("new-keys.json",
                                                              "new-keys.secret --no-check --trust-settings")
    second = re.sub(r"(?m)^TWOCLOUD_KEY=\S+ TWOCLOUD_OLD_KEY=\S+ twocloud account reseal$",
                    f"export TWOCLOUD_KEY=kms:$NEW\n{rotated}", second)
    old = key_of(stack).name
    with Readers(stack, stack.token("123")) as answers:
        listed = operator(first + second + third + "\nstack_output Key")
    check(answers, 2)
    accounts_told, new = json.loads(listed[listed.index("["):listed.rindex("]")
                                           + 1]), listed.strip().rpartition("\n")[2]
    assert {row["key"] for row in accounts_told if row["tenant_id"] == "123"} == {new} != {old}
    assert new.startswith("kms:arn:")
    kms = stack.client("kms")
    for key in (old, new):                  # the grant is gone, and the new key's policy is the old one's
        assert kms.get_key_policy(KeyId=key.removeprefix("kms:"), PolicyName="default")["Policy"].strip() == (
            tmp_path / "policy.json").read_text().strip()
    moved = json.loads((tmp_path / "move.json").read_text())["Statement"]
    assert moved[0]["Action"] == ["kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:Decrypt"]
    assert moved[1:] == json.loads((tmp_path / "policy.json").read_text())["Statement"]
    variables = stack.function("APIHandler")["Environment"]["Variables"]
    assert variables["TWOCLOUD_KEY"] == new
    assert "TWOCLOUD_OLD_KEY" not in variables


def test_restore_a_table(stack: Stack, operator: Any) -> None:
    script = "".join(block for block in PAGE["Back up and restore"] if "twocloud-restored" in block)
    before = stack.token("123")
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert stack.get(before).status_code == 200
    operator(script, MOMENT=moment)
    client = stack.client("dynamodb")
    table = client.describe_table(TableName="twocloud-restored")["Table"]
    assert table["DeletionProtectionEnabled"]
    assert client.describe_time_to_live(
        TableName="twocloud-restored")["TimeToLiveDescription"]["AttributeName"] == "expires"
    for name in ("APIHandler", "Authorize", "Spread", "Work"):
        assert stack.function(name)["Environment"]["Variables"]["TWOCLOUD_STORE"] == "dynamodb://twocloud-restored"
    restored = DynamoStore("twocloud-restored", time.time, client)
    assert tokens.every(restored) == []
    assert accounts.find(restored, "123", "qcloud")
    assert users.every(restored)
    assert stack.get(before).status_code == 401
    user = users.every(restored)[0]
    users.change(restored, user.name, lambda row: users.User(name=row.name, uid=row.uid, tenants=("123",)))
    token = canaries.watch(tokens.issue(restored, users.User(name=user.name, uid=user.uid, tenants=("123",)),
                                        tokens.Limits(), 3600, time.time())[0])
    assert len(stack.get(token).json()["vm_servers"]) == 10             # the functions' rights are on this table now
    with pytest.raises(AssertionError, match=r"ResourceNotFound|not found"):
        operator("TWOCLOUD_STORE=dynamodb://twocloud-none twocloud token revoke --all")
    operator("redeploy TableName=")
    assert stack.get(before).status_code == 200


def test_from_one_machine_to_aws(stack: Stack, operator: Any, tmp_path: Path) -> None:
    """As an operator with the rights that the page names, enforced, and no other; the worker's key opens what came."""
    client, iam = stack.client("dynamodb"), stack.client("iam")
    client.create_table(TableName="moved", **TABLE)
    folder = tmp_path / ".twocloud"
    store = SqliteStore(str(folder / "twocloud.db"), time.time)
    key = secret("moved")
    made = accounts.check("123", parties.load("qcloud"), {"secret_id": "AKID", "secret_key": key}, project=None,
                          regions=("gz",), deep=False,
                          endpoint=None, local=False)
    accounts.put(store, LocalSealer.of_file(folder / "key"), made, time.time())
    users.add(store, users.User(name="ann", uid="1", tenants=("123",)))
    store.close()
    (script,) = PAGE["Move from one machine to AWS"]
    script = script.replace("$(stack_output Store)", "dynamodb://moved").replace(
        "$(stack_output Key)", f"kms:{stack.outputs['Key'].removeprefix('kms:')}")
    iam.create_user(UserName="olga")
    it = iam.create_access_key(UserName="olga")["AccessKey"]
    olga = {"AWS_ACCESS_KEY_ID": it["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": it["SecretAccessKey"], **{
        name: value for name, value in stack.environment.items() if "KEY" not in name}}
    table = "arn:aws:dynamodb:us-east-1:123456789012:table/moved"

    def allow(actions: set[str]) -> None:
        iam.put_user_policy(UserName="olga", PolicyName="page",
                            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": sorted(a for a in actions if a.startswith("dynamodb:")), "Resource": table},
            {"Effect": "Allow", "Action": "kms:Encrypt", "Resource": "*"}]}))

    everyday, copying = (rights()[row][0] for row in ("users, tokens, accounts, tenants", "`store copy` to the table"))
    allow(everyday)
    with pytest.raises(AssertionError, match="AccessDenied"):
        run(script, tmp_path, **olga)
    allow(everyday | copying)
    run(script, tmp_path, **olga)
    run(script, tmp_path, **olga)                               # again: what changed
    there = DynamoStore("moved", time.time, client)
    kms = KmsSealer(stack.outputs["Key"].removeprefix("kms:"), stack.client("kms"))
    assert accounts.load(there, lambda: kms, "123", "qcloud", local=False).credentials["secret_key"] == key
    allow(everyday)
    run("twocloud user add bob --tenant 7; twocloud token issue --user bob >bob.secret; twocloud token revoke "
        "--user bob; "
        "twocloud tenant remove 123; twocloud user remove bob", tmp_path, **olga, TWOCLOUD_STORE="dynamodb://moved")
    assert accounts.every(there) == []
    assert [user.tenants for user in users.every(there)] == [()]


def test_remove_everything(stack: Stack, operator: Any) -> None:
    """Last: nothing is left to test."""
    (script,) = re.findall(r"```console\n(\$ TABLE=.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    script = re.sub(r"--stack-name twocloud$", "--stack-name twocloud-test", re.sub(r"(?m)^\$ ", "", script),
                    flags=re.MULTILINE).replace("BUCKET/twocloud/", "twocloud-deploy/")
    table, queue = stack.outputs["Store"].rpartition("/")[2], stack.outputs["QueueURL"]
    operator(script)
    assert table not in stack.client("dynamodb").list_tables()["TableNames"]
    assert not [it for it in stack.client("lambda").list_functions()["Functions"]
                if it["FunctionName"].startswith("twocloud-test")]
    assert queue not in stack.client("sqs").list_queues().get("QueueUrls", [])
    assert not stack.client("s3").list_objects_v2(Bucket="twocloud-deploy").get("KeyCount")
    pending = [key for it in stack.client("kms").list_keys()["Keys"]
               if (key := stack.client("kms").describe_key(KeyId=it["KeyId"])["KeyMetadata"])["KeyState"]
               == "PendingDeletion"]
    assert pending
