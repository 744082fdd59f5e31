"""Behind a proxy: what its X-Forwarded headers say is believed if the operator trusts the address they came from.

The client's address is the last one in X-Forwarded-For that no trusted proxy has, since each proxy adds its peer's at
the end. X-Forwarded-Prefix is the part of the path that a proxy stripped. X-Forwarded-Proto and -Host change nothing:
links are relative, and lead back by the scheme and the name that the caller used.
https://www.rfc-editor.org/rfc/rfc7239 (whose header has no prefix)
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence

import msgspec

from ..settings import LOCAL_SOCKET, Trusted

_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", re.ASCII)           # no `.`, `..` or `//`
_LONGEST_PREFIX = 200


class Origin(msgspec.Struct, frozen=True):
    """Where a request came from. `address`: the client's; "" if it came through a local socket. `prefix`: of the path,
    as the caller sees it, without the last slash."""

    address: str
    prefix: str = ""


def origin_of(peer: str, headers: Mapping[str, str], trusted: Sequence[Trusted]) -> Origin:
    """`peer`: the address of the connection's other end, "" for a local socket. `headers`: lower-case names."""
    if not is_trusted(peer, trusted):
        return Origin(peer)
    address = peer
    for hop in reversed(headers.get("x-forwarded-for", "").split(",")):
        named = _address(hop.strip())
        if not named:                       # what stands further left was not written by a proxy that we trust
            break
        address = named
        if not is_trusted(address, trusted):
            break
    prefix = headers.get("x-forwarded-prefix", "").strip().rstrip("/")
    return Origin(address, prefix if len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix) else "")


def is_trusted(peer: str, trusted: Sequence[Trusted]) -> bool:
    if not trusted or not peer:
        return LOCAL_SOCKET in trusted and not peer
    try:
        ip = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return any(not isinstance(one, str) and (mapped or ip) in one for one in trusted)


def _address(text: str) -> str:
    """An address of X-Forwarded-For, whose port is dropped; "" if it is none."""
    bare = re.sub(r"^\[(.*)\](:[0-9]{1,5})?$", r"\1", text)
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return ""
