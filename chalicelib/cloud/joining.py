"""What adapters make servers of: rows of several lists joined, checked, ordered and cut."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv6Network, ip_address
from typing import TypedDict, TypeVar
from urllib.parse import urlsplit

from ..errors import PartyMalformed
from ..model import Listing, Server, Window, address_in, total_gib
from ..model import addresses as sorted_addresses
from .paging import cut

T = TypeVar("T")
_NEVER = datetime.max.replace(tzinfo=UTC)


class Addresses(TypedDict):
    """The four address fields of a Server."""

    lan_ipv4: tuple[str, ...]
    wan_ipv4: tuple[str, ...]
    lan_ipv6: tuple[str, ...]
    wan_ipv6: tuple[str, ...]


def addresses(lan: Iterable[str | None] = (), wan: Iterable[str | None] = ()) -> Addresses:
    """The address fields of a Server, from its private and its public addresses, the primary's first."""
    (lan4, lan6), (wan4, wan6) = sorted_addresses(*lan), sorted_addresses(*wan)
    return {"lan_ipv4": lan4, "wan_ipv4": wan4, "lan_ipv6": lan6, "wan_ipv6": wan6}


def by_scope(texts: Iterable[str | None]) -> Addresses:
    """The same, where the party or a guest does not say which are public: those that the internet knows are, and those
    that mean the guest alone (loopback) or its wire (fe80::, 169.254.) are left out."""
    lan: list[str] = []
    wan: list[str] = []
    for text in texts:
        with suppress(ValueError):
            address = ip_address(address_in(text or ""))
            if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                (wan if address.is_global else lan).append(str(address))
    return addresses(lan, wan)


def by_owner(pairs: Iterable[tuple[object, T]]) -> dict[str, list[T]]:
    """What each server owns. An owner of None or "" is nobody."""
    owned: dict[str, list[T]] = {}
    for owner, what in pairs:
        if owner:
            owned.setdefault(str(owner), []).append(what)
    return owned


def disk_gib(own: int | None, volumes: Iterable[object] | None, sizes: Mapping[str, int | None]) -> int | None:
    """`own` and the volumes together; None if one of them is not known, or came or went between the two lists."""
    return None if volumes is None else total_gib((own, *(sizes.get(str(volume)) for volume in volumes)))


def once(servers: Iterable[Server]) -> list[Server]:
    """Each server once, as it is named last: a list without pages may name one twice."""
    return list({server.id: server for server in servers}.values())


def in_order(servers: Iterable[Server], window: Window, elsewhere: frozenset[str] | None = None) -> Listing:
    """The window of a list that was read whole, in the order of creation."""
    ordered = sorted(once(servers), key=lambda server: (server.created_at or _NEVER, server.id))
    return Listing(cut(ordered, window), len(ordered), elsewhere)


def parted(rows: Iterable[T], region_of: Callable[[T], str], region: str) -> tuple[list[T], frozenset[str]]:
    """The rows of a region, and the regions of the others."""
    by_region = defaultdict[str, list[T]](list)
    for row in rows:
        by_region[region_of(row)].append(row)
    return by_region.pop(region, []), frozenset(by_region)


def only(rows: list[T], value_of: Callable[[T], object], requested: object) -> list[T]:
    """The rows, if all are of the region or project that was requested."""
    if any(value_of(row) != requested for row in rows):
        raise PartyMalformed("The party listed servers of another region or project than was asked for.")
    return rows


def plain(tags: Sequence[str] | None) -> dict[str, str]:
    """Tags that are words without a value."""
    return dict.fromkeys(tags or (), "")


def first_of(network: str | None) -> str | None:
    """2001:db8:47::/64 -> 2001:db8:47::1, the address that the party's images give themselves; an address as it is."""
    text, _, length = (network or "").partition("/")
    try:
        return str(IPv6Network(network or "")[1]) if length and int(length) < 128 else text
    except (ValueError, IndexError):
        return text


def ids(texts: Iterable[str | None] | None) -> tuple[str, ...] | None:
    """Of security groups: each once, in the party's order; None if it does not say."""
    return None if texts is None else tuple(dict.fromkeys(text for text in texts if text))


def groups(of_interfaces: Iterable[Iterable[str | None] | None]) -> tuple[str, ...] | None:
    """The security groups of all interfaces together; None if there is no interface, or one does not say which it has:
    a set without them would be wrong."""
    sets = [None if texts is None else list(texts) for texts in of_interfaces]
    known = [text for texts in sets for text in texts or ()]
    return ids(known) if sets and None not in sets and all(known) else None


_WINDOWS = re.compile(r"windows|\bwin(?:[0-9]|\b)", re.IGNORECASE)
_LINUX = re.compile(
    r"linux|ubuntu|debian|centos|red ?hat|\brhel|fedora|suse|\bsles|rocky|anolis|\balma|euler|tencentos|kylin|coreos"
    r"|velinux|flatcar|gentoo|photon|proxmox|\buos\b|nixos|raspbian|slackware|alpine|\barch\b|\bkali\b|\bcos\b"
    r"|opencloudos|ctyunos|\bdeepin|bottlerocket|\btalos\b|manjaro|cirros|rancheros", re.IGNORECASE)     # cos: Google's
_LONGEST_OS = 256                           # characters that are looked at
_OTHER = re.compile(r"freebsd|openbsd|netbsd|solaris|macos|illumos", re.IGNORECASE)


def os_family(text: str | None) -> str | None:
    """The family of an operating system that a party names, in words such as `Ubuntu 22.04 LTS` or `Windows Server
    2022`; None if the words are of none that is known here."""
    return _family(text[:_LONGEST_OS]) if text else None


@lru_cache(1024)                            # a fleet has few
def _family(text: str) -> str | None:
    if other := _OTHER.search(text):
        return other[0].lower()
    return "windows" if _WINDOWS.search(text) else "linux" if _LINUX.search(text) else None


def first(texts: Iterable[str | None] | None) -> str | None:
    """The first text that says something."""
    return next((text for text in texts or () if text), None)


def without_prefix(address: str | None) -> str:
    """10.0.0.2/22 -> 10.0.0.2"""
    return (address or "").partition("/")[0]


def base_url(host: str, port: int | None = None) -> str:
    """https://HOST:PORT of a host's name that may have a port of its own; a URL as it is, without a slash at its end.
    `port`: for a name without one, None for that of https."""
    if "://" in host:
        return host.rstrip("/")
    url = f"https://{host.rstrip('/')}"
    if port is None or (there := urlsplit(url)).port is not None:
        return url
    return url.replace(there.netloc, f"{there.netloc}:{port}", 1)


def numbered(name: str, values: Iterable[str]) -> dict[str, str]:
    """Name.1, Name.2, …: how some clouds take a list."""
    return {f"{name}.{n}": value for n, value in enumerate(values, 1)}


def given(**parameters: str | None) -> dict[str, str]:
    """The parameters that have a value."""
    return {name: value for name, value in parameters.items() if value}
