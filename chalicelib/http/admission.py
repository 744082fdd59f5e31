"""Who is calling: which Authorization header opens which path.

The Lambda authorizer and `serve` both ask here. The handler reads the token's row again and decides what the caller
may see.
"""

from typing import NamedTuple

from ..access import tokens
from ..errors import RateLimited
from ..storage.store import Store

TOKENS = "/twocloud/tokens"
# what else a header holds, the gateway refuses by itself (packaging/merge.yaml); without flags, which it may not take
HEADER_FORM = r"([Bb][Aa][Ss][Ii][Cc]|[Bb][Ee][Aa][Rr][Ee][Rr]) +\S+"


class Admission(NamedTuple):
    """`name`: the token's id or the user's name. `caller`: the token's; a token opens every route, a password only the
    one that gives tokens. `proof`: the handler need not check the password again. `blocked`: too many passwords; the
    handler says so.
    """

    name: str
    caller: tokens.Caller | None = None
    proof: str = ""
    blocked: bool = False


def admit(store: Store, method: str, path: str, header: str, now: float) -> Admission:
    """Raises Unauthorized."""
    if method == "POST" and "/" + path.strip("/") == TOKENS:
        try:
            user = tokens.authenticate(store, header, now)
        except RateLimited:                 # an authorizer cannot answer 429: let the handler say it
            return Admission("blocked", blocked=True)
        return Admission(user.name, proof=tokens.proof(user, header, now))
    caller = tokens.identify(store, header, now)
    return Admission(caller.token.token_id, caller)
