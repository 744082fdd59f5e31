"""Proxmox VE, versions 8 and 9: the API of a cluster or of a node alone, JSON over HTTPS, usually at port 8006.

https://pve.proxmox.com/pve-docs/api-viewer/ and the sources of pve-manager, pve-access-control, qemu-server

Units: bytes in the list, MiB of memory and K, M, G, T of 1024 for disks in a guest's configuration. Times: Unix seconds
of the creation in `meta`, which containers and old machines lack. Paging: none, one call names each guest of the
cluster. Order: none that is documented, sorted by vmid here, as a number. Any node that is online answers for all.

The list holds no disks and no addresses: each guest of the window costs one call for its configuration, and one for
its addresses if it runs and has an agent; there is no form for many at once. A node has three workers, so at most eight
calls run side by side. Addresses are the guest's own word: interfaces that the configuration names come first, then
those that engines in the guest made. An agent that is not there, hangs or refuses means no addresses, never an error.
A container that is off has the addresses that its configuration fixes.

Offline nodes: GET /cluster/status names them. No call goes to them, their guests are UNKNOWN, and what the cluster does
not know of them (soon after also names and sizes) is null. Whether such a guest is a template is then unknown too, and
it is listed. A call to a node that is gone ends in 595 to 597; then the cluster is asked again, and if it still calls
the node online, the listing fails.
A guest without a name in the list whose node is online is new: its configuration has the rest.

Rights: a guest that the token may not audit is left out in silence, and `pool` where it may not audit the pool. So an
empty list is believed only of a token that may audit guests somewhere, and a pool (--project) only of one that may
audit it. A guest of a pool that was removed meanwhile is 403: it is listed again.
Errors: the text stands after the status in the first line of the answer, newer versions repeat it in `message`.
Templates are no servers. No rate is published; careful ones here.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlencode

import msgspec

from ...cloud import api

_PORT = 8006
_WORKERS = 8                                # calls at once: a node has three workers
_GIB = 1024 ** 3
_T = TypeVar("_T")

_STATUS = {                                 # status of a row: the node's own word, or QEMU's run state
    "running": api.Status.ACTIVE,
    "stopped": api.Status.SHUTOFF,
    "paused": api.Status.PAUSED,
    "suspended": api.Status.SUSPENDED,      # the guest sleeps
    "shutdown": api.Status.SHUTOFF,         # the guest is off, its process is there
    "prelaunch": api.Status.STARTING,
    "restore-vm": api.Status.STARTING,
    "inmigrate": api.Status.MIGRATING,      # this and what follows: unconfirmed in a list
    "postmigrate": api.Status.MIGRATING,
    "finish-migrate": api.Status.MIGRATING,
    "save-vm": api.Status.PAUSED,
    "debug": api.Status.PAUSED,
    "io-error": api.Status.ERROR,
    "internal-error": api.Status.ERROR,
    "guest-panicked": api.Status.ERROR,
    "watchdog": api.Status.ERROR,
    "unknown": api.Status.UNKNOWN,          # its node is offline or silent, or it is newer than its node's last word
}
_LOCKS = {                                  # `lock` of a row; backup, snapshot, rollback and others change nothing
    "create": api.Status.BUILD,
    "clone": api.Status.BUILD,
    "migrate": api.Status.MIGRATING,
    "destroyed": api.Status.DELETED,
}

_CAUSES = (                                 # (HTTP status or 0, pattern, our word): what the texts of errors say
    (401, r"user '.{1,80}' is disabled", "Unauthorized.disabled_user"),
    (401, r"expired", "Unauthorized.expired"),
    (0, r"Configuration file '.{1,200}' does not exist", "NoGuest"),
    (0, r"No QEMU guest agent configured|QEMU guest agent is not running|Agent error|qga socket|"
        r"q(mp|ga) command", "NoAgent"),    # older versions say qmp
    (0, r"(VM|CT) [0-9]{1,9} (is )?not running", "NotRunning"),
)
_NO_ADDRESSES = ("NoAgent", "NotRunning")

_ERRORS = {                                 # our words for Proxmox's texts, see error_code
    "Unauthorized": api.WRONG_KEY,          # with a dot and the cause, if the text says it
    "Unauthorized.disabled_user": api.DISABLED_KEY,
    "Unauthorized.expired": api.EXPIRED_KEY,
    "Forbidden": api.MISSING_RIGHT,         # with a dot and the privilege that is missing
    "NoGuest": api.MALFORMED,               # the guest is gone, or on another node
    "NoAgent": api.MALFORMED,
    "NotRunning": api.MALFORMED,
    "NotImplemented": api.MALFORMED,        # no such path
    "NodeUnreachable": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

_Node = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,253}[A-Za-z0-9])?$")]    # goes into a path
_Vmid = Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=2 ** 62)]
_Key = tuple[str, str, int]                 # node, type, vmid


class _Guest(msgspec.Struct, gc=False):
    vmid: _Vmid
    type: Literal["qemu", "lxc"]
    node: _Node
    name: str | None = None
    status: str | None = None
    lock: str | None = None
    template: int | bool | str | None = None                    # None: its node did not answer
    maxcpu: api.Count | None = None
    maxmem: _Bytes | None = None
    pool: api.Strict[str | None] = None
    tags: str | None = None

    @property
    def key(self) -> _Key:
        return self.node, self.type, self.vmid


class _Guests(msgspec.Struct):
    data: list[_Guest]


class _Member(msgspec.Struct, gc=False):
    """A row of the cluster's state: of the cluster itself, if there is one, or of a node."""

    type: api.Text
    name: api.Text
    online: api.Strict[int | bool] = 1


class _Members(msgspec.Struct):
    data: list[_Member]


class _Permissions(msgspec.Struct):
    """path -> privilege -> whether it counts for the paths below."""

    data: dict[str, dict[str, int | bool]]


class _Config(msgspec.Struct):
    data: dict[str, msgspec.Raw]


class _Ip(msgspec.Struct, gc=False):
    address: str | None = msgspec.field(name="ip-address", default=None)


class _Interface(msgspec.Struct, gc=False):
    """Of the agent, or of a container. `inet` and `inet6` have the length of the network."""

    mac: str | None = msgspec.field(name="hardware-address", default=None)
    hwaddr: str | None = None
    inet: str | None = None
    inet6: str | None = None
    ips: list[_Ip] | None = msgspec.field(name="ip-addresses", default=None)


class _OfContainer(msgspec.Struct):
    data: list[_Interface] | None


class _Result(msgspec.Struct):
    """`result`: a list; an object, if the agent refuses."""

    result: list[_Interface] | None = None


class _OfAgent(msgspec.Struct):
    data: _Result


class _Message(msgspec.Struct):
    message: str | None = None


# ---------------------------------------------------------------- listing

@dataclass(frozen=True, slots=True)
class _Detail:
    """A guest's configuration, each value as its text, and its addresses as it gave them."""

    config: Mapping[str, str]
    addresses: Sequence[str | None]


@dataclass(slots=True)
class _Details:
    """What was read so far, and the error of each guest that could not be read: it may be gone, or its node."""

    client: api.Client
    read: dict[_Key, _Detail] = field(default_factory=dict[_Key, _Detail])
    failed: dict[_Key, api.PartyError] = field(default_factory=dict[_Key, api.PartyError])

    def add(self, guests: Iterable[_Guest]) -> bool:
        """Read those of the guests that are missing. False if one could not be read."""
        missing = [guest for guest in guests if guest.key not in self.read]
        details = self.client.for_each(missing, self._one, _WORKERS)
        for guest, detail in zip(missing, details, strict=True):
            if isinstance(detail, _Detail):
                self.read[guest.key] = detail
            else:
                self.failed[guest.key] = detail
        return not any(isinstance(detail, api.PartyError) for detail in details)

    def _one(self, guest: _Guest) -> _Detail | api.PartyError:
        try:
            return _detail(self.client, guest)
        except (api.PartyMalformed, api.PartyDenied, api.PartyUnavailable) as refused:
            if refused.party_code in ("NoGuest", "NodeUnreachable") or refused.party_code == "Forbidden.VM.Audit":
                return refused
            raise


def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    details = _Details(client)
    while True:
        guests, online = _guests(client)
        for guest in guests:
            if guest.node in online and (refused := details.failed.get(guest.key)):
                raise refused               # still listed there
        if not details.add(guest for guest in guests if guest.template is None and guest.node in online):
            continue
        servers = [guest for guest in guests if not _is_template(guest, details.read.get(guest.key))]
        wanted = api.cut(servers, window)
        if details.add(guest for guest in wanted if guest.node in online):
            return api.Listing([_server(guest, details.read[guest.key] if guest.node in online else None)
                                for guest in wanted], len(servers))


def _guests(client: api.Client) -> tuple[list[_Guest], set[str]]:
    """The guests of the account, templates included, in the order of their ids; and the nodes that are online."""
    guests, members = client.run_all(
        lambda: _get(client, "ListResources", "/cluster/resources", _Guests, type="vm").data,
        lambda: _members(client))
    if _name(members) != client.region:
        raise api.UnknownRegion(f"{PARTY.title}: the cluster at this host has another name.")
    if client.project is not None:
        _require(client, "Pool.Audit", f"/pool/{client.project}")
        guests = [guest for guest in guests if guest.pool == client.project]
    if not guests:
        _require(client, "VM.Audit")
    if len({guest.vmid for guest in guests}) < len(guests):
        raise api.PartyMalformed("The party lists one guest twice.")
    return sorted(guests, key=lambda guest: guest.vmid), {
        member.name for member in members if member.type == "node" and member.online}


def _require(client: api.Client, right: str, path: str | None = None) -> None:
    """Raises PartyDenied if the token lacks a right on this path; None: on every path."""
    held = _get(client, "GetPermissions", "/access/permissions", _Permissions, path=path).data
    above = {path[:at] or "/" for at, sign in enumerate(path) if sign == "/"} if path else set[str]()
    if not any(right in privileges and (path in (None, place) or (place in above and privileges[right]))
               for place, privileges in held.items()):
        raise api.refused(f"missing right: {right}; grant it to the token itself, which has none of its user's")


def _is_template(guest: _Guest, detail: _Detail | None) -> bool:
    flag = guest.template if guest.template is not None or detail is None else detail.config.get("template")
    return str(flag) in ("1", "true", "True")


def _server(guest: _Guest, detail: _Detail | None) -> api.Server:
    """`detail`: None if its node is offline."""
    config: Mapping[str, str] = detail.config if detail else {}
    state = PARTY.status_of(guest.status)
    state["status"] = _LOCKS.get(guest.lock or "", state["status"]) if detail else api.Status.UNKNOWN
    if guest.lock == "suspended" and state["status"] is api.Status.SHUTOFF:     # hibernated to disk
        state["status"] = api.Status.SUSPENDED
    return api.Server(
        id=str(guest.vmid),
        name=guest.name or config.get("name") or config.get("hostname") or "",
        cpu=guest.maxcpu or _cores(guest, config),
        memory_mib=_memory(guest, config),
        disk_gib=_disk(guest, config) if detail else None,
        **api.by_scope(detail.addresses if detail else ()),
        **state,
        created_at=_created(config.get("meta", "")),
        zone=guest.node,
        project_id=guest.pool or "",
        instance_type=guest.type,
        tags=api.plain([tag for tag in re.split(r"[;,\s]+", guest.tags or "") if tag]),
        os=_os(config.get("ostype", "")),
        subnet_id=_bridge(config.get("net0", "")),
        host_id=guest.node,
    )


def _os(kind: str) -> str | None:
    """A machine's is a Windows (win11) or a Linux (l26), a container's the distribution.

    https://pve.proxmox.com/pve-docs/qm.1.html
    """
    if re.fullmatch(r"w(in|2k|xp|vista).*", kind):
        return "windows"
    return "linux" if re.fullmatch(r"l2[46]", kind) else api.os_family(kind)


def _bridge(interface: str) -> str | None:
    """virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1 -> vmbr0"""
    return next((word.removeprefix("bridge=") for word in interface.split(",") if word.startswith("bridge=")), None)


def _cores(guest: _Guest, config: Mapping[str, str]) -> int | None:
    """Of a guest that its node has not described yet. A container without `cores` uses all of its host."""
    if guest.type == "lxc" or not config:
        return _number(config.get("cores"))
    sockets, cores = _number(config.get("sockets", "1")), _number(config.get("cores", "1"))
    product = None if sockets is None or cores is None else sockets * cores
    return _number(config["vcpus"]) if "vcpus" in config else product


def _memory(guest: _Guest, config: Mapping[str, str]) -> int | None:
    """MiB. In a configuration `2048` or, of new versions, `current=2048`."""
    if guest.maxmem is not None:
        return -(-guest.maxmem // 1024 ** 2)
    return _number(config.get("memory", "").removeprefix("current=").partition(",")[0])


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else None


def _created(meta: str) -> datetime | None:
    """creation-qemu=9.0.2,ctime=1700000000"""
    match = re.search(r"(?:^|,)ctime=([0-9]{1,10})(?:,|$)", meta, re.ASCII)
    return datetime.fromtimestamp(int(match[1]), UTC) if match else None


# ---------------------------------------------------------------- disks

_DISKS = {"qemu": re.compile(r"(ide|sata|scsi|virtio|efidisk|tpmstate)[0-9]{1,2}", re.ASCII),
          "lxc": re.compile(r"rootfs|mp[0-9]{1,3}", re.ASCII)}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMGT]?)", re.ASCII)
_UNITS = {"": 1, "K": 1024, "M": 1024 ** 2, "G": _GIB, "T": 1024 ** 4}


def _disk(guest: _Guest, config: Mapping[str, str]) -> int | None:
    """Unused volumes and CD drives do not count, folders of the host neither. None if one disk states no size."""
    total = api.total_gib(_bytes(text) for key, text in config.items()
                          if _DISKS[guest.type].fullmatch(key) and _is_disk(guest.type, text))
    return None if total is None else -(-total // _GIB)


def _is_disk(kind: str, text: str) -> bool:
    volume, *options = text.split(",")
    volume = volume.removeprefix("volume=")
    folder = kind == "lxc" and volume.startswith("/") and not volume.startswith("/dev/")
    return not folder and "media=cdrom" not in options


def _bytes(text: str) -> int | None:
    size = next((option[5:] for option in text.split(",") if option.startswith("size=")), "")
    match = _SIZE.fullmatch(size)
    return math.ceil(float(match[1]) * _UNITS[match[2]]) if match else None


# ---------------------------------------------------------------- one guest

def _detail(client: api.Client, guest: _Guest) -> _Detail:
    path = f"/nodes/{guest.node}/{guest.type}/{guest.vmid}"
    fields = _get(client, "GetConfig", f"{path}/config", _Config, current=1).data
    config = {key: _shown(raw) for key, raw in fields.items()}
    return _Detail(config, _addresses(client, guest, path, config))


def _shown(raw: msgspec.Raw) -> str:
    """A value of a configuration as its text: numbers come as numbers or as texts. "" of what is neither."""
    number = re.fullmatch(rb"[0-9.]{1,30}|true", raw)
    return number[0].decode() if number else api.part(raw, str) or ""


def _addresses(client: api.Client, guest: _Guest, path: str, config: Mapping[str, str]) -> list[str | None]:
    nets = [config[key] for key in sorted((key for key in config if re.fullmatch(r"net[0-9]{1,2}", key, re.ASCII)),
                                          key=lambda key: int(key[3:]))]
    if guest.status == "running" and guest.type == "lxc":
        interfaces = _asked(lambda: _get(client, "ListInterfaces", f"{path}/interfaces", _OfContainer).data)
    elif guest.status == "running" and _has_agent(config.get("agent", "")):
        interfaces = _asked(lambda: _get(client, "GetAgentInterfaces", f"{path}/agent/network-get-interfaces",
                                    _OfAgent).data.result)
    elif guest.type == "lxc":
        return [api.without_prefix(_option(net, name)) for net in nets for name in ("ip", "ip6")]
    else:
        interfaces = []
    order = [mac.lower() for net in nets for mac in re.findall(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", net)]
    places = {mac: place for place, mac in enumerate(order)}
    interfaces = sorted(interfaces or [],
                        key=lambda one: places.get((one.mac or one.hwaddr or "").lower(), len(places)))
    return [text for one in interfaces for text in (
        [ip.address for ip in one.ips] if one.ips else [api.without_prefix(one.inet), api.without_prefix(one.inet6)])]


def _asked(ask: Callable[[], list[_Interface] | None]) -> list[_Interface] | None:
    """None if the guest cannot say it."""
    try:
        return ask()
    except api.PartyMalformed as refused:
        if refused.party_code not in _NO_ADDRESSES:
            raise
        return None


def _has_agent(agent: str) -> bool:
    """`1`, `enabled=1`, `1,fstrim_cloned_disks=1` or `type=virtio,enabled=1`"""
    return any(option in ("1", "enabled=1") for option in agent.split(","))


def _option(text: str, name: str) -> str:
    return next((option.partition("=")[2] for option in text.split(",") if option.startswith(f"{name}=")), "")


# ---------------------------------------------------------------- regions, check

def _members(client: api.Client) -> list[_Member]:
    return _get(client, "GetClusterStatus", "/cluster/status", _Members).data


def _name(members: Sequence[_Member]) -> str:
    return next((member.name for member in members if member.type == "cluster"), PARTY.default_region)


def list_regions(client: api.Client) -> list[api.Region]:
    """The cluster itself, or the node alone."""
    return [api.Region(_name(_members(client)))]


def check(client: api.Client) -> None:
    """The rights; and the region, if the account names one."""
    _require(client, "VM.Audit")
    if client.project is not None:
        _require(client, "Pool.Audit", f"/pool/{client.project}")
    name = _name(_members(client))
    if client.account.regions and name != client.region:
        raise api.UnknownRegion(f"{PARTY.title}: the cluster at this host has another name.")


# ---------------------------------------------------------------- the call

def _get(client: api.Client, operation: str, path: str, shape: type[_T], /, **query: object) -> _T:
    pairs = urlencode({name: value for name, value in query.items() if value is not None})
    url = client.url(f"{api.base_url(client.credentials['host'], _PORT)}/api2/json{path}{'?' * bool(pairs)}{pairs}")
    token = f"PVEAPIToken={client.credentials['token_id']}={client.credentials['token_secret']}"
    return client.call(operation, lambda: api.Request("GET", url, {
        "Authorization": token, "Accept": "application/json"}), shape)


def error_code(response: api.Response) -> str | None:
    """Our word for the text of an error, None if its HTTP status says all that is known."""
    if response.status < 400:
        return None
    if 595 <= response.status <= 597:
        return "NodeUnreachable"
    answer = api.refusal(response, _Message)
    text = f"{response.reason} {(answer and answer.message) or ''}"[:2000]
    if response.status == 403:
        right = re.search(r"Permission check failed \([^,()]{1,300}, ([A-Z][A-Za-z]{1,30}(\.[A-Z][A-Za-z]{1,30}){1,3})",
                          text, re.ASCII)
        return f"Forbidden.{right[1]}" if right else "Forbidden"
    code = next((word for status, pattern, word in _CAUSES
                  if status in (0, response.status) and re.search(pattern, text, re.IGNORECASE)), None)
    return code or {401: "Unauthorized", 501: "NotImplemented"}.get(response.status)


def _examine(credentials: Mapping[str, str]) -> None:
    if not re.fullmatch(r"[^!]+@[A-Za-z][A-Za-z0-9._-]*![A-Za-z][A-Za-z0-9._-]*", credentials["token_id"], re.ASCII):
        raise api.InvalidParameter("credentials", "The field token_id must be USER@REALM!NAME of the token.")


PARTY = api.Party(
    name="proxmox",
    title="Proxmox VE",
    reference="https://pve.proxmox.com/pve-docs/api-viewer/",
    order="no pages",
    credentials=(("host", "token_id", "token_secret"),),
    addresses=("host",),
    hosts=("host",),
    examine=_examine,
    permissions=("VM.Audit", "VM.GuestAgent.Audit", "Pool.Audit", "Sys.Audit"),
    region_form=api.IDENTIFIER,
    default_region="default",
    project="a pool's name",
    project_form=r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(/[A-Za-z0-9][A-Za-z0-9._-]{0,62}){0,2}",
    limits={**api.per_second(20, "ListResources", "GetClusterStatus", "GetPermissions"),
            **api.per_second(100, "GetConfig", "GetAgentInterfaces", "ListInterfaces")},
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)
