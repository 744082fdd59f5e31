"""The custom authorizer: says who is calling, not what the caller may see.

A module of its own, so that its Lambda imports only what it needs. The gateway keeps the policy for TTL_SECONDS
for each Authorization header; the handler reads the token's row again each time and decides.
"""

import time
from collections.abc import Callable
from functools import cache

from chalice.app import AuthRequest, AuthResponse, AuthRoute, Blueprint

from .. import settings
from ..access import tokens
from ..errors import RateLimited, Unauthorized
from ..storage.store import Store, open_store

TTL_SECONDS = 300
# what else a header holds, the gateway refuses by itself (deploy/merge.yaml); without flags, which it may not take
HEADER_FORM = r"([Bb][Aa][Ss][Ii][Cc]|[Bb][Ee][Aa][Rr][Ee][Rr]) +\S+"
UNAUTHORIZED = "Unauthorized"               # the word that makes the gateway answer 401
PROOF = "proof"                             # in the policy's context: the handler need not check the password again
bp = Blueprint(__name__)
TOKENS = "/twocloud/tokens"


@cache
def _from_environment() -> Store:
    return open_store(settings.load().store, time.time)


_store: Callable[[], Store] = _from_environment
_clock: Callable[[], float] = time.time


def use(store: Store, clock: Callable[[], float]) -> None:
    """Use this store instead of the one that the environment names."""
    global _store, _clock
    _store, _clock = lambda: store, clock


@bp.authorizer(ttl_seconds=TTL_SECONDS)
def authorize(request: AuthRequest) -> AuthResponse:
    """A token opens every route, a user's password only the one that gives tokens. 401 for all else."""
    _, _, method, path = request.method_arn.split(":", 5)[5].split("/", 3)
    try:
        if method == "POST" and "/" + path.strip("/") == TOKENS:
            return _authorize_user(request.token)
        caller = tokens.identify(_store(), request.token, _clock())
        return AuthResponse(routes=["*"], principal_id=caller.token.token_id)
    except Unauthorized:
        raise Exception(UNAUTHORIZED) from None


def _authorize_user(header: str) -> AuthResponse:
    only_tokens: list[str | AuthRoute] = [AuthRoute(TOKENS, ["POST"])]
    now = _clock()
    try:
        user = tokens.authenticate(_store(), header, now)
    except RateLimited:                     # an authorizer cannot answer 429: let the handler say it
        return AuthResponse(routes=only_tokens, principal_id="blocked", context={"blocked": "1"})
    return AuthResponse(routes=only_tokens, principal_id=user.name, context={PROOF: tokens.proof(user, header, now)})
