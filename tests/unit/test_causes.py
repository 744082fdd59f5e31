"""The true cause of a refusal: each party's documented words, and words that no table knows but that say it themselves."""

import importlib
from dataclasses import replace

import msgspec
import pytest

from chalicelib import errors, parties
from chalicelib.cloud.failures import failure_in
from chalicelib.errors import Meaning, PartyError, UnknownRegion
from chalicelib.model import Party, Response

NAMES = {name: verdict for name, verdict in vars(errors).items() if isinstance(verdict, Meaning)}
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
    "volcengine": {
        "WRONG_KEY": "InvalidAccessKey SignatureDoesNotMatch MissingAuthenticationToken AccessKeyNotExist",
        "DISABLED_KEY": "InvalidAccessKeyStatus",
        "EXPIRED_KEY": "AccessKeyIsExpire",
        "WRONG_TOKEN": "InvalidSecretToken SessionTokenInvalid",
        "ROLE": "RoleNotExist",
        "CLOCK": "InvalidTimestamp",
        "MISSING_RIGHT": "AccessDenied LackPolicy",
        "ARREARS": "AccountOverdueError OperationDenied.ServiceOverdue",
        "UNVERIFIED": "AccountNotVerified",
        "NOT_ACTIVATED": "OperationDenied.ServiceNotOpen",
        "THROTTLED": "FlowLimitExceeded",
    },
    "baidu": {
        "WRONG_KEY": "InvalidAccessKeyId SignatureDoesNotMatch InvalidHTTPAuthHeader",
        "WRONG_TOKEN": "InvalidSessionToken",
        "CLOCK": "RequestExpired",
        "MISSING_RIGHT": "AccessDenied",
        "NOT_ACTIVATED": "OptInRequired",
    },
    "jdcloud": {"WRONG_KEY": "ACCESS_ERROR UNAUTHENTICATED", "MISSING_RIGHT": "PERMISSION_DENIED", "MALFORMED": "NOT_FOUND 404"},
    "ksyun": {"WRONG_TOKEN": "InvalidSecurityToken", "EXPIRED_KEY": "ExpiredToken", "CLOCK": "RequestExpired",
              "NOT_ACTIVATED": "OptInRequired"},
    "ucloud": {                             # https://docs.ucloud.cn/api/summary/public
        "WRONG_KEY": "171 172",
        "WRONG_TOKEN": "174",
        "REGION_CLOSED": "293",
        "ADDRESS": "294",
        "MFA": "295",
        "MISSING_RIGHT": "299",
        "THROTTLED": "153",
    },
    "ctyun": {"WRONG_KEY": "CTAPI_10002 CTAPI_10009", "MISSING_RIGHT": "Denied.Openapi.Auth.Failed",
              "ARREARS": "Denied.Ecs.Account.Arrears"},
    "outscale": {                           # https://docs.outscale.com/api-errors.html
        "WRONG_KEY": "AccessDenied.1",
        "MISSING_RIGHT": "AccessDenied.4 AccessDenied.5 AccessDenied.7",
        "THROTTLED": "AccessDenied.6 AccessDenied.24 AccessDenied.25",
        "LOCKED": "AccessDenied.11 AccessDenied.13",
        "ADDRESS": "AccessDenied.14",
        "EXPIRED_KEY": "PasswordExpired.20",
    },
    "cloudstack": {"WRONG_KEY": "401", "MFA": "511", "MISSING_RIGHT": "432 531", "THROTTLED": "429"},
    "huaweicloud": {
        "MISSING_RIGHT": "APIG.0302 APIGW.0302 APIG.0304", "WRONG_TOKEN": "APIG.0307 APIGW.0307",
        "THROTTLED": "APIG.0308 APIGW.0308", "ADDRESS": "APIG.0402 APIGW.0402", "REGION": "APIG.0101 APIG.0802",
    },
    "scaleway": {"WRONG_KEY": "denied_authentication denied_authentication.not_found",
                 "EXPIRED_KEY": "denied_authentication.expired", "SUSPENDED": "locked",
                 "REGION": "unknown_zone unknown_region", "MALFORMED": "unknown_resource not_found"},
    "upcloud": {"WRONG_KEY": "AUTHENTICATION_FAILED", "ARREARS": "INSUFFICIENT_CREDITS"},
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
    return failure_in(replace(party, error_code=lambda _: word), Response(status, {}, b""))


def pairs(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(cause, word) for cause, words in table.items() for word in words.split()]


@pytest.mark.parametrize(("name", "cause", "word"), [(name, *pair) for name, table in DOCUMENTED.items() for pair in pairs(table)])
def test_a_documented_word_says_its_cause(name: str, cause: str, word: str) -> None:
    failure, verdict = refused(parties.load(name), word), NAMES[cause]
    assert type(failure) is verdict.error
    if isinstance(failure, PartyError):
        assert failure.hint == verdict.hint
        assert verdict.hint in failure.text
        assert word in failure.text


@pytest.mark.parametrize("name", parties.names())
def test_a_word_that_no_table_knows_says_its_cause_itself(name: str) -> None:
    """Never "wrong key", never "no such region"."""
    party = parties.load(name)
    for cause, word in pairs(SAYS):
        if word not in party.errors:
            failure = refused(party, word)
            assert isinstance(failure, errors.PartyDenied), (name, word)
            assert failure.hint == NAMES[cause].hint, (name, word)


def _keystone(message: str) -> object:
    return {"error": {"code": 401, "title": "Unauthorized", "message": message}}


def _gateway(message: str, gateway: str = "APIG") -> object:
    return {"error_code": f"{gateway}.0301", "error_msg": f"Incorrect IAM authentication information: {message}"}


FREE = [                                    # what the clouds with free text say -> its cause
    ("openstack", 401, _keystone("The account is locked for user: 0af1."), "LOCKED"),
    ("openstack", 401, _keystone("The password is expired and needs to be changed for user: 0af1."), "_EXPIRED_PASSWORD"),
    ("openstack", 401, _keystone("User is disabled: 0af1"), "DISABLED_KEY"),
    ("openstack", 401, _keystone("Project is disabled: 77c2"), "_DISABLED_PROJECT"),
    ("openstack", 401, _keystone("Domain is disabled: 77c2"), "_DISABLED_PROJECT"),
    ("openstack", 401, _keystone("User 0af1 has no access to project 77c2"), "_NO_ROLE"),
    ("openstack", 401, _keystone("The request you have made requires authentication."), "WRONG_KEY"),
    ("huaweicloud", 401, _gateway("AK access failed to reach the limit,forbidden."), "LOCKED"),
    ("huaweicloud", 401, _gateway("AK access failed to reach the limit,forbidden.", "APIGW"), "LOCKED"),
    ("huaweicloud", 401, _gateway("decrypt token fail"), "WRONG_TOKEN"),
    ("huaweicloud", 401, _gateway("Get secretKey failed,ak:AK,err:ak not exist"), "WRONG_KEY"),
    ("huaweicloud", 401, _gateway("verify aksk signature fail"), "_REFUSED"),
    ("vultr", 401, {"error": "Unauthorized IP address: 192.0.2.1", "status": 401}, "ADDRESS"),
    ("vultr", 401, {"error": "Invalid API token.", "status": 401}, "WRONG_KEY"),
    ("linode", 401, {"errors": [{"reason": "Invalid Token"}]}, "WRONG_KEY"),
    ("linode", 401, {"errors": [{"reason": "Your OAuth token is not authorized to use this endpoint."}]}, "MISSING_RIGHT"),
    ("digitalocean", 403, {"id": "forbidden", "message": "Your account is locked, contact support"}, "SUSPENDED"),
    ("digitalocean", 401, {"id": "unauthorized", "message": "Unable to authenticate you"}, "WRONG_KEY"),
    ("cloudscale", 401, {"detail": "Invalid token."}, "WRONG_KEY"),
    ("cloudscale", 403, {"detail": "You do not have permission to perform this action."}, "MISSING_RIGHT"),
    ("hetzner", 401, {"error": {"code": "unauthorized", "message": "the token you provided has expired"}}, "EXPIRED_KEY"),
    ("scaleway", 401, {"type": "denied_authentication", "method": "api_key", "reason": "expired"}, "EXPIRED_KEY"),
    ("ibm", 400, {"errorCode": "BXNIM0000E", "errorMessage": "Provided API key is disabled"}, "DISABLED_KEY"),
]


@pytest.mark.parametrize(("name", "status", "body", "cause"), FREE)
def test_free_text_says_its_cause(name: str, status: int, body: object, cause: str) -> None:
    failure = failure_in(parties.load(name), Response(status, {}, msgspec.json.encode(body)))
    module = importlib.import_module(f"chalicelib.parties.{name}")
    assert isinstance(failure, PartyError)
    assert failure.hint == (NAMES.get(cause) or vars(module)[cause]).hint


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_free_text_of_what_is_no_refusal_is_not_read(status: int) -> None:
    for name in ("vultr", "linode", "cloudscale", "gridscale"):
        failure = failure_in(parties.load(name), Response(status, {}, b'{"error": "Invalid key, account closed"}'))
        assert isinstance(failure, PartyError)
        assert not failure.hint


def test_a_word_that_says_no_cause_is_given_none() -> None:
    assert [word for word in INNOCENT if errors.cause_of(word)] == []
