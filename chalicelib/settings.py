"""The environment, read once and checked: the only room that looks at it."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from .errors import InvalidParameter, SettingsError
from .route import Proxy, parse_proxy


class ServerLimits(msgspec.Struct, frozen=True):
    """What one process of `serve` gives its callers at once; for an IPv6 address, its /64 counts."""

    connections: int = 900
    address_connections: int = 300
    requests: int = 200
    tenant_requests: int = 50
    address_requests: int = 16
    wrong_passwords: int = 20


_USUAL = ServerLimits()
SETTINGS = {
    "TWOCLOUD_STORE": ("sqlite:///.twocloud/twocloud.db",
                       "where accounts, users and tokens are kept: sqlite:///PATH (below the current folder; "
                       "four slashes: absolute), postgresql://USER@HOST/DATABASE or dynamodb://TABLE"),
    "TWOCLOUD_KEY": ("file:.twocloud/key",
                     "the key that seals the parties' credentials: file:PATH (created on first use, mode 0600), "
                     "env:VARIABLE (its value, 32 bytes in base64) or kms:KEY"),
    "TWOCLOUD_OLD_KEY": ("", "the key that TWOCLOUD_KEY replaces; credentials sealed by it can still be opened"),
    "TWOCLOUD_TIMEZONE": ("UTC", "the time zone of the times in answers, by its IANA name"),
    "TWOCLOUD_MAX_AGE": ("0", "accept a snapshot up to this many seconds old; 0 always queries the party"),
    "TWOCLOUD_STALE_IF_ERROR": ("86400", "while a party fails, serve its snapshot up to this many seconds old"),
    "TWOCLOUD_HISTORY": ("30", "how many days the history of changes is kept"),
    "TWOCLOUD_QUEUE": ("twocloud-refresh", "the SQS queue for the schedule's messages; on AWS only"),
    "TWOCLOUD_LOG": ("info", "info logs failed calls to parties, debug logs all of them"),
    "TWOCLOUD_CA_FILE": ("", "a PEM file of authorities that are trusted for parties beside the public ones"),
    "TWOCLOUD_PROXY": ("", "the proxy for calls to parties, except those on loopback: http://[USER:PASSWORD@]HOST:PORT"),
    "TWOCLOUD_CORS_ORIGINS": ("", "the origins whose pages may read the API, with commas: https://dash.example.com"),
    "TWOCLOUD_TRUSTED_PROXY": ("", "addresses and networks, with commas, whose X-Forwarded-For and X-Forwarded-Prefix "
                                   "are believed; unix: whoever connects to the socket of --host unix:PATH"),
    "TWOCLOUD_CONNECTIONS": (f"{_USUAL.connections}", "connections that serve holds"),
    "TWOCLOUD_ADDRESS_CONNECTIONS": (f"{_USUAL.address_connections}",
                                     "connections of one address among them that are idle or unfinished"),
    "TWOCLOUD_REQUESTS": (f"{_USUAL.requests}", "requests that serve works on at once; a thread for each"),
    "TWOCLOUD_TENANT_REQUESTS": (f"{_USUAL.tenant_requests}", "requests of one tenant or one token among them"),
    "TWOCLOUD_ADDRESS_REQUESTS": (f"{_USUAL.address_requests}",
                                  "requests of one address among them that have shown no valid token yet"),
    "TWOCLOUD_WRONG_PASSWORDS": (f"{_USUAL.wrong_passwords}",
                                 "wrong passwords at once from one address; then one every 3 seconds"),
    "TWOCLOUD_LOCAL": ("0", "1 allows accounts whose endpoint is http:// on loopback; refused in Lambda"),
    "TWOCLOUD_URL": ("", "the server that the command queries, as --url; default: the store"),
    "TWOCLOUD_TOKEN": ("", "the token that the command sends to the server of --url or TWOCLOUD_URL, and to no other"),
    "TWOCLOUD_CONTEXT": ("", "the context that the command uses, as --context"),
    "TWOCLOUD_CONFIG": ("", "the file that holds the command's contexts; default: twocloud/config.toml in "
                            "XDG_CONFIG_HOME or ~/.config"),
}

LOCAL_SOCKET = "unix"                       # in TWOCLOUD_TRUSTED_PROXY
Trusted = ipaddress.IPv4Network | ipaddress.IPv6Network | str               # a str is LOCAL_SOCKET
NO_HOME = Path("/dev/null/twocloud/config.toml")                # of a user without a home: no file can be there
os.environ.pop("SSLKEYLOGFILE", None)       # or TLS libraries write down the keys of calls to parties


class Settings(msgspec.Struct, frozen=True):
    """Checked settings. `in_lambda`: this process is a Lambda function. `ignored_proxy`: the variable that names a
    proxy for other programs. `cors_origins`: as a browser writes them. `trusted_proxies`: whose X-Forwarded headers are
    believed."""

    store: str
    key: str
    timezone: ZoneInfo
    max_age: int
    stale_if_error: int
    history: int
    local: bool
    in_lambda: bool
    queue: str = "twocloud-refresh"
    log: str = "info"
    old_key: str = ""
    ca_file: str = ""
    proxy: Proxy | None = None
    ignored_proxy: str = ""
    cors_origins: frozenset[str] = frozenset()
    trusted_proxies: tuple[Trusted, ...] = ()
    limits: ServerLimits = _USUAL


@dataclass(frozen=True, slots=True)
class Client:
    """What the command takes from its environment to ask servers. `config`: the file of contexts. `colours`: whether
    they are wanted (no-color.org, FORCE_COLOR, TERM=dumb); None: not set."""

    url: str
    token: str = field(repr=False)
    context: str
    config: Path
    colours: bool | None
    dumb: bool


def client(environment: Mapping[str, str] = os.environ) -> Client:
    """Apart from load(): a command that queries a server needs no store."""
    folder = Path(environment.get("XDG_CONFIG_HOME", ""))
    file = folder / "twocloud" / "config.toml"
    if not folder.is_absolute():
        try:
            file = Path(environment.get("HOME") or "~").expanduser() / ".config/twocloud/config.toml"
        except RuntimeError:                # a container's user without a line in its passwd
            file = NO_HOME
    config = environment.get("TWOCLOUD_CONFIG")
    dumb = environment.get("TERM") in ("dumb", "unknown")
    colours = False if dumb else None
    if force := environment.get("FORCE_COLOR"):
        colours = force != "0"
    if environment.get("NO_COLOR"):
        colours = False
    return Client(environment.get("TWOCLOUD_URL", ""), environment.get("TWOCLOUD_TOKEN", ""),
                  environment.get("TWOCLOUD_CONTEXT", ""),
                  Path(config) if config else file, colours, dumb)


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises SettingsError with one line that names the setting and what it takes."""
    def text(name: str) -> str:
        return environment.get(name) or SETTINGS[name][0]

    in_lambda = "AWS_LAMBDA_FUNCTION_NAME" in environment
    store = text("TWOCLOUD_STORE")
    if not is_store(store):
        raise SettingsError("TWOCLOUD_STORE must be sqlite:///PATH, postgresql://… or dynamodb://TABLE.")
    if in_lambda and not store.startswith("dynamodb:"):
        raise SettingsError("TWOCLOUD_STORE must be dynamodb://TABLE in Lambda: files do not last there, and the "
                            "package lacks what PostgreSQL needs.")
    # a function that opens no credentials (the authorizer) is not given the key's name
    key = environment.get("TWOCLOUD_KEY", "") if in_lambda else text("TWOCLOUD_KEY")
    old_key = text("TWOCLOUD_OLD_KEY")
    for name, value in (("TWOCLOUD_KEY", key), ("TWOCLOUD_OLD_KEY", old_key)):
        if value and not is_key(value):
            raise SettingsError(f"{name} must be file:PATH, env:VARIABLE or kms:KEY (a key's id, ARN or alias).")
        if in_lambda and value and not value.startswith("kms:"):
            raise SettingsError(f"{name} must be kms:KEY in Lambda: files do not last there, and a function's "
                                "variables are shown to all who may look at its configuration.")
    queue = text("TWOCLOUD_QUEUE")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", queue):
        raise SettingsError("TWOCLOUD_QUEUE must be the name of an SQS queue.")
    log = text("TWOCLOUD_LOG")
    if log not in ("info", "debug"):
        raise SettingsError("TWOCLOUD_LOG must be info or debug.")
    local = text("TWOCLOUD_LOCAL")
    if local not in ("0", "1"):
        raise SettingsError("TWOCLOUD_LOCAL must be 0 or 1.")
    if in_lambda and local == "1":
        raise SettingsError("TWOCLOUD_LOCAL=1 is refused in Lambda.")
    return Settings(store, key, _zone(text("TWOCLOUD_TIMEZONE")),
                    _number("TWOCLOUD_MAX_AGE", text("TWOCLOUD_MAX_AGE"), 9_999_999),
                    _number("TWOCLOUD_STALE_IF_ERROR", text("TWOCLOUD_STALE_IF_ERROR"), 9_999_999),
                    _number("TWOCLOUD_HISTORY", text("TWOCLOUD_HISTORY"), 3650),
                    local == "1", in_lambda, queue, log, old_key, text("TWOCLOUD_CA_FILE"),
                    _proxy(text("TWOCLOUD_PROXY")),
                    next((name for name in ("HTTPS_PROXY", "https_proxy") if environment.get(name)), ""),
                    frozenset(_origin(item) for item in _items(text("TWOCLOUD_CORS_ORIGINS"))),
                    tuple(_trusted(item) for item in _items(text("TWOCLOUD_TRUSTED_PROXY"))), _limits(environment))


def is_store(text: str) -> bool:
    """Whether it has the form of TWOCLOUD_STORE."""
    return bool(re.fullmatch(r"sqlite:///[^\0?#]*[^\0?#/]|dynamodb://[A-Za-z0-9_.-]{3,255}|postgres(ql)?://[^\0\s]*",
                             text))


def is_key(text: str) -> bool:
    """Whether it has the form of TWOCLOUD_KEY."""
    return bool(re.fullmatch(r"file:[^\0]+|env:[A-Za-z_][A-Za-z0-9_]*|kms:[A-Za-z0-9:/_.-]{1,2048}", text))


def variable(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """What the variable of TWOCLOUD_KEY=env:VARIABLE holds, "" if it is not set."""
    return environment.get(name, "")


def inherited(*without: str) -> dict[str, str]:
    """The environment for a program that we start, except for variables whose names begin so."""
    return {name: value for name, value in os.environ.items() if not name.startswith(without)}


def _proxy(url: str) -> Proxy | None:
    try:
        return parse_proxy("TWOCLOUD_PROXY", url) if url else None
    except InvalidParameter as refused:
        raise SettingsError(f"TWOCLOUD_PROXY: {refused.text}") from None


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _origin(text: str) -> str:
    """As a browser writes it: in lower case, without the scheme's own port."""
    parts = re.fullmatch(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", text.lower(), re.ASCII)
    if not parts:
        raise SettingsError("TWOCLOUD_CORS_ORIGINS must be origins with commas between them, such as "
                            "https://dash.example.com,http://localhost:3000: no path, no `*`.")
    port = "" if parts[3] in (None, {"http": "80", "https": "443"}[parts[1]]) else f":{parts[3]}"
    return f"{parts[1]}://{parts[2]}{port}"


def _trusted(text: str) -> Trusted:
    try:
        return text if text == LOCAL_SOCKET else ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SettingsError("TWOCLOUD_TRUSTED_PROXY must be addresses or networks with commas between them, such as "
                            "10.0.0.5,192.168.0.0/16, or unix.") from None


def _zone(name: str) -> ZoneInfo:
    try:
        if not re.fullmatch(r"[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+)*", name, re.ASCII):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise SettingsError("TWOCLOUD_TIMEZONE must be an IANA name such as Asia/Shanghai.") from None


def _limits(environment: Mapping[str, str]) -> ServerLimits:
    """A part of a limit may not be more than the whole; a part that is not set shrinks with it."""
    def limit(name: str, lowest: int, highest: int, whole: str = "") -> int:
        default = min(int(SETTINGS[name][0]), highest)
        return _number(name, environment.get(name) or str(default), highest, lowest, whole)

    connections = limit("TWOCLOUD_CONNECTIONS", 10, 3000)
    requests = limit("TWOCLOUD_REQUESTS", 4, 1000)
    return ServerLimits(
        connections, limit("TWOCLOUD_ADDRESS_CONNECTIONS", 2, connections, "TWOCLOUD_CONNECTIONS"), requests,
        limit("TWOCLOUD_TENANT_REQUESTS", 1, requests, "TWOCLOUD_REQUESTS"),
        limit("TWOCLOUD_ADDRESS_REQUESTS", 1, requests, "TWOCLOUD_REQUESTS"),
        limit("TWOCLOUD_WRONG_PASSWORDS", 1, 1000))


def _number(name: str, text: str, highest: int, lowest: int = 0, whole: str = "") -> int:
    """`whole`: the setting whose value is the highest."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,6}", text, re.ASCII) or not lowest <= int(text) <= highest:
        raise SettingsError(f"{name} must be a whole number from {lowest} to {highest}"
                            f"{f', the value of {whole}' if whole else ''}.")
    return int(text)
