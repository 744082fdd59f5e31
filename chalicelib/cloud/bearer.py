"""What the clouds that a bearer token opens have in common: JSON over GET, nothing signed, lists that are joined.

Each has a module here with its shapes, its lists and its PARTY. Their pages are numbered (`Call.pages`) or end with a
cursor (`Call.walk`); either way the total that the party tells must be the number of the rows that it gives.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from ipaddress import IPv6Network
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from ..errors import MISSING_RIGHT, WRONG_KEY, PartyMalformed
from ..model import WHOLE, Account, Count, Listing, Request, Response, Send, Server, Window, total_gib
from .decoding import Strict, read, reading
from .paging import Page, Rows, by_page, by_token, cut

_WORKERS = 10
_NEVER = datetime.max.replace(tzinfo=UTC)
_T = TypeVar("_T")


# ---------------------------------------------------------------- asking

def bearer(account: Account) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.credentials['token']}"}


@dataclass(frozen=True, slots=True)
class Cloud:
    """`host`: to which all calls go. `size`: its parameter for the rows of a page. `cursor`: its parameter for the
    next page, if it walks. `headers`: what opens it."""

    host: str
    size: str = "per_page"
    cursor: str = ""
    headers: Callable[[Account], Mapping[str, str]] = bearer


@dataclass(frozen=True, slots=True)
class List:
    """`key`: where an answer holds its rows, "" if it is the rows. `rows`: their type, a list or a map by id.

    Rows of a list must have an `id`, or else differ. `counted`: the answer must tell the total; else a
    walk that tells none ends where there is no next page.
    """

    operation: str
    path: str
    key: str
    rows: Any
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """An account at a cloud, asked in a region. `page`: the most rows to ask for at once."""

    cloud: Cloud
    page: int
    region: str
    account: Account
    send: Send

    def get(self, what: List, asked: Iterable[tuple[str, object]] = (), headers: Mapping[str, str] = {}) -> "Answer":
        query = urlencode(list(asked))
        url = self.account.url(f"https://{self.cloud.host}{what.path}{'?' if query else ''}{query}")
        sent = {"Accept": "application/json", **self.cloud.headers(self.account), **headers}
        response = self.send(what.operation, lambda: Request("GET", url, sent))
        with reading():
            return _read(what, response)

    def pages(self, what: List, window: Window = WHOLE, asked: Sequence[tuple[str, object]] = (),
              headers: Mapping[str, str] = {}, least: int = 1) -> Rows[Any]:
        """The rows of numbered pages."""
        def fetch(number: int, size: int) -> Page[Any]:
            answer = self.get(what, [*asked, ("page", number), (self.cloud.size, size)], headers)
            return Page(_keyed(answer.rows), answer.total)

        return by_page(fetch, window, self.page, _WORKERS, least)

    def walk(self, what: List, window: Window = WHOLE, asked: Sequence[tuple[str, object]] = ()) -> Rows[Any]:
        """The rows of pages that each tell the cursor of the next."""
        size = self.page if window.last is None else min(self.page, window.last + 1)
        for _ in range(2):
            told: set[int | None] = set()

            def fetch(cursor: str | None, told: set[int | None] = told) -> Page[Any]:
                further = [(self.cloud.cursor, cursor)] if cursor else []
                answer = self.get(what, [*asked, (self.cloud.size, size), *further])
                told.add(answer.total)
                return Page(_keyed(answer.rows), answer.total, answer.cursor)

            rows = by_token(fetch, window)
            if told == {None} and not what.counted:
                return rows
            totals = sorted(total for total in told if total is not None)
            if len(totals) == len(told) and (total := _borne_out(rows, totals, window)) is not None:
                return Rows(rows.rows, total)
        raise PartyMalformed("The party's count and its rows still disagree after a second listing.")

    def all(self, what: List, asked: Sequence[tuple[str, object]] = (), headers: Mapping[str, str] = {}) -> list[Any]:
        """Every row of a list, whichever way its pages go."""
        return (self.walk(what, WHOLE, asked) if self.cloud.cursor else self.pages(what, WHOLE, asked, headers)).rows


def _borne_out(rows: Rows[Any], totals: list[int], window: Window) -> int | None:
    """The total, if the rows bear out what the pages told; where they told of a change, as far as it can explain."""
    if rows.total is None:
        return totals[-1] if totals[-1] > (window.last or 0) else None
    change = totals[-1] - totals[0]
    return rows.total if totals[0] - change <= rows.total <= totals[-1] + change else None


# ---------------------------------------------------------------- answers

@dataclass(frozen=True, slots=True)
class Answer:
    """`total`: of the whole list, None if it is not told. `cursor`: of the next page, None if there is none."""

    rows: Any
    total: int | None
    cursor: str | None


class _Pagination(msgspec.Struct):
    total_entries: Strict[Count | None] = None


class _Links(msgspec.Struct):
    next: Strict[str | None] = None


class _Meta(msgspec.Struct):
    total: Strict[Count | None] = None
    pagination: Strict[_Pagination | None] = None
    links: Strict[_Links | None] = None


class _Next(msgspec.Struct):
    href: str


@cache
def _shape(key: str, rows: Any) -> Any:
    """The rows must be there; where the total and the next page's cursor are differs from cloud to cloud."""
    if not key:
        return rows
    return msgspec.defstruct("Answer", [
        ("rows", rows, msgspec.field(name=key)), ("meta", Strict[_Meta | None], None),
        ("results", Strict[Count | None], None), ("total_count", Strict[Count | None], None),
        ("next", Strict[_Next | None], None)])


def _read(what: List, response: Response) -> Answer:
    answer: Any = read(response, _shape(what.key, what.rows))
    if not what.key:
        return Answer(answer, None, None)
    meta: _Meta = answer.meta or _Meta()
    following: _Next | None = answer.next
    told = response.headers.get("x-total-count", "")
    totals = (meta.total, meta.pagination and meta.pagination.total_entries, answer.results, answer.total_count,
              int(told) if re.fullmatch(r"[0-9]{1,9}", told, re.ASCII) else None)
    cursor = meta.links and meta.links.next
    if following:
        cursor = parse_qs(urlsplit(following.href).query).get("start", [""])[0]
        if not cursor:
            raise ValueError("a next page without its start")
    return Answer(answer.rows, next((total for total in totals if total is not None), None), cursor or None)


def _keyed(rows: Any) -> list[tuple[str, Any]]:
    if isinstance(rows, dict):
        named = cast(dict[str, Any], rows)
        return [(name, (name, row)) for name, row in named.items()]
    seen: dict[str, int] = {}
    found: list[tuple[str, Any]] = []
    for row in rows:
        key = str(row.id) if hasattr(row, "id") else repr(row)
        seen[key] = seen.get(key, 0) + 1
        found.append((key if hasattr(row, "id") or seen[key] == 1 else f"{key} {seen[key]}", row))
    return found


# ---------------------------------------------------------------- joining

def by_owner(pairs: Iterable[tuple[object, _T]]) -> dict[str, list[_T]]:
    """What each server owns; the owner of what nobody owns is None or ""."""
    found: dict[str, list[_T]] = {}
    for owner, what in pairs:
        if owner:
            found.setdefault(str(owner), []).append(what)
    return found


def disk_gib(own: int | None, volumes: Iterable[object] | None, sizes: Mapping[str, int | None]) -> int | None:
    """`own` and the volumes together; None if one of them is not known, or came or went between the two lists."""
    return None if volumes is None else total_gib((own, *(sizes.get(str(volume)) for volume in volumes)))


def in_order(servers: Iterable[Server], window: Window) -> Listing:
    """The window of a list that was read whole, in the order of creation."""
    found = sorted(servers, key=lambda server: (server.created_at or _NEVER, server.id))
    return Listing(cut(found, window), len(found))


def only(rows: list[_T], told: Callable[[_T], object], asked: object) -> list[_T]:
    """The rows, if all are of the region or project that was asked for."""
    if any(told(row) != asked for row in rows):
        raise PartyMalformed("The party listed servers of another region or project than was asked for.")
    return rows


def plain(tags: Sequence[str] | None) -> dict[str, str]:
    """Tags that are words without a value."""
    return dict.fromkeys(tags or (), "")


def first_of(network: str | None) -> str | None:
    """2001:db8:47::/64 -> 2001:db8:47::1, the address that the party's images give themselves; an address as it is."""
    text, _, length = (network or "").partition("/")
    try:
        return str(IPv6Network(network or "")[1]) if length and int(length) < 128 else text
    except (ValueError, IndexError):
        return text


def without_prefix(address: str | None) -> str:
    """10.0.0.2/22 -> 10.0.0.2"""
    return (address or "").partition("/")[0]


# ---------------------------------------------------------------- refusals

class _Coded(msgspec.Struct):
    code: str | None = None
    error_code: str | None = None
    reason: str | None = None               # linode: free text
    message: str | None = None
    error_message: str | None = None


class _Refusal(msgspec.Struct):
    """Every shape at once: {"id"}, {"error": {"code"}}, {"error": {"error_code"}}, {"errors": [{"code"}]},
    {"errorCode"}, {"type"}; and free text in {"error"}, {"errors": [{"reason"}]}, {"detail"}, {"description"}.
    """

    id: str | None = None
    error: _Coded | str | None = None
    errors: list[_Coded] | None = None
    errorCode: str | None = None
    type: str | None = None
    reason: str | None = None               # scaleway: why a key is refused, one word
    message: str | None = None
    errorMessage: str | None = None
    detail: str | None = None
    description: str | None = None
    title: str | None = None


_refusal = msgspec.json.Decoder(_Refusal)
_PLACES = {"unknown zone in path": "unknown_zone", "unknown region in path": "unknown_region"}      # scaleway
_PHRASES = tuple((re.compile(pattern), word) for pattern, word in (     # lower case -> a word that says its cause
    (r"(unauthori[sz]ed|forbidden|blocked|denied) ip\b|\bip\b.*\b(not|isn't|is un)\s?(allowed|authori[sz]ed|permitted)|"
     r"\bip\b.*\b(access control|(allow|white|black)[ -]?list)", "ip_not_allowed"),
    (r"past due|overdue|delinquent|unpaid|insufficient (funds|credits?|balance)|payment method", "account_overdue"),
    (r"account\b.*\b(suspended|locked|closed|frozen|disabled|deactivated|banned)", "account_suspended"),
    (r"verif(y|ied|ication)\b.*\baccount|account\b.*\bverif", "account_not_verified"),
    (r"(two|multi)[ -]?factor|\b2fa\b|\bmfa\b", "mfa_required"),
    (r"(token|key|credentials?)\b.*\bexpired|expired (api |access )?(token|key|credentials?)", "token_expired"),
    (r"(token|key|user)\b.*\b(disabled|revoked|inactive|locked)", "key_disabled"),
    (r"not (authori[sz]ed|allowed|permitted)|(permission|scope)s?\b|forbidden", "not_authorized"),
    (r"(invalid|unknown|missing|incorrect|bad) (api |access |auth\w* )?(token|key|credentials?)|"
     r"(token|key|credentials?)\b.*\b(invalid|not valid|not found|not provided)|unable to authenticate",
     "invalid_token"),
))
FREE_TEXT = {                               # of parties whose errors are free text
    "not_authorized": MISSING_RIGHT,
    "invalid_token": WRONG_KEY,
}


def error_code(response: Response) -> str | None:
    """The party's code; where it denies something, with what its text says after a dot: forbidden.account_suspended."""
    if response.status < 400 or not response.body.startswith(b"{"):
        return None
    try:
        refusal = _refusal.decode(response.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    coded = refusal.error if isinstance(refusal.error, _Coded) else next(iter(refusal.errors or ()), _Coded())
    text = refusal.error if isinstance(refusal.error, str) else coded.reason or coded.message or coded.error_message
    text = text or refusal.message or refusal.errorMessage or refusal.detail or refusal.description or refusal.title
    text = (text or "").strip().lower()
    code = refusal.id or coded.code or coded.error_code or refusal.errorCode or refusal.type or _PLACES.get(text)
    denied = response.status in (401, 402, 403) or (code or "").startswith("BXNIM")         # ibm's login: 400
    said = refusal.reason or (_said(text) if denied else None)
    return f"{code}.{said}" if code and said else code or said


def _said(text: str) -> str | None:
    return next((word for pattern, word in _PHRASES if pattern.search(text)), None)
