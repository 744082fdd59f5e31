"""Whom a request is counted to, and the prefix of its links, behind proxies that are trusted and that are not."""

import pytest

from chalicelib import settings
from chalicelib.http.forwarding import Origin, origin_of

TRUSTED = settings.load({"TWOCLOUD_TRUSTED_PROXY": "10.0.0.0/8,fd00::/8,unix"}).trusted_proxies
NOBODY = settings.load({}).trusted_proxies
CLIENT = "203.0.113.9"


@pytest.mark.parametrize(("peer", "forwarded", "address"), [
    ("10.0.0.1", CLIENT, CLIENT),
    ("10.0.0.1", f"198.51.100.1, {CLIENT}", CLIENT),                # the first one is what the client wrote itself
    ("10.0.0.1", f"{CLIENT}, 10.2.2.2", CLIENT),                    # two proxies
    ("10.0.0.1", f"10.9.9.9, {CLIENT},10.2.2.2", CLIENT),
    ("10.0.0.1", "10.3.3.3, 10.2.2.2", "10.3.3.3"),                 # a client inside the network of the proxies
    ("10.0.0.1", f"{CLIENT}:4711", CLIENT),
    ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
    ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
    ("fd00::7", CLIENT, CLIENT),
    ("::ffff:10.0.0.1", CLIENT, CLIENT),                            # IPv4 on a listener of both
    ("", CLIENT, CLIENT),                                           # the local socket
    ("10.0.0.1", "", "10.0.0.1"),
    ("10.0.0.1", "unknown", "10.0.0.1"),
    ("10.0.0.1", f"{CLIENT}, _hidden", "10.0.0.1"),                 # no proxy that we trust wrote the first one
    ("10.0.0.1", f"{CLIENT}, 10.0.0.2, x", "10.0.0.1"),
    ("198.51.100.7", CLIENT, "198.51.100.7"),
    ("not-an-address", CLIENT, "not-an-address"),
])
def test_the_clients_address(peer: str, forwarded: str, address: str) -> None:
    assert origin_of(peer, {"x-forwarded-for": forwarded}, TRUSTED).address == address
    assert origin_of(peer, {"x-forwarded-for": forwarded}, NOBODY) == Origin(peer)


@pytest.mark.parametrize(("sent", "prefix"), [
    ("/inventory", "/inventory"), ("/inventory/", "/inventory"), ("/a/b-c_d~e.f", "/a/b-c_d~e.f"), ("/", ""), ("", ""),
    ("inventory", ""), ("//evil.example", ""), ("/a//b", ""), ("/a/../b", ""), ("/.", ""), ("/a\\b", ""), ("/a?b", ""),
    ("/a>;rel=next", ""), ("/a, /b", ""), ("https://evil.example/", ""), ("/é", ""), ("/" + "a" * 200, ""),
])
def test_the_prefix_is_a_path_or_nothing(sent: str, prefix: str) -> None:
    assert origin_of("10.0.0.1", {"x-forwarded-prefix": sent}, TRUSTED).prefix == prefix
    assert origin_of("198.51.100.7", {"x-forwarded-prefix": sent}, TRUSTED).prefix == ""


def test_a_local_socket_is_trusted_only_by_its_word() -> None:
    networks = settings.load({"TWOCLOUD_TRUSTED_PROXY": "0.0.0.0/0,::/0"}).trusted_proxies
    assert origin_of("", {"x-forwarded-for": CLIENT}, networks) == Origin("")
