"""What a running twocloud stands on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .. import log
from ..access.sealing import Sealer, open_sealer
from ..cloud.sender import Transport
from ..settings import Settings
from ..storage.store import Store, open_store


@dataclass(frozen=True, slots=True)
class Deployment:
    """`clock`: Unix time. `noted`: when this process last wrote down that a source is being read. `begun`: when it
    began to list one (time.monotonic), for a minute."""

    settings: Settings
    store: Store
    sealer: Callable[[], Sealer]            # on first use: the key is not needed to say who may see what
    transport: Transport
    clock: Callable[[], float]
    noted: dict[str, float] = field(default_factory=dict[str, float])
    begun: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def close(self) -> None:
        self.transport.close()
        self.store.close()


def open_deployment(settings: Settings, clock: Callable[[], float] = time.time) -> Deployment:
    """Raises SettingsError if the store cannot be used."""
    log.logger.setLevel(settings.log.upper())
    opened: list[Sealer] = []

    def sealer() -> Sealer:
        if not opened:
            opened.append(open_sealer(settings.key, settings.old_key))
        return opened[0]

    return Deployment(settings, open_store(settings.store, clock), sealer, Transport(), clock)
