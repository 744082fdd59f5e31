"""How calls to a party travel: which authorities are trusted, through which proxy, whether plain http is allowed."""

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from .errors import InvalidParameter

LONGEST_PEM = 65_536                        # bytes of certificates; a DynamoDB item holds 400 KB
PROXY_USER, PROXY_PASSWORD = "proxy_user", "proxy_password"     # among an account's credentials
_PROXY_URL = re.compile(r"http://(?:[^/?#\s]*@)?[A-Za-z0-9.:\[\]_-]+/?", re.ASCII)
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `user`: None if it needs none."""

    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Without user and password."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """How the calls of an account, or of a whole deployment, travel.

    `authorities`: PEM certificates that are trusted beside the public ones. `plain`: http without TLS is allowed.
    """

    authorities: str = field(default="", repr=False)
    proxy: Proxy | None = None
    plain: bool = False


DIRECT = Route()                            # no proxy, the public authorities, https


def parse_proxy(parameter: str, url: str) -> Proxy:
    """The proxy that http://[USER:PASSWORD@]HOST:PORT names. Raises InvalidParameter, whose text repeats no secret."""
    try:
        there = urlsplit(url)
        host, port, user, password = there.hostname or "", there.port, there.username, there.password
    except ValueError:
        host, port, user, password = "", None, None, None
    if not _PROXY_URL.fullmatch(url) or not host or not port:
        raise InvalidParameter(parameter, "The proxy must be http://HOST:PORT. Proxies that speak TLS themselves "
                                          "(https://) or SOCKS are not supported.")
    if user is None:
        return Proxy(host, port)
    return with_login(parameter, Proxy(host, port), unquote(user), unquote(password or ""))


def with_login(parameter: str, proxy: Proxy, user: str, password: str) -> Proxy:
    """The proxy with a user and a password, for Basic authentication. Raises InvalidParameter."""
    if not user or ":" in user or not (user + password).isprintable():
        raise InvalidParameter(parameter, "The proxy's user must not be empty or hold a colon, and neither it nor the "
                                          "password may hold control characters.")
    return Proxy(proxy.host, proxy.port, user, password)


def certificates(parameter: str, content: bytes) -> str:
    """The certificates of a PEM file, without the text between them. Raises InvalidParameter.

    Whether each of them can be read is for OpenSSL to say: see `sockets.read_authorities`.
    """
    text = content.decode("latin-1")
    if re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY-----", text, re.ASCII):
        raise InvalidParameter(parameter, "The file holds a private key. Give the authorities' certificates only.")
    blocks = _BLOCK.findall(text)
    if not blocks:
        raise InvalidParameter(parameter, "The file holds no PEM certificate (-----BEGIN CERTIFICATE-----). To convert "
                                          "a DER file: openssl x509 -inform der -in FILE -out FILE.pem")
    pem = "".join("\n".join(block.split("\n")).replace("\r", "") + "\n" for block in dict.fromkeys(blocks))
    if len(pem) > LONGEST_PEM:
        raise InvalidParameter(parameter, f"The file holds more than {LONGEST_PEM // 1024} KB of certificates. Give "
                                          "your own authorities only: the public ones are trusted already.")
    return pem


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether a host, as a URL names it, is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
