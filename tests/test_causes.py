"""The true cause of a refusal: each party's documented words, and words that no table knows but that say it themselves."""

from dataclasses import replace

import pytest

from chalicelib import errors, parties
from chalicelib.errors import PartyError, UnknownRegion, Verdict
from chalicelib.model import Party, Response
from chalicelib.transport import failure_in

NAMES = {name: verdict for name, verdict in vars(errors).items() if isinstance(verdict, Verdict)}
DOCUMENTED = {                              # party -> cause -> its words
    "qcloud": {
        "WRONG_KEY": "AuthFailure.InvalidSecretId AuthFailure.SignatureFailure AuthFailure.InvalidAuthorization",
        "WRONG_TOKEN": "AuthFailure.TokenFailure UnauthorizedOperation.InvalidToken",
        "CLOCK": "AuthFailure.SignatureExpire",
        "MFA": "AuthFailure.MFAFailure UnauthorizedOperation.MFAExpired UnauthorizedOperation.MFANotFound",
        "MISSING_RIGHT": "AuthFailure.UnauthorizedOperation UnauthorizedOperation UnauthorizedOperation.CamNoAuth",
        "ROLE": "AuthFailure.CamRoleNameAuthenticateFailed UnauthorizedOperation.RoleNotExists",
        "ADDRESS": "IpInBlacklist IpNotInWhitelist",
        "UNVERIFIED": "AccountQualificationRestrictions UnauthorizedOperation.NoRealNameAuthentication",
        "ARREARS": "InvalidAccount.InsufficientBalance InvalidAccount.UnpaidOrder",
        "REGION_CLOSED": "InvalidRegion.Unavailable",
        "REGION": "UnsupportedRegion InvalidRegion.NotFound InvalidParameterValue.InvalidRegion",
    },
    "aliyun": {
        "WRONG_KEY": "InvalidAccessKeyId.NotFound SignatureDoesNotMatch IncompleteSignature",
        "DISABLED_KEY": "InvalidAccessKeyId.Inactive Forbidden.AccessKeyDisabled Forbidden.AccessKey NoEnabledAccessKey",
        "WRONG_TOKEN": "InvalidSecurityToken.Malformed InvalidSecurityToken.MismatchWithAccessKey MissingSecurityToken",
        "EXPIRED_KEY": "InvalidSecurityToken.Expired",
        "CLOCK": "InvalidTimeStamp.Expired IllegalTimestamp",
        "MISSING_RIGHT": "Forbidden.RAM NoPermission Forbidden.SubUser",
        "ROLE": "EntityNotExist.Role",
        "SUSPENDED": "Forbidden.RiskControl",
        "UNVERIFIED": "Forbidden.UserVerification RealNameAuthenticationError",
        "ARREARS": "InvalidAccountStatus.NotEnoughBalance Account.Arrearage Forbidden.AccountInDebt InsufficientBalance",
        "NOT_ACTIVATED": "Forbidden.Unsubscribed",
        "THROTTLED": "Throttling Throttling.User Throttling.Api",
        "REGION": "InvalidRegionId.NotFound",
    },
}
SAYS = {                                    # words that are in nobody's table
    "ARREARS": "Forbidden.AccountOverdue OperationDenied.UserArrears account_delinquent INSUFFICIENT_CREDITS",
    "UNVERIFIED": "Forbidden.RealNameRequired account_not_verified",
    "MFA": "Forbidden.MFARequired mfa_required MultiFactorAuthRequired",
    "ADDRESS": "Forbidden.SourceIpDenied IpNotAllowed IP_NOT_ALLOWED Auth.IpInBlackList",
    "SUSPENDED": "AccountFrozen Account.Suspended ACCOUNT_LOCKED account_disabled",
    "EXPIRED_KEY": "AuthFailure.TokenExpired AccessKeyExpired expired_token",
    "DISABLED_KEY": "AccessKeyInactive api_key_disabled UserLocked SecretIdDisabled",
    "NOT_ACTIVATED": "ServiceNotOpen Product.NotActivated",
}
INNOCENT = ("InternalError", "InvalidParameterValue", "ResourceNotFound.Disk", "IpAddress.Invalid", "InvalidIpFormat", "SkipList",
            "not_found", "UserNotInTheWhiteList", "Zone.NotOnSale", "DescriptionFormat", "KeyPair.NotFound")


def refused(party: Party, word: str, status: int = 403) -> PartyError | UnknownRegion | None:
    return failure_in(replace(party, error_word=lambda _: word), Response(status, {}, b""))


def pairs(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(cause, word) for cause, words in table.items() for word in words.split()]


@pytest.mark.parametrize(("name", "cause", "word"), [(name, *pair) for name, table in DOCUMENTED.items() for pair in pairs(table)])
def test_a_documented_word_says_its_cause(name: str, cause: str, word: str) -> None:
    failure, verdict = refused(parties.load(name), word), NAMES[cause]
    assert type(failure) is verdict.error
    if isinstance(failure, PartyError):
        assert failure.hint == verdict.hint and verdict.hint in failure.text and word in failure.text


@pytest.mark.parametrize("name", parties.names())
def test_a_word_that_no_table_knows_says_its_cause_itself(name: str) -> None:
    """Never "wrong key", never "no such region"."""
    party = parties.load(name)
    for cause, word in pairs(SAYS):
        if word not in party.errors:
            failure = refused(party, word)
            assert isinstance(failure, errors.PartyDenied) and failure.hint == NAMES[cause].hint, (name, word)


def test_a_word_that_says_no_cause_is_given_none() -> None:
    assert [word for word in INNOCENT if errors.cause_of(word)] == []
