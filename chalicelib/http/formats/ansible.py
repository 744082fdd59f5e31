"""Ansible's dynamic inventory: what an inventory script prints for --list (the tests run core 2.16 and 2.19).

https://docs.ansible.com/ansible/latest/dev_guide/developing_inventory.html

Ansible evaluates templates in variables, before core 2.19 in any text that it meets: values, the keys of a dict, names
of groups, and texts that begin with `#jinja2:`, which set delimiters of their own. A party's words must never run on
the machine that runs the playbook. So every value that is not plain is marked, which Ansible understands, and every
key, which cannot be marked, is written in plain characters. The plugin in clients/ and console/exports.js do the same.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from ...model import DEFAULT_ACCOUNT, Server, Source
from .rows import FullRow
from .words import unique, word

_encode = msgspec.json.Encoder().encode
_FIELDS = tuple(name for name in FullRow.__struct_fields__ if name != "tags")
_LEGAL = re.compile(r"\w[\w.-]{0,252}")     # the rest means something in Ansible's patterns of hosts
_ILLEGAL = re.compile(r"[^\w.-]")
_TAKEN = re.compile(r"(tenant|party|account|region|zone|status|project|tag)_.*|all|ungrouped|localhost(\..*)?"
                    r"|127\.0\.0\.1", re.ASCII | re.IGNORECASE)       # groups, and the machine that Ansible runs on
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 _.,:/@+=\x80-\U0010ffff-]")     # what a template's delimiter may begin with
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+")    # ssh reads any other text as its own options


def pieces(servers: Sequence[tuple[Source, Server]], rows: Iterable[FullRow]) -> Iterator[bytes]:
    """One JSON object: the variables of every host, then the groups. `servers` and `rows` are the same."""
    groups: dict[str, list[str]] = {}
    tenants = len({source.tenant_id for source, _ in servers}) > 1
    opening = b'{"_meta":{"hostvars":{'
    for host, row in zip(host_names(servers), rows, strict=True):
        for group in _groups(row, tenants=tenants):
            groups.setdefault(group, []).append(host)
        yield opening + _encode(host) + b":" + _encode(_variables(row))
        opening = b","
    yield b"" if opening == b"," else opening
    yield b'}},"all":' + _encode({"children": sorted(groups)})
    for group in sorted(groups):
        yield b"," + _encode(group) + b":" + _encode({"hosts": groups[group]})
    yield b"}"


def host_names(servers: Sequence[tuple[Source, Server]]) -> list[str]:
    """A name for each server, none given twice: its own if that is legal and nobody else's, else its id, else party,
    account (if it has a name of its own), region and id. Ids go first, so that no server is called what another one
    is: names are anybody's choice."""
    names = Counter(server.name for _, server in servers)
    ids = Counter(server.id for _, server in servers)
    name_of: dict[int, str] = {}
    taken: set[str] = set()
    last: dict[str, int] = {}

    def give(number: int, name: str) -> None:
        name_of[number] = unique(name, taken, last)
        taken.add(name_of[number])

    def by_id(source: Source, server: Server) -> str:
        plain = ids[server.id] == 1 and _is_legal(server.id)
        account = "" if source.account == DEFAULT_ACCOUNT else f"{source.account}."
        return server.id if plain else _ILLEGAL.sub("_", f"{source.party}.{account}{source.region}.{server.id}")

    named: list[int] = []
    for number, (source, server) in enumerate(servers):
        own = names[server.name] == 1 and _is_legal(server.name) and server.name not in ids
        if own:
            named.append(number)
        else:
            give(number, by_id(source, server))
    for number in named:
        source, server = servers[number]
        give(number, server.name if server.name not in taken else by_id(source, server))
    return [name_of[number] for number in range(len(servers))]


def _is_legal(name: str) -> bool:
    return bool(_LEGAL.fullmatch(name)) and not _TAKEN.fullmatch(name)


def _groups(row: FullRow, *, tenants: bool) -> Iterator[str]:
    """The names of the row's groups, each once. Tags whose names differ in other signs only share a group.

    `tenants`: there are several.
    """
    names = [f"{kind}_{word(value)}" for kind, value in (
        ("tenant", row.tenant_id if tenants else ""), ("party", row.party),
        ("account", "" if row.account == DEFAULT_ACCOUNT else row.account), ("region", row.region),
        ("zone", row.zone), ("status", row.status), ("project", row.project_id)) if value]
    names += [f"tag_{word(key)}_{word(value)}" if value else f"tag_{word(key)}" for key, value in row.tags.items()]
    return iter(dict.fromkeys(names))


def _variables(row: FullRow) -> dict[str, object]:
    addresses = row.wan_ip_set or row.lan_ip_set or row.wan_ipv6_set or row.lan_ipv6_set
    address = addresses.partition(",")[0]
    variables: dict[str, object] = {"ansible_host": address} if _ADDRESS.fullmatch(address) else {}
    variables |= {f"twocloud_{name}": _marked(getattr(row, name)) for name in _FIELDS}
    return {**variables, "twocloud_tags": {key: _marked(value) for key, value in _plain_keys(row.tags)}}


def _marked(value: object) -> object:
    """Mark a text for Ansible as one that is never a template, unless every character of it is plain."""
    return {"__ansible_unsafe": value} if isinstance(value, str) and _NOT_PLAIN.search(value) else value


def _plain_keys(tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The tags under names that no Ansible obeys: `_` replaces each character that is not plain, and stands before
    `__ansible`, which begins names such as `__ansible_vault`. No tag is lost: a name already in use gets a number."""
    taken, last = set(tags), dict[str, int]()
    for key, value in tags.items():
        plain = _NOT_PLAIN.sub("_", key)
        if plain.startswith("__ansible"):
            plain = f"_{plain}"
        if plain != key:
            plain = unique(plain, taken, last)
            taken.add(plain)
        yield plain, value
