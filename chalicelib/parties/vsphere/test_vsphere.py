"""pyvmomi, VMware's own SDK, lists the same machines as we do, at our simulator and at govmomi's, which VMware wrote.

govmomi's simulator is built with Go from Debian's package (`make test`). It shows no vCenter of today: its API is 6.7
at most, and it has no pages, roles, locks of users or limits of sessions. So a front cuts its answers into pages, and
our simulator has the rest.
"""

import re
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.cloud import cache
from chalicelib.cloud.sender import Transport
from chalicelib.errors import InvalidParameter, PartyDenied, PartyError, PartyTimeout, UnknownRegion
from chalicelib.fleet import check, many_sources
from chalicelib.model import WHOLE, Account, Status, Window
from chalicelib.parties import vsphere
from chalicelib.parties.vsphere.simulator import Vsphere
from chalicelib.route import Route
from chalicelib.simulators import tls
from chalicelib.simulators.faults import Answer
from chalicelib.simulators.fleet import Fleet
from chalicelib.simulators.server import Call, Simulator
from tests import ROOT, canaries
from tests.fixtures import App
from tests.verified import Machines, account, assert_same, reference

USER = "twocloud@vsphere.local"
SIZE = 250
KOELN = "K_C3_B6ln_20_2F_20DC_202"                              # Köln / DC 2


# ---------------------------------------------------------------- the judge

def machines(url: str, credentials: Mapping[str, str], region: str, authorities: str = "") -> Machines:
    there = account("vsphere", "", {**credentials, "host": url}, route=Route(authorities=authorities))
    return reference("vsphere").list_servers(replace(there, endpoint=None), region)


def put(app: App, url: str, password: str, user: str = USER, **more: Any) -> dict[str, str]:
    credentials = {"host": url, "username": user, "password": password}
    made = accounts.check("123", vsphere.PARTY, credentials, local=True, **{
        "project": None, "regions": (), "deep": False, "endpoint": None, **more})
    accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True)
    return credentials


def listed(app: App, region: str = "Datacenter1", window: Window = WHOLE, seconds: float = 25,
           ) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "vsphere", region), window,
                                     deadline=time.monotonic() + seconds)


# ---------------------------------------------------------------- at govmomi's simulator

@contextmanager
def vcsim(folder: Path, password: str, machines: int = 130, version: str = "6.7") -> Generator[str]:
    """Its address, behind TLS with an authority of its own; it ends with the block."""
    program = ROOT / ".tools/vcsim/vcsim"
    if not program.exists():
        pytest.skip("not on this machine: vcsim")
    pem, key = tls.certificate(folder)
    with subprocess.Popen([program, "-user", USER, "-machines", str(machines), "-version", version, "-pem", pem, "-key",
                           key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(f"{password}\n")
            process.stdin.flush()
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(20)


class Front(Simulator):
    """Passes everything on to a vCenter, and cuts its lists into pages of `size`."""

    def __init__(self, url: str, size: int) -> None:
        self.behind, self.size = url, size
        self.rest: dict[str, tuple[bytes, list[bytes], bytes]] = {}
        super().__init__()

    def operation(self, call: Call) -> str:
        match = re.search(rb"Body>\s*<(\w+)", call.body)
        return match[1].decode() if match else "?"

    def answer(self, call: Call) -> Answer:
        if call.operation == "ContinueRetrievePropertiesEx":
            token = re.search(rb"<token[^>]*>([^<]+)<", call.body)
            head, rows, tail = self.rest.pop(token[1].decode() if token else "")
            head, tail = (re.sub(rb"(?<!Continue)(?=RetrievePropertiesExResponse)", b"Continue", part)
                          for part in (head, tail))
            return self.page(head, rows, tail, {"Content-Type": "text/xml"})
        kept = {name: value for name, value in call.headers.items()
                if name in ("content-type", "soapaction", "cookie")}
        there = requests.request(call.method, f"{self.behind}{call.path}", data=call.body, headers=kept, verify=False,
                                 timeout=20)
        headers = {name: value for name, value in there.headers.items() if name in ("Content-Type", "Set-Cookie")}
        if call.operation != "RetrievePropertiesEx" or b"<objects>" not in there.content:
            return Answer(there.status_code, headers, there.content)
        first, last = there.content.index(b"<objects>"), there.content.rindex(b"</objects>") + 10
        rows = re.findall(rb"<objects>.*?</objects>", there.content[first:last], re.DOTALL)
        return self.page(there.content[:first], rows, there.content[last:], headers)

    def page(self, head: bytes, rows: list[bytes], tail: bytes, headers: dict[str, str]) -> Answer:
        more = b""
        if rows[self.size:]:
            token = str(uuid.uuid4())
            self.rest[token] = head, rows[self.size:], tail
            more = f"<token>{token}</token>".encode()
        return Answer(200, headers, head + more + b"".join(rows[:self.size]) + tail)


@pytest.mark.sample(2)
@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
@pytest.mark.parametrize("region", ["Datacenter1", KOELN])
def test_pyvmomi_and_we_list_the_same_machines_of_vcsim(app: App, stack: ExitStack, tmp_path: Path,
                                                        region: str) -> None:
    """Machines of each state, in folders, pools and apps; templates; some without a configuration; in one answer and in
    pages, whose tokens pyvmomi follows too."""
    password = canaries.secret("vcsim")
    url = stack.enter_context(vcsim(tmp_path, password))
    app.deployment.transport.adapter = Transport(str(tmp_path / "simulators.pem")).adapter
    credentials, pem = put(app, url, password), (tmp_path / "simulators.pem").read_text()
    whole, theirs = listed(app, region), machines(url, credentials, region, pem)
    assert_same(whole.servers, theirs)
    assert whole.total == len(theirs) > 100
    assert Counter(server.status for server in whole.servers).keys() == {"ACTIVE", "SHUTOFF", "SUSPENDED", "UNKNOWN",
                                                                         "ERROR"}
    lost = [server for server in whole.servers if server.status is Status.ERROR]
    assert lost
    assert all(server.id.startswith("vm-") and server.disk_gib is server.cpu is None for server in lost)
    front = stack.enter_context(Front(url, 7))
    credentials = put(app, front.url, password)
    assert listed(app, region).servers == whole.servers
    assert front.count("ContinueRetrievePropertiesEx") >= len(theirs) // 7
    assert_same(whole.servers, machines(front.url, credentials, region))
    assert listed(app, region, Window(20, 29)).servers == whole.servers[19:29]


def test_vcsim_refuses_and_an_older_server_knows_no_creation(app: App, stack: ExitStack, tmp_path: Path) -> None:
    password = canaries.secret("vcsim")
    url = stack.enter_context(vcsim(tmp_path, password, 10, "6.5"))
    app.deployment.transport.adapter = Transport(str(tmp_path / "simulators.pem")).adapter
    put(app, url, password)
    servers = listed(app).servers
    assert servers
    assert {server.created_at for server in servers} == {None}
    assert check.check_account(app.deployment, "123", "vsphere") == "ha-datacenter"
    with pytest.raises(UnknownRegion):
        listed(app, "Datacenter2")
    put(app, url, canaries.secret("wrong"))
    with pytest.raises(PartyDenied, match=r"InvalidLogin; wrong key"):
        listed(app)


# ---------------------------------------------------------------- at our simulator

def a_vcenter(app: App, stack: ExitStack, size: int = SIZE, **more: Any) -> tuple[Vsphere, dict[str, str]]:
    password = canaries.secret("vsphere")
    center = stack.enter_context(Vsphere(USER, password, {"Datacenter1": Fleet(size, "vsphere"),
                                                          "Köln / DC 2": Fleet(3, "other")}, **more))
    return center, put(app, center.url, password)


@pytest.mark.parametrize("region", ["Datacenter1", KOELN])
def test_pyvmomi_and_we_list_the_same_machines(app: App, stack: ExitStack, region: str) -> None:
    center, credentials = a_vcenter(app, stack, broken=(3, 70), templates=(5, 6))
    mine = listed(app, region)
    theirs = machines(center.url, credentials, region)
    assert_same(mine.servers, theirs)
    assert mine.total == len(theirs) == (3 if region == KOELN else SIZE - 2)
    assert center.sessions == set()


def test_a_session_is_ended_after_use_also_after_an_error(app: App, stack: ExitStack) -> None:
    center, credentials = a_vcenter(app, stack)
    listed(app)
    center.fail("500", "ListMachines")
    with pytest.raises(PartyError):
        listed(app)
    with pytest.raises(UnknownRegion):
        listed(app, "Datacenter9")
    assert check.check_account(app.deployment, "123", "vsphere") == "ha-datacenter"
    center.plans.clear()
    center.hidden = {"config.hardware.device"}
    put(app, center.url, credentials["password"])
    with pytest.raises(PartyDenied, match="missing right"):
        listed(app)
    assert center.sessions == set()
    assert center.count("Login") == center.count("Logout") == 5


def test_a_listing_that_ran_out_of_time_may_leave_its_session(app: App, stack: ExitStack) -> None:
    """Nothing is sent after the deadline; such a session ends by itself."""
    center, _ = a_vcenter(app, stack)
    center.fail("hang", "ListMachines")
    with pytest.raises(PartyTimeout):
        listed(app, seconds=1.5)
    center.plans.clear()
    assert listed(app).total == SIZE
    assert len(center.sessions) <= 1


def test_listings_at_the_same_time_share_a_session(app: App, stack: ExitStack) -> None:
    center, _ = a_vcenter(app, stack)
    center.latency = 0.05
    counts: list[int | None] = []
    threads = [threading.Thread(target=lambda region=region: counts.append(listed(app, region).total))
               for region in ("Datacenter1", KOELN)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [3, SIZE]       # type: ignore[type-var]
    assert center.count("Login") == 1
    assert center.sessions == set()


def test_a_wrong_password_is_tried_once(app: App, stack: ExitStack) -> None:
    """Whatever asks, and however often; another password is tried at once, and the right one after the account was put
    again."""
    center, credentials = a_vcenter(app, stack)
    put(app, center.url, canaries.secret("wrong"))
    for number in range(7):
        with pytest.raises(PartyDenied, match="InvalidLogin; wrong key" + ".*not tried again" * bool(number)):
            listed(app, ("Datacenter1", KOELN)[number % 2])
    with pytest.raises(PartyDenied):
        check.check_account(app.deployment, "123", "vsphere")
    assert center.tries == center.count("Login") == 1
    put(app, center.url, credentials["password"])
    assert listed(app).total == SIZE
    assert center.tries == 0


def test_a_right_that_is_missing_at_login_is_tried_again(app: App, stack: ExitStack) -> None:
    """Only a wrong password can lock a user."""
    center, _ = a_vcenter(app, stack, 3)
    center.fail("403", "Login", (1,))
    with pytest.raises(PartyDenied):
        listed(app)
    assert listed(app).total == 3


def test_a_session_that_the_server_ended_is_opened_again_once(app: App, stack: ExitStack) -> None:
    center, _ = a_vcenter(app, stack)

    def end() -> None:
        if center.count("ListMachines") == 2 and center.count("Login") < ends:
            for session in list(center.sessions):
                center._ended(session)

    center.between, ends = end, 2
    assert listed(app).total == SIZE
    assert center.count("Login") == 2
    center.forget()
    center.between = lambda: center.sessions.clear() if center.count("ListDatacenters") else None
    with pytest.raises(PartyDenied, match="session ended"):
        listed(app)
    assert center.count("Login") == 2


@pytest.mark.parametrize("most", [1, 7, 100])
def test_a_server_may_give_shorter_pages(app: App, stack: ExitStack, most: int) -> None:
    a_vcenter(app, stack, 30)
    whole = listed(app).servers
    a_vcenter(app, stack, 30, most=most)
    assert [server.name for server in listed(app).servers] == [server.name for server in whole]


def test_the_calls(app: App, stack: ExitStack) -> None:
    center, _ = a_vcenter(app, stack)
    assert listed(app, window=Window(11, 20)).total == SIZE
    assert Counter(call.operation for call in center.calls) == {
        "GetServiceContent": 1, "Login": 1, "GetView": 2, "ListDatacenters": 1, "ListMachines": 3, "Logout": 1}


def test_regions_are_the_datacenters_names(app: App, stack: ExitStack) -> None:
    center, credentials = a_vcenter(app, stack, 3)
    account = accounts.load(app.deployment.store, app.deployment.sealer, "123", "vsphere", local=True)
    send = app.deployment.transport.sender(vsphere.PARTY, account, "ha-datacenter", time.monotonic() + 9)
    assert {region.code: region.name for region in parties.list_regions(account, send)} == {
        "Datacenter1": "Datacenter1", KOELN: "Köln / DC 2"}
    put(app, center.url, credentials["password"], regions=("other",))
    with pytest.raises(UnknownRegion):
        check.check_account(app.deployment, "123", "vsphere")


def test_no_two_names_are_the_same_region() -> None:
    names = ["DC 1", "DC_201", "DC_1", "DC-1", "DC.1", "DC", "dc", "_", "__", "_20", " ", "_5F20", "数据中心一号机房",
             "数" * 40, "数" * 41, "x" * 64, "x" * 65, "x" * 66, "a/b", "a%2fb", "all", ".."]
    codes = [vsphere.region_of(name) for name in names]
    assert len(set(codes)) == len(names)
    assert [vsphere.PARTY.region(code) for code in codes] == codes
    assert codes[:3] == ["DC_201", "DC_5F201", "DC_1"]


def test_the_forms_of_credentials() -> None:
    def checked(local: bool = False, **fields: str) -> Account:
        credentials = {"host": "vc.example.com", "username": USER, "password": "x", **fields}
        return accounts.check("123", vsphere.PARTY, credentials, project=None, regions=(), deep=False, endpoint=None,
                              local=local)

    for good in ({"username": "EXAMPLE\\jörg 用户"}, {"password": "пароль <&\"'> \\ "}, {"host": "vc:8443"},
                 {"host": "https://vc.example.com/"}):
        assert checked(**good)
    assert checked(local=True, host="http://127.0.0.1:1")
    for wrong in ({"host": "http://vc.example.com"}, {"host": "me@vc"}, {"username": "a\nb"}, {"password": "\x00"},
                  {"password": "\ud800"}, {"password": ""}, {"host": ""}):
        with pytest.raises(InvalidParameter):
            checked(**wrong)


def test_names_and_passwords_of_any_characters(app: App, stack: ExitStack) -> None:
    user, password = "EXAMPLE\\jörg 用户 <&>", canaries.watch(f"{canaries.secret('vsphere')} пароль <&\"'> \\ ]]>")
    center = stack.enter_context(Vsphere(user, password, {"Datacenter1": Fleet(3)}))
    put(app, center.url, password, user)
    assert listed(app).total == 3


def test_a_proxys_cookie_beside_the_sessions(app: App, stack: ExitStack) -> None:
    center, _ = a_vcenter(app, stack, 3)
    center.fail("cookie", "Login")
    assert listed(app).total == 3


@pytest.mark.parametrize("change", ["cookie", "version", "token", "method", "path", None])
def test_the_simulator_refuses_what_we_never_ask(app: App, stack: ExitStack, change: str | None) -> None:
    center, _ = a_vcenter(app, stack, 3)
    center._ended = lambda session: None    # type: ignore[method-assign]
    listed(app)
    call = next(call for call in center.calls if call.operation == "ListMachines")
    headers, body = dict(call.headers), call.body.decode()
    if change == "cookie":
        headers["cookie"] = 'vmware_soap_session="0000"'
    elif change == "version":
        headers["soapaction"] = '"urn:vim25/9.9"'
    elif change == "token":
        body = re.sub("<RetrieveP.*Ex>", '<ContinueRetrievePropertiesEx xmlns="urn:vim25">'
                      '<_this type="PropertyCollector">propertyCollector</_this><token>1</token>'
                      "</ContinueRetrievePropertiesEx>", body)
    elif change == "method":
        body = body.replace("RetrievePropertiesEx", "PowerOnVM_Task")
    elif change == "path":
        body = body.replace("<pathSet>name<", "<pathSet>config.nothing<")
    headers.pop("content-length")
    answer = requests.post(f"{center.url}/sdk", data=body.encode(), headers=headers, timeout=9)
    fault = {"cookie": "NotAuthenticated", "version": "InvalidRequest", "token": "InvalidArgument",
             "method": "MethodNotFound", "path": "InvalidProperty"}.get(change or "")
    assert (answer.status_code, f'xsi:type="{fault}"' in answer.text) == ((500, True) if fault else (200, False))


def test_nothing_of_a_session_is_remembered_after_it(app: App, stack: ExitStack) -> None:
    a_vcenter(app, stack, 3)
    listed(app)
    assert not cache._sessions
