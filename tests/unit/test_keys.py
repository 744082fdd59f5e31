"""docs/keys.md leads to keys that hold exactly the rights that the parties state, and to the fields that they take."""

import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
import yaml

from chalicelib import errors, parties
from chalicelib.cloud import cache
from chalicelib.cloud.party import Party
from chalicelib.fleet import check
from chalicelib.parties.aws.test_aws import moto_url, ours
from tests import ROOT, canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT

__all__ = ["moto_url"]                      # a fixture

PAGE = (ROOT / "docs/keys.md").read_text()
SECTIONS = dict(re.findall(r"^## ([a-z]+)$\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
POLICIES = {name: what["policies"] for name, what in WHAT.items() if "policies" in what}     # the second is for --deep
ORGANISATIONS = [name for name in parties.names() if parties.load(name).discover]
RIGHT = re.compile(r"(?<![\w/.-])(?!arn:)(?:[A-Za-z]+:apiovh:[A-Za-z/]+|[a-z_]+:[A-Za-z]\w*(?::\w+)*|"
                   r"compute\.\w+\.\w+|[A-Z][A-Za-z]+ReadOnly|"
                   r"Microsoft\.\w+(?:/\w+)+|"
                   r"subscriptions_view)(?![\w/])")


def blocks(section: str, kind: str) -> Iterator[Any]:
    for text in re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL):
        yield json.loads(text) if kind == "json" else yaml.safe_load(text)


def policies(party: str) -> list[set[str]]:
    """The action words of each policy in a party's section; who may assume a role is no policy of a key's."""
    rights: list[set[str]] = []
    for block in [*blocks(SECTIONS[party], "json"), *blocks(SECTIONS[party], "yaml")]:
        if not isinstance(block, dict):
            continue
        statements = [{key.lower(): value for key, value in each.items()} for each in block.get("Statement")
                      or block.get("statement") or ()]
        assert all(each["effect"].lower() == "allow" for each in statements)
        if statements and not any("principal" in each for each in statements):
            rights.append({word for each in statements for word in each["action"]})
        elif "Actions" in block or "includedPermissions" in block:
            rights.append(set(block.get("Actions") or block["includedPermissions"]))
        elif "accessControlList" in block:
            rights.append({f"{each['service']} {word}" for each in block["accessControlList"]
                           for word in each["permission"]})
    return rights


def test_every_party_has_a_section_and_a_link() -> None:
    assert tuple(SECTIONS) == parties.names()
    assert re.findall(r"\[(\w+)\]\(#(\w+)\)", PAGE) == [(name, name) for name in SECTIONS]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_holds_the_stated_rights_and_no_other(name: str) -> None:
    party = parties.load(name)
    stated = [set(party.permissions), {*party.permissions, *party.deep_permissions}]
    behind, rights = [set(party.discover_permissions)] if party.discover_permissions else [], policies(name)
    assert rights == stated[:POLICIES[name]] + behind
    assert not party.deep_permissions or POLICIES[name] == 2
    assert not any("*" in word for policy in rights for word in policy)


@pytest.mark.parametrize("name", ORGANISATIONS)
def test_a_section_leads_to_an_organisation(name: str) -> None:
    """Every right of a discovery, the options that it takes, and a role only in members."""
    party, (_, heading, text) = parties.load(name), SECTIONS[name].partition("### Organisations")
    assert heading, f"keys.md of {name} has no part \"### Organisations\""
    assert "--discover" in text
    assert all(right in text for right in party.discover_permissions)
    assert ("--discover-below" in text) == bool(party.below)
    assert ("--discover-role" in text) == bool(party.role)
    for policy in blocks(text, "json"):
        for statement in policy.get("Statement", ()) if isinstance(policy, dict) else ():
            if "sts:AssumeRole" in statement["Action"]:
                resources = statement["Resource"]
                for resource in [resources] if isinstance(resources, str) else resources:
                    assert re.search(r":role/[A-Za-z0-9_-]+$", resource), resource


@pytest.mark.parametrize("name", parties.names())
def test_a_section_names_the_stated_rights_and_no_other(name: str) -> None:
    party = parties.load(name)
    stated = {*party.permissions, *party.deep_permissions, *party.discover_permissions}
    text = re.sub(r"\s+", " ", SECTIONS[name])
    prose = re.sub(r"```json.*?```", "", SECTIONS[name], flags=re.DOTALL)
    if name not in POLICIES:
        assert all(right in text for right in stated), stated
    known = {*stated, *WHAT[name].get("named_beside", ()), *(word for right in stated for word in right.split())}
    assert set(RIGHT.findall(prose)) <= known, set(RIGHT.findall(prose)) - known


def shapes(party: Party) -> Iterator[tuple[set[str], set[str]]]:
    """What must and what may stand in each form of a party's credentials."""
    for form in party.credentials:
        yield {field for field in form if not field.endswith("?")}, {field.rstrip("?") for field in form}


@pytest.mark.parametrize("name", parties.names())
def test_the_fields_are_those_that_account_put_takes(name: str) -> None:
    examples = [set(block) for block in blocks(SECTIONS[name], "json")
                if isinstance(block, dict) and not block.keys() & {"Statement", "statement", "Actions",
                                                                   "accessControlList"}]
    assert examples
    assert all(any(must <= fields <= may for must, may in shapes(parties.load(name))) for fields in examples), examples


def test_what_the_check_says_is_what_the_program_says() -> None:
    texts = set(re.findall(r"^\| ([a-z -]+: [^|]*?) \|", PAGE, re.MULTILINE))
    assert texts == {meaning.hint for meaning in vars(errors).values() if isinstance(meaning, errors.Meaning)
                     and issubclass(meaning.error, errors.PartyDenied | errors.UnknownRegion)}
    deep = {name for name in parties.names() if parties.load(name).deep_permissions}
    assert {name for name, section in SECTIONS.items() if "`--deep`" in section} == deep


def test_amazons_policy_suffices_and_each_right_is_needed(app: App, moto_url: str) -> None:
    """Moto enforces policies: all of the page's list the servers, and without any one of them nothing is listed."""
    def client(service: str) -> Any:
        return boto3.client(service, endpoint_url=moto_url, region_name="us-east-1", aws_access_key_id="AKIA",
                            aws_secret_access_key="s")

    def enforced(after: str) -> None:
        requests.post(f"{moto_url}/moto-api/reset-auth", data=after, timeout=9)

    requests.post(f"{moto_url}/moto-api/reset", timeout=9)
    iam, ec2 = client("iam"), client("ec2")
    ec2.run_instances(ImageId=ec2.describe_images()["Images"][0]["ImageId"], InstanceType="t3.micro", MinCount=3,
                      MaxCount=3)
    policy = next(block for block in blocks(SECTIONS["aws"], "json") if "Statement" in block)
    iam.create_user(UserName="twocloud")
    key = iam.create_access_key(UserName="twocloud")["AccessKey"]
    app.account("aws", {"access_key_id": key["AccessKeyId"],
                          "secret_access_key": canaries.watch(key["SecretAccessKey"])}, moto_url)
    try:
        for missing in (None, *policy["Statement"][0]["Action"]):
            enforced("inf")
            statement = {**policy["Statement"][0], "Action": [word for word in policy["Statement"][0]["Action"]
                                                              if word != missing]}
            iam.put_user_policy(UserName="twocloud", PolicyName="list",
                                PolicyDocument=json.dumps({**policy, "Statement": [statement]}))
            cache.forget()
            enforced("0")
            if missing in (None, "ec2:DescribeRegions"):                # the latter is for region=all
                assert ours(app.deployment, "us-east-1").total == 3
            else:
                with pytest.raises(errors.PartyDenied, match="missing right"):
                    ours(app.deployment, "us-east-1")
            if missing == "ec2:DescribeInstances":
                with pytest.raises(errors.PartyDenied, match="missing right"):
                    check.check_account(app.deployment, "123", "aws", "us-east-1")
            else:
                assert check.check_account(app.deployment, "123", "aws", "us-east-1") == "us-east-1"
    finally:
        enforced("inf")
