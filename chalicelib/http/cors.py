"""CORS: the pages of other origins that may read the API are those that the operator names, each exactly.

No page may use the credentials that a browser remembers: it sends the token itself.
https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Collection, Mapping, Sequence

_EXPOSED = ("Link, ETag, X-Total-Count, X-List-Id, X-Request-Id, X-Without-Address, Age, Cache-Status, Retry-After")
_ACCEPTED = "Authorization, Cache-Control, Content-Type, If-None-Match"
_SECONDS = 7200                             # that a browser keeps the answer to a preflight; Chromium keeps none longer


def is_allowed(origins: Collection[str], headers: Mapping[str, str]) -> bool:
    """`headers`: the request's, with lower-case names."""
    return headers.get("origin", "") in origins


def headers_for(origins: Collection[str], headers: Mapping[str, str], vary: str) -> dict[str, str]:
    """What every answer carries if any origin is allowed. `vary`: what the answer depends on anyway."""
    if not origins:
        return {}
    common = {"Vary": f"{vary}, Origin"}
    if not is_allowed(origins, headers):
        return common
    return {**common, "Access-Control-Allow-Origin": headers["origin"], "Access-Control-Expose-Headers": _EXPOSED}


def preflight(origins: Collection[str], headers: Mapping[str, str], methods: Sequence[str]) -> dict[str, str] | None:
    """The headers that answer a browser's question before a request; None if this is no such question, or one that an
    origin asks which may not."""
    if not is_allowed(origins, headers) or "access-control-request-method" not in headers:
        return None
    return {"Access-Control-Allow-Methods": ", ".join(methods), "Access-Control-Allow-Headers": _ACCEPTED,
            "Access-Control-Max-Age": str(_SECONDS)}
