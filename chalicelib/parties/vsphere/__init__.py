"""VMware vSphere: the SOAP API (urn:vim25) of a vCenter or of one ESXi host.

https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/ (PropertyCollector, ContainerView, VirtualMachine)

Units: memory MiB, disks bytes, or KiB in older versions; both nominal, so that a thin disk counts as a whole. Times:
RFC 3339; 1970 means unknown. Creation is known from 6.7 on, and asked of no older server, which would refuse the name.
Paging: an opaque token, at most `maxObjects` rows or fewer, no total. A token works once and in its session, so pages
follow each other. No order is documented: the list is read as a whole, sorted by id and cut.

Six messages: RetrieveServiceContent (without a login; it names the managers and the version), Login,
CreateContainerView of the datacenters and then of the machines of one, RetrievePropertiesEx and its continuation,
Logout. A view and its tokens end with the session. Sessions are few and stay open for half an hour (unconfirmed) if
nobody ends them, so listings that run at the same time share one and the last one logs out, also after an error. A
session that the server ended is opened again, once. A wrong password is not tried again: some tries lock an account.

A region is a datacenter by its name: see `region_of` for names with other characters than a region may have. Several of
one name (in folders) are one region. ESXi has one, ha-datacenter. A machine has no property that names it, so there is
one view for each.
Templates are no servers. A machine whose files cannot be read has no configuration: its id is then that of the managed
object, and sizes are unknown. Addresses come from VMware Tools, and vanish when these stop; public are those that the
internet knows. What the user may not read is NoPermission in the answer; what he may not see is left out in silence.
A fault is HTTP 500 with its type in the body. No rate is published; careful ones here.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from ...cloud import api

_PAGE = 100                                 # machines of a page; the device list of each is several kilobytes
_GIB = 1024 ** 3
_T = TypeVar("_T")

_STATUS = {                                 # runtime.powerState of a connected machine, the complete enumeration
    "poweredOn": api.Status.ACTIVE,
    "poweredOff": api.Status.SHUTOFF,
    "suspended": api.Status.SUSPENDED,
}
_UNCONNECTED = {                            # runtime.connectionState, all but connected
    "disconnected": api.Status.UNKNOWN,     # its host does not answer: the power state is the last that is known
    "inaccessible": api.Status.ERROR,       # its files cannot be read
    "invalid": api.Status.ERROR,            # its configuration is corrupt
    "orphaned": api.Status.ERROR,           # its host does not know it any more
}

_ERRORS = {                                 # type of a fault
    "InvalidLogin": api.WRONG_KEY,
    "NoPermission": api.MISSING_RIGHT,      # also at login: a user without any role
    "NotAuthenticated": api.denied("session ended: the server closed it"),
    "PasswordExpired": api.EXPIRED_KEY,
    "InvalidProperty": api.MALFORMED,
    "InvalidArgument": api.MALFORMED,
    "InvalidRequest": api.MALFORMED,
    "InvalidType": api.MALFORMED,
    "MethodNotFound": api.MALFORMED,
    "NotSupported": api.MALFORMED,
    "ManagedObjectNotFound": api.MALFORMED,
    "HostNotReachable": api.UNAVAILABLE,
    "HostCommunication": api.UNAVAILABLE,
    "RuntimeFault": api.FAILED,
    "SystemError": api.FAILED,
}
_ENDED = ("NotAuthenticated", "ManagedObjectNotFound")          # the session is gone, or the view that it held
_WRONG = ("InvalidLogin",)

_PATHS = ("name", "config.instanceUuid", "config.template", "config.hardware.numCPU", "config.hardware.memoryMB",
          "config.hardware.device", "config.modified", "guest.net", "guest.ipAddress", "runtime.powerState",
          "runtime.connectionState", "runtime.host", "config.guestId")
_CREATED = "config.createDate"              # from 6.7 on


# ---------------------------------------------------------------- listing

@dataclass(frozen=True, slots=True)
class _Machine:
    """A machine's properties as its row gives them; None if the server has none."""

    moref: str
    name: str | None = None
    uuid: str | None = None
    template: bool = False
    cpu: int | None = None
    memory: int | None = None
    disks: tuple[int | None, ...] | None = None                 # bytes
    addresses: tuple[str, ...] = ()
    power: str = ""
    connection: str = ""
    created: datetime | None = None
    modified: datetime | None = None
    host: str | None = None                 # the host's id
    guest: str | None = None


def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    machines = _in_session(client, lambda vim: [
        machine for datacenter in _of_region(vim) for machine in vim.list_all(
            "ListMachines", vim.view("VirtualMachine", datacenter), "VirtualMachine", _paths(vim), _machine)])
    known = [machine.uuid for machine in machines]
    named = [(machine.uuid if machine.uuid and known.count(machine.uuid) == 1 else machine.moref, machine)
             for machine in machines if not machine.template]
    ordered = sorted(named, key=lambda pair: pair[0])
    return api.Listing([_server(key, machine) for key, machine in api.cut(ordered, window)], len(ordered))


def _of_region(vim: "_Vim") -> list[str]:
    """The datacenters that the region means."""
    morefs = [moref for moref, name in _datacenters(vim) if region_of(name) == vim.client.region]
    if not morefs:
        raise api.UnknownRegion(f"{PARTY.title} has no such datacenter, or none that this user may see.")
    return morefs


def _datacenters(vim: "_Vim") -> list[tuple[str, str]]:
    """(id, name) of each that the user may see."""
    view = vim.view("Datacenter", vim.content.root)
    return vim.list_all("ListDatacenters", view, "Datacenter", ("name",),
                        lambda row: (row.moref, unescaped(row.text("name") or "")))


def _paths(vim: "_Vim") -> tuple[str, ...]:
    return (*_PATHS, _CREATED) if vim.content.version >= (6, 7) else _PATHS


def _server(key: str, machine: _Machine) -> api.Server:
    state = PARTY.status_of(machine.power)
    if machine.connection != "connected":
        state["status"] = _UNCONNECTED.get(machine.connection, api.Status.UNKNOWN)
    total = None if machine.disks is None else api.total_gib(machine.disks)
    return api.Server(
        id=key,
        name=machine.name or "",
        cpu=machine.cpu,
        memory_mib=machine.memory,
        disk_gib=None if total is None else -(-total // _GIB),
        **api.by_scope(machine.addresses),
        **state,
        created_at=machine.created,
        updated_at=machine.modified,
        os=_os(machine.guest or ""),
        host_id=machine.host,
    )


def _os(guest: str) -> str | None:
    """windows2022srvNext_64Guest, winNetStandardGuest and the like are Windows; rhel9_64Guest names a distribution."""
    return "windows" if guest.startswith("win") else api.os_family(guest.replace("_", " "))


# ---------------------------------------------------------------- one row

@dataclass(frozen=True, slots=True)
class _Row:
    """An object of an answer: its id, and the values of its properties by their path."""

    moref: str
    values: Mapping[str, Element]

    def text(self, path: str) -> str | None:
        value = self.values.get(path)
        return None if value is None or len(value) else (value.text or "").strip()

    def count(self, path: str) -> int | None:
        return _count(self.text(path), 9)

    def time(self, path: str) -> datetime | None:
        time = api.parse_time(self.text(path))
        return None if time is None or time.year == 1970 else time


def _row(element: Element, ns: str) -> _Row | None:
    """None of what is no object: the token."""
    if api.xml.local(element.tag) != "objects":
        return None
    moref = element.findtext(f"{ns}obj") or ""
    if not moref:
        raise api.PartyMalformed()
    for missing in element.findall(f"{ns}missingSet"):
        if any(_type(fault) == "NoPermission" for fault in missing.iter()):
            raise api.refused("missing right: the user may not read each property; grant the role Read-only, with "
                              "propagation to children")
    values = {each.findtext(f"{ns}name") or "": each.find(f"{ns}val") for each in element.findall(f"{ns}propSet")}
    return _Row(moref, {path: value for path, value in values.items() if value is not None})


def _machine(row: _Row) -> _Machine:
    name = row.text("name")
    return _Machine(
        moref=row.moref,
        name=None if name is None else unescaped(name),
        uuid=row.text("config.instanceUuid"),
        template=row.text("config.template") in ("true", "1"),
        cpu=row.count("config.hardware.numCPU"),
        memory=row.count("config.hardware.memoryMB"),
        disks=_disks(row.values.get("config.hardware.device")),
        addresses=tuple(_addresses(row)),
        power=row.text("runtime.powerState") or "",
        connection=row.text("runtime.connectionState") or "",
        created=row.time(_CREATED),
        modified=row.time("config.modified"),
        host=row.text("runtime.host"),
        guest=row.text("config.guestId"),
    )


def _disks(devices: Element | None) -> tuple[int | None, ...] | None:
    """Bytes of each virtual disk, whatever else there is; None if the machine's devices are not known."""
    if devices is None:
        return None
    return tuple(_capacity(device) for device in devices if _type(device) == "VirtualDisk")


def _capacity(disk: Element) -> int | None:
    texts = {api.xml.local(each.tag): each.text for each in disk}
    size = _count(texts.get("capacityInBytes"), 18)
    kib = _count(texts.get("capacityInKB"), 15)
    return size if size is not None else None if kib is None else kib * 1024


def _addresses(row: _Row) -> Iterable[str]:
    """The primary first, then those of the machine's own interfaces, then those of bridges in the guest."""
    nets = list(row.values.get("guest.net", ()))
    nets.sort(key=lambda net: _texts(net, "deviceConfigId")[:1] in ([], ["-1"]))
    return filter(None, [row.text("guest.ipAddress"), *(ip for net in nets for ip in _texts(net, "ipAddress"))])


def _texts(element: Element, name: str) -> list[str]:
    return [(each.text or "").strip() for each in element if api.xml.local(each.tag) == name]


def _type(element: Element) -> str:
    """The type that an element states, without its prefix."""
    return element.get("{http://www.w3.org/2001/XMLSchema-instance}type", "").rpartition(":")[2]


def _count(text: str | None, digits: int) -> int | None:
    return int(text) if text and re.fullmatch(rf"[0-9]{{1,{digits}}}", text.strip(), re.ASCII) else None


def unescaped(name: str) -> str:
    """Names escape three characters: %25, %2f, %5c."""
    return re.sub("%(25|2[fF]|5[cC])", lambda match: chr(int(match[1], 16)), name)


# ---------------------------------------------------------------- regions

def region_of(name: str) -> str:
    """A datacenter's name in the characters that a region may have.

    Each other character is its UTF-8 bytes, `_` and two hex digits each: "DC 1" is DC_201. A `_` that two hex digits
    follow is `_5F`, so that no two names are the same region. What is longer than 64 ends in a digest instead.
    """
    code = re.sub(r"_(?=[0-9A-F]{2})|[^A-Za-z0-9._-]",
                  lambda match: "".join(f"_{byte:02X}" for byte in match[0].encode("utf-8", "replace")), name)
    return code if len(code) <= 64 else f"{code[:47]}-{hashlib.sha256(code.encode()).hexdigest()[:16]}"


def list_regions(client: api.Client) -> list[api.Region]:
    """The datacenters, each under the name that it has here and its own."""
    names = _in_session(client, lambda vim: {region_of(name): name for _, name in _datacenters(vim) if name})
    return [api.Region(code, name) for code, name in sorted(names.items())]


def check(client: api.Client) -> None:
    """The login, and the datacenters; the region, if the account names one."""
    def look(vim: "_Vim") -> None:
        if client.account.regions:
            _of_region(vim)
        elif not _datacenters(vim):
            raise api.refused("missing right: the user sees no datacenter; grant the role Read-only, with propagation "
                              "to children")

    _in_session(client, look)


# ---------------------------------------------------------------- the session

@dataclass(frozen=True, slots=True)
class _Content:
    """What the server says of itself. `api`: its version, `version` its first two numbers; the others are ids."""

    api: str
    root: str
    sessions: str
    views: str
    collector: str

    @property
    def version(self) -> tuple[int, int]:
        major, minor, *_ = (*self.api.split("."), "0")
        return int(major), int(minor)


@dataclass(frozen=True, slots=True)
class _Session:
    content: _Content
    cookie: str = field(repr=False)


def _in_session(client: api.Client, use: Callable[["_Vim"], _T]) -> _T:
    return client.in_session(
        lambda: _login(client),
        lambda session: _call(client, "Logout", _body("Logout", "SessionManager", session.content.sessions), session),
        lambda session: use(_Vim(client, session)), ended=_ENDED, wrong=_WRONG)


def _login(client: api.Client) -> _Session:
    content = _content(client)
    credentials = client.credentials
    body = _body("Login", "SessionManager", content.sessions, f"<userName>{escape(credentials['username'])}</userName>"
                 f"<password>{escape(credentials['password'])}</password>")
    response = _call(client, "Login", body, _Session(content, ""))
    _result(response, "Login")
    cookie = re.search(r'(?:^|[,;]\s*)vmware_soap_session=("[!#-+\--:<-~]+"|[!#-+\--:<-~]+)',
                       response.headers.get("set-cookie", ""), re.ASCII)
    if not cookie:
        raise api.PartyMalformed("The party's answer to the login holds no session.")
    return _Session(content, f"vmware_soap_session={cookie[1]}")


def _content(client: api.Client) -> _Content:
    """https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.ServiceInstance.html"""
    response = _call(client, "GetServiceContent",
                     _body("RetrieveServiceContent", "ServiceInstance", "ServiceInstance"), None)
    value = _result(response, "RetrieveServiceContent")
    if value is None:
        raise api.PartyMalformed()
    texts = {api.xml.local(each.tag): (each.text or "").strip() for each in value}
    about = next((each for each in value if api.xml.local(each.tag) == "about"), ())
    version = next((each.text or "" for each in about if api.xml.local(each.tag) == "apiVersion"), "")
    content = _Content(version.strip(), *(texts.get(name, "") for name in (
        "rootFolder", "sessionManager", "viewManager", "propertyCollector")))
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6}){0,5}", content.api, re.ASCII) or not all(
            (content.root, content.sessions, content.views, content.collector)):
        raise api.PartyMalformed()
    return content


@dataclass(frozen=True, slots=True)
class _Vim:
    """The calls of one session."""

    client: api.Client
    session: _Session

    @property
    def content(self) -> _Content:
        return self.session.content

    def view(self, kind: str, below: str) -> str:
        """A view of all objects of a kind below a folder or a datacenter: its id."""
        folder = "Folder" if below == self.content.root else "Datacenter"
        body = _body("CreateContainerView", "ViewManager", self.content.views,
                     f'<container type="{folder}">{escape(below)}</container><type>{kind}</type>'
                     "<recursive>true</recursive>")
        value = _result(_call(self.client, "GetView", body, self.session), "CreateContainerView")
        if value is None or not (view := (value.text or "").strip()):
            raise api.PartyMalformed()
        return view

    def list_all(self, operation: str, view: str, kind: str, paths: Sequence[str],
                 make: Callable[[_Row], _T]) -> list[_T]:
        """What `make` makes of each object of a view."""
        def fetch(token: str | None) -> api.Page[_T]:
            name, body = ("RetrievePropertiesEx", _spec(view, kind, paths)) if token is None else (
                "ContinueRetrievePropertiesEx", f"<token>{escape(token)}</token>")
            response = _call(self.client, operation, _body(name, "PropertyCollector", self.content.collector, body),
                             self.session)
            return _page(response, name, make)

        return api.by_token(fetch).rows


def _spec(view: str, kind: str, paths: Sequence[str]) -> str:
    wanted = "".join(f"<pathSet>{path}</pathSet>" for path in paths)
    return (f"<specSet><propSet><type>{kind}</type><all>false</all>{wanted}</propSet>"
            f'<objectSet><obj type="ContainerView">{escape(view)}</obj><skip>true</skip>'
            '<selectSet xsi:type="TraversalSpec"><name>view</name><type>ContainerView</type><path>view</path>'
            "<skip>false</skip></selectSet></objectSet></specSet>"
            f"<options><maxObjects>{_PAGE}</maxObjects></options>")


def _page(response: api.Response, method: str, make: Callable[[_Row], _T]) -> api.Page[_T]:
    """Without a `returnval` it is empty, and the last one."""
    def read(element: Element, ns: str) -> tuple[str, _T] | None:
        row = _row(element, ns)
        return None if row is None else (row.moref, make(row))

    path = ("Envelope", "Body", f"{method}Response", "returnval")
    token: list[str] = []

    def each(element: Element, ns: str) -> tuple[str, _T] | None:
        if api.xml.local(element.tag) == "token":
            token.append((element.text or "").strip())
        return read(element, ns)

    rows, root = api.xml.items(response.body, path, each)
    _answered(root, method)
    return api.Page([row for row in rows if row is not None], token=token[0] if token else None)


# ---------------------------------------------------------------- the call

def _body(method: str, kind: str, key: str, inner: str = "") -> str:
    return f'<{method} xmlns="urn:vim25"><_this type="{kind}">{escape(key)}</_this>{inner}</{method}>'


def _call(client: api.Client, operation: str, body: str, session: _Session | None) -> api.Response:
    """One message. Without a session the version is left open, which means the oldest (unconfirmed)."""
    url = client.url(f"{api.base_url(client.credentials['host'])}/sdk")
    headers = {"Content-Type": "text/xml; charset=utf-8",
               "SOAPAction": f'"urn:vim25{"/" + session.content.api if session else ""}"',
               **api.given(Cookie=session.cookie if session else None)}
    envelope = ('<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope '
                'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
                'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
                f"<soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>").encode()
    return client.send(operation, lambda: api.Request("POST", url, headers, envelope))


def _answered(root: Element, method: str) -> Element:
    """The answer to this method, and to no other."""
    for body in root:
        if api.xml.local(root.tag) == "Envelope" and api.xml.local(body.tag) == "Body":
            for answer in body:
                if api.xml.local(answer.tag) == f"{method}Response":
                    return answer
    raise api.PartyMalformed()


def _result(response: api.Response, method: str) -> Element | None:
    """The value that a method returned."""
    return next((each for each in _answered(api.xml.parse(response.body), method)
                 if api.xml.local(each.tag) == "returnval"), None)


def error_code(response: api.Response) -> str | None:
    """The type of a fault; never with status 200. `Client` or `Server` of a fault without one says nothing."""
    if response.status < 400 or b"Fault" not in response.body:
        return None
    try:
        root = api.xml.parse(response.body)
    except api.PartyMalformed:
        return None
    detail = next((each for each in root.iter() if api.xml.local(each.tag) == "detail"), ())
    return next((_type(each) or api.xml.local(each.tag).removesuffix("Fault") for each in detail), None)


_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+"

PARTY = api.Party(
    name="vsphere",
    title="VMware vSphere",
    reference="https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/",
    order="none documented; tokens, believed to hold the list of the first call",
    credentials=(("host", "username", "password"),),
    forms={"username": _PRINTABLE, "password": _PRINTABLE},
    addresses=("host",),
    hosts=("host",),
    permissions=("Read-only",),
    grade="real software (simulator)",
    region_form=api.IDENTIFIER,
    default_region="ha-datacenter",
    limits=api.per_second(20, "GetServiceContent", "Login", "Logout", "GetView", "ListDatacenters", "ListMachines"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
