"""What a running twocloud stands on."""

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from .. import log
from ..access.sealing import Sealer, open_sealer
from ..errors import InvalidParameter, SettingsError
from ..model import Source
from ..route import Route
from ..settings import Settings
from ..storage.snapshots import Counts
from ..storage.store import Store, open_store

if TYPE_CHECKING:
    from ..cloud.sender import Transport

T = TypeVar("T")


class Later(msgspec.Struct):
    """How sources are listed beside an answer: `send` takes one, and the Unix time after which its snapshot would do
    instead; None: this program cannot. `sent`: when each source's key was last sent,
    or failed to be listed for others."""

    send: Callable[[Source, float], None] | None = None
    sent: dict[str, float] = msgspec.field(default_factory=dict[str, float])


class Stock(msgspec.Struct):
    """Calls that this process has taken from one account's shared rate. `starts`: for each operation, when calls may
    start. `waiting`: threads that want one. `last`: how many were taken last, and when (Unix time)."""

    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)
    counting: threading.Lock = msgspec.field(default_factory=threading.Lock)
    starts: defaultdict[str, deque[int]] = msgspec.field(default_factory=lambda: defaultdict[str, deque[int]](deque))
    waiting: Counter[str] = msgspec.field(default_factory=Counter[str])
    last: dict[str, tuple[int, float]] = msgspec.field(default_factory=dict[str, tuple[int, float]])


class OnFirstUse(Generic[T]):
    """What `make` returns, made once, whichever thread is first."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._lock = threading.Lock()

    def __call__(self) -> T:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def made(self) -> T | None:
        """None if nobody has used it; waits for a first use that is under way."""
        with self._lock:
            return self._made


class Deployment(msgspec.Struct, frozen=True):
    """`clock`: Unix time. `noted`: when this process last wrote down that a source is being read. `begun`: when it
    began to list one (time.monotonic), for a minute. `listed`: when it wrote down which lists an id names. `stocks`: by
    the key of an account, what was taken from its shared rate. `counted`: by the key of a source, the generation of a
    snapshot whose head holds no counts, and these."""

    settings: Settings
    store: Store
    sealer: Callable[[], Sealer]            # on first use: the key is not needed to say who may see what
    opened_transport: OnFirstUse["Transport"]                   # what it stands on takes long to import
    clock: Callable[[], float]
    noted: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    begun: dict[str, list[float]] = msgspec.field(default_factory=dict[str, list[float]])
    listed: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    later: Later = msgspec.field(default_factory=Later)
    stocks: dict[str, Stock] = msgspec.field(default_factory=dict[str, Stock])
    counted: dict[str, tuple[str, Counts]] = msgspec.field(default_factory=dict[str, tuple[str, Counts]])

    @property
    def transport(self) -> "Transport":
        return self.opened_transport()

    def close(self) -> None:
        if transport := self.opened_transport.made():
            transport.close()
        self.store.close()


def open_deployment(settings: Settings, clock: Callable[[], float] = time.time) -> Deployment:
    """Raises SettingsError if the store, or the file of TWOCLOUD_CA_FILE, cannot be used."""
    log.logger.setLevel(settings.log.upper())
    route = Route(trusted_authorities(settings.ca_file), settings.proxy)

    def make() -> "Transport":
        from ..cloud.sender import Transport

        return Transport(route=route, ignored_proxy=settings.ignored_proxy)

    store = open_store(settings.store, clock)
    sealer = OnFirstUse(lambda: open_sealer(settings.key, settings.old_key, make=_may_make_key(settings, store)))
    return Deployment(settings, store, sealer, OnFirstUse(make), clock)


def _may_make_key(settings: Settings, store: Store) -> bool:
    """Not in place of a lost one: what is sealed under a second key is lost when the first comes back. Raises
    SettingsError."""
    from ..access import accounts  # not for functions that seal with KMS

    scheme, _, path = settings.key.partition(":")
    if scheme == "file" and not settings.old_key and not Path(path).exists() and any(accounts.rows(store)):
        raise SettingsError(f"TWOCLOUD_KEY: {path} does not exist, but the store holds accounts that are sealed. "
                            "Restore it from its backup. If it is lost, make another: (umask 077; openssl rand -base64 "
                            f"32 >{path}). Then rotate each account.")
    return True


def trusted_authorities(path: str) -> str:
    """The certificates in the file of TWOCLOUD_CA_FILE, "" if there is none. Raises SettingsError."""
    if not path:
        return ""
    from ..cloud.sockets import read_authorities

    try:
        with Path(path).open("rb") as file:
            return read_authorities("TWOCLOUD_CA_FILE", file)
    except OSError as problem:
        raise SettingsError(f"TWOCLOUD_CA_FILE: {path} cannot be read ({problem.strerror}).") from None
    except InvalidParameter as refused:
        raise SettingsError(f"TWOCLOUD_CA_FILE: {path} cannot be used. {refused.text}") from None
