"""HTTP in, HTTP out, without a framework: each path's work, and the one place where errors become answers."""

import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from .. import __version__, log, parties
from ..access import tokens, users
from ..cloud.calls import CallStats
from ..cloud.yaml_text import unique_keys
from ..errors import (
    Forbidden,
    InvalidParameter,
    MethodNotAllowed,
    NotFound,
    PartyError,
    RateLimited,
    TooLarge,
    TwocloudError,
    Unauthorized,
)
from ..fleet import changes, known_sources, many_sources, schedule
from ..fleet.changes_query import parse_changes
from ..fleet.counters import Counters
from ..fleet.lookup import Freshness, Lookup
from ..fleet.many_sources import Deployment
from ..fleet.query import MOST, Query, body_limits, link, shown
from ..fleet.query import parse as parse_query
from ..model import Window
from ..settings import Settings
from ..storage import store
from . import console, cors, formats, openapi
from .formats import events

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")           # that a gateway passes on
_LONGEST_AGE = 2 ** 31                      # seconds; RFC 9111, 1.2.2
STORE_ENDS = 0.5                            # seconds before its deadline from which a request asks the store nothing
_LARGEST_BODY = 16_384                      # of a request for a token
CHALLENGE = 'Basic realm="twocloud", charset="UTF-8"'
COMMON_HEADERS = {"X-Content-Type-Options": "nosniff", "Vary": "Authorization, Accept-Encoding"}


class HttpRequest(msgspec.Struct, frozen=True):
    """`pairs`: the query's names and values, decoded. `headers`: lower-case names. `path`: as the caller sees it.

    `prefix`: what a trusted proxy stripped from the path. `client`: the caller's address, "" if it is not known.
    `counters`: of what this process did; None: nobody counts.
    `deadline`: on time.monotonic's scale. `proof`: the authorizer's, that it has checked the password. `caller`: the
    token's, if its rows were read just now, for this very request.
    """

    method: str
    path: str
    pairs: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes
    request_id: str
    deadline: float
    proof: str = ""
    caller: tokens.Caller | None = None
    prefix: str = ""
    client: str = ""
    counters: Counters | None = None


class HttpResponse(msgspec.Struct, frozen=True):
    """The body is text in UTF-8. It is the whole body for HEAD as well: whoever writes to the wire drops it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class _Entry(msgspec.Struct):
    """What the log line of a request says beyond its answer."""

    fields: dict[str, object] = msgspec.field(default_factory=dict[str, object])
    stats: CallStats = msgspec.field(default_factory=CallStats)


View = Callable[[Deployment, HttpRequest, _Entry], HttpResponse]


def answer(deployment: Callable[[], Deployment], route: str, request: HttpRequest) -> HttpResponse:
    """What this path says to this request; never raises."""
    started, origins = time.monotonic(), frozenset[str]()
    entry = _Entry({"client": request.client} if request.client else {})
    try:
        here = deployment()
        origins = here.settings.cors_origins
        view = _view(route, request, origins)
        with store.within(request.deadline - STORE_ENDS):
            response = view(here, request, entry)
    except TwocloudError as error:
        if error.status == 500:
            log.failure(request_id=request.request_id, text=error.text)
        response = refusal(error, request.request_id)
        entry.fields["error"] = error.code
        if isinstance(error, PartyError) and error.party_code:
            entry.fields["party_word"] = error.party_code
    except Exception:
        log.failure(request_id=request.request_id)
        response = refusal(TwocloudError(), request.request_id)
        entry.fields["error"] = TwocloudError.code
    _mark(response, request.request_id, origins, request.headers)
    response.headers.setdefault("Cache-Control", "private, no-cache")
    log.request(request_id=request.request_id, method=request.method, route=route, status=response.status,
                    **entry.fields, bytes=len(response.body),
                    milliseconds=round((time.monotonic() - started) * 1000, 1), **entry.stats.line())
    return response


def _mark(response: HttpResponse, request_id: str, origins: Collection[str],
          headers: Mapping[str, str]) -> HttpResponse:
    """With the headers of every answer."""
    response.headers.update(COMMON_HEADERS | cors.headers_for(origins, headers, COMMON_HEADERS["Vary"]))
    response.headers["X-Request-Id"] = request_id
    return response


def refused(error: TwocloudError, request_id: str, origins: Collection[str] = (),
            headers: Mapping[str, str] = {}) -> HttpResponse:
    """The whole answer to a request that reached no path's work. `headers`: the request's."""
    return _mark(refusal(error, request_id), request_id, origins, headers)


def redirected(location: str, request_id: str) -> HttpResponse:
    """To another path. A relative location also works behind a proxy that strips a prefix."""
    return _mark(HttpResponse(302, {"Location": location, "Cache-Control": "no-store"}), request_id, (), {})


def grouped(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs as API Gateway passes them on: a repeated name stands where it came first."""
    many: dict[str, list[str]] = {}
    for name, value in pairs:
        many.setdefault(name, []).append(value)
    return [(name, value) for name, values in many.items() for value in values]


def refusal(error: TwocloudError, request_id: str) -> HttpResponse:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = CHALLENGE
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allow
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, PartyError) and error.status == 503:
        headers["Retry-After"] = str(formats.retry_after(error))
    return HttpResponse(error.status, headers, formats.error_json(error, request_id))


# ---------------------------------------------------------------- the views

def _servers(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    lookup, query = _open_lookup(deployment, request, entry, parse_query)
    try:
        fleet = many_sources.answer(lookup)
    finally:
        if len(lookup.decisions) == 1:
            entry.fields["why"] = next(iter(lookup.decisions.values())).why
    written = formats.write(fleet, query, deployment.settings.timezone)
    entry.fields["snapshot"] = fleet.served
    if fleet.failure:
        entry.fields["error"] = fleet.failure.code
    headers = {"Content-Type": formats.MEDIA_TYPES[query.format], "ETag": written.etag, **list_headers(fleet)}
    if written.without_address is not None:
        headers["X-Without-Address"] = str(written.without_address)
    if fleet.complete and (links := _links(request.prefix + request.path, query, fleet.total, fleet.list_id)):
        headers["Link"] = links
    if _matches(request.headers.get("if-none-match", ""), headers["ETag"]):
        return HttpResponse(304, headers)
    return HttpResponse(200, headers, written.body)


def _changes(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    lookup, query = _open_lookup(deployment, request, entry, parse_changes)
    lookup.freshness = changes.FROM_SNAPSHOTS
    history = changes.history(lookup)
    written = events.write_changes(history, query, deployment.settings.timezone, lookup.arrived, formats.LARGEST_ANSWER)
    headers = {"Content-Type": formats.MEDIA_TYPES[query.format], "ETag": written.etag,
               "X-Total-Count": str(written.total), **_age_of_changes(history, lookup.arrived, entry)}
    if links := _links(request.prefix + request.path, query, written.total):
        headers["Link"] = links
    if _matches(request.headers.get("if-none-match", ""), written.etag):
        return HttpResponse(304, headers)
    return HttpResponse(200, headers, written.body)


def _issue_token(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    refuse_other_sites(request.headers, deployment.settings.cors_origins)
    _no_query(request)
    user = tokens.authenticate_again(deployment.store, request.headers.get("authorization"), request.proof,
                                     deployment.clock())
    entry.fields["user"] = user.name
    duration, *limits = body_limits(_json_body(request))
    text, token = tokens.issue(deployment.store, user, tokens.Limits(*limits), duration, deployment.clock())
    log.audit(user.name, "token issue", token_id=token.token_id, user=user.name)
    body = openapi.TokenBody(200, "", text, token.token_id, duration, openapi.instant(token.expires_at))
    return _json(msgspec.json.encode(body), {"Cache-Control": "no-store"})


def _revoke_token(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    caller = _identify(deployment, request, entry)
    _no_query(request)
    tokens.revoke(deployment.store, caller.token.token_id)
    log.audit(caller.user.name, "token revoke", token_id=caller.token.token_id, user=caller.user.name)
    return HttpResponse(204, {})


def _parties(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    _identify(deployment, request, entry)
    _no_query(request)
    return _json(msgspec.json.encode(openapi.PartiesBody(200, "", [
        openapi.party_row(parties.load(name)) for name in parties.names()])))


def _me(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    caller = _identify(deployment, request, entry)
    _no_query(request)
    entries = openapi.account_entries(Lookup(deployment, deadline=request.deadline, caller=caller))
    limits = [None if names is None else list(names) for names in tokens.limits_of(caller)]
    expires = caller.token.expires_at
    body = msgspec.json.encode(openapi.MeBody(
        200, "", caller.user.name, caller.token.token_id, openapi.instant(expires) if expires else None,
        sorted({it.tenant_id for it in entries}), limits[0], limits[1], entries))
    if not formats.fits(body):
        raise TooLarge(f"This token opens {len(entries)} accounts, too many for one answer. Use a token that is "
                       "limited to fewer tenants.")
    return _json(body)


def _metrics(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    from . import metrics  # the library that it stands on takes a tenth of a second

    caller = _identify(deployment, request, entry)
    _no_query(request)
    lookup = Lookup(deployment, deadline=request.deadline, caller=caller)
    families = [*metrics.of_sources(known_sources.states(lookup), lookup.arrived),
                *metrics.of_service(schedule.last_run(deployment)),
                *(metrics.of_process(request.counters, caller) if request.counters else ())]
    media_type, body = metrics.write(families, request.headers.get("accept", ""))
    if not formats.fits(body):
        raise TooLarge("The metrics of all sources that this token opens are too large for one answer. Use several "
                       "tokens, each limited to some of the tenants.")
    return HttpResponse(200, {"Content-Type": media_type, "Cache-Control": "no-store"}, body)


def _openapi(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    _no_query(request)
    return _json(openapi.document())


def _health(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
    _no_query(request)
    ran = schedule.last_run(deployment)     # one read, for anybody may ask; raises if the store cannot be reached
    return _json(msgspec.json.encode(openapi.HealthBody(
        200, "", "late" if ran and ran.late else "ok", __version__, ran and ran.age)))


def _page(name: str) -> View:
    """A page of HTML; what its address carries beside the path is the page's own."""
    def view(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
        page = console.page(name)
        if _matches(request.headers.get("if-none-match", ""), page.headers["ETag"]):
            return HttpResponse(304, {**page.headers})
        return HttpResponse(200, {**page.headers}, page.body)

    return view


_CONSOLE, _REFERENCE = _page("console.html"), _page("reference.html")
PAGES: Mapping[str, Mapping[str, View]] = {                     # for people: not in the OpenAPI document
    "/twocloud": {"GET": _CONSOLE, "HEAD": _CONSOLE},           # and so /twocloud/: the gateway makes no difference
    "/twocloud/docs": {"GET": _REFERENCE, "HEAD": _REFERENCE},
}
ROUTES: Mapping[str, Mapping[str, View]] = {
    "/twocloud/servers": {"GET": _servers, "HEAD": _servers},
    "/twocloud/changes": {"GET": _changes, "HEAD": _changes},
    "/twocloud/tokens": {"POST": _issue_token, "DELETE": _revoke_token},
    "/twocloud/parties": {"GET": _parties, "HEAD": _parties},
    "/twocloud/me": {"GET": _me, "HEAD": _me},
    "/twocloud/metrics": {"GET": _metrics, "HEAD": _metrics},
    "/twocloud/openapi.json": {"GET": _openapi, "HEAD": _openapi},
    "/twocloud/health": {"GET": _health, "HEAD": _health},
    **PAGES,
}
OPEN_ROUTES = ("/twocloud/openapi.json", "/twocloud/health", *PAGES)                # without a token


def _view(route: str, request: HttpRequest, origins: Collection[str]) -> View:
    if route not in ROUTES:
        raise NotFound()
    if request.method in ROUTES[route]:
        return ROUTES[route][request.method]
    if request.method == "OPTIONS":
        permitted = cors.preflight(origins, request.headers, list(ROUTES[route]))
        if permitted is not None:
            return _no_content(permitted)
    raise MethodNotAllowed(", ".join(ROUTES[route]))


def _no_content(headers: dict[str, str]) -> View:
    def view(deployment: Deployment, request: HttpRequest, entry: _Entry) -> HttpResponse:
        return HttpResponse(204, headers)

    return view


# ---------------------------------------------------------------- how fresh

def freshness_of(query: Query, cache_control: str, settings: Settings) -> Freshness:
    """What the caller accepts: the parameters, else the request's Cache-Control (RFC 9111), else the settings."""
    directives = _directives(cache_control)
    cached = "only-if-cached" in directives and query.max_age != 0
    stale = settings.stale_if_error
    if query.on_error == "fail":
        stale = 0
    elif "on_error" not in query.parameters and (seconds := directives.get("stale-if-error")) is not None:
        stale = min(stale, seconds)
    usual = settings.max_age
    if query.changed_since is not None:
        usual = many_sources.ANY_AGE.max_age
    elif cached:
        usual = max(usual, settings.stale_if_error)
    requested = 0 if "no-cache" in directives else directives.get("max-age")
    max_age = query.max_age if query.max_age is not None else requested if requested is not None else usual
    return Freshness(max_age, stale, cached)


def _directives(header: str) -> dict[str, int | None]:
    """Names in lower case, with their seconds where there are some. What cannot be read is as good as not there; of
    one that is given twice the fewest seconds count."""
    directives: dict[str, int | None] = {}
    for part in header.split(","):
        name, _, value = part.strip().lower().partition("=")
        if not value:
            directives.setdefault(name, None)
        elif digits := re.fullmatch(r'([0-9]+)|"([0-9]+)"', value, re.ASCII):
            seconds = int(digits[1] or digits[2]) if len(value) < 12 else _LONGEST_AGE
            before = directives.get(name)
            directives[name] = min(seconds, _LONGEST_AGE if before is None else before)
    return directives


def list_headers(fleet: many_sources.Inventory) -> dict[str, str]:
    """What the headers of a list say of it: how many servers there are, how old it is, and what it is called. Age and
    Cache-Status (RFC 9211) only where a snapshot served."""
    headers = dict[str, str]()
    if fleet.total is not None:
        headers["X-Total-Count"] = str(fleet.total)
    if fleet.list_id is not None:
        headers["X-List-Id"] = fleet.list_id
    if fleet.from_snapshots:
        detail = f"; detail={fleet.failure.code}" if fleet.failure else ""
        headers["Age"] = str(max(part.age or 0 for part in fleet.from_snapshots))
        headers["Cache-Status"] = f"twocloud; hit{detail}"
    return headers


def _age_of_changes(history: changes.History, now: float, entry: _Entry) -> dict[str, str]:
    """The same for changes, which always come from snapshots. Of a source that was never listed the detail is
    `not_found`."""
    entry.fields["snapshot"] = "stale" if any(it.state == "stale" for it in history.sources) else "hit"
    failure = next((it.failure for it in history.sources if it.failure), None)
    detail = f"; detail={failure.code}" if failure else ""
    ages = [max(0, int(now) - int(it.head.seen_at)) for it in history.sources if it.head]
    return {**({"Age": str(max(ages))} if ages else {}), "Cache-Status": f"twocloud; hit{detail}"}


# ---------------------------------------------------------------- parts

Parse = Callable[[Sequence[tuple[str, str]]], Query]


def _open_lookup(deployment: Deployment, request: HttpRequest, entry: _Entry,
                 parse: Parse) -> tuple[Lookup, Query]:
    """The lookup that a request for servers or changes makes. The token is read first, then its user together
    with what the query needs: 401 comes before 400. Raises Unauthorized, InvalidParameter."""
    lookup, query = Lookup(deployment, deadline=request.deadline, stats=entry.stats), _parse(request, parse)
    token = request.caller.token if request.caller else tokens.identify_token(
        deployment.store, request.headers.get("authorization"))
    user = ("user", token.user)
    lookup.read([*([] if request.caller else [user]), *_places(deployment, token, query)])
    lookup.caller = request.caller or tokens.caller_of(token, users.of_row(lookup.row(user)), deployment.clock())
    entry.fields |= {"token_id": token.token_id, "user": token.user}
    if isinstance(query, InvalidParameter):
        raise query
    entry.fields |= {"tenant": query.parameters["tenant_id"], "party": query.parameters.get("party", "all"),
                     "region": query.parameters.get("region", "all")}
    lookup.query = query
    lookup.freshness = freshness_of(query, request.headers.get("cache-control", ""), deployment.settings)
    return lookup, query


def _places(deployment: Deployment, token: tokens.Token, query: Query | InvalidParameter) -> list[store.Place]:
    """What is worth reading before the caller is known for certain."""
    if isinstance(query, InvalidParameter) or not all(tokens.may_open(token, it) for it in query.tenants or ()):
        return []
    return many_sources.places(query, deployment.noted)


def _parse(request: HttpRequest, parse: Parse) -> Query | InvalidParameter:
    try:
        return parse(request.pairs)
    except InvalidParameter as wrong:
        return wrong


def _identify(deployment: Deployment, request: HttpRequest, entry: _Entry) -> tokens.Caller:
    caller = request.caller or tokens.identify(deployment.store, request.headers.get("authorization"),
                                               deployment.clock())
    entry.fields |= {"token_id": caller.token.token_id, "user": caller.user.name}
    return caller


def refuse_other_sites(headers: Mapping[str, str], origins: Collection[str]) -> None:
    """Another site's page must not make a browser guess passwords, or get a token with those that it remembers, unless
    the operator named its origin."""
    if not cors.is_allowed(origins, headers) and headers.get("sec-fetch-site", "").strip().lower() == "cross-site":
        raise Forbidden("Tokens are not issued to pages of other sites.")


def _no_query(request: HttpRequest) -> None:
    for name, _ in request.pairs:
        raise InvalidParameter(shown(name), "This path has no query parameters.")


def _json_body(request: HttpRequest) -> object:
    if not request.body.strip():
        return {}
    if len(request.body) > _LARGEST_BODY:
        raise TooLarge()
    try:
        return json.loads(request.body.decode(), object_pairs_hook=unique_keys(
            lambda key: InvalidParameter(shown(key), "The key is given more than once.")))
    except (ValueError, RecursionError):
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":      # valid JSON passes with any type: `curl -d` sends it as a form
            raise InvalidParameter("Content-Type", "Send the body as application/json.") from None
        raise InvalidParameter("body", "The body must be one JSON object.") from None


def _json(body: bytes, headers: Mapping[str, str] = {}) -> HttpResponse:
    return HttpResponse(200, {"Content-Type": "application/json", **headers}, body)


def _links(path: str, query: Query, total: int | None, list_id: str | None = None) -> str:
    """RFC 8288, relative to the host: it is the caller's to know which name and scheme it came by. They lead to parts
    of the same list where that is kept. `total` None: more follow the window."""
    if not query.ranged:
        return ""
    first, last = query.window.first, query.window.last
    links: list[str] = []
    if last is not None and (total is None or last < total):
        after = Window(last + 1, min(last + (last - first + 1), MOST))
        links.append(f'<{path}?{link(query, after, list_id)}>; rel="next"')
    before_last = first - 1 if total is None else min(first - 1, total)
    if before_last > 0:
        size = last - first + 1 if last is not None else before_last
        before = Window(max(1, before_last - size + 1), before_last)
        links.append(f'<{path}?{link(query, before, list_id)}>; rel="prev"')
    return ", ".join(links)


def _matches(header: str, tag: str) -> bool:
    """If-None-Match (RFC 9110, 13.1.2), compared weakly."""
    if header.strip() == "*":
        return True
    opaque = tag.removeprefix("W/")
    return any(part.strip().removeprefix("W/") == opaque for part in header.split(","))
