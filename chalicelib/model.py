"""The nouns, all frozen. Times are aware and in UTC, memory is MiB, disks are GiB, positions count from 1."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv6Address, ip_interface
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

import msgspec

from .route import DIRECT, PROXY_PASSWORD, PROXY_USER, Route

Count = Annotated[int, msgspec.Meta(ge=0, le=10 ** 9)]      # what a party may count: never negative, never absurd
Size = Annotated[float, msgspec.Meta(ge=0, le=10 ** 9)]     # what a party may state as a fraction
Text = Annotated[str, msgspec.Meta(min_length=1)]
IDENTIFIER = r"[A-Za-z0-9._-]{1,64}"        # tenants, regions, names of accounts
IDENTIFIER_FORM = re.compile(IDENTIFIER, re.ASCII)
MEMBER_ID = r"[A-Za-z0-9._:-]{1,128}"       # of a discovered account, subscription or project
DEFAULT_ACCOUNT = "default"                 # the name of an account that was put without one
USER_FORM = re.compile(r"[A-Za-z0-9._@+-]{1,64}", re.ASCII)


class Status(StrEnum):
    """Nova's words for what a server is doing, plus STARTING and STOPPING."""

    BUILD = "BUILD"
    ACTIVE = "ACTIVE"
    REBOOT = "REBOOT"
    HARD_REBOOT = "HARD_REBOOT"
    STARTING = "STARTING"
    STOPPING = "STOPPING"
    SHUTOFF = "SHUTOFF"
    SUSPENDED = "SUSPENDED"
    PAUSED = "PAUSED"
    RESCUE = "RESCUE"
    MIGRATING = "MIGRATING"
    RESIZE = "RESIZE"
    VERIFY_RESIZE = "VERIFY_RESIZE"
    REBUILD = "REBUILD"
    SHELVED = "SHELVED"
    SHELVED_OFFLOADED = "SHELVED_OFFLOADED"
    SOFT_DELETED = "SOFT_DELETED"
    DELETED = "DELETED"
    ERROR = "ERROR"
    UNKNOWN = "UNKNOWN"


PREPAID, POSTPAID, SPOT = "prepaid", "postpaid", "spot"     # how a server is paid for


class Server(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One virtual machine as its party describes it. None: the party does not say.

    `cpu`: virtual CPUs. `disk_gib`: all attached disks together, 0 if the party lists disks and names none.
    Addresses: every interface's, the primary's first, each once. `party_status`: the party's own word.
    `updated_at`: the party's own time of the last change, None where it has none.
    `os`: the family, in lower case. `vpc_id`, `subnet_id`: of the primary interface. `security_groups`: their ids, ()
    if it has none. `charge_type`: PREPAID, POSTPAID or SPOT. `expires_at`: when a prepaid server ends. `host_id`: of
    the hypervisor or dedicated host. `console_url`: the server's page in the party's console.
    No cycle can run through a Server, so the garbage collector need not look at thousands of them.
    """

    id: str
    name: str
    cpu: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None
    lan_ipv4: tuple[str, ...] = ()
    wan_ipv4: tuple[str, ...] = ()
    lan_ipv6: tuple[str, ...] = ()
    wan_ipv6: tuple[str, ...] = ()
    status: Status = Status.UNKNOWN
    party_status: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    zone: str = ""
    project_id: str = ""
    instance_type: str = ""
    tags: dict[str, str] = {}
    image_id: str | None = None
    image_name: str | None = None
    os: str | None = None
    vpc_id: str | None = None
    subnet_id: str | None = None
    security_groups: tuple[str, ...] | None = None
    key_name: str | None = None
    charge_type: str | None = None
    expires_at: datetime | None = None
    host_id: str | None = None
    console_url: str | None = None


_MOST_CPUS, _MOST_MIB, _MOST_GIB = 10 ** 6, 10 ** 10, 10 ** 9       # no machine has more; 2 ** 63 breaks encoders
_LONGEST_TEXT = 1024                                                # characters of a value that may be None
_FIRST_YEAR, _LAST_YEAR = 1970, 9998                                # a zone's offset must not lead beyond year 9999


def bounded(server: Server) -> Server:
    """The server without what cannot be: numbers below 0 or absurd and times out of range are None.

    A value of another type than the field's, which a bridged driver may leave there, is None or "". Where a text may be
    None, an empty or absurdly long one is.
    """
    odd: dict[str, object] = {}
    for name, number, most in (("cpu", server.cpu, _MOST_CPUS), ("memory_mib", server.memory_mib, _MOST_MIB),
                               ("disk_gib", server.disk_gib, _MOST_GIB)):
        if number is not None and (type(number) is not int or not 0 <= number <= most):
            odd[name] = None
    for name, time in (("created_at", server.created_at), ("updated_at", server.updated_at),
                       ("expires_at", server.expires_at)):
        if time is not None and not _FIRST_YEAR <= time.year <= _LAST_YEAR:
            odd[name] = None
    for name, text in (("name", server.name), ("party_status", server.party_status), ("zone", server.zone),
                       ("project_id", server.project_id), ("instance_type", server.instance_type)):
        if type(text) is not str:
            odd[name] = ""
    for name, text in (("image_id", server.image_id), ("image_name", server.image_name), ("os", server.os),
                       ("vpc_id", server.vpc_id), ("subnet_id", server.subnet_id), ("key_name", server.key_name),
                       ("host_id", server.host_id), ("console_url", server.console_url)):
        if text is not None and (type(text) is not str or not 0 < len(text) <= _LONGEST_TEXT):
            odd[name] = None
    return msgspec.structs.replace(server, **odd) if odd else server


class Source(msgspec.Struct, frozen=True, gc=False):
    """One tenant's account at one party in one region; `region` is the party's own code, never an alias.

    `account`: its name, or `NAME:ID` of a member that was discovered behind the account NAME.
    """

    tenant_id: str
    party: str
    region: str
    account: str = DEFAULT_ACCOUNT

    @property
    def order(self) -> tuple[str, str, str, str]:
        """By what the sources of one answer are sorted."""
        return self.tenant_id, self.party, self.account, self.region


def titles(sources: Iterable[Source]) -> Callable[[Source], str]:
    """How a text names each of the sources of one answer: with its tenant if they are of several, and with its
    account's name unless that is the usual one."""
    several = len({source.tenant_id for source in sources}) > 1

    def title(source: Source) -> str:
        words = (source.tenant_id if several else "", source.party,
                 "" if source.account == DEFAULT_ACCOUNT else source.account, source.region)
        return " ".join(filter(None, words))

    return title


class Window(msgspec.Struct, frozen=True, gc=False):
    """Positions `first` to `last`, both included; last None: to the end."""

    first: int = 1
    last: int | None = None


WHOLE = Window()


class Listing(msgspec.Struct, frozen=True):
    """The servers of one window, in the source's fixed order.

    `total`: how many the whole list holds; None: not known, but more follow the window. `elsewhere`: the other regions
    in which the account has servers, where the party lists those of all regions; None: it does not.
    """

    servers: list[Server]
    total: int | None
    elsewhere: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of an AWS identity: the service's own, or an assumed role's."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def no_identity() -> Keys:
    raise RuntimeError("this account has no identity of the service")


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """An account, subscription or project that a party lists behind an account.

    `id`: the party's own. `name`: what people call it; it may repeat. `closed`: the party's own word for a member that
    is suspended, closed or being deleted, and so no source; "" if it is one. `door`: it is the account itself, opened
    with its own credentials.
    """

    id: str
    name: str = ""
    closed: str = ""
    door: bool = False


class Discovery(msgspec.Struct, frozen=True):
    """What an account is a door to. `below`: the unit, folder, group or parent whose members are meant; None: all that
    the credentials can see. `role`: the name of the role that opens a member; None: the party's usual one."""

    below: str | None = None
    role: str | None = None


@dataclass(frozen=True, kw_only=True)
class Account:
    """A tenant's account at a party, opened. `identity` gives the keys of the service itself (assumed roles).

    `name`: as in Source. `discovery`: it is a door to others. `member`: it is one of those, opened with the door's
    credentials. `route`: how its calls travel, with the user and password of its proxy.
    """

    tenant_id: str
    party: str
    credentials: Mapping[str, str] = field(repr=False)
    revision: str = ""                      # another one each time the account is put; caches are keyed by it
    project: str | None = None
    regions: tuple[str, ...] = ()
    deep: bool = False
    endpoint: str | None = None
    name: str = DEFAULT_ACCOUNT
    discovery: Discovery | None = None
    member: Member | None = None
    route: Route = DIRECT
    identity: Callable[[], Keys] = field(default=no_identity, repr=False)

    @cached_property
    def door(self) -> "Account":
        """The account whose credentials open this one: itself, unless it is a member behind another."""
        return self if self.member is None else replace(self, member=None)

    @property
    def secrets(self) -> Mapping[str, str]:
        """All that is sealed: the party's fields, and the proxy's user and password."""
        proxy = self.route.proxy
        if proxy is None or proxy.user is None:
            return self.credentials
        return {**self.credentials, PROXY_USER: proxy.user, **({PROXY_PASSWORD: proxy.password} if proxy.password
                                                               else {})}

    @property
    def origin(self) -> tuple[str | None, Route]:
        """Where its answers come from. Only accounts of one origin may share a party's answers."""
        return self.endpoint, self.route

    @cached_property
    def fingerprint(self) -> bytes:
        """The same for the same credentials at the same endpoint; each member has its own."""
        what = (self.endpoint, dict(self.credentials), *([self.member.id] if self.member else []))
        return hashlib.sha256(msgspec.json.encode(what, order="sorted")).digest()

    def url(self, url: str) -> str:
        """`url` with scheme, host and port of the account's endpoint, if it has one; the path is kept."""
        if self.endpoint is None:
            return url
        endpoint, parts = urlsplit(self.endpoint), urlsplit(url)
        return urlunsplit((endpoint.scheme, endpoint.netloc, parts.path, parts.query, ""))


@dataclass(frozen=True, slots=True)
class Request:
    """A signed request to a party."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer, decoded. Header names are in lower case.

    `permit`: gives back the room for its memory; dropping the answer does the same. `reason`: the text after the status
    in the first line.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    permit: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    reason: str = field(default="", repr=False)


Sign = Callable[[], Request]                # a fresh signature (time, nonce) for each try
Send = Callable[[str, Sign], Response]      # (operation, sign); thread-safe; raises PartyError or UnknownRegion


class Limit(msgspec.Struct, frozen=True):
    """At most `calls` starts in any `seconds`."""

    calls: int
    seconds: float = 1.0


class Region(msgspec.Struct, frozen=True):
    code: str
    name: str = ""
    open: bool = True                       # the account may use it
    doubtful: bool = False                  # "unavailable", which is down or closed: only the region itself can tell


GRADES = {                                  # what a party's answers were held against
    "live": "a real account",
    "real software": "the real server, run by the tests",
    "real software (simulator)": "a simulator that the vendor wrote, run by the tests",
    "recorded": "recorded traffic of the real cloud",
    "documented": "the vendor's documents, models and SDK",
    "bridged": "Apache Libcloud's driver and its own fixtures",
}


def parse_time(text: str | None) -> datetime | None:
    """RFC 3339 in any offset -> UTC. A time that cannot be read is None: known to be unknown."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text.strip(" ").upper())          # a small t and z are RFC 3339 too
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def addresses(*texts: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(IPv4, IPv6) of what a party gave, in its order, each once; what is no address is left out.

    An interface's address with the length of its network is that address, a network is none.
    """
    ipv4: dict[str, None] = {}
    ipv6: dict[str, None] = {}
    for text in texts:
        if not text:
            continue
        address = text if _IPV4.fullmatch(text) else address_in(text)
        if _IPV4.fullmatch(address):
            ipv4[address] = None
        elif ":" in address:
            with suppress(ValueError):
                ipv6[str(IPv6Address(address))] = None          # one spelling, so that it can be searched for
    return tuple(ipv4), tuple(ipv6)


def address_in(text: str) -> str:
    """10.0.0.5/24 -> 10.0.0.5, 192.0.2.1/32 -> 192.0.2.1; "" of 10.0.0.0/24. Without blanks around it."""
    text = text.strip(" ")
    if "/" not in text:
        return text
    with suppress(ValueError):
        it = ip_interface(text)
        if it.ip != it.network.network_address or it.network.prefixlen >= it.max_prefixlen - 1:
            return str(it.ip)
    return ""


def total_gib(sizes: Iterable[int | None]) -> int | None:
    """The sum, None if one of them is not known: a sum without it would be wrong."""
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += size
    return total


def labelled(pairs: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
    """Tags by their key; one without a key is left out."""
    return {key: value or "" for key, value in pairs if key}


class Attached(msgspec.Struct, frozen=True):
    """What is attached to each server, GiB together. `sure`: the owner of each could be read."""

    gib: Mapping[str, int | None]
    sure: bool

    def of(self, server: str, none: int | None = None) -> int | None:
        """`none`: if nothing is attached to it."""
        return self.gib.get(server, none) if self.sure else None


def attached(disks: Iterable[tuple[Iterable[object], int | None]]) -> Attached:
    """Of (owners, GiB) each. An owner of None or "" is nobody; what is neither text nor number cannot be read."""
    gib: dict[str, int | None] = {}
    sure = True
    for owners, size in disks:
        known: set[str] = set()
        for owner in owners:
            if isinstance(owner, str | int) and not isinstance(owner, bool):
                known.add(str(owner))
            elif owner is not None:
                sure = False
        for owner in known - {""}:
            gib[owner] = total_gib((gib.get(owner, 0), size))
    return Attached(gib, sure)


_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}")
