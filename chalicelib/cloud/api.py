"""All that an adapter needs, under one import: `from ...cloud import api`.

- `Client` makes the calls. `Cloud` and `List` declare lists of JSON APIs over GET, `map_of`, `one_row` and
  `regions_of` go with them; `by_offset`, `by_page`, `by_place` and `by_token` read the pages of all others.
- `Party` describes the cloud; `per_second` and the like state its rates, `error_at` where its error codes are.
- The structs of answers say which values are strict and which lenient: see decoding. `Strict`, `Whole`, `Nested`.
- `alibaba`, `amazon`, `tencent`: what the parties of one vendor share.
- `addresses`, `total_gib`, `attached`, `by_owner` and others make fields of a Server from rows.
"""

from ..errors import (
    ADDRESS,
    ARREARS,
    CLOCK,
    DISABLED_KEY,
    EXPIRED_KEY,
    FAILED,
    LOCKED,
    MALFORMED,
    MFA,
    MISSING_RIGHT,
    NOT_ACTIVATED,
    REGION,
    REGION_CLOSED,
    ROLE,
    SUSPENDED,
    THROTTLED,
    UNAVAILABLE,
    UNVERIFIED,
    WRONG_KEY,
    WRONG_TOKEN,
    InvalidParameter,
    Meaning,
    PartyDenied,
    PartyError,
    PartyFailed,
    PartyMalformed,
    PartyUnavailable,
    UnknownRegion,
)
from ..model import (
    IDENTIFIER,
    POSTPAID,
    PREPAID,
    SPOT,
    WHOLE,
    Account,
    Attached,
    Count,
    Keys,
    Limit,
    Listing,
    Member,
    Region,
    Request,
    Response,
    Server,
    Sign,
    Size,
    Source,
    Status,
    Text,
    Window,
    address_in,
    attached,
    labelled,
    parse_time,
    total_gib,
)
from . import alibaba, amazon, tencent, xml
from .cache import cached_lookup, note, noted
from .client import Client, Cloud, Headers, List, bearer, map_of, one_row, regions_of
from .decoding import Nested, Strict, Whole, nested, part, read, reading, refusal
from .joining import (
    addresses,
    base_url,
    by_owner,
    by_scope,
    disk_gib,
    first,
    first_of,
    given,
    groups,
    ids,
    in_order,
    numbered,
    only,
    os_family,
    parted,
    plain,
    without_prefix,
)
from .paging import Page, Rows, by_offset, by_page, by_place, by_token, cut
from .party import OwnFile, Party, region_names
from .refusals import FREE_TEXT, any_error_code, error_at
from .sites import own_site


def denied(hint: str) -> Meaning:
    """The party refuses the account; `hint` says what the operator can do."""
    return Meaning(PartyDenied, hint)


def refused(hint: str) -> PartyDenied:
    """The error of an account that cannot be opened, or sees nothing; `hint` says why and what the operator can do."""
    return PartyDenied(f"{PartyDenied.default} ({hint})", hint=hint)


def per_second(calls: int, *operations: str) -> dict[str, Limit]:
    """That many calls a second of each of the operations."""
    return per_seconds(1.0, calls, *operations)


def unpublished(calls: int, *operations: str) -> dict[str, Limit]:
    """Where the cloud publishes no rate: that many calls a second on average, and twice as many at once, so that the
    eleventh page of 1,000 servers need not wait. Azure's apart, every rate that a cloud publishes for a list allows 20
    at once."""
    return per_seconds(2.0, 2 * calls, *operations)


def per_seconds(seconds: float, calls: int, *operations: str) -> dict[str, Limit]:
    """That many calls in any so many seconds, of each of the operations."""
    return dict.fromkeys(operations, Limit(calls, seconds))


__all__ = [
    "ADDRESS", "ARREARS", "CLOCK", "DISABLED_KEY", "EXPIRED_KEY", "FAILED", "FREE_TEXT", "IDENTIFIER", "LOCKED",
    "MALFORMED", "MFA", "MISSING_RIGHT", "NOT_ACTIVATED", "POSTPAID", "PREPAID", "REGION", "REGION_CLOSED", "ROLE",
    "SPOT", "SUSPENDED",
    "THROTTLED", "UNAVAILABLE", "UNVERIFIED", "WHOLE", "WRONG_KEY", "WRONG_TOKEN", "Account", "Attached", "Client",
    "Cloud", "Count", "Headers", "InvalidParameter", "Keys", "Limit", "List", "Listing", "Meaning", "Member",
    "Nested", "OwnFile", "Page", "Party", "PartyDenied", "PartyError", "PartyFailed", "PartyMalformed",
    "PartyUnavailable", "Region", "Request", "Response", "Rows", "Server", "Sign", "Size", "Source", "Status",
    "Strict", "Text", "UnknownRegion", "Whole", "Window", "address_in", "addresses", "alibaba", "amazon",
    "any_error_code", "attached", "base_url", "bearer", "by_offset", "by_owner", "by_page", "by_place", "by_scope",
    "by_token", "cached_lookup", "cut", "denied", "disk_gib", "error_at", "first", "first_of", "given", "groups",
    "ids", "in_order", "labelled", "map_of", "nested", "note", "noted", "numbered", "one_row", "only", "os_family",
    "own_site", "parse_time", "part", "parted", "per_second", "per_seconds", "plain", "read", "reading", "refusal",
    "refused",
    "region_names", "regions_of", "tencent", "total_gib", "unpublished", "without_prefix", "xml",
]
