"""What people call the regions: each party's table, against what the vendors' own SDKs and recorded lists say.

A name that is wrong sends a reader to the wrong place, so a table is held to data that we did not write where a package
in the environment has some.
"""

import json
import re
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jdcloud_sdk
import libcloud
import pytest
from botocore.session import get_session
from huaweicloudsdkecs.v2.region.ecs_region import EcsRegion
from ksyun.client.kes.v20201215 import models as ksyun_models
from libcloud.common.cloudsigma import API_ENDPOINTS_2_0
from ucloud.services.udpn import client as ucloud_client

from chalicelib import parties

NAMED = [name for name in parties.names() if parties.load(name).region_names()]
CHINESE = [name for name in NAMED if parties.load(name).region_names_zh()]
FIXTURES = Path(libcloud.__file__).parent / "test/compute/fixtures"
OCI = Path(__file__).parents[2] / ".tools/oci"
HAN = re.compile("[一-鿿]")


def test_public_clouds_have_names() -> None:
    """The others are private platforms, or no document of theirs names a region."""
    assert set(parties.names()) - set(NAMED) >= {"openstack", "proxmox", "vsphere", "cloudstack"}
    assert len(NAMED) >= len(parties.names()) - 8
    assert {"aliyun", "baidu", "huaweicloud", "jdcloud", "ksyun", "qcloud", "ucloud", "volcengine"} <= set(CHINESE)


@pytest.mark.parametrize("name", NAMED)
def test_names_are_of_codes_and_in_their_language(name: str) -> None:
    party = parties.load(name)
    english, chinese = party.region_names(), party.region_names_zh()
    assert [code for code in english if party.region(code) != code] == []
    assert [code for code, text in english.items() if not text.strip() or text == code or HAN.search(text)] == []
    assert len(set(english.values())) == len(english)
    assert chinese.keys() <= english.keys()
    assert [code for code, text in chinese.items() if not HAN.search(text)] == []
    assert len(set(chinese.values())) == len(chinese)
    assert party.default_region in english


@pytest.mark.parametrize("name", [name for name in CHINESE if name != "azure"])         # one of its sites is in China
def test_a_cloud_of_china_names_all_in_both_languages(name: str) -> None:
    party = parties.load(name)
    assert party.region_names_zh().keys() == party.region_names().keys()


# ---------------------------------------------------------------- data that we did not write

def fixture(path: str) -> Any:
    """An answer that Libcloud's own tests keep."""
    return json.loads((FIXTURES / path).read_text())


def of_botocore() -> dict[str, str]:
    endpoints = get_session().get_data("endpoints")
    return {code: region["description"] for partition in endpoints["partitions"]
            for code, region in partition["regions"].items()}


ORACLES: dict[str, Callable[[], Mapping[str, str]]] = {
    "aws": of_botocore,
    "lightsail": of_botocore,
    "digitalocean": lambda: {row["slug"]: row["name"] for row in fixture(
        "digitalocean_v2/list_locations.json")["regions"]},
    "vultr": lambda: {row["id"]: row["city"] for row in fixture("vultr_v2/list_locations.json")["regions"]},
    "upcloud": lambda: {row["id"]: row["description"] for row in fixture("upcloud/api_1_2_zone.json")["zones"]["zone"]},
    "kamatera": lambda: {row["id"]: row["subCategory"] for row in fixture("kamatera/datacenters.json")},
    "cloudsigma": lambda: {code: row["name"] for code, row in API_ENDPOINTS_2_0.items()},
}


@pytest.mark.parametrize("name", ORACLES)
def test_names_are_those_of_the_vendors_own_data(name: str) -> None:
    ours, theirs = parties.load(name).region_names(), ORACLES[name]()
    both = ours.keys() & theirs.keys()
    assert len(both) >= 2
    assert {code: ours[code] for code in both} == {code: theirs[code] for code in both}


def test_linodes_labels_end_with_the_country_of_the_region() -> None:
    """Libcloud's answer is of before the labels; in the United States a label ends with the state."""
    ours = parties.load("linode").region_names()
    theirs = {row["id"]: row["country"].upper() for row in fixture("linode_v4/list_locations.json")["data"]}
    ends = {code: ours[code].rpartition(", ")[2] for code, country in theirs.items() if country != "US"}
    assert len(ends) >= 7
    assert ends == {code: {"GB": "UK"}.get(theirs[code], theirs[code]) for code in ends}


@pytest.mark.parametrize(("name", "place", "word", "others"), [
    # the whole name; what stands in brackets, without a number; the same
    ("azure", r"(.+)", r"(.+)", {}),
    ("oci", r"\(([^)]+?)( [0-9])?\)", r"[a-z]+-([a-z]+)-", {"uk-cardiff-1": "newport"}),
    ("qcloud", r"\(([^)]+?)(, China)?\)", r"[a-z]+-([a-z]+)", {"na-ashburn": "virginia"}),
])
def test_a_code_has_the_word_of_its_place(name: str, place: str, word: str, others: Mapping[str, str]) -> None:
    matches = {code: re.search(place, text) for code, text in parties.load(name).region_names().items()}
    places = {code: match and match[1].replace(" ", "").lower() for code, match in matches.items()}
    assert places == {code: others.get(code, re.findall(word, code)[0]) for code in places}


def test_oracles_codes_are_in_its_sdk() -> None:
    """The SDK names no region; its codes and realms are what ours can be held to. `make test-all` installs it."""
    files = list(OCI.glob("lib/python3*/site-packages/oci/regions_definitions.py"))
    if not files:
        pytest.skip("needs Oracle's SDK: make .tools/oci/ready")
    realms = runpy.run_path(str(files[0]))["REGION_REALMS"]
    ours = parties.load("oci").region_names()
    assert ours.keys() <= realms.keys()
    assert {realms[code] for code in ours} == {"oc1", "oc20"}       # the public realm, and Serbia's of its own


def test_huaweis_codes_are_in_its_sdk() -> None:
    assert parties.load("huaweicloud").region_names().keys() <= EcsRegion.static_fields.keys() | {
        region.id for region in vars(EcsRegion).values() if hasattr(region, "endpoints")}


@pytest.mark.parametrize(("name", "theirs"), [
    # ksyun: "cn-shanghai-2a: 华东1（上海）,"; ucloud: "北京二：cn-bj2"; aliyun: an old list, "上海" of 华东2（上海）
    ("ksyun", lambda: {zone[:-1]: place for zone, place in re.findall(
        r"^([a-z]+-[a-z]+-[0-9][a-z]): ([^,]+),", Path(ksyun_models.__file__).read_text(), re.MULTILINE)}),
    ("ucloud", lambda: {code: place for place, code in re.findall(
        r"(法兰克福|新加坡|洛杉矶|华盛顿|东京)：([a-z-]+)", Path(ucloud_client.__file__).read_text())}),
    ("aliyun", lambda: dict(re.findall(
        r"<RegionId>([^<]+)</RegionId>\s*<LocalName>([\u4e00-\u9fff]{2})</LocalName>",
        (FIXTURES / "ecs/describe_regions.xml").read_text()))),
    ("jdcloud", lambda: {code: place for place, code in re.findall(
        r"(华[北东南]-[\u4e00-\u9fff]{2})\((cn-[a-z]+-[0-9])\)",
        (Path(jdcloud_sdk.__file__).parent / "services/rdts/apis/CreateMigrationRequest.py").read_text())}),
])
def test_chinese_names_hold_the_places_of_the_vendors_own_data(
        name: str, theirs: Callable[[], Mapping[str, str]]) -> None:
    ours = parties.load(name).region_names_zh()
    places = {code: place.replace("）", "").replace(")", "") for code, place in theirs().items() if code in ours}
    assert len(places) >= 3
    assert {code: (place, ours[code]) for code, place in places.items()
            if place not in ours[code].replace("）", "")} == {}
