"""What adapters make fields of a Server from, where no party's cases hold every form."""

import pytest

from chalicelib.cloud import api

LINUX = ("linode/alpine3.23", "linode/arch", "linode/kali", "linode/almalinux9", "cos", "cos-pcid",
         "OpenCloudOS Server 9", "CTyunOS 23.01 64bit", "TencentOS Server 4", "Deepin 23", "Ubuntu 24.04", "talos-v1.9",
         "Bottlerocket OS", "cirros-0.6.2", "Linux/UNIX", "Red Hat Enterprise Linux", "rhel-9-server")
WINDOWS = ("Windows Server 2022", "win2019-std_64", "windows-server-2016-dc", "Windows BYOL", "SQL Server 2019 on "
           "Windows")
NEITHER = ("research", "archive", "cosmos", "kalium", "talosaur", "winter", "darwin", "twin", "Other", "unknown",
           "Custom ISO", "Application", "")


@pytest.mark.parametrize(("family", "words"), [("linux", LINUX), ("windows", WINDOWS), (None, NEITHER)])
def test_the_family_of_an_operating_system(family: str | None, words: tuple[str, ...]) -> None:
    """Words that clouds use for their own images, and words that only look like those."""
    assert {word: api.os_family(word) for word in words} == dict.fromkeys(words, family)


def test_addresses_by_what_they_are() -> None:
    """Blanks around one, the length of its network and any spelling are read; what nobody else could reach is none."""
    unreachable = ("127.0.0.1", "::1", "169.254.9.9", "fe80::1", "0.0.0.0", "::", "", None, "web-1", "10.0.0.0/24")
    assert api.by_scope((*unreachable, "10.0.0.9/24", " 8.8.8.8", "fd00:0::1", "2600:0::1", "8.8.8.8")) == {
        "lan_ipv4": ("10.0.0.9",), "wan_ipv4": ("8.8.8.8",), "lan_ipv6": ("fd00::1",), "wan_ipv6": ("2600::1",)}
