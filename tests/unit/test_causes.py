"""The true cause of a refusal: each party's documented words, and words that no table knows but that say it
themselves."""

import importlib

import msgspec
import pytest
from msgspec import structs

from chalicelib import errors, parties
from chalicelib.cloud.failures import failure_in
from chalicelib.cloud.party import Party
from chalicelib.errors import Meaning, PartyError, UnknownRegion
from chalicelib.model import Response
from tests.unit.test_parties import WHAT

NAMES = {name: meaning for name, meaning in vars(errors).items() if isinstance(meaning, Meaning)}
WORDS = {                                   # words that are in nobody's table
    "ARREARS": "Forbidden.AccountOverdue OperationDenied.UserArrears account_delinquent INSUFFICIENT_CREDITS",
    "UNVERIFIED": "Forbidden.RealNameRequired account_not_verified",
    "MFA": "Forbidden.MFARequired mfa_required MultiFactorAuthRequired",
    "ADDRESS": "Forbidden.SourceIpDenied IpNotAllowed IP_NOT_ALLOWED Auth.IpInBlackList",
    "SUSPENDED": "AccountFrozen Account.Suspended ACCOUNT_LOCKED account_disabled",
    "EXPIRED_KEY": "AuthFailure.TokenExpired AccessKeyExpired expired_token",
    "DISABLED_KEY": "AccessKeyInactive api_key_disabled UserLocked SecretIdDisabled",
    "NOT_ACTIVATED": "ServiceNotOpen Product.NotActivated",
}
INNOCENT = ("InternalError", "InvalidParameterValue", "ResourceNotFound.Disk", "IpAddress.Invalid", "InvalidIpFormat",
            "SkipList",
            "not_found", "UserNotInTheWhiteList", "Zone.NotOnSale", "DescriptionFormat", "KeyPair.NotFound")


def refused(party: Party, word: str, status: int = 403) -> PartyError | UnknownRegion | None:
    return failure_in(structs.replace(party, error_code=lambda _: word), Response(status, {}, b""))


def pairs(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(cause, word) for cause, words in table.items() for word in words.split()]


@pytest.mark.parametrize(("name", "cause", "word"),
                         [(name, *pair) for name, what in WHAT.items() for pair in pairs(what.get("causes", {}))])
def test_a_documented_word_says_its_cause(name: str, cause: str, word: str) -> None:
    failure, meaning = refused(parties.load(name), word), NAMES[cause]
    assert type(failure) is meaning.error
    if isinstance(failure, PartyError):
        assert failure.hint == meaning.hint
        assert meaning.hint in failure.text
        assert word in failure.text


@pytest.mark.parametrize("name", parties.names())
@pytest.mark.parametrize("body", [b"", b"[", b"[" * 100_000, b"null", b"[null]", b'{"error": "\xff"}', b"<a>\xff</a>",
                                  b'{"error": {"message": "\xff", "code": 1}}', b'{"errors": [null]}'], ids=repr)
def test_a_refusal_that_nobody_can_read_is_the_partys(name: str, body: bytes) -> None:
    assert isinstance(failure_in(parties.load(name), Response(500, {}, body)), PartyError)


@pytest.mark.parametrize("name", parties.names())
def test_a_word_that_no_table_knows_says_its_cause_itself(name: str) -> None:
    """Never "wrong key", never "no such region"."""
    party = parties.load(name)
    for cause, word in pairs(WORDS):
        if word not in party.errors:
            failure = refused(party, word)
            assert isinstance(failure, errors.PartyDenied), (name, word)
            assert failure.hint == NAMES[cause].hint, (name, word)


# what it says -> its cause
FREE = [(name, *entry) for name, what in WHAT.items() for entry in what.get("free_text", [])]


@pytest.mark.parametrize(("name", "status", "body", "cause"), FREE)
def test_free_text_says_its_cause(name: str, status: int, body: object, cause: str) -> None:
    failure = failure_in(parties.load(name), Response(status, {}, msgspec.json.encode(body)))
    module = importlib.import_module(f"chalicelib.parties.{name}")
    assert isinstance(failure, PartyError)
    assert failure.hint == (NAMES.get(cause) or vars(module)[cause]).hint


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_free_text_of_what_is_no_refusal_is_not_read(status: int) -> None:
    for name in sorted({name for name, *_ in FREE}):
        failure = failure_in(parties.load(name), Response(status, {}, b'{"error": "Invalid key, account closed"}'))
        assert isinstance(failure, PartyError)
        assert not failure.hint


def test_a_word_that_says_no_cause_is_given_none() -> None:
    assert [word for word in INNOCENT if errors.cause_of(word)] == []
