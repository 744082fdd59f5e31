"""How the error code in an answer is read: at a documented path, or wherever a bearer-token cloud puts it."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import MISSING_RIGHT, WRONG_KEY
from ..model import Response
from .decoding import refusal


def error_at(path: str) -> Callable[[Response], str | None]:
    """Reads the code at "Response.Error.Code". Another answer is no error, whatever its HTTP status."""
    *above, last = path.split(".")
    keys = [f'"{key}"'.encode() for key in (*above, last)]
    shape: Any = msgspec.defstruct("Refusal", [(last, str | None, None)])
    for key in reversed(above):
        shape = msgspec.defstruct("Refusal", [(key, shape | None, None)])

    def error_code(response: Response) -> str | None:
        if not all(key in response.body for key in keys):       # most answers: not decoded a second time
            return None
        value: Any = refusal(response, shape)
        for key in (*above, last):
            value = value and getattr(value, key)
        return value

    return error_code


# ---------------------------------------------------------------- bearer-token clouds

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


def any_error_code(response: Response) -> str | None:
    """The party's code; where it denies something, with what its text says after a dot: forbidden.account_suspended."""
    if response.status < 400 or not response.body.startswith(b"{"):
        return None
    answer = refusal(response, _Refusal)
    if answer is None:
        return None
    coded = answer.error if isinstance(answer.error, _Coded) else next(iter(answer.errors or ()), _Coded())
    text = answer.error if isinstance(answer.error, str) else coded.reason or coded.message or coded.error_message
    text = text or answer.message or answer.errorMessage or answer.detail or answer.description or answer.title
    text = (text or "")[:1000].strip().lower()
    code = answer.id or coded.code or coded.error_code or answer.errorCode or answer.type or _PLACES.get(text)
    denied = response.status in (401, 402, 403) or (code or "").startswith("BXNIM")         # ibm's login: 400
    cause = answer.reason or (_cause_in(text) if denied else None)
    return f"{code}.{cause}" if code and cause else code or cause


def _cause_in(text: str) -> str | None:
    return next((word for pattern, word in _PHRASES if pattern.search(text)), None)
