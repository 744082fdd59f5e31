"""Prometheus' HTTP service discovery: a JSON list of targets with labels.

https://prometheus.io/docs/prometheus/latest/http_sd/ (2.42 was tried): a key beside `targets` and `labels`, a value
that is no string or a name with a hyphen makes it refuse the whole list; an empty list makes it drop every target.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ...model import Server
from .rows import FullRow
from .words import unique, word

LABEL = "__meta_twocloud_"
# `seen_at` differs each time the party is asked: a label must stay the same while the server does
_FIELDS = tuple(name for name in FullRow.__struct_fields__ if name not in ("tags", "seen_at"))


class TargetGroup(msgspec.Struct, gc=False):
    targets: list[str]
    labels: dict[str, str]


def pieces(rows: Iterable[FullRow], address: str, port: int | None) -> Iterator[bytes]:
    """A group for each server that has an address; see has_address."""
    opening = b"["
    for row in rows:
        if host := _host(row, address):
            target = host if port is None else f"{host}:{port}"
            yield opening + msgspec.json.encode(TargetGroup([target], labels(row)))
            opening = b","
    yield b"]" if opening == b"," else b"[]"


def has_address(server: Server, address: str) -> bool:
    return bool(server.lan_ipv4 or server.lan_ipv6 if address == "lan" else server.wan_ipv4 or server.wan_ipv6)


def _host(row: FullRow, address: str) -> str:
    """The first address, IPv4 before IPv6; "" if there is none."""
    ipv4, ipv6 = ((row.lan_ip_set, row.lan_ipv6_set) if address == "lan" else (row.wan_ip_set, row.wan_ipv6_set))
    return ipv4.partition(",")[0] or (f"[{ipv6.partition(',')[0]}]" if ipv6 else "")


def labels(row: FullRow) -> dict[str, str]:
    """Every field and tag that says something: to Prometheus an empty label is no label."""
    fields = {name: str(value) for name in _FIELDS if (value := getattr(row, name)) not in (None, "")}
    named = {f"tag_{name}": value for name, value in tag_names(row.tags).items() if value}
    return {LABEL + name: value for name, value in (fields | named).items()}


def tag_names(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags under legal names, none lost: a legal name stays as it is, another that meets it gets a number."""
    names = {name: value for name, value in tags.items() if word(name) == name}
    last: dict[str, int] = {}
    for name in sorted(tags.keys() - names.keys()):
        names[unique(word(name), names, last)] = tags[name]
    return names
