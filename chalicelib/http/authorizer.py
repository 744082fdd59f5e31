"""The custom authorizer: says who is calling, not what the caller may see.

A module of its own, so that its Lambda imports only what it needs. The gateway keeps the policy for TTL_SECONDS
for each Authorization header; the handler reads the token's row again each time and decides.
"""

import time
from collections.abc import Callable
from functools import cache

from chalice.app import AuthRequest, AuthResponse, AuthRoute, Blueprint

from .. import settings
from ..errors import Unauthorized
from ..storage.store import Store, open_store
from .admission import TOKENS, admit

TTL_SECONDS = 300
UNAUTHORIZED = "Unauthorized"               # the word that makes the gateway answer 401
PROOF = "proof"                             # in the policy's context: the handler need not check the password again
bp = Blueprint(__name__)


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
    method, path = _called(request.method_arn)
    try:
        admitted = admit(_store(), method, path, _text(request.token), _clock())
    except Unauthorized:
        raise Exception(UNAUTHORIZED) from None
    opened: list[str | AuthRoute] = ["*"] if admitted.caller else [AuthRoute(TOKENS, ["POST"])]
    context = {"blocked": "1"} if admitted.blocked else {PROOF: admitted.proof} if admitted.proof else {}
    return AuthResponse(routes=opened, principal_id=admitted.name, context=context)


def _called(method_arn: object) -> tuple[str, str]:
    """arn:PARTITION:execute-api:REGION:ACCOUNT:API/STAGE/METHOD/PATH; the gateway's test console sends odd ones."""
    parts = _text(method_arn).rpartition(":")[2].split("/", 3)
    return (parts[2], parts[3]) if len(parts) == 4 else ("", "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
