"""A real Keystone 30 and a real Nova 34 judge the adapter: `make test` installs them, see tests/lab/cloud.py.

One test with many parts: workers share the tests out, and each would start a laboratory of its own.
"""

import json
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import requests

from chalicelib import parties
from tests import ROOT, canaries
from tests.lab import cloud
from tests.lab.cloud import Lab, User
from tests.lab.front import Front
from tests.verified import assert_same

from ...access import accounts
from ...cloud import cache, rate_limit, sender
from ...cloud.sender import Transport
from ...errors import PartyDenied, PartyMalformed, PartyUnavailable, UnknownRegion
from ...model import WHOLE, Account, Discovery, Listing, Member, Region, Response, Server, Sign, Source, Window
from .. import openstack
from .test_catalogues import BENDS, ids
from .test_openstack import connection, machines

KEYS = ROOT / "docs/keys.md"
SIZES = {"many": 1200, "few": 90, "none": 0}

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not (cloud.VENV / "ready").exists():
        warnings.warn("Keystone and Nova are not tried: `make test` installs them into .tools/openstack", stacklevel=1)
        pytest.skip("run `make test`, which installs Keystone and Nova")
    user = User("Jörg 用户", "default", canaries.watch(f"{canaries.secret('lab')} пароль \"'\\ "))
    foreigner = User("gast", "Firma Süd", canaries.secret("foreigner"))
    match = re.search(r"^## openstack$.*?```json\n(\[.*?\])\n```", KEYS.read_text(), re.DOTALL | re.MULTILINE)
    assert match
    with cloud.openstack(tmp_path_factory.mktemp("lab"), user, foreigner, canaries.secret("credential"), SIZES,
                         json.loads(match[1])) as made:
        yield made


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_real_keystone_and_a_real_nova(lab: Lab, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "CALL_SECONDS", 120.0)       # their speed on a busy machine is not the question
    for part in PARTS:
        with subtests.test(part.__name__), monkeypatch.context() as patched:
            cache.forget()
            part(lab, patched)


def account_of(lab: Lab, opens: str = "many", project: str | None = None) -> Account:
    return account({"auth_url": lab.auth_url, "username": lab.user.name, "password": lab.user.password,
                    "project_id": lab.projects[opens]}, project)


def account(credentials: Mapping[str, str], project: str | None = None) -> Account:
    return accounts.check("123", openstack.PARTY, dict(credentials), project=project, regions=(), deep=False,
                          endpoint=None,
                          local=True)


class Ask:
    """The adapter over the real door; counts what is asked."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.calls: Counter[str] = Counter()

    def servers(self, window: Window = WHOLE, region: str = "RegionOne") -> Listing:
        return self._ask(lambda send: parties.list_servers(Source("123", "openstack", region), self.account, window,
                                                           send))

    def regions(self) -> list[Region]:
        return self._ask(lambda send: parties.list_regions(self.account, send))

    def discover(self) -> list[Member]:
        return self._ask(lambda send: parties.discover(self.account, send))

    def regions_of(self, door: Account, member: Member) -> list[Region]:
        self.account = replace(door, member=member)
        return self.regions()

    def check(self, region: str) -> None:
        return self._ask(lambda send: parties.check(Source("123", "openstack", region), self.account, send))

    def _ask(self, ask: Callable[[Any], Any]) -> Any:
        with ExitStack() as stack:
            door = Transport()
            stack.callback(door.close)
            sender = door.sender(openstack.PARTY, self.account, "RegionOne", time.monotonic() + 240)

            def send(operation: str, sign: Sign) -> Response:
                self.calls[operation] += 1
                return sender(operation, sign)

            return ask(send)


def listed(account: Account, window: Window = WHOLE) -> Listing:
    return Ask(account).servers(window)


def records(listing: Listing) -> list[dict[str, Any]]:
    """With every field but those that the recipe of the lab does not say."""
    rows: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(
        [msgspec.structs.asdict(server) for server in listing.servers]))
    return [{name: row[name] for name in Server.__struct_fields__[:17]} for row in rows]


# ---------------------------------------------------------------- the parts

def every_record_of_more_than_a_thousand_servers(lab: Lab, _: pytest.MonkeyPatch) -> None:
    """Compared whole with what was inserted, seven to a second; and again through openstacksdk."""
    listing = listed(account_of(lab))
    assert listing.total == len(listing.servers) == len(lab.expected["many"]) > 1000
    assert records(listing) == lab.expected["many"]
    assert len({server.status for server in listing.servers}) == 18
    assert len({server.party_status for server in listing.servers}) == 17
    assert any(server.updated_at is None for server in listing.servers)     # Nova gave these the time of the request
    assert_same(listing.servers, machines(lab.auth_url, dict(account_of(lab).credentials), "RegionOne"))


def windows_join_to_the_whole(lab: Lab, _: pytest.MonkeyPatch) -> None:
    for project, far in (("many", Window(1001, 1020)), ("few", Window(88, 88))):
        whole, last = lab.expected[project], len(lab.expected[project])
        for window in (Window(3, 9), Window(101, 110), far, Window(last - 3), Window(last - 5, last + 5),
                       Window(last + 1, last + 10)):
            listing = listed(account_of(lab, project), window)
            assert records(listing) == whole[window.first - 1:window.last], window
            assert listing.total in ((last,) if project == "few" else (None, last)), window
    windows = [Window(first, first + 16) for first in range(1, len(lab.expected["few"]) + 1, 17)]
    assert [record for window in windows for record in records(listed(account_of(lab, "few"),
                                                                      window))] == lab.expected["few"]


def small_pages_cut_through_seconds(lab: Lab, patched: pytest.MonkeyPatch) -> None:
    patched.setattr(rate_limit.RateLimits, "limiter", lambda *_: None)
    for page, project in ((7, "few"), (300, "many")):
        patched.setattr(openstack, "_PAGE", page)
        assert records(listed(account_of(lab, project))) == lab.expected[project]


def the_calls(lab: Lab, _: pytest.MonkeyPatch) -> None:
    ask = Ask(account_of(lab))
    for window, calls in ((WHOLE, {"Login": 1, "ListServersDetailed": 3, "ListVolumesDetailed": 1}),
                          (Window(1, 10), {"ListServersDetailed": 1, "ListServers": 1, "ListVolumesDetailed": 1}),
                          (Window(1101, 1110), {"ListServersDetailed": 1, "ListServers": 2, "ListVolumesDetailed": 1})):
        ask.calls.clear()
        ask.servers(window)
        assert ask.calls == calls, window


def every_version_that_we_ask_for(lab: Lab, patched: pytest.MonkeyPatch) -> None:
    """A newer version than Nova's is a real 406; 2.1 reads the real list of flavors."""
    for versions in (("2.69",), ("2.999", "2.47"), ("2.999", "2.998", "2.1")):
        patched.setattr(openstack, "_VERSIONS", versions)
        assert records(listed(account_of(lab, "few"))) == lab.expected["few"], versions


def both_kinds_of_credentials_and_projects(lab: Lab, _: pytest.MonkeyPatch) -> None:
    """An application credential of role reader; a user of another domain; a project by name; --project."""
    credential = {"auth_url": lab.auth_url, **lab.credential}
    assert records(listed(account(credential), Window(1, 20))) == lab.expected["many"][:20]
    assert listed(account_of(lab, "none")) == Listing([], 0)
    assert records(listed(account_of(lab, "none", project=lab.projects["few"]))) == lab.expected["few"]
    foreigner = {"auth_url": lab.auth_url.removesuffix("/v3"), "username": lab.foreigner.name,
                 "password": lab.foreigner.password,
                 "user_domain": lab.foreigner.domain}
    assert records(listed(account({**foreigner, "project_id": lab.projects["few"]}))) == lab.expected["few"]
    assert records(
        listed(account({**foreigner, "project_id": "few", "project_domain": "Default"}))) == lab.expected["few"]
    with pytest.raises(PartyDenied, match="another project"):
        listed(account(credential, project=lab.projects["few"]))


def a_credential_with_the_documented_access_rules(lab: Lab, patched: pytest.MonkeyPatch) -> None:
    """It lists, in old versions of Nova too, and opens nothing else."""
    credential = {"auth_url": lab.auth_url, **lab.narrow}
    Ask(account(credential)).check("RegionOne")
    for versions in (openstack._VERSIONS, ("2.1",)):
        patched.setattr(openstack, "_VERSIONS", versions)
        cache.forget()
        assert records(listed(account(credential), Window(1, 20))) == lab.expected["many"][:20]
    for method, path in (("GET", "/os-keypairs"), ("POST", "/servers"),
                         ("GET", "/servers/" + lab.expected["many"][0]["id"])):
        assert _status_of(lab, lab.narrow, method, path) == 401, path
    assert _status_of(lab, lab.credential, "GET", "/os-keypairs") == 200


def _status_of(lab: Lab, credential: Mapping[str, str], method: str, path: str) -> int:
    made = requests.post(f"{lab.auth_url}/auth/tokens", timeout=60, json={"auth": {"identity": {
        "methods": ["application_credential"], "application_credential": {
            "id": credential["application_credential_id"], "secret": credential["application_credential_secret"]}}}})
    nova = next(entry["endpoints"][0]["url"] for entry in made.json()["token"]["catalog"] if entry["type"] == "compute")
    return requests.request(method, f"{nova}{path}", timeout=60, json={"server": {}} if method == "POST" else None,
                            headers={"X-Auth-Token": canaries.watch(made.headers["X-Subject-Token"])}).status_code


def refusals(lab: Lab, _: pytest.MonkeyPatch) -> None:
    for credentials, wrongs in (
        (dict(account_of(lab).credentials), ({"username": "nobody"}, {"password": "guessed"}, {"project_id": "f" * 32},
                                             {"user_domain": "Nowhere"}, {"user_domain": "f" * 32})),
        ({"auth_url": lab.auth_url, **lab.credential}, ({"application_credential_id": "f" * 32},
                                                        {"application_credential_secret": "guessed"}))):
        for wrong in wrongs:
            with pytest.raises(PartyDenied, match="wrong key"):
                listed(account({**credentials, **wrong}))


def regions(lab: Lab, _: pytest.MonkeyPatch) -> None:
    ask = Ask(account_of(lab))
    assert ask.regions() == [Region("RegionOne")]
    ask.check("RegionOne")
    for region in ("RegionTwo", "Mars"):    # a region without a Nova, and none
        with pytest.raises(UnknownRegion):
            ask.servers(region=region)
        with pytest.raises(UnknownRegion):
            ask.check(region)


def all_projects_of_a_user(lab: Lab, _: pytest.MonkeyPatch) -> None:
    """One password check for all of them; the disabled project is found and closed, and no source."""
    door = replace(account_of(lab, "few"), discovery=Discovery(), revision="door")
    ask = Ask(door)
    members = {member.name: member for member in ask.discover()}
    assert {name: member.id for name, member in members.items()} == dict(lab.projects)
    assert {name for name, member in members.items() if member.closed} == {"disabled"}
    assert {name for name, member in members.items() if member.door} == {"few"}
    for name in ("few", "none", "disabled"):
        ask.account = replace(door, member=members[name])
        if name == "disabled":
            with pytest.raises(PartyDenied, match="disabled"):
                ask.servers()
        else:
            assert records(ask.servers()) == lab.expected[name]
    assert ask.regions_of(door, members["none"]) == [Region("RegionOne")]
    assert ask.calls["Login"] == 1
    assert ask.calls["GetToken"] == 3
    narrow = Ask(replace(account({"auth_url": lab.auth_url, **lab.credential}), discovery=Discovery()))
    with pytest.raises(PartyDenied, match="application credential"):
        narrow.discover()


def a_token_that_is_not_taken_any_more_is_renewed(lab: Lab, _: pytest.MonkeyPatch) -> None:
    ask = Ask(account_of(lab, "few"))
    ask.servers()
    for key, (until, session) in list(cache._logins.items()):
        cache._logins[key] = until, replace(session, token=session.token[:-8] + "AAAAAAA=")
    assert ask.servers().total == len(lab.expected["few"])
    assert ask.calls["Login"] == 2


def a_lost_cell_is_no_empty_list(lab: Lab, _: pytest.MonkeyPatch) -> None:
    """Nova says 200 and an empty list while its cell's database cannot be read; its paged list is empty."""
    made = account_of(lab, "few")
    assert listed(made).total == len(lab.expected["few"])
    with (lab.folder / "nova_cell1.db").open("r+b") as database:
        head = database.read(100)
        database.seek(0)
        database.write(b"x" * 100)
        database.flush()
        try:
            theirs = connection(dict(made.credentials), "RegionOne").compute
            assert list(theirs.servers(details=True, limit=100)) == []
            assert {server.status for server in theirs.servers(details=True)} == {"UNKNOWN"}            # only unpaged
            for window in (WHOLE, Window(1, 10)):
                with pytest.raises(PartyUnavailable, match="cell"):
                    listed(made, window)
        finally:
            database.seek(0)
            database.write(head)
    assert records(listed(made)) == lab.expected["few"]


def _front(lab: Lab, stack: ExitStack) -> Front:
    """The laboratory behind one door, with Keystone, Nova and Cinder each behind a path."""
    made = requests.post(f"{lab.auth_url}/auth/tokens", timeout=60, json={"auth": {"identity": {
        "methods": ["application_credential"], "application_credential": {
            "id": lab.credential["application_credential_id"],
            "secret": lab.credential["application_credential_secret"]}}}})
    canaries.watch(made.headers["X-Subject-Token"])
    origins = {entry["type"]: "/".join(entry["endpoints"][0]["url"].split("/")[:3])
               for entry in made.json()["token"]["catalog"]}
    return stack.enter_context(Front(lab.auth_url.removesuffix("/v3"), origins["compute"], origins["block-storage"]))


def every_bent_catalogue(lab: Lab, _: pytest.MonkeyPatch) -> None:
    """The records are those that were inserted, whatever the catalogue looks like; openstacksdk lists the same."""
    with ExitStack() as stack:
        front = _front(lab, stack)
        credentials = {**account_of(lab, "few").credentials, "auth_url": f"{front.url}/identity"}
        for name, bend in BENDS.items():
            cache.forget()
            front.bend = lambda token, bend=bend: {**token, "catalog": bend.change(token["catalog"])}
            servers = records(listed(account({**credentials, **bend.credentials})))
            if bend.unsized:
                assert [{**row, "disk_gib": 0} for row in servers] == [
                    {**row, "disk_gib": 0} for row in lab.expected["few"]], name
                assert {row["disk_gib"] for row in servers} > {None}
            else:
                assert servers == lab.expected["few"], name
            if bend.theirs is not None:
                assert ids(credentials, "RegionOne", **bend.theirs) == sorted(row["id"] for row in servers), name


def a_nova_at_two_addresses(lab: Lab, _: pytest.MonkeyPatch) -> None:
    """Its own and the door's: both are listed, and each server once."""
    with ExitStack() as stack:
        front = _front(lab, stack)
        credentials = {**account_of(lab, "few").credentials, "auth_url": f"{front.url}/identity"}
        front.bend = lambda token: {**token, "catalog": [*token["catalog"], {"type": "compute", "endpoints": [
            {"interface": "public", "region_id": "RegionOne", "url": f"{front.behind['compute']}/v2.1"}]}]}
        assert records(listed(account(credentials))) == lab.expected["few"]
        assert records(listed(account(credentials), Window(7, 12))) == lab.expected["few"][6:12]
        assert any("/servers/detail" in call for call in front.calls)


def keystone_behind_a_path_and_elsewhere(lab: Lab, _: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        front = _front(lab, stack)
        fields = account_of(lab, "few").credentials
        for end in ("", "/", "/v3", "/v3/", "/v2.0", "/v3/auth/tokens"):
            cache.forget()
            assert listed(account({**fields, "auth_url": f"{front.url}/identity{end}"}), Window(1, 2)).servers
        for wrong in (front.url, f"{front.url}/keystone", f"{front.url}/identity/deeper", f"{front.url}/compute"):
            for credentials in (fields, lab.credential):
                cache.forget()
                with pytest.raises(PartyMalformed, match="auth_url does not lead to Keystone v3"):
                    listed(account({**credentials, "auth_url": wrong}))


def the_project_by_its_name(lab: Lab, _: pytest.MonkeyPatch) -> None:
    """In the domain of the user, or in one that is named."""
    credentials = {name: value for name, value in account_of(lab).credentials.items() if name != "project_id"}
    assert records(listed(account({**credentials, "project_name": "few"}))) == lab.expected["few"]
    foreigner = {"auth_url": lab.auth_url, "username": lab.foreigner.name, "password": lab.foreigner.password,
                 "user_domain": lab.foreigner.domain, "project_name": "few"}
    for domain in ("default", "Default"):
        assert records(listed(account({**foreigner, "project_domain": domain}))) == lab.expected["few"]
    for wrong in ({**credentials, "project_name": "nowhere"}, foreigner):
        with pytest.raises(PartyDenied):
            listed(account(wrong))


def a_token_without_a_scope(lab: Lab, _: pytest.MonkeyPatch) -> None:
    """As Keystone gives it: its answer to the same login without a scope."""
    user = {"name": lab.user.name, "domain": {"id": "default"}, "password": lab.user.password}
    unscoped = requests.post(f"{lab.auth_url}/auth/tokens", timeout=60, json={"auth": {
        "scope": "unscoped", "identity": {"methods": ["password"], "password": {"user": user}}}})
    canaries.watch(unscoped.headers["X-Subject-Token"])
    assert "catalog" not in unscoped.json()["token"]
    with ExitStack() as stack:
        front = _front(lab, stack)
        front.bend = lambda _: unscoped.json()["token"]
        with pytest.raises(PartyDenied, match="no role on the project"):
            listed(account({**account_of(lab, "few").credentials, "auth_url": f"{front.url}/identity"}))


PARTS = (every_record_of_more_than_a_thousand_servers, windows_join_to_the_whole, small_pages_cut_through_seconds,
         the_calls, every_version_that_we_ask_for, both_kinds_of_credentials_and_projects,
         a_credential_with_the_documented_access_rules, refusals, regions, all_projects_of_a_user,
         every_bent_catalogue, a_nova_at_two_addresses, keystone_behind_a_path_and_elsewhere, the_project_by_its_name,
         a_token_without_a_scope, a_token_that_is_not_taken_any_more_is_renewed, a_lost_cell_is_no_empty_list)
