"""The page on organisations: its policies are those of the page on keys, its lines run as they stand."""

import ast
import json
import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import yaml

from chalicelib import parties
from chalicelib.parties.aws.test_aws import moto_url
from chalicelib.simulators.server import Simulator
from tests import ROOT, canaries
from tests.programs import blocks, program
from tests.programs.test_docs import bash
from tests.unit.test_discovery import CLOUDS, UNITS, branches

__all__ = ["moto_url"]                      # a fixture
PAGE = "docs/organisations.md"
TITLES = {"aws": "AWS", "azure": "Azure", "gcp": "Google Cloud", "aliyun": "Alibaba Cloud", "openstack": "OpenStack"}
AMAZONS = ROOT / ".tools/aws/bin"


def section(page: str, heading: str) -> str:
    match = re.search(rf"^## {heading}$\n(.*?)(?=^## |\Z)", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert match, (page, heading)
    return match[1]


def policies(text: str) -> list[Any]:
    """The policies and roles of a section. Where a role may be assigned differs from page to page."""
    documents: list[Any] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    documents += [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    return [{key: value for key, value in each.items() if key != "AssignableScopes"} for each in documents
            if isinstance(each, dict) and each.keys() & {"Statement", "Actions", "includedPermissions"}]


def line_of(party: str, holds: str = "account put acme") -> str:
    (line,) = (text for text in blocks(PAGE, "sh") if f"{holds} {party} " in text)
    return line


def test_there_is_a_section_for_each_party_that_has_organisations() -> None:
    assert set(TITLES) == {name for name in parties.names() if parties.load(name).discover}
    for title in TITLES.values():
        assert section(PAGE, title)


@pytest.mark.parametrize("party", ["aws", "azure", "gcp"])
def test_the_policies_are_those_of_the_keys_page(party: str) -> None:
    """All that an organisation needs: what lists, and what finds the members. A role's trust is in role.yaml here."""
    keys = [policy for policy in policies(section("docs/keys.md", party))
            if not any("Principal" in statement for statement in policy.get("Statement", ()))]
    here = policies(section(PAGE, TITLES[party]))
    assert here
    assert sorted(map(json.dumps, here)) == sorted(map(json.dumps, keys))


def test_the_role_of_amazons_members_is_that_of_the_keys_page() -> None:
    (role,) = (template["Resources"]["Reader"]["Properties"] for template in map(yaml.safe_load, blocks(PAGE, "yaml"))
               if "Resources" in template)
    trust = next(policy for policy in policies(section("docs/keys.md", "aws"))
                 if "Principal" in policy["Statement"][0])
    template = json.loads(json.dumps(role["AssumeRolePolicyDocument"]))
    assert template["Statement"][0].pop("Principal") == {"AWS": {"Ref": "Door"}}
    assert trust["Statement"][0].pop("Principal")
    assert template["Statement"][0].pop("Condition") == {"StringEquals": {"sts:ExternalId": {"Ref": "ExternalId"}}}
    assert set(trust["Statement"][0].pop("Condition")["StringEquals"]) == {"sts:ExternalId"}
    assert template == trust
    assert [policy["PolicyDocument"] for policy in role["Policies"]] == policies(section("docs/keys.md", "aws"))[:1]
    assert role["RoleName"] in line_of("aws")


# ---------------------------------------------------------------- its lines run

@pytest.fixture
def organisation(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> Simulator:
    """A simulated one; its key is in keys.secret."""
    cloud = CLOUDS[request.param]
    assert cloud.organise
    made, credentials = cloud.organise(branches(cloud.region), canaries.secret(request.param), units=UNITS,
                                       limited=False)
    (tmp_path / "keys.secret").write_text(json.dumps(credentials))
    return stack.enter_context(made)


def stored(organisation: Simulator, text: str) -> str:
    """The line as it stands, except for the simulator in place of the cloud, whose members have the party's default
    role, and a file whose name the tests know."""
    text = re.sub(r"--discover-role \S+ ", "", text)
    text = re.sub(r"(account put \w+ \w+)", rf"\1 --endpoint {organisation.url}", text)
    return text.replace("keys.json", "keys.secret").replace("rm keys.secret", "")


@pytest.mark.sample(4)
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("party", "organisation"), [(party, party) for party in TITLES if party != "aws"],
                         indirect=["organisation"])
def test_an_organisation_is_stored(party: str, organisation: Simulator, tmp_path: Path) -> None:
    assert ("--discover-role twocloud-reader" in line_of(party)) == bool(parties.load(party).role)
    (listing,) = (text for text in blocks(PAGE, "sh") if text.startswith("twocloud servers "))
    done = bash(f"{stored(organisation, line_of(party))}\n{listing.rstrip()} -o json", tmp_path, TWOCLOUD_LOCAL="1")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert len(answer["vm_servers"]) == 14
    opened = {source["account"].partition(":")[2] for source in answer["sources"]}
    assert {organisation.ids[name] for name in ("door", "top", "payments", "basket")} <= opened   # type: ignore[attr-defined]
    assert organisation.ids["old"] not in opened        # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("organisation", ["aws"], indirect=True)
def test_every_member_is_listed_and_named(organisation: Any, tmp_path: Path) -> None:
    """What the page says of members that are open, locked, suspended and gone; and a team's part."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    access, curl = (text.replace("8000", port) for text in re.findall(
        r"```sh\n(.*?)```", section(PAGE, "List every server").partition("The command lists")[0], re.DOTALL))
    access = access.replace("serve ", "-q serve ")
    done = bash(f"{stored(organisation, line_of('aws'))}\n{access}\ntrap 'kill %1' EXIT\n{curl}\n"
                "echo; echo $TWOCLOUD_TOKEN >&2", tmp_path, TWOCLOUD_LOCAL="1")
    canaries.watch(done.stderr.split()[-1])
    assert done.returncode == 0, done.stderr
    assert re.search(r"^members +6$", done.stdout, re.M)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert len(answer["vm_servers"]) == 14
    assert not answer["complete"]
    (shown,) = (json.loads(text) for text in blocks(PAGE, "json") if "AccessDenied" in text)
    assert shown in answer["sources"]
    assert organisation.ids["old"] not in json.dumps(answer["sources"])

    organisation.accounts = {key: value for key, value in organisation.accounts.items()
                             if key != organisation.ids["top"]}
    done = bash("twocloud account check acme aws; twocloud account show acme aws; COLUMNS=300 twocloud servers "
                "--party all --tenant acme --region all --on-error partial", tmp_path, TWOCLOUD_LOCAL="1")
    assert done.returncode == 0, done.stderr
    (table,) = (text for text in blocks(PAGE, "text") if text.startswith("ACCOUNT "))
    lines = [re.sub(r"20[-:\dTZ]{18}", "TIME", re.sub(" +", " ", line.strip())) for line in done.stdout.splitlines()]
    for line in table.splitlines():
        assert re.sub(r"20[-:\dTZ]{18}", "TIME", re.sub(" +", " ", line)) in lines, done.stdout
    assert lines[lines.index("") + 1].startswith("ACCOUNT ")
    assert any(line.startswith("PARTY ACCOUNT REGION ") for line in lines), done.stdout

    (team,) = re.findall(r"```sh\n(.*?)```", section(PAGE, "Give a team its part"), re.DOTALL)
    team = stored(organisation, team).replace("ou-ab12-ac6a4ca2", organisation.units["products"])
    done = bash(f"{team}\ntwocloud servers --party all --tenant shop --region all -o json", tmp_path,
                TWOCLOUD_LOCAL="1")
    assert done.returncode == 0, done.stderr
    canaries.watch(done.stdout.splitlines()[-2])
    listed = json.loads(done.stdout.splitlines()[-1])
    assert {source["account"].partition(":")[2] for source in listed["sources"]} == {
        organisation.ids[name] for name in ("payments", "empty", "basket")}

    organisation.fail("403", "ListAccounts")
    (tmp_path / "again").mkdir()
    done = bash(f"{stored(organisation, line_of('aws')).partition('twocloud account check')[0]}"
                "twocloud servers --party all --tenant acme --region all --on-error partial -o json",
                tmp_path, TWOCLOUD_LOCAL="1", TWOCLOUD_STORE=f"sqlite:///{tmp_path}/again/x.db")
    (row,) = json.loads(done.stdout.splitlines()[-1])["sources"]
    assert (row["account"], row["region"], row["error"]) == ("default", "all", "party_denied")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_amazons_lines_work_as_pasted(moto_url: str, tmp_path: Path) -> None:
    """At moto: the role is in every account of the organisation, the user's key finds them, and all are listed."""
    program("aws", str(AMAZONS))
    requests.post(f"{moto_url}/moto-api/reset", timeout=9)

    def client(service: str, **keys: Any) -> Any:
        return boto3.client(service, endpoint_url=moto_url, region_name="us-east-1",
                            **keys or {"aws_access_key_id": "AKIA", "aws_secret_access_key": "s"})

    organisations = client("organizations")
    organisations.create_organization(FeatureSet="ALL")
    member = organisations.create_account(AccountName="shop", Email="a@example.com")["CreateAccountStatus"]["AccountId"]

    def opened(service: str) -> Any:
        session = client("sts").assume_role(RoleArn=f"arn:aws:iam::{member}:role/reader",
                                            RoleSessionName="boto3")["Credentials"]
        return client(service, aws_access_key_id=session["AccessKeyId"], aws_session_token=session["SessionToken"],
                      aws_secret_access_key=session["SecretAccessKey"])

    for count, ec2 in ((2, client("ec2")), (3, opened("ec2"))):
        ec2.run_instances(ImageId=ec2.describe_images()["Images"][0]["ImageId"], InstanceType="t3.micro",
                          MinCount=count, MaxCount=count)
    amazon = section(PAGE, "AWS")
    discover, listing = re.findall(r"```json\n(.*?)```", amazon, re.DOTALL)
    (role,) = re.findall(r"```yaml\n(.*?)```", amazon, re.DOTALL)
    for name, text in (("discover.json", discover), ("list.json", listing), ("role.yaml", role)):
        (tmp_path / name).write_text(text)
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", amazon, re.DOTALL)).replace("keys.json", "keys.secret")
    done = bash(f"export PATH={AMAZONS}:$PATH\n" + lines.replace("put acme aws", f"put acme aws --endpoint {moto_url}")
                + "\ntwocloud servers --party all --tenant acme --region all -o json",
                tmp_path, TWOCLOUD_LOCAL="1", AWS_ENDPOINT_URL=moto_url, AWS_ACCESS_KEY_ID="AKIA",
                AWS_SECRET_ACCESS_KEY="s", AWS_DEFAULT_REGION="us-east-1", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "keys.secret").exists()
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["complete"]
    assert len(answer["vm_servers"]) == 5
    assert {row["account"] for row in answer["vm_servers"]} == {"default:123456789012", f"default:{member}"}
    iam = opened("iam")
    trust = iam.get_role(RoleName="twocloud-reader")["Role"]["AssumeRolePolicyDocument"]["Statement"][0]
    assert trust["Principal"] == {"AWS": "123456789012"}
    assert re.fullmatch("[0-9a-f]{32}", trust["Condition"]["StringEquals"]["sts:ExternalId"])
    made = iam.get_role_policy(RoleName="twocloud-reader", PolicyName="list")["PolicyDocument"]
    assert ast.literal_eval(made) == json.loads(listing)        # moto writes Python
    mine = client("iam")
    for name, text in (("discover", discover), ("list", listing)):
        assert mine.get_user_policy(UserName="twocloud", PolicyName=name)["PolicyDocument"] == json.loads(text)
