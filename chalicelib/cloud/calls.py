"""What is known of the calls to parties: one record each, and their sums. Light: who counts them need not make them."""

import threading
from dataclasses import dataclass, field

import msgspec


class Call(msgspec.Struct):
    """One call to a party. `began`: time.monotonic(). `waited`: milliseconds before it, for the party's documented
    rate. `status`: of the answer, None if there was none; `error`: our error code, "" if nothing went wrong. `known`:
    the party is known to have the region. `cancelled`: it was ended by us, because another call had failed."""

    tenant_id: str
    party: str
    account: str
    region: str
    operation: str
    began: float
    waited: float
    milliseconds: float | None = None       # None: under way
    status: int | None = None
    error: str = ""
    date: str = ""                          # the answer's own time, as its header says it
    known: bool = True
    cancelled: bool = False


@dataclass(slots=True)
class CallStats:
    """What senders did: calls started, retries, and milliseconds in which at least one call was under way; each call
    in `made`.

    All senders of one request to us may share one, so that the retries of all of them stay within a tenth.
    """

    calls: int = 0
    retries: int = 0
    milliseconds: float = 0.0
    made: list[Call] = field(default_factory=list[Call], repr=False)
    under_way: int = field(default=0, repr=False)
    since: float = field(default=0.0, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def line(self) -> dict[str, object]:
        """For the log."""
        return {"party_milliseconds": round(self.milliseconds, 1), "party_calls": self.calls,
                "party_retries": self.retries}
