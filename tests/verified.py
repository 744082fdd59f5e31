"""A party's list beside its reference client's (reference.py in its folder), as `twocloud verify` compares them."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest

from chalicelib.fleet import verification
from chalicelib.model import Account, Server

Machines = dict[str, dict[str, Any]]


def reference(party: str) -> ModuleType:
    """The module of the party's vendor's client; without that client the test is skipped, and named."""
    try:
        return importlib.import_module(f"chalicelib.parties.{party}.reference")
    except ImportError as missing:
        if (missing.name or "").startswith("chalicelib"):
            raise
        pytest.skip(f"no client of {party}: {missing.name}")


def account(party: str, url: str, credentials: Mapping[str, Any], **more: Any) -> Account:
    return Account(tenant_id="1", party=party, credentials=credentials, endpoint=url, **more)


def lister(party: str) -> Callable[[str, Mapping[str, Any], str], Machines]:
    """What the reference client lists, from (url, credentials, region)."""
    return lambda url, credentials, region: reference(party).list_servers(account(party, url, credentials), region)


def assert_same(servers: Sequence[Server], theirs: Machines) -> None:
    """Every server, and every field that the client names, of every server."""
    comparison = verification.compare(servers, theirs)
    assert comparison.agrees, comparison.differences[:5]
    assert comparison.both == len(servers) == len(theirs)
    assert all(it.compared == len(servers) for it in comparison.fields.values())
    assert {"name", "party_status", "lan_ipv4", "wan_ipv4"} <= comparison.fields.keys()
