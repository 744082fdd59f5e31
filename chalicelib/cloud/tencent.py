"""What Tencent Cloud's products share: the signature of API 3.0, its error codes, the regions' short names.

https://cloud.tencent.com/document/api/213/30654 (signature), /213/30435 (codes of every product)
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from ..errors import (
    ADDRESS,
    CLOCK,
    FAILED,
    MALFORMED,
    MFA,
    MISSING_RIGHT,
    REGION,
    ROLE,
    THROTTLED,
    UNVERIFIED,
    WRONG_KEY,
    WRONG_TOKEN,
    Meaning,
    PartyDenied,
)
from ..model import Account, Request
from .client import Client

_T = TypeVar("_T")
REGION_FORM = r"[a-z]{2,4}(-[a-z0-9]{1,20}){1,4}"
ALIASES = {                                 # the short codes of the old v2 API, from Tencent's own documents
    "gz": "ap-guangzhou", "gzopen": "ap-guangzhou-open", "szx": "ap-shenzhen", "szjr": "ap-shenzhen-fsi",
    "sh": "ap-shanghai", "shjr": "ap-shanghai-fsi", "bj": "ap-beijing", "bjjr": "ap-beijing-fsi",
    "tsn": "ap-tianjin", "nj": "ap-nanjing", "hk": "ap-hongkong", "tpe": "ap-taipei", "sg": "ap-singapore",
    "th": "ap-bangkok", "in": "ap-mumbai", "kr": "ap-seoul", "jp": "ap-tokyo", "cd": "ap-chengdu",
    "cq": "ap-chongqing", "qy": "ap-qingyuan", "usw": "na-siliconvalley", "use": "na-ashburn", "ca": "na-toronto",
    "de": "eu-frankfurt", "ru": "eu-moscow", "hzec": "ap-hangzhou-ec", "fzec": "ap-fuzhou-ec",
    "jnec": "ap-jinan-ec", "sheec": "ap-shenyang-ec",
    # seen in official samples, the region they mean is inferred
    "jkt": "ap-jakarta", "osa": "ap-osaka", "sao": "sa-saopaulo", "sa": "me-saudi-arabia",
    "qyxa": "ap-qingyuan-xinan", "shadc": "ap-shanghai-adc", "whec": "ap-wuhan-ec", "csec": "ap-changsha-ec",
    "hfeec": "ap-hefei-ec", "sjwec": "ap-shijiazhuang-ec", "cgoec": "ap-zhengzhou-ec", "xiyec": "ap-xian-ec",
    "xbec": "ap-xibei-ec",
    # third parties only
    "tor": "na-toronto",
}

# https://www.tencentcloud.com/document/product/239/4106, in both languages; the US as product/628/33133 names it;
# Sao Paulo in Chinese: DescribeRegions
REGION_NAMES = {
    "ap-guangzhou": ("South China (Guangzhou)", "华南地区(广州)"),
    "ap-shanghai": ("East China (Shanghai)", "华东地区(上海)"),
    "ap-nanjing": ("East China (Nanjing)", "华东地区(南京)"),
    "ap-beijing": ("North China (Beijing)", "华北地区(北京)"),
    "ap-chengdu": ("Southwest China (Chengdu)", "西南地区(成都)"),
    "ap-chongqing": ("Southwest China (Chongqing)", "西南地区(重庆)"),
    "ap-hongkong": ("Hong Kong/Macao/Taiwan (Hong Kong, China)", "港澳台地区(中国香港)"),
    "ap-singapore": ("Southeast Asia (Singapore)", "亚太东南(新加坡)"),
    "ap-jakarta": ("Southeast Asia (Jakarta)", "亚太东南(雅加达)"),
    "ap-bangkok": ("Southeast Asia (Bangkok)", "亚太东南(曼谷)"),
    "ap-seoul": ("Northeast Asia (Seoul)", "亚太东北(首尔)"),
    "ap-tokyo": ("Northeast Asia (Tokyo)", "亚太东北(东京)"), "ap-mumbai": ("South Asia (Mumbai)", "亚太南部(孟买)"),
    "na-siliconvalley": ("US West (Silicon Valley)", "美国西部(硅谷)"),
    "na-ashburn": ("US East (Virginia)", "美国东部(弗吉尼亚)"),
    "na-toronto": ("North America (Toronto)", "北美地区(多伦多)"),
    "sa-saopaulo": ("South America (Sao Paulo)", "南美地区(圣保罗)"),
    "eu-frankfurt": ("Europe (Frankfurt)", "欧洲地区(法兰克福)"),
    "eu-moscow": ("Europe (Moscow)", "欧洲地区(莫斯科)"),
}

_NO_SUCH_KEY = Meaning(PartyDenied, "wrong key: no enabled key has this id; it was mistyped, deleted or disabled")
ERRORS = {                                  # the exact code, or what stands before its first dot
    "AuthFailure": WRONG_KEY,
    "AuthFailure.SecretIdNotFound": _NO_SUCH_KEY,
    "AuthFailure.SignatureExpire": CLOCK,
    "AuthFailure.TokenFailure": WRONG_TOKEN,
    "AuthFailure.MFAFailure": MFA,
    "AuthFailure.UnauthorizedOperation": MISSING_RIGHT,
    "AuthFailure.CamRoleNameAuthenticateFailed": ROLE,
    "UnauthorizedOperation": MISSING_RIGHT,
    "UnauthorizedOperation.InvalidToken": WRONG_TOKEN,
    "UnauthorizedOperation.MFAExpired": MFA,
    "UnauthorizedOperation.MFANotFound": MFA,
    "UnauthorizedOperation.NoRealNameAuthentication": UNVERIFIED,
    "UnauthorizedOperation.NotCertification": UNVERIFIED,
    "UnauthorizedOperation.RoleNotExists": ROLE,
    "IpInBlacklist": ADDRESS,
    "IpNotInWhitelist": ADDRESS,
    "RequestLimitExceeded": THROTTLED,
    "UnsupportedRegion": REGION,
    "InvalidParameter": MALFORMED,
    "InvalidParameterValue": MALFORMED,
    "InvalidRequest": MALFORMED,
    "MissingParameter": MALFORMED,
    "UnknownParameter": MALFORMED,
    "UnsupportedOperation": MALFORMED,
    "InvalidAction": MALFORMED,
    "ActionOffline": MALFORMED,
    "NoSuchProduct": MALFORMED,
    "NoSuchVersion": MALFORMED,
    "UnsupportedProtocol": MALFORMED,
    "InternalError": FAILED,
    "ResourceUnavailable": FAILED,
}


class _Envelope(msgspec.Struct, Generic[_T]):
    Response: _T


def call(client: Client, service: str, version: str, action: str, region: str, url: str,
         query: Mapping[str, object], shape: type[_T]) -> _T:
    """`region`: "" if the action has none."""
    body = msgspec.json.encode(query)
    return client.call(action, lambda: sign(service, version, action, region, url, body, client.account, time.time()),
                       _Envelope[shape]).Response


def sign(service: str, version: str, action: str, region: str, url: str, body: bytes, account: Account,
         now: float) -> Request:
    """TC3-HMAC-SHA256. `now`: Unix time; the party allows five minutes of difference."""
    keys = account.credentials
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    content_type, host = "application/json; charset=utf-8", urlsplit(url).netloc
    canonical = "\n".join(("POST", "/", "", f"content-type:{content_type}", f"host:{host}", "",
                           "content-type;host", _sha256(body)))
    scope = f"{day}/{service}/tc3_request"
    to_sign = "\n".join(("TC3-HMAC-SHA256", str(int(now)), scope, _sha256(canonical.encode())))
    key = f"TC3{keys['secret_key']}".encode()
    for part in (day, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers = {
        "Authorization": f"TC3-HMAC-SHA256 Credential={keys['secret_id']}/{scope}, "
                         f"SignedHeaders=content-type;host, Signature={signature}",
        "Content-Type": content_type, "Host": host, "X-TC-Action": action, "X-TC-Version": version,
        "X-TC-Timestamp": str(int(now)), "X-TC-Language": "en-US"}
    if region:
        headers["X-TC-Region"] = region
    if "token" in keys:
        headers["X-TC-Token"] = keys["token"]
    return Request("POST", url, headers, body)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
