"""A real Keystone 30 and a real Nova 34 judge the adapter: `make test` installs them, see tests/lab/cloud.py."""

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from chalicelib import accounts, memory, transport
from chalicelib.errors import InvalidParameter, PartyDenied, PartyUnavailable, UnknownRegion
from chalicelib.model import WHOLE, Account, Listing, Response, Sign, Source, Window
from chalicelib.parties import openstack
from tests import canaries
from tests.judges.test_openstack import connection, machines, our_view
from tests.lab import cloud
from tests.lab.cloud import Lab, User

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]
SIZES = {"many": 1200, "few": 90, "none": 0}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not (cloud.VENV / "ready").exists():
        warnings.warn("Keystone and Nova are not tried: `make test` installs them into .venv-openstack", stacklevel=1)
        pytest.skip("run `make test`, which installs Keystone and Nova")
    user = User("Jörg 用户", "default", canaries.watch(f"{canaries.secret('lab')} пароль \"'\\ "))
    foreigner = User("gast", "Firma Süd", canaries.secret("foreigner"))
    with cloud.openstack(tmp_path_factory.mktemp("lab"), user, foreigner, canaries.secret("credential"), SIZES) as made:
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def account_of(lab: Lab, opens: str = "many", project: str | None = None) -> Account:
    return account({"auth_url": lab.auth_url, "username": lab.user.name, "password": lab.user.password,
                    "project_id": lab.projects[opens]}, project)


def account(credentials: Mapping[str, str], project: str | None = None) -> Account:
    return accounts.check("123", openstack.PARTY, dict(credentials), project=project, regions=(), deep=False, endpoint=None,
                          local=True)


class Watched:
    """A send over the real door that counts what it is asked."""

    def __init__(self, account: Account, stack: ExitStack) -> None:
        door = transport.Transport()
        stack.callback(door.close)
        self._send = door.sender(openstack.PARTY, account, "RegionOne", time.monotonic() + 100)
        self.calls: Counter[str] = Counter()

    def __call__(self, operation: str, sign: Sign) -> Response:
        self.calls[operation] += 1
        return self._send(operation, sign)


def listed(account: Account, window: Window = WHOLE, region: str = "RegionOne") -> Listing:
    with ExitStack() as stack:
        return openstack.list_servers(Source("123", "openstack", region), account, window, Watched(account, stack))


def records(listing: Listing) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(listing.servers))
    return found


def test_every_record_of_more_than_a_thousand_servers(lab: Lab) -> None:
    """Compared whole with what was inserted, in the order in which it was, seven to a second."""
    listing = listed(account_of(lab))
    assert listing.total == len(listing.servers) == len(lab.expected["many"]) > 1000
    assert records(listing) == lab.expected["many"]
    assert len({server.status for server in listing.servers}) == 18
    assert len({server.party_status for server in listing.servers}) == 17
    assert any(server.updated_at is None for server in listing.servers)     # Nova gave these the time of the request
    assert records(listed(account_of(lab))) == lab.expected["many"]         # the same again


def test_openstacksdk_sees_the_same(lab: Lab) -> None:
    given = dict(account_of(lab).credentials)
    assert machines(lab.auth_url, given, "RegionOne") == our_view(listed(account_of(lab)).servers)


@pytest.mark.parametrize("project", ["many", "few"])
def test_windows_join_to_the_whole(lab: Lab, project: str) -> None:
    whole, last = lab.expected[project], len(lab.expected[project])
    windows = [Window(3, 9), Window(11, 20), Window(last - 3), Window(last - 5, last + 5), Window(last + 1, last + 10)]
    for window in [*windows, *([Window(101, 110), Window(1001, 1020)] if last > 1000 else [Window(1, last), Window(last, last)])]:
        listing = listed(account_of(lab, project), window)
        assert records(listing) == whole[window.first - 1:window.last], window
        assert listing.total in ((last,) if project == "few" else (None, last)), window
    if project == "few":
        assert [record for first in range(1, last + 1, 17) for record in records(
            listed(account_of(lab, project), Window(first, first + 16)))] == whole


@pytest.mark.parametrize("page", [7, 100])
def test_small_pages_cut_through_seconds(lab: Lab, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openstack, "_PAGE", page)
    monkeypatch.setattr(transport.Transport, "pace", lambda *_: None)
    project = "few" if page < 100 else "many"
    assert records(listed(account_of(lab, project))) == lab.expected[project]


def test_the_calls(lab: Lab, stack: ExitStack) -> None:
    memory.forget()
    made = account_of(lab)
    send = Watched(made, stack)
    openstack.list_servers(Source("123", "openstack", "RegionOne"), made, WHOLE, send)
    assert send.calls == {"Login": 1, "ListServersDetailed": 3, "ListVolumesDetailed": 1}
    send.calls.clear()
    openstack.list_servers(Source("123", "openstack", "RegionOne"), made, Window(1, 10), send)
    assert send.calls == {"ListServersDetailed": 1, "ListServers": 1, "ListVolumesDetailed": 1}
    send.calls.clear()
    openstack.list_servers(Source("123", "openstack", "RegionOne"), made, Window(1101, 1110), send)
    assert send.calls == {"ListServersDetailed": 1, "ListServers": 2, "ListVolumesDetailed": 1}


@pytest.mark.parametrize("versions", [("2.69", "2.47", "2.1"), ("2.999", "2.47", "2.1"), ("2.999", "2.998", "2.1")])
def test_every_version_that_we_ask_for(lab: Lab, versions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version than Nova's is a real 406; 2.1 reads the real list of flavors."""
    monkeypatch.setattr(openstack, "_VERSIONS", versions)
    assert records(listed(account_of(lab, "few"))) == lab.expected["few"]


def test_both_kinds_of_credentials_and_projects(lab: Lab) -> None:
    """An application credential of role reader; a user of another domain; a project by name; --project."""
    credential = account({"auth_url": lab.auth_url, **lab.credential})
    assert records(listed(credential, Window(1, 20))) == lab.expected["many"][:20]
    assert listed(account_of(lab, "none")) == Listing([], 0)
    assert records(listed(account_of(lab, "none", project=lab.projects["few"]))) == lab.expected["few"]
    foreigner = {"auth_url": lab.auth_url.removesuffix("/v3"), "username": lab.foreigner.name, "password": lab.foreigner.password,
                 "user_domain": lab.foreigner.domain}
    assert records(listed(account({**foreigner, "project_id": lab.projects["few"]}))) == lab.expected["few"]
    assert records(listed(account({**foreigner, "project_id": "few", "project_domain": "Default"}))) == lab.expected["few"]
    with pytest.raises(PartyDenied, match="another project"):
        listed(account({"auth_url": lab.auth_url, **lab.credential}, project=lab.projects["few"]))


@pytest.mark.parametrize("wrong", [
    {"username": "nobody"}, {"password": "guessed"}, {"project_id": "f" * 32}, {"user_domain": "Nowhere"}, {"user_domain": "f" * 32},
    {"application_credential_id": "f" * 32}, {"application_credential_secret": "guessed"}])
def test_refusals(lab: Lab, wrong: dict[str, str]) -> None:
    given = {"auth_url": lab.auth_url, **lab.credential} if "application_credential_id" in wrong or (
        "application_credential_secret" in wrong) else account_of(lab).credentials
    with pytest.raises(PartyDenied, match="wrong key"):
        listed(account({**given, **wrong}))


def test_regions(lab: Lab, stack: ExitStack) -> None:
    made = account_of(lab)
    assert [region.code for region in openstack.list_regions(made, Watched(made, stack))] == ["RegionOne"]
    for region in ("RegionTwo", "Mars"):    # a region without a Nova, and none
        with pytest.raises(UnknownRegion):
            listed(made, region=region)
    openstack.check(Source("123", "openstack", "RegionOne"), made, Watched(made, stack))
    with pytest.raises(InvalidParameter):
        openstack.check(Source("123", "openstack", "Mars"), made, Watched(made, stack))


def test_a_token_that_was_revoked_is_renewed(lab: Lab, stack: ExitStack) -> None:
    made = account_of(lab, "few")
    memory.forget()
    send = Watched(made, stack)
    openstack.list_servers(Source("123", "openstack", "RegionOne"), made, WHOLE, send)
    for key, (until, session) in list(memory._logins.items()):
        memory._logins[key] = until, replace(session, token=session.token[:-8] + "AAAAAAA=")
    assert openstack.list_servers(Source("123", "openstack", "RegionOne"), made, WHOLE, send).total == len(lab.expected["few"])
    assert send.calls["Login"] == 2


def test_a_lost_cell_is_no_empty_list(lab: Lab) -> None:
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
