"""Catalogues as operators leave them: each bend of a good one, at the simulator here and at a real Keystone and Nova in
test_lab.py. openstacksdk lists the same servers where it can read the catalogue."""

import re
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests import canaries
from tests.fixtures import App

from ...cloud import cache
from ...errors import PartyDenied, PartyError, PartyMalformed, UnknownRegion
from ...fleet import many_sources
from ...simulators.fleet import Fleet
from .simulator import Openstack, id_of
from .test_openstack import listed, put

sdk = pytest.importorskip("openstack")
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

Catalog = list[Any]
OURS = ("compute", "block-storage")


@dataclass(frozen=True, slots=True)
class Bend:
    """`change`: makes this catalogue of a good one, whose addresses are versioned. `credentials`: more of our fields.
    `theirs`: the same for openstacksdk, None: it cannot read such a catalogue. `unsized`: without Cinder."""

    change: Callable[[Catalog], Catalog]
    credentials: dict[str, str] = field(default_factory=dict[str, str])
    theirs: dict[str, Any] | None = field(default_factory=dict[str, Any])
    unsized: bool = False


def endpoints(change: Callable[[dict[str, Any]], dict[str, Any]], kinds: tuple[str, ...] = OURS,
              ) -> Callable[[Catalog], Catalog]:
    """A bend of every address of these services."""
    return lambda catalog: [
        {**entry, "endpoints": [change(row) for row in entry["endpoints"]]} if entry["type"] in kinds else entry
        for entry in catalog]


def unversioned(row: dict[str, Any], slash: str = "") -> dict[str, Any]:
    return {**row, "url": re.sub(r"/v[0-9.]+(/[0-9a-f]{32})?$", slash, row["url"])}


def without_project(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "url": re.sub(r"/[0-9a-f]{32}$", "", row["url"])}


def only(interface: str) -> Callable[[Catalog], Catalog]:
    """The public addresses under another interface, and nothing at all under public that can be reached."""
    def change(catalog: Catalog) -> Catalog:
        return [{**entry, "endpoints": [{**row, "interface": interface} for row in entry["endpoints"]
                                        if row["interface"] == "public"] + [
            {"interface": "public", "region_id": "RegionOne", "region": "RegionOne", "url": "https://192.0.2.1/v2.1"}]}
            for entry in catalog if entry["type"] in OURS]
    return change


def renamed(catalog: Catalog) -> Catalog:
    return [{**entry, "type": {"block-storage": "volumev3"}.get(entry["type"], entry["type"])} for entry in catalog]


def more_addresses(catalog: Catalog) -> Catalog:
    """The same Nova without a version, twice, and under version 1, first in the list and last."""
    nova = next(entry for entry in catalog if entry["type"] == "compute")
    rows = [{**unversioned(row), "id": "x"} for row in nova["endpoints"]]
    old = [{**row, "url": f"{row['url']}/v1.0/1"} for row in rows]
    return [{**nova, "endpoints": [*old, *rows]}, *catalog, {**nova, "endpoints": [*rows, *nova["endpoints"]]},
            {**nova, "type": "compute_legacy"}]


BROKEN: Catalog = [
    None, "row", 7, [], {}, {"name": "ghost", "endpoints": []}, {"type": None, "endpoints": None},
    {"type": "metric", "endpoints": [{"interface": "public", "region_id": "RegionOne", "url": None}]},
    {"type": "compute"}, {"type": "compute", "endpoints": "x"}, {"type": "compute", "endpoints": [
        None, [], {}, {"interface": "public", "region_id": "RegionOne", "url": ""},
        {"interface": "public", "region_id": "RegionOne", "url": "https://%(host)s/v2.1"},
        {"interface": None, "region_id": None, "url": "https://192.0.2.1/v2.1"}]}]
BENDS = {
    "good": Bend(lambda catalog: catalog),
    "without versions": Bend(endpoints(unversioned)),
    "without versions, a slash at the end": Bend(endpoints(lambda row: unversioned(row, "/"))),
    "Nova alone without a version": Bend(endpoints(unversioned, ("compute",))),
    "Cinder alone without a version": Bend(endpoints(unversioned, ("block-storage",))),
    "Cinder without the project": Bend(endpoints(without_project, ("block-storage",))),
    "without regions": Bend(lambda catalog: [
        {**entry, "endpoints": [{**row, "region": None, "region_id": None} for row in entry["endpoints"]
                                if "Two" not in (row["region_id"] or "")]}
        for entry in catalog], theirs={"region_name": None}),
    "regions by their old name": Bend(endpoints(lambda row: {
        name: value for name, value in row.items() if name != "region_id"})),
    "internal alone": Bend(only("internal"), {"interface": "internal"}, {"interface": "internal"}),
    "admin alone": Bend(only("admin"), {"interface": "admin"}, {"interface": "admin"}),
    "volumev3": Bend(renamed),
    "without Cinder": Bend(lambda catalog: [entry for entry in catalog if entry["type"] != "block-storage"],
                           unsized=True),
    "several addresses of one Nova": Bend(more_addresses, theirs=None),
    "broken rows": Bend(lambda catalog: [*BROKEN, *catalog, *BROKEN], theirs=None),
}


def ids(credentials: dict[str, Any], region: str | None, **more: Any) -> list[str]:
    """What openstacksdk's list of servers holds."""
    options = {"region_name": region, **more}
    with warnings.catch_warnings(action="ignore"):
        cloud = sdk.connect(load_yaml_config=False, load_envvars=False, auth={
            "user_domain_id": "default", "project_domain_id": "default", **credentials}, **options)
        ids_listed = sorted(server.id for server in cloud.compute.servers(details=True))
        cloud.close()
    return ids_listed


def bent(stack: ExitStack, **more: Any) -> tuple[Openstack, dict[str, str]]:
    password = canaries.secret("openstack")
    cloud = stack.enter_context(Openstack(
        {("demo", "default"): password}, {}, {"RegionOne": Fleet(24, "os"), "RegionTwo": Fleet(6, "two")}, **more))
    return cloud, {"auth_url": f"{cloud.url}/identity", "username": "demo", "password": password,
                   "project_id": cloud.project}


@pytest.mark.parametrize("name", BENDS)
def test_a_bent_catalogue_lists_the_same(name: str, app: App, stack: ExitStack) -> None:
    cloud, credentials = bent(stack)
    put(app, credentials)
    straight = listed(app).servers
    bend = BENDS[name]
    cloud.bend = bend.change
    cache.forget()
    put(app, {**credentials, **bend.credentials})
    servers = listed(app).servers
    assert [server.id for server in servers] == [server.id for server in straight]
    if bend.unsized:
        assert {server.disk_gib for server in servers} > {None}
    else:
        assert servers == straight
    part = listed(app, window=many_sources.Window(5, 9)).servers
    assert [server.id for server in part] == [server.id for server in straight[4:9]]
    if bend.theirs is not None:
        assert ids(credentials, "RegionOne", **bend.theirs) == sorted(server.id for server in servers)


def test_two_novas_in_a_region(app: App, stack: ExitStack) -> None:
    """openstacksdk calls one of them; we list the machines of both."""
    cloud, credentials = bent(stack)
    cloud.bend = lambda catalog: [
        {**entry, "endpoints": [{**row, "region_id": "RegionOne", "region": "RegionOne"} for row in entry["endpoints"]]}
        for entry in catalog]
    put(app, credentials)
    both = {id_of(fleet[n]) for fleet in cloud.fleets.values() for n in range(len(fleet))}
    servers = listed(app).servers
    assert {server.id for server in servers} == both
    assert len(servers) == 30
    assert not any(server.disk_gib is None for server in servers)
    assert len(ids(credentials, "RegionOne")) in (6, 24)
    windows = [many_sources.Window(first, first + 6) for first in range(1, 31, 7)]
    assert [server for window in windows for server in listed(app, window=window).servers] == servers
    cloud.fail("503", "ListServersDetailed", (2, 3, 4))
    with pytest.raises(PartyError):
        listed(app)


@pytest.mark.parametrize(("change", "error", "text"), [
    (only("internal"), UnknownRegion, "no Nova"),
    (lambda catalog: [{**entry, "endpoints": [row for row in entry["endpoints"] if row["interface"] == "internal"]}
                      for entry in catalog], PartyDenied, "under other interfaces only: internal"),
    (lambda catalog: [], UnknownRegion, "no Nova"), (lambda catalog: BROKEN, PartyMalformed, "no address of Nova"),
    (endpoints(lambda row: {**row, "url": "http://192.0.2.1/v2.1"}), PartyMalformed, "--allow-http"),
    (endpoints(lambda row: {**row, "url": row["url"].replace("/compute-", "/elsewhere-").removesuffix("/v2.1")}),
     PartyMalformed, "names no version, and none")])
def test_a_catalogue_without_a_nova_says_why(change: Callable[[Catalog], Catalog], error: type[PartyError], text: str,
                                             app: App, stack: ExitStack) -> None:
    cloud, credentials = bent(stack, regions=("RegionOne",))
    cloud.bend = change
    if change([{"type": "compute", "endpoints": []}]) and text == "no Nova":
        cloud.bend = lambda catalog: change([{"type": "image", "endpoints": []}])
    put(app, credentials)
    with pytest.raises(error, match=text):
        listed(app)


@pytest.mark.parametrize("end", ["", "/", "/v3", "/v3/", "/v2.0", "/v2.0/tokens", "/v3/auth", "/v3/auth/tokens"])
def test_an_auth_url_behind_a_path_may_have_any_end(end: str, app: App, stack: ExitStack) -> None:
    _, credentials = bent(stack)
    put(app, {**credentials, "auth_url": credentials["auth_url"] + end})
    assert listed(app).total == 24


def test_the_wrong_path_of_keystone_is_named(app: App, stack: ExitStack) -> None:
    cloud, credentials = bent(stack)
    for path in ("", "/nowhere", "/identity/nowhere"):
        put(app, {**credentials, "auth_url": f"{cloud.url}{path}"})
        with pytest.raises(PartyError, match="auth_url does not lead to Keystone v3"):
            listed(app)
