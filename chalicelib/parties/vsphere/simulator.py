"""A simulator for the SOAP API of a vCenter: datacenters, machines, sessions, views, pages.

Checked as the real one does: user and password, the session's cookie, which session a view and a page's token belong to
(a token works once), the types of objects, the paths of properties and since which version they exist. It counts open
sessions and failed logins, and locks the user after five.
"""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Simulator

_POWER = {"running": "poweredOn", "stopped": "poweredOff", "starting": "poweredOff", "stopping": "poweredOn",
          "pending": "poweredOff", "terminated": "poweredOff"}
_SINCE = {                                  # property of a machine -> the first version that has it
    "name": (2, 0), "config.instanceUuid": (4, 0), "config.template": (2, 0), "config.hardware.numCPU": (2, 0),
    "config.hardware.memoryMB": (2, 0), "config.hardware.device": (2, 0), "config.modified": (2, 0),
    "guest.net": (2, 0), "guest.ipAddress": (2, 0), "runtime.powerState": (2, 0), "runtime.connectionState": (2, 0),
    "config.createDate": (6, 7), "runtime.host": (2, 0), "config.guestId": (2, 0)}
_OPERATIONS = {"RetrieveServiceContent": "GetServiceContent", "Login": "Login", "Logout": "Logout",
               "CreateContainerView": "GetView"}
_MOST_TRIES = 5
_HEAD = ('<?xml version="1.0" encoding="UTF-8"?>\n<soapenv:Envelope xmlns:soapenc="http://schemas.xmlsoap.org/soap/'
         'encoding/" xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/'
         'XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n<soapenv:Body>\n')


class _Fault(Exception):
    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(kind, text)


class Vsphere(Simulator):
    """`fleets`: by the datacenter's name. `broken`: numbers of machines without a configuration. `templates`: numbers
    of machines that are. `most`: rows of a page, at most. `hidden`: paths that the user may not read."""

    def __init__(self, user: str, password: str, fleets: Mapping[str, Fleet], *, version: str = "8.0.3.0",
                 broken: Sequence[int] = (), templates: Sequence[int] = (), most: int = 100,
                 hidden: Sequence[str] = (), port: int = 0, latency: float = 0.0) -> None:
        self.user, self.password = user, password
        self.fleets = dict(fleets)
        self.version = version
        self.broken, self.templates, self.most, self.hidden = set(broken), set(templates), most, set(hidden)
        self.sessions: set[str] = set()
        self.tries = 0                      # failed logins in a row
        self.views: dict[str, tuple[str, str, str]] = {}        # id -> session, type, below what
        self.tokens: dict[str, tuple[str, str, list[str], tuple[str, ...]]] = {}     # -> session, type, ids, paths
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        method = re.search(rb"<soapenv:Body>\s*<(\w+)", call.body)
        name = method[1].decode() if method else "?"
        if name.endswith("RetrievePropertiesEx"):
            machines = b"<type>VirtualMachine<" in call.body or any(
                f"<token>{token}<".encode() in call.body and there[1] == "VirtualMachine"
                for token, there in self.tokens.items())
            return "ListMachines" if machines else "ListDatacenters"
        return _OPERATIONS.get(name, "?")

    def answer(self, call: Call) -> Answer:
        headers = {"Content-Type": "text/xml; charset=utf-8", "Cache-Control": "no-cache"}
        try:
            body, more = self._answer(call)
            return Answer(200, {**headers, **more}, f"{_HEAD}{body}\n</soapenv:Body>\n</soapenv:Envelope>".encode())
        except _Fault as fault:
            kind, text = fault.args
            detail = f'<detail><{kind}Fault xmlns="urn:vim25" xsi:type="{kind}"></{kind}Fault></detail>'
            return Answer(500, headers, (
                f"{_HEAD}<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>{text}</faultstring>{detail}"
                "</soapenv:Fault>\n</soapenv:Body>\n</soapenv:Envelope>").encode())

    def _answer(self, call: Call) -> tuple[str, dict[str, str]]:
        try:
            (method,) = next(each for each in ElementTree.fromstring(call.body) if each.tag.endswith("}Body"))
        except (SyntaxError, ValueError, StopIteration):
            raise _Fault("InvalidRequest", "the message is not well formed") from None
        name = method.tag.removeprefix("{urn:vim25}")
        parameters = {each.tag.removeprefix("{urn:vim25}"): each for each in method}
        if call.path != "/sdk" or call.method != "POST" or "}" in name or "_this" not in parameters:
            raise _Fault("InvalidRequest", "no such method")
        if name == "RetrieveServiceContent":
            return _answered(name, self._content()), {}
        if call.headers.get("soapaction") != f'"urn:vim25/{self.version}"':
            raise _Fault("InvalidRequest", "unsupported version")
        if name == "Login":
            return self._login(parameters)
        match = re.search(r'vmware_soap_session=("?)([0-9a-f]+)\1', call.headers.get("cookie", ""))
        session = match[2] if match and match[2] in self.sessions else ""
        if not session:
            raise _Fault("NotAuthenticated", "The session is not authenticated.")
        if name == "Logout":
            self._ended(session)
            return '<LogoutResponse xmlns="urn:vim25"></LogoutResponse>', {}
        if name == "CreateContainerView":
            return _answered(name, self._view(session, parameters)), {}
        if name == "RetrievePropertiesEx":
            return _answered(name, self._listed(session, parameters)), {}
        if name == "ContinueRetrievePropertiesEx":
            there = self.tokens.pop(parameters["token"].text or "", None)
            if there is None or there[0] != session:
                raise _Fault("InvalidArgument", "A specified parameter was not correct: token")
            return _answered(name, self._paged(*there, self.most)), {}
        raise _Fault("MethodNotFound", name)

    # ---------------------------------------------------------------- sessions

    def _content(self) -> str:
        about = ("<about><name>VMware vCenter Server</name><vendor>VMware, Inc.</vendor>"
                 "<apiType>VirtualCenter</apiType>"
                 f"<version>{self.version}</version><apiVersion>{self.version}</apiVersion>"
                 "<instanceUuid>dbed6e0c-bd88-4ef6-b594-21283e1c677f</instanceUuid></about>")
        return (f'<returnval><rootFolder type="Folder">group-d1</rootFolder>'
                '<propertyCollector type="PropertyCollector">propertyCollector</propertyCollector>'
                f'<viewManager type="ViewManager">ViewManager</viewManager>{about}'
                '<sessionManager type="SessionManager">SessionManager</sessionManager></returnval>')

    def _login(self, parameters: Mapping[str, Element]) -> tuple[str, dict[str, str]]:
        login = [parameters[name].text if name in parameters else None for name in ("userName", "password")]
        if login != [self.user, self.password] or self.tries >= _MOST_TRIES:
            self.tries += 1
            raise _Fault("InvalidLogin", "Cannot complete login due to an incorrect user name or password.")
        self.tries, session = 0, uuid.uuid4().hex
        self.sessions.add(session)
        return _answered("Login", f"<returnval><key>{session}</key><userName>{escape(self.user)}</userName></returnval>"
                         ), {"set-cookie": f'vmware_soap_session="{session}"; Path=/; HttpOnly; Secure;'}

    def _ended(self, session: str) -> None:
        self.sessions.discard(session)
        for kept in (self.views, self.tokens):
            for key in [key for key, there in kept.items() if there[0] == session]:
                del kept[key]

    # ---------------------------------------------------------------- views and pages

    def _view(self, session: str, parameters: Mapping[str, Element]) -> str:
        kind, below = parameters["type"].text or "", parameters["container"].text or ""
        if kind not in ("Datacenter", "VirtualMachine"):
            raise _Fault("InvalidArgument", "type")
        if below != "group-d1" and below not in self._datacenters():
            raise _Fault("ManagedObjectNotFound", below)
        view = f"session[{session}]{uuid.uuid4()}"
        self.views[view] = session, kind, below
        return f'<returnval type="ContainerView">{view}</returnval>'

    def _datacenters(self) -> dict[str, str]:
        return {f"datacenter-{n}": name for n, name in enumerate(self.fleets, 2)}

    def _machines(self, below: str) -> Iterator[tuple[str, Machine]]:
        for key, name in self._datacenters().items():
            if below in ("group-d1", key):
                fleet = self.fleets[name]
                yield from ((f"vm-{key[11:]}{machine.number:05}", machine)
                            for machine in (fleet[n] for n in range(len(fleet))))

    def _listed(self, session: str, parameters: Mapping[str, Element]) -> str:
        spec = ElementTree.tostring(parameters["specSet"], encoding="unicode")
        view = re.search(r'obj type="ContainerView">([^<]+)<', spec)
        kind = re.search(r"propSet>\s*<\w+:type>(\w+)<", spec)
        paths = tuple(re.findall(r"pathSet>([^<]+)<", spec))
        if not view or not kind or ">view<" not in spec or "TraversalSpec" not in spec:
            raise _Fault("InvalidArgument", "specSet")
        session_of, shown, below = self.views.get(view[1], ("", "", ""))
        if session_of != session:
            raise _Fault("ManagedObjectNotFound", view[1])
        version = tuple(int(part) for part in self.version.split(".")[:2])
        known = {path for path, since in _SINCE.items() if since <= version and (
            path == "name" or kind[1] == "VirtualMachine")}
        if unknown := set(paths) - known:
            raise _Fault("InvalidProperty", f"{sorted(unknown)}")
        ids = [] if shown != kind[1] else [key for key, _ in self._machines(below)] if shown == "VirtualMachine" else [
            *self._datacenters()]
        options = "".join(parameters["options"].itertext()) if "options" in parameters else ""
        return self._paged(session, kind[1], ids, paths, min(self.most, int(options or self.most)))

    def _paged(self, session: str, kind: str, ids: list[str], paths: tuple[str, ...], size: int) -> str:
        """The rows of a page: of objects that went since the first one there are none."""
        page, rest = ids[:size], ids[size:]
        token = ""
        if rest:
            token = str(uuid.uuid4())
            self.tokens[token] = session, kind, rest, paths
        machines = dict(self._machines("group-d1")) if kind == "VirtualMachine" else {}
        rows = [self._row(key, machines[key], paths) for key in page if key in machines]
        if kind == "Datacenter":
            names = self._datacenters()
            rows = [_object(kind, key, {"name": _text(_escaped(names[key]))}, []) for key in page if key in names]
        if not rows and not rest:
            return ""
        return f"<returnval>{f'<token>{token}</token>' if token else ''}{''.join(rows)}</returnval>"

    def _row(self, key: str, machine: Machine, paths: Sequence[str]) -> str:
        values = self._values(key, machine)
        return _object("VirtualMachine", key, {path: values[path] for path in paths
                                               if path in values and path not in self.hidden},
                       [path for path in paths if path in self.hidden])

    def _values(self, key: str, machine: Machine) -> dict[str, str]:
        runs, power = machine.state == "running", _POWER[machine.state]
        broken = machine.number in self.broken
        values = {"name": _text(_escaped(machine.name)), "runtime.powerState": _word("VirtualMachinePowerState", power),
                  "runtime.connectionState": _word("VirtualMachineConnectionState",
                                                   "inaccessible" if broken else "connected")}
        values["runtime.host"] = ('<val type="HostSystem" xsi:type="ManagedObjectReference">'
                                  f"host-{machine.number % 9}</val>")
        if not broken:
            values["config.guestId"] = _text("debian12_64Guest")
            changed = machine.created + timedelta(days=9)
            values |= {
                "config.instanceUuid": _text(uuid_of(machine)),
                "config.template": f'<val xsi:type="xsd:boolean">{str(machine.number in self.templates).lower()}</val>',
                "config.hardware.numCPU": f'<val xsi:type="xsd:int">{machine.cpu}</val>',
                "config.hardware.memoryMB": f'<val xsi:type="xsd:int">{machine.memory_gib * 1024}</val>',
                "config.hardware.device": _devices(machine),
                "config.createDate": f'<val xsi:type="xsd:dateTime">{machine.created:%Y-%m-%dT%H:%M:%S}.123456Z</val>',
                "config.modified": f'<val xsi:type="xsd:dateTime">{changed:%Y-%m-%dT%H:%M:%S}Z</val>'
                if machine.number % 5 else '<val xsi:type="xsd:dateTime">1970-01-01T00:00:00Z</val>'}
        if runs and not broken:
            values |= {"guest.ipAddress": _text((machine.lan + machine.wan)[0]), "guest.net": _nets(machine)}
        return values


# ---------------------------------------------------------------- XML

def _answered(method: str, inner: str) -> str:
    return f'<{method}Response xmlns="urn:vim25">{inner}</{method}Response>'


def _text(text: str) -> str:
    return f'<val xsi:type="xsd:string">{escape(text)}</val>'


def _word(kind: str, word: str) -> str:
    return f'<val xsi:type="{kind}">{word}</val>'


def _escaped(name: str) -> str:
    """Names escape three characters."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def _object(kind: str, key: str, values: Mapping[str, str], missing: Sequence[str]) -> str:
    lacks = "".join(f'<missingSet><path>{path}</path><fault><fault xsi:type="NoPermission"><object type="{kind}">{key}'
                    "</object><privilegeId>System.Read</privilegeId></fault><localizedMessage></localizedMessage></fault>"
                    "</missingSet>" for path in missing)
    return (f'<objects><obj type="{kind}">{key}</obj>'
            + "".join(f"<propSet><name>{path}</name>{value}</propSet>" for path, value in values.items())
            + f"{lacks}</objects>")


def _devices(machine: Machine) -> str:
    """Two controllers, a CD drive, the disks, an interface for each address."""
    def one(kind: str, key: int, inner: str = "") -> str:
        return (f'<VirtualDevice xsi:type="{kind}"><key>{key}</key><deviceInfo><label>{kind} {key}</label>'
                f"<summary>x</summary></deviceInfo>{inner}</VirtualDevice>")

    devices = [one("VirtualIDEController", 200), one("ParaVirtualSCSIController", 1000),
               one("VirtualCdrom", 3000, '<backing xsi:type="VirtualCdromRemotePassthroughBackingInfo">'
                                         "<deviceName></deviceName></backing>")]
    devices += [one("VirtualDisk", 2000 + n, '<backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>'
                    f"[ds] {n}.vmdk</fileName><thinProvisioned>true</thinProvisioned></backing>"
                    f"<controllerKey>1000</controllerKey><capacityInKB>{size * 1024 ** 2}</capacityInKB>"
                    f"<capacityInBytes>{size * 1024 ** 3}</capacityInBytes>") for n, size in enumerate(machine.disks)]
    devices += [one("VirtualVmxnet3", 4000 + n, f"<macAddress>{mac_of(machine, n)}</macAddress>")
                for n in range(len(machine.lan + machine.wan))]
    return f'<val xsi:type="ArrayOfVirtualDevice">{"".join(devices)}</val>'


def _nets(machine: Machine) -> str:
    """A bridge of a container engine, then an interface for each address."""
    nets = ["<GuestNicInfo><macAddress>02:42:00:00:00:01</macAddress><connected>true</connected><deviceConfigId>-1"
            "</deviceConfigId></GuestNicInfo>"]
    nets += [f"<GuestNicInfo><network>VM Network</network><ipAddress>{ip}</ipAddress><ipAddress>fe80::1</ipAddress>"
             f"<macAddress>{mac_of(machine, n)}</macAddress><connected>true</connected><deviceConfigId>{4000 + n}"
             f"</deviceConfigId><ipConfig><ipAddress><ipAddress>{ip}</ipAddress><prefixLength>24</prefixLength>"
             "</ipAddress></ipConfig></GuestNicInfo>" for n, ip in enumerate(machine.lan + machine.wan)]
    return f'<val xsi:type="ArrayOfGuestNicInfo">{"".join(nets)}</val>'


def uuid_of(machine: Machine) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, machine.key))


def mac_of(machine: Machine, n: int) -> str:
    return f"00:50:56:{machine.number // 256 % 256:02x}:{machine.number % 256:02x}:{n:02x}"


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    made = Vsphere("twocloud@vsphere.local", secret, fleets, latency=latency)
    return made, {"host": made.url, "username": made.user, "password": secret}


CLOUDS = {"vsphere": Cloud("Datacenter1", start, least=Least(
    calls=16, trips=16, window_calls=16, window_trips=16,
    why="The server's content, the login, two views, the datacenters, ten pages of a hundred machines that each need "
        "the token of the one before, and the logout; a window too, as the list has no order."))}
