"""What Amazon's products share: signature version 4, an assumed role, partitions and their hosts, error codes.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html (signature)

A role: STS AssumeRole 2011-06-15 at the region's own host, an hour, narrowed to what the party calls, whatever the role
itself may do. https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from ..errors import (
    CLOCK,
    EXPIRED_KEY,
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    NOT_ACTIVATED,
    REGION,
    REGION_CLOSED,
    THROTTLED,
    UNAVAILABLE,
    WRONG_KEY,
    Meaning,
    PartyDenied,
    PartyMalformed,
    UnknownRegion,
)
from ..model import Account, Keys, Request, Response, parse_time
from . import xml
from .client import Client
from .decoding import reading, refusal
from .joining import given

_T = TypeVar("_T")
Statement = Mapping[str, object]

REFUSED = Meaning(PartyDenied, "wrong key, or a region that is not enabled for this account, or a wrong clock: AWS "
                               "says the same of all three")

ERRORS = {                                  # the common errors, STS's, and what botocore takes for throttling
    "InvalidClientTokenId": REFUSED,
    "UnrecognizedClientException": REFUSED,
    "SignatureDoesNotMatch": WRONG_KEY,
    "SignatureDoesNotMatch.Expired": CLOCK,                     # what stands after the dot: see error_code
    "SignatureDoesNotMatch.Region": REGION,
    "InvalidSignatureException": WRONG_KEY,
    "InvalidSignatureException.Expired": CLOCK,
    "InvalidSignatureException.Region": REGION,
    "IncompleteSignature": WRONG_KEY,
    "MissingAuthenticationToken": WRONG_KEY,
    "OptInRequired": NOT_ACTIVATED,
    "SubscriptionRequiredException": NOT_ACTIVATED,
    "RegionDisabledException": REGION_CLOSED,
    "RequestExpired": CLOCK,
    "ExpiredToken": EXPIRED_KEY,
    "ExpiredTokenException": EXPIRED_KEY,
    "AccessDenied": Meaning(PartyDenied, "wrong role or missing right: the role does not exist, does not trust this "
                                         "key, or the key lacks a permission"),         # STS says no more than that
    "NotAuthorized": MISSING_RIGHT,
    "RequestLimitExceeded": THROTTLED,
    "Throttling": THROTTLED,
    "ThrottlingException": THROTTLED,
    "ThrottledException": THROTTLED,
    "RequestThrottled": THROTTLED,
    "RequestThrottledException": THROTTLED,
    "TooManyRequestsException": THROTTLED,
    "PriorRequestNotComplete": THROTTLED,
    "BandwidthLimitExceeded": THROTTLED,
    "LimitExceededException": THROTTLED,
    "ProvisionedThroughputExceededException": THROTTLED,
    "TransactionInProgressException": THROTTLED,
    "SlowDown": THROTTLED,
    "InvalidParameterValue": MALFORMED,
    "InvalidParameterCombination": MALFORMED,
    "InvalidQueryParameter": MALFORMED,
    "MalformedQueryString": MALFORMED,
    "MalformedPolicyDocument": MALFORMED,
    "MissingParameter": MALFORMED,
    "MissingAction": MALFORMED,
    "InvalidAction": MALFORMED,
    "InvalidInputException": MALFORMED,                         # also of a page token: it is then walked once more
    "ValidationError": MALFORMED,
    "InternalFailure": FAILED,
    "ServiceException": UNAVAILABLE,
    "ServiceUnavailable": UNAVAILABLE,
}


# ---------------------------------------------------------------- partitions

class Partition(msgspec.Struct):
    """A part of AWS with accounts and hosts of its own. `id`: its name in ARNs. `usual`: the region that is open to
    each of its accounts and has its organisations."""

    id: str
    form: str
    suffix: str
    usual: str


@cache
def _partitions() -> list[Partition]:
    """Botocore's list, which is a few kilobytes."""
    text = (files("botocore") / "data" / "partitions.json").read_bytes()
    return [Partition(each["id"], each["regionRegex"], each["outputs"]["dnsSuffix"],
                       each["outputs"]["implicitGlobalRegion"]) for each in msgspec.json.decode(text)["partitions"]]


@cache
def region_names() -> dict[str, str]:
    """See Party.region_names: botocore's."""
    text = (files("botocore") / "data" / "partitions.json").read_bytes()
    return {code: region["description"] for each in msgspec.json.decode(text)["partitions"]
            for code, region in each["regions"].items() if not code.endswith("-global")}


def partition_of(region: str) -> Partition | None:
    return next((each for each in _partitions() if re.fullmatch(each.form, region, re.ASCII)), None)


def partition_of_role(arn: str) -> Partition | None:
    return next((each for each in _partitions() if arn.startswith(f"arn:{each.id}:")), None)


def usual_region(credentials: Mapping[str, str], region: str) -> str:
    """See Party.usual_region."""
    partition = partition_of(region) if region else partition_of_role(credentials.get("role_arn", ""))
    return partition.usual if partition else "us-east-1"


def host_of(service: str, region: str, account: Account, title: str) -> str:
    """Raises UnknownRegion before any call for a region of no partition: its host could be anybody's."""
    partition = partition_of(region)
    if partition is None and account.endpoint is None:
        raise UnknownRegion(f"{title} has no such region.")
    return f"{service}.{region}.{partition.suffix if partition else 'amazonaws.com'}"


# ---------------------------------------------------------------- an assumed role

def allow(actions: Sequence[str], resource: str = "*") -> Statement:
    """A statement of a policy."""
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def opened(client: Client, region: str, narrowed: Sequence[Statement], use: Callable[[Keys], _T]) -> _T:
    """`use` with the keys that open the account: its own, or those of its role, whose session may do no more than
    `narrowed`."""
    keys = client.credentials
    if "role_arn" not in keys:
        return use(Keys(keys["access_key_id"], keys["secret_access_key"], keys.get("session_token")))
    own, there = partition_of_role(keys["role_arn"]), partition_of(region)
    if own and there and own is not there and client.account.endpoint is None:
        raise UnknownRegion(f"The account's role is of the partition {own.id}, which has no such region.")
    return client.door.with_session("role", lambda: assume(
        client.door, region, keys["role_arn"], client.account.identity(), narrowed), use)


def assume(client: Client, region: str, role: str, keys: Keys, narrowed: Sequence[Statement]) -> tuple[float, Keys]:
    """The end of a session (Unix time), and its keys. Those of the global host do not work in each region."""
    policy: Statement = {"Version": "2012-10-17", "Statement": narrowed}
    query = {"RoleArn": role, "RoleSessionName": "twocloud", "DurationSeconds": "3600",
             "Policy": msgspec.json.encode(policy).decode(), **given(ExternalId=client.credentials.get("external_id"))}
    response = sts(client, "AssumeRole", query, region, keys)
    with reading():
        root = xml.parse(response.body)
        ns = root.tag[:root.tag.find("}") + 1]
        made = root.find(f"{ns}AssumeRoleResult/{ns}Credentials")
        words = {} if made is None else {part.tag.removeprefix(ns): part.text or "" for part in made}
        ends = parse_time(words.get("Expiration"))
        if ends is None:
            raise ValueError
        session = Keys(words.get("AccessKeyId", ""), words.get("SecretAccessKey", ""), words.get("SessionToken", ""))
    return ends.timestamp(), session


def sts(client: Client, action: str, query: Mapping[str, str], region: str, keys: Keys) -> Response:
    """https://docs.aws.amazon.com/STS/latest/APIReference/"""
    url = client.url(f"https://{host_of('sts', region, client.account, 'Amazon')}/")
    body = urlencode({"Action": action, "Version": "2011-06-15", **query}).encode()
    return client.send(action, lambda: sign("sts", region, url, body, keys))


def sign(service: str, region: str, url: str, body: bytes, keys: Keys,
         headers: Mapping[str, str] = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
         ) -> Request:
    """Signature version 4 by botocore, at its clock's time. Only who signs imports botocore, which takes its time."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("POST", url, data=body, headers={**headers, "Host": urlsplit(url).netloc})
    SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token),
              service, region).add_auth(request)
    return Request("POST", url, dict(request.headers.items()), body)


# ---------------------------------------------------------------- refusals

def error_code(response: Response) -> str | None:
    """`Response/Errors/Error/Code` from EC2, `ErrorResponse/Error/Code` from STS, `__type` where the API is JSON; never
    with status 200. What only a message tells is added to the code after a dot."""
    if response.status == 200:
        return None
    if response.body.startswith(b"{"):
        refused = refusal(response, _Refusal)
        if refused is None:
            return None
        code = refused.type or response.headers.get("x-amzn-errortype", "").partition(":")[0]
        return _precise(code.rpartition("#")[2], refused.message or refused.Message)
    try:
        root = xml.parse(response.body)
    except PartyMalformed:
        return None
    texts = {xml.local(e.tag): e.text or "" for e in root.iter()}
    return _precise(texts.get("Code"), texts.get("Message"))


def _precise(code: str | None, message: str | None) -> str | None:
    """The code, with what its message says of a signature after a dot."""
    if code in _OF_SIGNATURES and (cause := next((word for word, form in _MESSAGES if form.match(message or "")), "")):
        return f"{code}.{cause}"
    return code or None


class _Refusal(msgspec.Struct):
    type: str | None = msgspec.field(name="__type", default=None)
    message: str | None = None
    Message: str | None = None


_OF_SIGNATURES = ("SignatureDoesNotMatch", "InvalidSignatureException")
_MESSAGES = (("Expired", re.compile(r"\s*Signature (expired|not yet current)", re.IGNORECASE)),
             ("Region", re.compile(r"\s*Credential should be scoped to a valid region", re.IGNORECASE)))
