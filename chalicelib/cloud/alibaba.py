"""What Alibaba Cloud's products share: the signature of RPC calls, an assumed role, the gateway's error codes.

https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature (signature)

A role: STS AssumeRole 2015-04-01, an hour, narrowed to what the party calls, whatever the role itself may do.
https://help.aliyun.com/zh/ram/developer-reference/api-sts-2015-04-01-assumerole
"""

import hashlib
import hmac
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ..errors import (
    ARREARS,
    CLOCK,
    DISABLED_KEY,
    EXPIRED_KEY,
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    NOT_ACTIVATED,
    REGION,
    ROLE,
    SUSPENDED,
    THROTTLED,
    UNAVAILABLE,
    UNVERIFIED,
    WRONG_KEY,
    WRONG_TOKEN,
)
from ..model import Keys, Request, Text
from .client import Client
from .joining import given

# https://help.aliyun.com/en/ecs/developer-reference/api-ecs-2014-05-26-endpoint; in Chinese: that page and
# https://help.aliyun.com/zh/csg/product-overview/supported-regions; the newest: the endpoints of VPC and NAT Gateway
REGION_NAMES = {
    "cn-qingdao": ("China (Qingdao)", "华北1（青岛）"), "cn-beijing": ("China (Beijing)", "华北2（北京）"),
    "cn-zhangjiakou": ("China (Zhangjiakou)", "华北3（张家口）"),
    "cn-huhehaote": ("China (Hohhot)", "华北5（呼和浩特）"),
    "cn-wulanchabu": ("China (Ulanqab)", "华北6（乌兰察布）"), "cn-hangzhou": ("China (Hangzhou)", "华东1（杭州）"),
    "cn-shanghai": ("China (Shanghai)", "华东2（上海）"), "cn-shenzhen": ("China (Shenzhen)", "华南1（深圳）"),
    "cn-heyuan": ("China (Heyuan)", "华南2（河源）"), "cn-guangzhou": ("China (Guangzhou)", "华南3（广州）"),
    "cn-chengdu": ("China (Chengdu)", "西南1（成都）"), "cn-hongkong": ("China (Hong Kong)", "中国香港"),
    "ap-southeast-1": ("Singapore", "新加坡"), "ap-southeast-3": ("Malaysia (Kuala Lumpur)", "马来西亚（吉隆坡）"),
    "ap-southeast-5": ("Indonesia (Jakarta)", "印度尼西亚（雅加达）"),
    "ap-southeast-6": ("Philippines (Manila)", "菲律宾（马尼拉）"),
    "ap-southeast-7": ("Thailand (Bangkok)", "泰国（曼谷）"), "ap-northeast-1": ("Japan (Tokyo)", "日本（东京）"),
    "ap-northeast-2": ("South Korea (Seoul)", "韩国（首尔）"), "us-west-1": ("US (Silicon Valley)", "美国（硅谷）"),
    "us-east-1": ("US (Virginia)", "美国（弗吉尼亚）"), "eu-central-1": ("Germany (Frankfurt)", "德国（法兰克福）"),
    "eu-west-1": ("UK (London)", "英国（伦敦）"), "me-east-1": ("UAE (Dubai)", "阿联酋（迪拜）"),
    "cn-nanjing": ("China (Nanjing - Local Region)", "华东5（南京-本地地域）"),
    "cn-fuzhou": ("China (Fuzhou - Local Region)", "华东6（福州-本地地域）"),
    "na-south-1": ("Mexico", "墨西哥"), "me-central-1": ("Saudi Arabia (Riyadh)", "沙特（利雅得）"),
    "ap-southeast-8": ("Malaysia (Johor)", "马来西亚（柔佛）"), "cn-zhongwei": ("China (Zhongwei)", "西北2（中卫）"),
}

_T = TypeVar("_T")
Statement = Mapping[str, object]

FORMS = {"role_arn": r"acs:ram::[0-9]{1,20}:role/[A-Za-z0-9.@_-]{1,64}"}

ERRORS = {                                  # the exact code, or what stands before its first dot
    "InvalidAccessKeyId": WRONG_KEY,
    "IncompleteSignature": WRONG_KEY,
    "SignatureDoesNotMatch": WRONG_KEY,
    "InvalidAccessKeyId.Inactive": DISABLED_KEY,
    "NoEnabledAccessKey": DISABLED_KEY,
    "Forbidden.AccessKey": DISABLED_KEY,
    "Forbidden.AccessKeyDisabled": DISABLED_KEY,
    "InvalidSecurityToken": WRONG_TOKEN,
    "MissingSecurityToken": WRONG_TOKEN,
    "InvalidSecurityToken.Expired": EXPIRED_KEY,
    "EntityNotExist": ROLE,
    "InvalidTimeStamp": CLOCK,
    "IllegalTimestamp": CLOCK,
    "Forbidden": MISSING_RIGHT,
    "NoPermission": MISSING_RIGHT,
    "UnauthorizedOperation": MISSING_RIGHT,
    "Forbidden.RiskControl": SUSPENDED,
    "Forbidden.UserVerification": UNVERIFIED,
    "RealNameAuthenticationError": UNVERIFIED,
    "Forbidden.Unsubscribed": NOT_ACTIVATED,
    "Forbidden.AccountInDebt": ARREARS,
    "Account.Arrearage": ARREARS,
    "InsufficientBalance": ARREARS,
    "InvalidAccountStatus": SUSPENDED,
    "InvalidAccountStatus.NotEnoughBalance": ARREARS,
    "Throttling": THROTTLED,
    "InvalidRegionId": REGION,
    "IllegalRegionId": REGION,
    "InvalidParameter": MALFORMED,
    "MissingParameter": MALFORMED,
    "UnsupportedOperation": MALFORMED,
    "InvalidAction": MALFORMED,
    "InvalidVersion": MALFORMED,
    "InvalidApi": MALFORMED,
    "InvalidProduct": MALFORMED,
    "InternalError": FAILED,
    "UnknownError": FAILED,
    "SignatureNonceUsed": FAILED,           # another try has another one
    "ServiceUnavailable": UNAVAILABLE,
}


class _Credentials(msgspec.Struct):
    AccessKeyId: Text
    AccessKeySecret: Text
    SecurityToken: Text
    Expiration: datetime


class _Assumed(msgspec.Struct):
    Credentials: _Credentials


def allow(actions: Sequence[str], resource: str = "*") -> Statement:
    """A statement of a policy."""
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def opened(client: Client, narrowed: Sequence[Statement], use: Callable[[Keys], _T]) -> _T:
    """`use` with the keys that open the account: its own, or those of its role, whose session may do no more than
    `narrowed`."""
    if "role_arn" not in client.credentials:
        return use(own_keys(client))
    return client.door.with_session("role", lambda: assume(
        client.door, client.credentials["role_arn"], own_keys(client), narrowed), use)


def own_keys(client: Client) -> Keys:
    keys = client.credentials
    return Keys(keys["access_key_id"], keys["access_key_secret"], keys.get("security_token"))


def assume(client: Client, role: str, keys: Keys, narrowed: Sequence[Statement]) -> tuple[float, Keys]:
    """The end of a session (Unix time), and its keys."""
    policy: Statement = {"Version": "1", "Statement": narrowed}
    query = {"RoleArn": role, "RoleSessionName": "twocloud", "DurationSeconds": "3600",
             "Policy": msgspec.json.encode(policy).decode(), **given(ExternalId=client.credentials.get("external_id"))}
    session = sts(client, "AssumeRole", query, _Assumed, keys).Credentials
    return session.Expiration.timestamp(), Keys(session.AccessKeyId, session.AccessKeySecret, session.SecurityToken)


def sts(client: Client, action: str, query: Mapping[str, str], shape: type[_T], keys: Keys) -> _T:
    url = client.url("https://sts.aliyuncs.com/")
    return call(client, action, "2015-04-01", url, query, shape, keys)


def call(client: Client, action: str, version: str, url: str, query: Mapping[str, str], shape: type[_T],
         keys: Keys) -> _T:
    return client.call(action, lambda: sign(action, version, url, query, keys, time.time(), uuid.uuid4().hex), shape)


def sign(action: str, version: str, url: str, query: Mapping[str, str], keys: Keys, now: float,
         nonce: str) -> Request:
    """ACS3-HMAC-SHA256. `now`: Unix time; the party allows fifteen minutes of difference, and each nonce once."""
    quoted = urlencode(sorted(query.items()), quote_via=quote, safe="")
    headers = {
        "host": urlsplit(url).netloc, "x-acs-action": action, "x-acs-content-sha256": hashlib.sha256().hexdigest(),
        "x-acs-date": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce, "x-acs-version": version,
        **({"x-acs-security-token": keys.session_token} if keys.session_token else {})}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join(("POST", "/", quoted, lines, names, headers["x-acs-content-sha256"]))
    to_sign = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(keys.secret_access_key.encode(), to_sign.encode(), "sha256").hex()
    return Request("POST", f"{url}?{quoted}", {
        **headers, "accept": "application/json",                # the default is XML
        "authorization": f"ACS3-HMAC-SHA256 Credential={keys.access_key_id},SignedHeaders={names},"
                         f"Signature={signature}"})
