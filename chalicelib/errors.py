"""The tree of errors, each with the HTTP status and the error code that a caller sees.

TwocloudError
├── SettingsError                  (stops the start; never seen over HTTP)
├── Conflict                       (a conditional write of the store failed; never seen over HTTP)
├── SnapshotReplaced               (a snapshot's chunks do not match its head; never seen over HTTP)
├── Internal                  500  internal
│   ├── StoreBusy             500  internal
│   │   └── StoreConnectionBroken 500  internal
│   └── Unopened              500  internal
├── InvalidParameter          400  invalid_parameter
│   └── UnknownRegion         400  invalid_parameter, parameter "region"
├── Unauthorized              401  unauthorized
├── Forbidden                 403  forbidden
├── NotFound                  404  not_found
├── AccountNotFound           404  account_not_found
├── MethodNotAllowed          405  method_not_allowed
├── ListChanged               409  list_changed
├── TooLarge                  413  too_large
├── RateLimited               429  rate_limited
└── PartyError
    ├── PartyDenied           502  party_denied
    ├── PartyMalformed        502  party_malformed
    │   └── PartyContradiction 502  party_malformed
    ├── PartyFailed           502  party_error
    ├── PartyThrottled        503  party_throttled
    ├── PartyUnavailable      503  party_unavailable
    │   └── PartyUnreachable  503  party_unavailable
    └── PartyTimeout          504  party_timeout

Callers see the text of an error. It says what is wrong and what to do, and never holds unchecked input of the caller,
a secret, or anything that a party wrote beyond its own error code.
"""

import re
from typing import ClassVar, Self

import msgspec


class TwocloudError(Exception):
    """The root of the tree. The class has `status` and `code` (`error` in a response), the instance has the text."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    default: ClassVar[str] = "Internal error. Retry; if it persists, report the request id."

    def __init__(self, text: str = "") -> None:
        super().__init__(text or self.default)

    @property
    def text(self) -> str:
        return str(self.args[0])

    def about(self, what: str) -> Self:
        """The same error, whose text begins with what it is about."""
        named = type(self).__new__(type(self))
        named.__dict__.update(self.__dict__)
        named.args = (f"{what}: {self.text}",)
        return named


class SettingsError(TwocloudError):
    """A setting cannot be used."""


class Conflict(TwocloudError):
    """Another writer changed the row first, or the row already exists."""


class SnapshotReplaced(TwocloudError):
    """A snapshot's chunks do not match its head: a newer snapshot replaced it, or it is damaged."""


class Internal(TwocloudError):
    """An error of twocloud itself."""


class StoreBusy(Internal):
    """Another program holds the store's write lock, so nothing was written; or the store does not answer."""


class StoreConnectionBroken(StoreBusy):
    """The connection to the store broke, or two statements met: what was sent can be sent again."""


class Unopened(Internal):
    """A seal could not be opened, so its content is unknown."""


class InvalidParameter(TwocloudError):
    """The request is malformed. `parameter`: the parameter at fault, as the caller spelt it."""

    status = 400
    code = "invalid_parameter"

    def __init__(self, parameter: str, text: str) -> None:
        super().__init__(text)
        self.parameter = parameter


class UnknownRegion(InvalidParameter):
    """The party has no such region, or none that this account may use."""

    def __init__(self, text: str = "") -> None:
        super().__init__("region", text or "This party has no such region.")


class Unauthorized(TwocloudError):
    """Credentials missing, malformed, unknown, expired or revoked: always the same text, which reveals nothing."""

    status = 401
    code = "unauthorized"
    default = ("Credentials missing or not valid. Send a token as the user name of Basic auth or as Bearer; "
               "to get a token, POST to /twocloud/tokens with a user name and a password.")


class Forbidden(TwocloudError):
    """The token does not cover the query, whether or not the tenant exists: always the same text."""

    status = 403
    code = "forbidden"
    default = "This token does not cover this tenant, party or region."


class NotFound(TwocloudError):
    status = 404
    code = "not_found"
    default = "Unknown path. GET /twocloud/openapi.json lists the paths."


class AccountNotFound(TwocloudError):
    status = 404
    code = "account_not_found"
    default = "This tenant has no such account at this party. An operator can add one with `twocloud account put`."


class MethodNotAllowed(TwocloudError):
    status = 405
    code = "method_not_allowed"
    default = "This path does not support this method."

    def __init__(self, allow: str) -> None:
        super().__init__(f"{self.default} It supports: {allow}.")
        self.allow = allow


class ListChanged(TwocloudError):
    """The list that a caller wants a part of is not kept any more, or never was this query's."""

    status = 409
    code = "list_changed"
    default = "The list that this id names is no longer kept, or belongs to another query. Start again without `list`."


class TooLarge(TwocloudError):
    status = 413
    code = "too_large"
    default = "The request is too large."


class RateLimited(TwocloudError):
    """`retry_after`: whole seconds until a retry can succeed."""

    status = 429
    code = "rate_limited"
    default = "Too many requests."

    def __init__(self, retry_after: int, text: str = "") -> None:
        text = text or self.default
        super().__init__(text if "Retry in" in text else f"{text} Retry in {retry_after} s.")
        self.retry_after = retry_after


class PartyError(TwocloudError):
    """A party did not return a complete list.

    `party_code`: the party's own error code, "" if it sent none. `hint`: what an operator can do.
    `retry_after`: seconds that the party wants us to wait, None if it does not say. `http_status`: of the party's
    response, None if there was none.
    """

    status = 502
    code = "party_error"

    def __init__(self, text: str = "", *, party_code: str = "", hint: str = "",
                 retry_after: float | None = None, http_status: int | None = None) -> None:
        super().__init__(text)
        self.party_code = party_code
        self.hint = hint
        self.retry_after = retry_after
        self.http_status = http_status


class PartyDenied(PartyError):
    code = "party_denied"
    default = "The party refused the credentials of this account."


class PartyMalformed(PartyError):
    code = "party_malformed"
    default = "The party's answer could not be understood."


class PartyContradiction(PartyMalformed):
    """The answer contradicts itself in a way that no change of the fleet explains. Listing again can help."""


class PartyFailed(PartyError):
    default = "The party reported an error of its own."


class PartyThrottled(PartyError):
    status = 503
    code = "party_throttled"
    default = "The party's rate limit is used up. Retry later."


class PartyUnavailable(PartyError):
    status = 503
    code = "party_unavailable"
    default = "The party cannot be reached. Retry later."


class PartyUnreachable(PartyUnavailable):
    """The party's certificate is not trusted, or the operator's proxy refuses. A retry cannot help."""


class PartyTimeout(PartyError):
    status = 504
    code = "party_timeout"
    default = "The party did not answer in time."


class Meaning(msgspec.Struct, frozen=True):
    """What a party's error code means here. `hint` is shown to operators and, in `msg`, to callers."""

    error: type[PartyError] | type[UnknownRegion]
    hint: str = ""


WRONG_KEY = Meaning(PartyDenied, "wrong key: the key id, the secret or the token is not valid")
DISABLED_KEY = Meaning(PartyDenied, "disabled key: the key or its user is disabled; enable it, or use another key")
EXPIRED_KEY = Meaning(PartyDenied, "expired key: the key or the temporary token has expired; create a new one")
WRONG_TOKEN = Meaning(PartyDenied, "wrong token: the temporary token is not valid or has expired; create a new one")
MISSING_RIGHT = Meaning(PartyDenied, "missing right: the key is valid but lacks a permission; grant it at the party")
ROLE = Meaning(PartyDenied, "wrong role: the role does not exist, or does not trust this key")
ADDRESS = Meaning(PartyDenied, "wrong address: the party refuses calls from this address; add it to the allow-list")
MFA = Meaning(PartyDenied, "second factor: the party requires one for this call; use a key that needs none")
LOCKED = Meaning(PartyDenied, "locked: too many failed logins; correct the key, then wait or have it unlocked")
SUSPENDED = Meaning(PartyDenied, "account suspended: the party has locked or closed the account; ask its support")
ARREARS = Meaning(PartyDenied, "billing: the account has unpaid bills or no way to pay; settle it with the party")
UNVERIFIED = Meaning(PartyDenied, "unverified account: verify the owner's identity with the party first")
NOT_ACTIVATED = Meaning(PartyDenied, "product not activated: activate it in the party's console for this account")
REGION_CLOSED = Meaning(PartyDenied, "region not open: it exists but is not enabled for this account; enable it")
CLOCK = Meaning(PartyDenied, "clock: this machine's time is too far from the party's; set its clock")
REGION = Meaning(UnknownRegion, "wrong region: the party does not know it, or it is not open to this account")
THROTTLED = Meaning(PartyThrottled)
FAILED = Meaning(PartyFailed)
UNAVAILABLE = Meaning(PartyUnavailable)
MALFORMED = Meaning(PartyMalformed, "the party says that the request is wrong")

# Patterns for codes that are in no table but name their cause. The first that matches decides.
_CAUSES = tuple((re.compile(pattern, re.IGNORECASE), meaning) for pattern, meaning in (
    (r"arrears?|overdue|in_?debt|delinquent|past_?due|unpaid|(insufficient|not_?enough)_?(balance|funds|credits?)",
     ARREARS),
    (r"real_?name|user_?verification|not_?certifi|not_?verified|unverified|qualification_?restrict", UNVERIFIED),
    (r"(?<![a-z])mfa|multi_?factor|second_?factor|two_?factor", MFA),
    (r"(?<![a-z])ip(_?address)?_?(is_?)?(not_?(in|allowed|permitted|authorized)|in_?(black|white|deny)|denied|forbidden|"
     r"restricted|blocked)|source_?ip", ADDRESS),
    (r"risk_?control|account[a-z]*[._]?(suspen|frozen|freez|disabled|closed|locked|abnormal|blocked|banned)|"
     r"(suspended|frozen|locked|closed|disabled)_?account", SUSPENDED),
    (r"(token|credential)s?[._]?(is_?)?expired?|expired_?(token|credential)", EXPIRED_KEY),
    (r"(key|secret_?id|credential|user)[._]?(id)?[._]?(is_?)?(expired?)", EXPIRED_KEY),
    (r"(key|secret_?id|user|token)[._]?(id)?[._]?(is_?)?(not_?)?(inactive|disabled?|enabled|frozen|locked|suspended)|"
     r"no_?enabled_?access_?key", DISABLED_KEY),
    (r"(service|product)?[._]?(not_?(activated|opened|open|subscribed|enabled))|unsubscribed|opt_?in_?required",
     NOT_ACTIVATED),
))


def cause_of(code: str) -> Meaning | None:
    """The meaning of a party's error code that is in no table, None if the code does not name its cause."""
    return next((meaning for pattern, meaning in _CAUSES if pattern.search(code)), None)
