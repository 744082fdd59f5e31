"""Authorities, proxies and plain http of an account: each party through them, what hostile proxies can do, and what
accounts of different routes never share."""

import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalicelib import parties, settings, simulators
from chalicelib.access import accounts
from chalicelib.cloud import cache, sockets
from chalicelib.cloud.sender import Transport
from chalicelib.cloud.sockets import read_authorities
from chalicelib.errors import Internal, InvalidParameter, PartyError, PartyMalformed, PartyUnavailable, SettingsError
from chalicelib.fleet import many_sources
from chalicelib.fleet.deployment import open_deployment
from chalicelib.model import WHOLE, Account, Request, Source
from chalicelib.parties.openstack.simulator import Openstack
from chalicelib.route import LONGEST_PEM, Proxy, Route, parse_proxy
from chalicelib.simulators import tls
from chalicelib.simulators.fleet import Fleet
from tests import canaries, proxy
from tests.fixtures import App, settings_in
from tests.unit.test_accounts import QCLOUD, checked
from tests.unit.test_sealed_settings import as_by_0_1_0
from tests.unit.test_transport import ACCOUNT, Plain, sender

CLOUDS = simulators.clouds()
Issue = Callable[..., tuple[Path, Path]]


@pytest.fixture
def door() -> Iterator[Transport]:
    made = Transport(jitter=lambda: 0.0)
    yield made
    made.close()


@pytest.fixture
def authority(tmp_path: Path) -> tuple[str, Issue]:
    """A private authority's PEM, and what it issues."""
    pem, issue = tls.authority(tmp_path, "private")
    return pem.read_text(), issue


@pytest.fixture
def secure(authority: tuple[str, Issue]) -> Iterator[Plain]:
    """A cloud whose certificate is for 127.0.0.1 and cloud.example, by the private authority."""
    with Plain() as cloud:
        tls.wrap(cloud, *authority[1]("127.0.0.1", "cloud.example"))
        yield cloud


def routed(authorities: str = "", through: proxy.Proxy | None = None, login: str | None = None,
           plain: bool = False) -> Account:
    there = parse_proxy("--proxy", through.url) if through else None
    if there and login:
        user, _, password = login.partition(":")
        there = Proxy(there.host, there.port, user, password)
    return replace(ACCOUNT, route=Route(authorities, there, plain))


def list_at(door: Transport, account: Account, url: str, seconds: float = 20.0) -> bytes:
    return sender(door, seconds, account=account)("list", lambda: Request("GET", f"{url}/list", {})).body


# ---------------------------------------------------------------- each party

@pytest.mark.sample(3)
@pytest.mark.parametrize("party", CLOUDS)
def test_every_party_is_listed_through_a_proxy_behind_a_private_authority(party: str, app: App, authority: Any,
                                                                          stack: ExitStack) -> None:
    """With options alone: nothing on loopback is allowed, and the proxy sees every connection."""
    pem, issue = authority
    entry = CLOUDS[party]
    cloud, credentials = entry.start({entry.region: Fleet(7, party)}, canaries.secret(party), limited=False)
    stack.enter_context(cloud)
    tls.wrap(cloud, *issue("127.0.0.1"))
    password = canaries.secret("proxy")
    through = stack.enter_context(proxy.Proxy(login=f"ann:{password}"))
    fields = {name: value.replace("http://127.0.0.1", "https://127.0.0.1") if isinstance(value, str) else value
              for name, value in credentials.items()}
    made = accounts.check("123", parties.load(party), {**fields, "proxy_user": "ann", "proxy_password": password},
                          project=None, regions=(), deep=False, endpoint=cloud.url, local=False, authorities=pem,
                          proxy=through.url)
    accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True)
    listed = many_sources.list_servers(app.deployment, many_sources.source_of("123", party, entry.region))
    assert listed.total == 7
    assert cloud.calls
    assert {call.method for call in through.requests} == {"CONNECT"}
    assert len(through.requests) == len(cloud._server._connected)
    opened = accounts.load(app.deployment.store, app.deployment.sealer, "123", party, local=False)
    assert "proxy_user" not in opened.credentials               # adapters do not see it
    assert password not in repr(opened)


def test_a_deployments_own_proxy_and_authorities(tmp_path: Path, authority: Any) -> None:
    """The proxy looks up the names; what is on loopback is called directly."""
    pem, issue = authority
    (tmp_path / "ca.pem").write_text(pem)
    with Plain() as cloud, Plain() as near, proxy.Proxy("ann:p%40ss", {"cloud.example": cloud.port}) as through:
        tls.wrap(cloud, *issue("cloud.example"))
        made = settings.load({"TWOCLOUD_PROXY": through.url.replace("http://", "http://ann:p%2540ss@"),
                              "TWOCLOUD_CA_FILE": str(tmp_path / "ca.pem"), "HTTPS_PROXY": "http://other:1"})
        app = open_deployment(msgspec.structs.replace(settings_in(tmp_path), ca_file=made.ca_file, proxy=made.proxy,
                                        ignored_proxy=made.ignored_proxy))
        assert b"rows" in list_at(app.transport, ACCOUNT, "https://cloud.example")
        assert b"rows" in list_at(app.transport, ACCOUNT, near.url)
        assert [call.target for call in through.requests] == ["cloud.example:443"]
        assert "proxy-authorization" not in cloud.calls[0].headers
        with pytest.raises(PartyUnavailable, match=r"could not connect to the party \(502\)"):
            list_at(app.transport, ACCOUNT, "https://other.example")
        app.close()


def test_an_accounts_proxy_stands_before_the_deployments_also_for_loopback(secure: Plain, authority: Any) -> None:
    with proxy.Proxy() as own, proxy.Proxy() as general:
        door = Transport(route=Route(authority[0], parse_proxy("x", general.url)))
        list_at(door, routed("", own), secure.url)
        assert (len(own.requests), len(general.requests)) == (1, 0)   # the deployment's authorities hold here, too
        door.close()


# ---------------------------------------------------------------- authorities

def test_authorities_are_added_and_the_check_stays(secure: Plain, authority: Any, door: Transport,
                                                   tmp_path: Path) -> None:
    pem, issue = authority
    other = tls.authority(tmp_path, "other")[0].read_text()
    assert list_at(door, routed(pem), secure.url)
    assert list_at(door, routed(other + pem), secure.url)
    for account in (ACCOUNT, routed(other)):                    # also while a connection of the first is kept
        with pytest.raises(PartyUnavailable, match=r"not signed by a known authority.*`--ca-file`"):
            list_at(door, account, secure.url)
    with pytest.raises(PartyUnavailable, match="is for another host name"):
        list_at(door, routed(pem), secure.url.replace("127.0.0.1", "localhost"))
    with Plain() as late:
        tls.wrap(late, *issue("127.0.0.1", days=-1))
        with pytest.raises(PartyUnavailable, match="has expired"):
            list_at(door, routed(pem), late.url)


def test_an_untrusted_certificate_is_not_tried_twice(secure: Plain, door: Transport,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[int] = []
    real = sockets.connect
    monkeypatch.setattr(sockets, "connect", lambda host, port, *more: dialled.append(port) or real(host, port, *more))
    with pytest.raises(PartyUnavailable):
        list_at(door, ACCOUNT, secure.url)
    assert len(dialled) == 1


def test_the_public_authorities_stay(authority: Any) -> None:
    bare, added = Transport(), Transport()
    with_own = added.adapter_of(routed(authority[0]))
    assert with_own._tls.cert_store_stats()["x509"] == bare.adapter._tls.cert_store_stats()["x509"] + 1
    assert with_own._tls.check_hostname
    assert with_own._tls.verify_mode == bare.adapter._tls.verify_mode


def test_an_intermediate_authority_is_enough(tmp_path: Path, door: Transport) -> None:
    """Also the server's own certificate: whoever gives it, means it."""
    _, issue = tls.authority(tmp_path, "root")
    pem, key = issue("127.0.0.1")
    with Plain() as cloud:
        tls.wrap(cloud, pem, key)
        assert list_at(door, routed(pem.read_text()), cloud.url)


PRIVATE = b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(("content", "text"), [
    (b"", "no PEM certificate"), (b"\x30\x82\x01", "no PEM certificate.*openssl x509"), (b"garbage", "no PEM"),
    (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "cannot be read"),
    (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "cannot be read"), (PRIVATE, "holds a private key"),
    (PRIVATE.replace(b"PRIVATE", b"EC PRIVATE"), "holds a private key")])
def test_files_that_hold_no_authority(content: bytes, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        read_authorities("--ca-file", io.BytesIO(content))


def test_what_is_kept_of_a_file_of_authorities(tmp_path: Path, authority: Any) -> None:
    pem: str = authority[0]
    other = tls.authority(tmp_path, "other")[0].read_text()
    file = f"My authority\r\n{pem}\nkey: é\n{pem}{other}".replace("\n", "\r\n").encode("latin-1")
    kept = read_authorities("--ca-file", io.BytesIO(file))
    assert kept == pem + other
    with pytest.raises(InvalidParameter, match="cannot be read"):               # one is cut, the others are not
        read_authorities("--ca-file", io.BytesIO((pem + other.replace("M", "", 1)).encode()))
    many = "".join(pem.replace("MII", f"MII{n:04}", 1) for n in range(LONGEST_PEM // len(pem) + 1))
    with pytest.raises(InvalidParameter, match="more than 64 KB"):
        read_authorities("--ca-file", io.BytesIO(many.encode()))


def test_a_bad_file_of_authorities_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("x")
    for path in (tmp_path / "bad.pem", tmp_path / "none.pem", tmp_path):
        with pytest.raises(SettingsError, match=f"TWOCLOUD_CA_FILE: {path} cannot be"):
            open_deployment(msgspec.structs.replace(settings_in(tmp_path), ca_file=str(path)))


# ---------------------------------------------------------------- hostile proxies

@pytest.mark.parametrize("fault", proxy.FAULTS)
def test_whatever_a_proxy_does_the_call_ends_in_time_with_its_cause(fault: str, secure: Plain, authority: Any,
                                                                    door: Transport) -> None:
    _, word, text = proxy.FAULTS[fault]
    with proxy.Proxy(fault=fault) as through:
        started = time.monotonic()
        with pytest.raises(PartyError, match=text or None) as failed:
            list_at(door, routed(authority[0], through), secure.url, 1.0 if fault in proxy.LATE else 20.0)
        assert failed.value.code == word, failed.value
        assert time.monotonic() - started < 15
        assert len(through.requests) <= 2
        assert fault not in (*proxy.LATE, *proxy.FINAL) or len(through.requests) == 1
        assert secure.calls == []


@pytest.mark.parametrize(("fault", "word"), [("slow body", "party_timeout"), ("hang", "party_timeout"),
                                             ("endless chunks", "party_malformed"),
                                             ("endless headers", "party_malformed")])
def test_deadline_and_caps_hold_inside_a_tunnel(fault: str, word: str, secure: Plain, authority: Any,
                                                door: Transport) -> None:
    secure.fail(fault)
    with proxy.Proxy() as through:
        started = time.monotonic()
        with pytest.raises(PartyError) as failed:
            list_at(door, routed(authority[0], through), secure.url, 1.0 if word == "party_timeout" else 20.0)
        assert failed.value.code == word
        assert time.monotonic() - started < 15


def test_a_tunnel_is_kept(secure: Plain, authority: Any, door: Transport) -> None:
    with proxy.Proxy() as through:
        for _ in range(5):
            list_at(door, routed(authority[0], through), secure.url)
        assert len(through.requests) == 1
        assert secure.count() == 5


def test_a_proxy_that_is_not_there(secure: Plain, door: Transport) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        account = replace(ACCOUNT, route=Route(proxy=Proxy("127.0.0.1", taken.getsockname()[1])))
        with pytest.raises(PartyUnavailable, match="proxy cannot be reached"):
            list_at(door, account, secure.url)
    with pytest.raises(PartyUnavailable, match="proxy's host name cannot be looked up"):
        list_at(door, replace(ACCOUNT, route=Route(proxy=Proxy("no-such-name.invalid", 3128))), secure.url)


def test_the_names_of_parties_are_the_proxys_to_look_up(secure: Plain, authority: Any, door: Transport,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    real = sockets.resolve
    monkeypatch.setattr(sockets, "resolve", lambda host, port: looked_up.append(host) or real(host, port))
    with proxy.Proxy(names={"cloud.example": secure.port}) as through:
        list_at(door, routed(authority[0], through), "https://cloud.example")
        with pytest.raises(PartyUnavailable):
            list_at(door, routed(authority[0], through), "https://no-such-region.example")
    assert set(looked_up) == {"127.0.0.1"}


# ---------------------------------------------------------------- what is never shared

def test_connections_are_not_shared_by_accounts_of_another_route(secure: Plain, authority: Any,
                                                                 door: Transport) -> None:
    with proxy.Proxy(login="ann:right") as through:
        list_at(door, routed(authority[0], through, "ann:right"), secure.url)
        for login in (None, "ann:wrong", "bob:right"):
            with pytest.raises(PartyUnavailable, match="proxy_password"):
                list_at(door, routed(authority[0], through, login), secure.url)
    list_at(door, routed(authority[0]), secure.url)             # and with the proxy gone, directly
    made = [door.adapter, *door._adapters.values()]
    assert len({id(adapter.poolmanager) for adapter in made}) == len(made) == 6
    assert len({id(adapter._tls) for adapter in made}) == 2     # one for each trust


def test_routes_are_forgotten_beyond_a_number(door: Transport) -> None:
    for n in range(100):
        with suppress(PartyError):
            list_at(door, replace(ACCOUNT, route=Route(proxy=Proxy("127.0.0.1", 1, "ann", str(n)))), "https://x.example")
    assert len(door._adapters) == 64


def test_catalogues_are_not_shared_by_accounts_of_another_origin(authority: Any) -> None:
    """Whoever stands in the way of one account's calls does not decide what another one is told."""
    route = Route(authority[0])
    others = [ACCOUNT, replace(ACCOUNT, route=route), replace(ACCOUNT, route=Route(proxy=Proxy("x", 1))),
              replace(ACCOUNT, route=Route(plain=True)), replace(ACCOUNT, endpoint="https://x")]
    for n, account in enumerate(others):
        assert cache.cached_lookup(account, "sizes", ["a"], lambda names, n=n: dict.fromkeys(names, n)) == {"a": n}
    same = replace(ACCOUNT, tenant_id="2", route=Route(str(route.authorities)))
    assert cache.cached_lookup(same, "sizes", ["a"], lambda names: {}) == {"a": 1}


def test_the_common_case_makes_one_tls_context_a_process(authority: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context takes 30 ms: accounts without authorities of their own share one, whatever their proxy."""
    made: list[object] = []
    real = sockets.create_urllib3_context
    monkeypatch.setattr(sockets, "create_urllib3_context", lambda: made.append(1) or real())
    sockets._context.cache_clear()
    door = Transport()
    for n in range(50):
        door.adapter_of(replace(ACCOUNT, tenant_id=str(n)))
        door.adapter_of(replace(ACCOUNT, route=Route(proxy=Proxy("proxy.example", n + 1))))
    assert len(made) == 1
    for _ in range(3):
        door.adapter_of(replace(ACCOUNT, route=Route(authority[0])))
    assert len(made) == 2
    assert door.adapter_of(ACCOUNT) is door.adapter


# ---------------------------------------------------------------- the environment's proxy

def test_a_failed_look_up_names_the_proxy_that_is_not_used() -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        values = settings.load({name: "http://proxy.example:3128"})
        door = Transport(route=Route(proxy=values.proxy), ignored_proxy=values.ignored_proxy)
        with pytest.raises(PartyUnavailable, match=f"{name} is set but not used: set TWOCLOUD_PROXY"):
            list_at(door, ACCOUNT, "https://no-such-name.invalid", 8)
    with pytest.raises(PartyUnavailable) as failed:
        list_at(Transport(), ACCOUNT, "https://no-such-name.invalid", 8)
    assert "PROXY" not in failed.value.text


@pytest.mark.parametrize("url", ["https://proxy.example:3128", "socks5://proxy.example:1", "proxy.example:3128",
                                 "http://proxy.example", "http://proxy.example:0", "http://proxy.example:99999",
                                 "http://proxy.example:1/path", "http://proxy.example:1?x", "http://:1", "http://a b:1",
                                 "http://[::1:1", "http://:pw@proxy.example:1", "http://u:p%0a@proxy.example:1", "x\n",
                                 "http://a%3Ab:p@proxy.example:1"])
def test_proxies_that_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^TWOCLOUD_PROXY: ") as stopped:
        settings.load({"TWOCLOUD_PROXY": url})
    assert "pw" not in stopped.value.text
    with pytest.raises(InvalidParameter):
        checked(proxy=url)


# ---------------------------------------------------------------- accounts

def test_the_proxys_password_is_a_credential() -> None:
    for credentials, proxy_url, text in (
            (QCLOUD, "http://ann:secret@proxy.example:1", "proxy_user and proxy_password among"),
            ({**QCLOUD, "proxy_user": "ann"}, None, "need `--proxy`"),
            ({**QCLOUD, "proxy_password": "p"}, "http://proxy.example:1", "needs it"),
            ({**QCLOUD, "proxy_user": 1}, "http://proxy.example:1", "must be a string"),
            ({**QCLOUD, "proxy_user": "a:b"}, "http://proxy.example:1", "colon"),
            ({**QCLOUD, "proxy_user": "a", "proxy_password": "x\n"}, "http://proxy.example:1", "control")):
        with pytest.raises(InvalidParameter, match=text) as refused:
            checked(credentials=credentials, proxy=proxy_url)
        assert "secret@" not in refused.value.text
    made = checked(credentials={**QCLOUD, "proxy_user": "ann", "proxy_password": "Pä ss"}, proxy="http://proxy.example:1/")
    assert made.credentials == QCLOUD
    assert made.secrets == {**QCLOUD, "proxy_user": "ann", "proxy_password": "Pä ss"}
    assert made.route.proxy == Proxy("proxy.example", 1, "ann", "Pä ss")


def test_the_route_lives_through_rotation_and_another_key(app: App, authority: Any, tmp_path: Path) -> None:
    store, sealer = app.deployment.store, app.deployment.sealer()
    route = {"authorities": authority[0], "proxy": "http://proxy.example:3128", "allow_http": True,
             "endpoint": "http://10.0.0.1:8774"}
    first = accounts.put(store, sealer, checked(credentials={**QCLOUD, "proxy_user": "ann", "proxy_password": "one"},
                                                **route), 100, replace=True)
    again = replace(checked(credentials={**QCLOUD, "secret_key": "new", "proxy_user": "ann", "proxy_password": "two"},
                            **route), revision=first.revision)
    row = accounts.rotate(store, sealer, again, 200)
    assert (row.authorities, row.proxy, row.allow_http) == (first.authorities, first.proxy, first.allow_http)
    opened = accounts.load(store, lambda: sealer, "123", "qcloud", local=False)
    assert opened.route == Route(authority[0], Proxy("proxy.example", 3128, "ann", "two"), True)
    assert opened.credentials["secret_key"] == "new"
    assert b"two" not in msgspec.json.encode(row)
    accounts.put(store, sealer, checked(), 300, replace=True)   # put again without options: as if it had none
    assert accounts.load(store, lambda: sealer, "123", "qcloud", local=False).route == Route()


def test_a_row_of_0_1_0_cannot_be_given_a_route(app: App, authority: Any) -> None:
    """Its settings are not sealed, and version 0.1.0 knew none of these."""
    store, sealer = app.deployment.store, app.deployment.sealer()
    old = as_by_0_1_0(store, sealer, accounts.put(store, sealer, checked(), 100, replace=True))
    accounts.load(store, lambda: sealer, "123", "qcloud", local=True)
    for change in ({"authorities": authority[0]}, {"proxy": "http://evil.example:1"}, {"allow_http": True}):
        store.put("account", "123/qcloud", msgspec.json.encode(msgspec.structs.replace(old, **change)))
        with pytest.raises(Internal, match="its settings in the store differ"):
            accounts.load(store, lambda: sealer, "123", "qcloud", local=True)


# ---------------------------------------------------------------- plain http

@pytest.mark.parametrize("endpoint", ["http://cloud.example", "http://10.0.0.1:5000", "http://[fd00::1]:80"])
def test_plain_http_is_for_accounts_that_allow_it(endpoint: str) -> None:
    with pytest.raises(InvalidParameter, match="`--allow-http`"):
        checked(endpoint=endpoint)
    assert checked(endpoint=endpoint, allow_http=True, local=False).route.plain
    with pytest.raises(InvalidParameter):
        checked(endpoint=endpoint.replace("http", "ftp"), allow_http=True)


def test_an_address_that_is_not_https_gets_no_byte(door: Transport) -> None:
    """Whoever named it: the party's catalogue, a next page, a mistake of ours."""
    with Plain() as cloud, proxy.Proxy(names={"cloud.example": cloud.port}) as through:
        with pytest.raises(PartyMalformed, match=r"not https.*`--allow-http`"):
            list_at(door, routed("", through), "http://cloud.example")
        assert through.requests == []
        assert list_at(door, routed("", through, "ann:p", plain=True), "http://cloud.example")
        assert [(call.method, call.target) for call in through.requests] == [("GET", "http://cloud.example/list")]
        assert through.requests[0].headers["proxy-authorization"] == "Basic YW5uOnA="
        through.fault = "407"
        with pytest.raises(PartyUnavailable, match="proxy_password"):
            list_at(door, routed("", through, "bob:p", plain=True), "http://cloud.example")
        assert len(through.requests) == 2
        assert cloud.count() == 1


@pytest.mark.parametrize("plain", [False, True])
def test_a_catalogue_that_names_plain_http(plain: bool, authority: Any, stack: ExitStack, door: Transport) -> None:
    """Keystone by https; Nova and Cinder by http, inside the network behind the proxy."""
    entry = CLOUDS["openstack"]
    cloud, credentials = entry.start({entry.region: Fleet(5)}, canaries.secret("openstack"), limited=False)
    assert isinstance(stack.enter_context(cloud), Openstack)
    door_keeper = stack.enter_context(Forwarding(cloud))
    tls.wrap(door_keeper, *authority[1]("keystone.example"))
    through = stack.enter_context(proxy.Proxy(names={"keystone.example": door_keeper.port, "nova.example": cloud.port}))
    made = accounts.check("123", parties.load("openstack"), {**credentials, "auth_url": "https://keystone.example/identity/v3"},
                          project=None, regions=(), deep=False, endpoint=None, local=False, authorities=authority[0],
                          proxy=through.url, allow_http=plain)
    send = door.sender(parties.load("openstack"), made, entry.region, time.monotonic() + 20)
    source = Source("123", "openstack", entry.region)
    if not plain:
        with pytest.raises(PartyMalformed, match=r"not https.*`--allow-http`"):
            parties.list_servers(source, made, WHOLE, send)
        assert {call.target for call in through.requests} == {"keystone.example:443"}
        return
    assert parties.list_servers(source, made, WHOLE, send).total == 5
    assert {call.method for call in through.requests} == {"CONNECT", "GET"}


class Forwarding(Plain):
    """A Keystone that answers as the simulator does, and whose catalogue names http://nova.example."""

    def __init__(self, behind: Openstack) -> None:
        self.behind = behind
        super().__init__()

    def operation(self, call: Any) -> str:
        return self.behind.operation(call)

    def answer(self, call: Any) -> Any:
        response = self.behind.answer(replace(call, operation=self.operation(call)))
        return replace(response, body=response.body.replace(self.behind.url.encode(), b"http://nova.example"))
