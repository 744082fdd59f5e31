"""--expires-within: the servers that end soon, and how many of them may without their cloud saying so."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .remote import Got

Row = Mapping[str, Any]
_QUARTER = timedelta(minutes=15)            # every zone is a multiple of it from UTC,
_FARTHEST = timedelta(hours=14)             # and none is farther from it


@dataclass(slots=True)
class Expiring:
    """Which rows of an answer end within so many `seconds`, or have ended and are listed still. `zone`: of the times in
    the answer; None: as the answer's own times show. `ages`: of the responses that it came in, in seconds. `unknown`:
    how many more servers may end, as far as their cloud says."""

    seconds: int
    zone: tzinfo | None = None
    ages: list[int] = field(default_factory=list[int])
    unknown: int = 0

    def note(self, response: "Got") -> None:
        age = response.headers.get("Age", "0")
        self.ages.append(int(age) if age.isdigit() else 0)

    def filter(self, rows: Sequence[Row], sources: Iterable[Row], now: datetime) -> tuple[list[Row], str]:
        """(those rows, the soonest first; the warning to print beside them)."""
        self.unknown = 0
        if not rows:
            return [], ""
        zone = self.zone or timezone(self._offset(rows, sources, now))
        latest = now + timedelta(seconds=self.seconds)
        ends = [(_instant(row["expires_at"], zone), row) for row in rows]
        ending = sorted(((end, row) for end, row in ends if end and end <= latest), key=lambda pair: pair[0])
        self.unknown = sum(end is None and row["charge_type"] in (None, "prepaid") for end, row in ends)
        return [row for _, row in ending], _warning(self.unknown)

    def _offset(self, rows: Iterable[Row], sources: Iterable[Row], now: datetime) -> timedelta:
        """The server's zone, from when it says that it received the rows and how old it says that they are."""
        age_of = {_source(source): source["age"] for source in sources}
        oldest = max(self.ages, default=0)
        offsets = Counter[timedelta]()
        for row in rows:
            age = age_of.get(_source(row), oldest)
            seen_at = _instant(row["seen_at"], UTC)
            if seen_at and age is not None:
                offsets[round((seen_at - now + timedelta(seconds=age)) / _QUARTER) * _QUARTER] += 1
        likely = offsets.most_common(1)[0][0] if offsets else timedelta()
        return likely if abs(likely) <= _FARTHEST else timedelta()              # else the two clocks disagree


def _source(row: Row) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("tenant_id", "party", "account", "region"))


def _instant(text: str | None, zone: tzinfo) -> datetime | None:
    return datetime.fromisoformat(text).replace(tzinfo=zone) if text else None


def _warning(unknown: int) -> str:
    if not unknown:
        return ""
    return (f"{unknown} more {'server' if unknown == 1 else 'servers'} may end too: the party does not say whether or "
            "when.")
