"""Ansible's dynamic inventory: what an inventory script prints for --list (core 2.14 and 2.19 were tried).

https://docs.ansible.com/ansible/latest/dev_guide/developing_inventory.html
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from chalicelib.formats.rows import FullRow
from chalicelib.formats.words import unique, word
from chalicelib.model import Server, Source

_encode = msgspec.json.Encoder().encode
_FIELDS = tuple(name for name in FullRow.__struct_fields__ if name != "tags")
_LEGAL = re.compile(r"\w[\w.-]{0,252}")     # the rest means something in Ansible's patterns of hosts
_ILLEGAL = re.compile(r"[^\w.-]")
_TAKEN = re.compile(r"(party|region|zone|status|project|tag)_.*|all|ungrouped|localhost(\..*)?|127\.0\.0\.1",
                    re.IGNORECASE)          # names of groups, and of the machine that Ansible runs on
_TEMPLATE = re.compile(r"\{[{%#]")


def pieces(found: Sequence[tuple[Source, Server]], rows: Iterable[FullRow]) -> Iterator[bytes]:
    """One JSON object: the variables of every host, then the groups. `found` and `rows` are the same servers."""
    groups: dict[str, list[str]] = {}
    opening = b'{"_meta":{"hostvars":{'
    for host, row in zip(host_names(found), rows, strict=True):
        for group in _groups(row):
            groups.setdefault(group, []).append(host)
        yield opening + _encode(host) + b":" + _encode(_variables(row))
        opening = b","
    yield b"" if opening == b"," else opening
    yield b'}},"all":' + _encode({"children": sorted(groups)})
    for group in sorted(groups):
        yield b"," + _encode(group) + b":" + _encode({"hosts": groups[group]})
    yield b"}"


def host_names(found: Sequence[tuple[Source, Server]]) -> list[str]:
    """A name for each server, none given twice: its own if that is legal and nobody else's, else its id, else party,
    region and id. Ids go first, so that no server is called what another one is: names are anybody's choice."""
    names = Counter(server.name for _, server in found)
    ids = Counter(server.id for _, server in found)
    given: dict[int, str] = {}
    taken: set[str] = set()
    last: dict[str, int] = {}

    def give(number: int, name: str) -> None:
        given[number] = unique(name, taken, last)
        taken.add(given[number])

    def by_id(source: Source, server: Server) -> str:
        plain = ids[server.id] == 1 and _is_legal(server.id)
        return server.id if plain else f"{source.party}.{source.region}.{_ILLEGAL.sub('_', server.id)}"

    named: list[int] = []
    for number, (source, server) in enumerate(found):
        own = names[server.name] == 1 and _is_legal(server.name) and server.name not in ids
        if own:
            named.append(number)
        else:
            give(number, by_id(source, server))
    for number in named:
        source, server = found[number]
        give(number, server.name if server.name not in taken else by_id(source, server))
    return [given[number] for number in range(len(found))]


def _is_legal(name: str) -> bool:
    return bool(_LEGAL.fullmatch(name)) and not _TAKEN.fullmatch(name)


def _groups(row: FullRow) -> Iterator[str]:
    """The names of the row's groups, each once. Tags whose names differ in other signs only share a group."""
    names = [f"{kind}_{word(value)}" for kind, value in (
        ("party", row.party), ("region", row.region), ("zone", row.zone), ("status", row.status),
        ("project", row.project_id)) if value]
    names += [f"tag_{word(key)}_{word(value)}" if value else f"tag_{word(key)}" for key, value in row.tags.items()]
    return iter(dict.fromkeys(names))


def _variables(row: FullRow) -> dict[str, object]:
    addresses = row.wan_ip_set or row.lan_ip_set or row.wan_ipv6_set or row.lan_ipv6_set
    found: dict[str, object] = {"ansible_host": addresses.partition(",")[0]} if addresses else {}
    found |= {f"twocloud_{name}": _harmless(getattr(row, name)) for name in _FIELDS}
    tags: dict[str, object] = {}
    taken = set(row.tags)
    for key, value in row.tags.items():
        if key.startswith("__ansible"):     # such as __ansible_vault, which would be obeyed
            key = unique(f"_{key}", taken, {})
            taken.add(key)
        tags[key] = _harmless(value)
    return {**found, "twocloud_tags": tags}


def _harmless(value: object) -> object:
    """Ansible runs templates in variables: whoever may name a server must not run code where a playbook is run."""
    return {"__ansible_unsafe": value} if isinstance(value, str) and "{" in value and _TEMPLATE.search(value) else value
