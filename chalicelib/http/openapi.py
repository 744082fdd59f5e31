"""The OpenAPI 3.1 document, made from the parser of the query, the types of the answers and the errors."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal

import msgspec

from .. import __version__, errors, parties
from ..cloud.party import Party
from ..fleet import changes_query, visible
from ..fleet.lookup import Lookup
from ..fleet.query import PARAMETERS, Parameter
from ..model import IDENTIFIER, POSTPAID, PREPAID, SPOT, Status
from .formats import MEDIA_TYPES, BasicRow, ErrorBody, FullRow, ListBody
from .formats.events import ChangeEvent, ChangesBody
from .formats.prometheus import LABEL, TargetGroup

_SEED = {
    "instance_name": "hehe", "instance_id": "ins-u23j34j2", "cpu_num": 8, "mem_size": 16, "disk_size": 20,
    "lan_ip_set": "192.168.0.2,192.168.0.3", "wan_ip_set": "122.22.3.45,122.22.3.46", "status": "ACTIVE",
    "create_at": "2014-07-29 15:08:39", "update_at": "2014-08-05 17:37:56"}
_TIME = {"type": ["string", "null"], "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$"}
_TEXT = {"type": ["string", "null"], "minLength": 1}
_FIELDS: dict[str, dict[str, Any]] = {
    "instance_name": {"description": "The name at the party; may be empty."},
    "instance_id": {"description": "The id at the party."},
    "cpu_num": {"type": ["integer", "null"], "minimum": 0, "description": "Virtual CPUs; null: unknown."},
    "mem_size": {"type": ["integer", "null"], "minimum": 0, "description": "GB, rounded up; null: unknown."},
    "disk_size": {"type": ["integer", "null"], "minimum": 0,
                  "description": "GB, the sum of all attached disks, including the system disk; null: unknown."},
    "lan_ip_set": {"description": "Private IPv4 addresses, separated by commas, the primary first."},
    "wan_ip_set": {"description": "Public IPv4 addresses, separated by commas, the primary first."},
    "status": {"type": "string", "enum": list(Status),
               "description": "Nova's words, plus STARTING and STOPPING. UNKNOWN: the party's word is not in our "
                              "table."},
    "create_at": {**_TIME, "description": "In the deployment's time zone; null: unknown."},
    "update_at": {**_TIME, "description": "The party's own update time. If it has none: when twocloud last saw "
                                          "the record change; before that, `create_at`."},
    "party": {"type": "string", "enum": list(parties.names())},
    "party_status": {"description": "The party's own word for the status."},
    "lan_ipv6_set": {"description": "IPv6 addresses of private interfaces, separated by commas."},
    "wan_ipv6_set": {"description": "Public IPv6 addresses, separated by commas."},
    "seen_at": {**_TIME, "description": "When twocloud received this record from the party."},
    "account": {"description": "The name of the tenant's account at the party."},
    "image_id": {**_TEXT, "description": "The image that the server was made from; null: unknown."},
    "image_name": {**_TEXT, "description": "The name of that image; null: unknown."},
    "os": {**_TEXT, "pattern": "^[a-z][a-z0-9-]*$",
           "description": "The family of the operating system: `linux`, `windows` or another word in lower case that "
                          "the party states; null: unknown."},
    "vpc_id": {**_TEXT, "description": "The network of the primary interface; null: unknown or none."},
    "subnet_id": {**_TEXT, "description": "The subnet of the primary interface; null: unknown or none."},
    "security_group_set": {"type": ["string", "null"],
                           "description": "Ids of security groups, separated by commas; empty: none; null: unknown."},
    "key_name": {**_TEXT, "description": "The login key, by the name or id that the party gives, several separated by "
                                         "commas; null: unknown or none."},
    "charge_type": {"type": ["string", "null"], "enum": [PREPAID, POSTPAID, SPOT, None],
                    "description": "How the server is paid for; null: unknown."},
    "expires_at": {**_TIME, "description": "When a prepaid server ends, in the deployment's time zone; null: unknown."},
    "host_id": {**_TEXT, "description": "The hypervisor or dedicated host that the server runs on; null: unknown."},
    "console_url": {**_TEXT, "format": "uri",
                    "description": "The server's page in the party's own console; null: unknown."},
}


_INVENTORY: dict[str, Any] = {
    "type": "object", "description": "format=ansible: the variables of every host, and the groups by name.",
    "required": ["_meta", "all"],
    "properties": {
        "_meta": {"type": "object", "required": ["hostvars"], "additionalProperties": False, "properties": {
            "hostvars": {"type": "object", "additionalProperties": {"type": "object"}}}},
        "all": {"type": "object", "required": ["children"], "additionalProperties": False, "properties": {
            "children": {"type": "array", "items": {"type": "string"}}}}},
    "additionalProperties": {"type": "object", "required": ["hosts"], "additionalProperties": False, "properties": {
        "hosts": {"type": "array", "minItems": 1, "items": {"type": "string"}}}}}


class TokenBody(msgspec.Struct):
    code: int
    msg: str
    token: str
    token_id: str
    duration: int
    expires_at: str


_Names = Annotated[list[Annotated[str, msgspec.Meta(pattern=f"^{IDENTIFIER}$")]],
                   msgspec.Meta(min_length=1, max_length=100)]
_Tenants = Annotated[list[Annotated[str, msgspec.Meta(pattern=rf"^({IDENTIFIER}|\*)$")]],
                     msgspec.Meta(min_length=1, max_length=100)]


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Limits of the new token. Each must lie within the user's own."""

    duration: Annotated[int, msgspec.Meta(ge=60, le=43200)] = 600
    tenants: _Tenants | msgspec.UnsetType = msgspec.UNSET
    parties: _Names | msgspec.UnsetType = msgspec.UNSET
    regions: _Names | msgspec.UnsetType = msgspec.UNSET


class PartyRow(msgspec.Struct):
    """`credentials`: the accepted sets of fields, "?" marks optional ones. `regions`: code -> aliases. `region_names`:
    code -> what people call it, where that is known. `region_names_zh`: the same in Chinese, for clouds of China."""

    name: str
    title: str
    reference: str
    credentials: list[list[str]]
    permissions: list[str]
    deep_permissions: list[str]
    project: str
    default_region: str
    regions: dict[str, list[str]]
    grade: str
    region_names: dict[str, str]
    region_names_zh: dict[str, str]


class PartiesBody(msgspec.Struct):
    code: int
    msg: str
    parties: list[PartyRow]


class HealthBody(msgspec.Struct):
    """`late`: the service answers, but its schedule has missed two runs. `schedule_age`: seconds since the last run;
    null: there was none."""

    code: int
    msg: str
    status: Literal["ok", "late"]
    version: str
    schedule_age: Annotated[int, msgspec.Meta(ge=0)] | None


class AccountEntry(msgspec.Struct):
    """An account that the token opens. `regions`: those that the token covers; null: all that the party says are open
    to it. `discovered_by`: the account behind which it was found; null: it was put."""

    tenant_id: str
    party: str
    account: str
    regions: list[str] | None
    discovered_by: str | None


class MeBody(msgspec.Struct):
    """What the token opens. `tenants`: those that have accounts. `parties`, `regions`: null: all."""

    code: int
    msg: str
    user: str
    token_id: str
    expires_at: str | None
    tenants: list[str]
    parties: list[str] | None
    regions: list[str] | None
    accounts: list[AccountEntry]


def party_row(party: Party) -> PartyRow:
    regions: dict[str, list[str]] = {}
    for alias, code in sorted(party.aliases.items()):
        regions.setdefault(code, []).append(alias)
    return PartyRow(party.name, party.title, party.reference, [list(form) for form in party.credentials],
                    list(party.permissions), list(party.deep_permissions), party.project,
                    party.default_region, dict(sorted(regions.items())), party.grade,
                    dict(sorted(party.region_names().items())), dict(sorted(party.region_names_zh().items())))


def account_entries(lookup: Lookup) -> list[AccountEntry]:
    """The accounts that the caller may see, by tenant, party and name."""
    return [AccountEntry(it.tenant_id, it.party, it.account,
                         None if it.regions is None else list(it.regions), it.discovered_by)
            for it in visible.accounts(lookup)]


def instant(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def document() -> bytes:
    return msgspec.json.encode(_document())


def _document() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "twocloud", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"},
                 "description": "One GET lists any tenant's servers in any cloud, and never lies about what it knows."},
        "servers": [{"url": "/"}],
        "security": [{"basic": []}, {"bearer": []}],
        "tags": [{"name": "servers"}, {"name": "tokens"}, {"name": "service"}],
        "paths": {
            "/twocloud/servers": {"get": _list_operation("listServers"), "head": _list_operation("headServers")},
            "/twocloud/changes": {"get": _changes_operation("listChanges"), "head": _changes_operation("headChanges")},
            "/twocloud/tokens": {"post": _issue_operation(), "delete": _revoke_operation()},
            "/twocloud/parties": _read_paths("Parties", "List the parties (clouds) and what each "
                                                        "needs.", "PartiesBody", True),
            "/twocloud/me": _read_paths("Me", "Show the user, and the tenants and accounts that the token "
                                  "opens.", "MeBody", True, "TooLarge"),
            "/twocloud/metrics": {method: _metrics_operation(method) for method in ("get", "head")},
            "/twocloud/health": _read_paths("Health", "Whether the service and its schedule work.",
                                            "HealthBody", False),
            "/twocloud/openapi.json": _read_paths("Openapi", "This document.", None, False),
        },
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic",
                          "description": "The token as the user name; the password is ignored."},
                "bearer": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic", "description": "A user's name and password."}},
            "headers": _headers(),
            "schemas": _schemas(),
            "responses": {name: _error_response(*kinds) for name, kinds in _ERRORS.items()},
        },
    }


# ---------------------------------------------------------------- operations

_OF_CHANGES = ("X-Total-Count", "Link", "ETag", "Age", "Cache-Status")
_OF_A_LIST = (*_OF_CHANGES, "X-List-Id")


def _list_operation(name: str) -> dict[str, Any]:
    return {
        "operationId": name, "tags": ["servers"], "summary": "List a tenant's servers, from one source or many.",
        "parameters": [_parameter(p) for p in PARAMETERS] + [
            {"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"},
             "description": "The ETag of a list that the caller has. The answer is 304 if the list is unchanged."},
            {"name": "Cache-Control", "in": "header", "required": False, "schema": {"type": "string"},
             "description": "max-age, no-cache, only-if-cached, stale-if-error (RFC 9111, RFC 5861). The parameters "
                            "max_age and on_error take precedence."}],
        "responses": {
            "200": _list_response(head=name.startswith("head")),
            "304": {"description": "Not changed.", "headers": _header_refs(_OF_A_LIST)},
            **_errors("BadRequest", "Unauthorized", "Forbidden", "AccountNotFound", "MethodNotAllowed",
                      "ListChanged", "TooLarge", "RateLimited", "Internal", "PartyBad", "PartyBusy", "PartyLate",
                      head=name.startswith("head"))}}


def _list_response(*, head: bool) -> dict[str, Any]:
    response = _response("The complete list, in the form that `format` names.", "ListBody", head=head,
                      headers=(*_OF_A_LIST, "X-Without-Address"),
                      example={"code": 200, "msg": "", "vm_servers": [_SEED]})
    if not head:
        response["content"]["application/json"]["schema"] = {"anyOf": [
            {"$ref": "#/components/schemas/ListBody"}, {"$ref": "#/components/schemas/TargetGroups"},
            {"$ref": "#/components/schemas/AnsibleInventory"}]}
        for name, text in (("csv", "RFC 4180: a header row, then a line for each server."),
                           ("ndjson", "A BasicRow or FullRow on each line.")):
            response["content"][MEDIA_TYPES[name]] = {"schema": {"type": "string", "description": text}}
    return response


_CHANGE = {
    "at": "2026-11-23T08:00:00.000000Z", "kind": "changed", "tenant_id": "123", "party": "qcloud", "account": "default",
    "region": "ap-guangzhou", "instance_id": "ins-u23j34j2", "instance_name": "hehe",
    "fields": {"status": ["ACTIVE", "SHUTOFF"]}}


def _changes_operation(name: str) -> dict[str, Any]:
    head = name.startswith("head")
    response = _response("The changes, oldest first, in the form that `format` names.", "ChangesBody", head=head,
                      headers=_OF_CHANGES, example={"code": 200, "msg": "", "changes": [_CHANGE], "sources": []})
    if not head:
        for written, text in (("csv", "RFC 4180: a header row, then a line for each change."),
                              ("ndjson", "A ChangeEvent on each line.")):
            response["content"][MEDIA_TYPES[written]] = {"schema": {"type": "string", "description": text}}
    return {
        "operationId": name, "tags": ["servers"],
        "summary": "List what appeared, changed (from what to what) and vanished, from the snapshots.",
        "parameters": [*map(_parameter, changes_query.PARAMETERS),
                       {"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"},
                        "description": "The ETag of an earlier answer. The answer is 304 if nothing is new."}],
        "responses": {
            "200": response, "304": {"description": "Not changed.", "headers": _header_refs(_OF_CHANGES)},
            **_errors("BadRequest", "Unauthorized", "Forbidden", "AccountNotFound", "MethodNotAllowed", "TooLarge",
                      "RateLimited", "Internal", head=head)}}


def _issue_operation() -> dict[str, Any]:
    return {
        "operationId": "issueToken", "tags": ["tokens"], "summary": "Authenticate and get a new token.",
        "security": [{"password": []}],
        "requestBody": {"required": False, "content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/TokenRequest"}, "example": {"duration": 600}}}},
        "responses": {"200": _response("The token. It is never shown again.", "TokenBody"),
                      **_errors("BadRequest", "Unauthorized", "Forbidden", "MethodNotAllowed", "TooLarge",
                                "RateLimited", "Internal")}}


def _revoke_operation() -> dict[str, Any]:
    return {
        "operationId": "revokeToken", "tags": ["tokens"], "summary": "Revoke the token that the request is sent with.",
        "responses": {"204": {"description": "Revoked.", "headers": _header_refs(())},
                      **_errors("BadRequest", "Unauthorized", "MethodNotAllowed", "RateLimited", "Internal")}}


def _read_paths(name: str, summary: str, body: str | None, secured: bool, *more: str) -> dict[str, Any]:
    """`more`: errors that this path alone has."""
    return {method: _read_operation(f"{method}{name}", summary, body, secured, *more) for method in ("get", "head")}


def _read_operation(name: str, summary: str, body: str | None, secured: bool, *more: str) -> dict[str, Any]:
    head = name.startswith("head")
    known = ("BadRequest", *(("Unauthorized",) if secured else ()), "MethodNotAllowed", *more, "RateLimited",
             "Internal")
    return {"operationId": name, "tags": ["service"], "summary": summary, **({} if secured else {"security": []}),
            "responses": {"200": _response(summary, body, head=head), **_errors(*known, head=head)}}


_METRICS = """\
# HELP twocloud_servers Servers in the snapshot, by status.
# TYPE twocloud_servers gauge
twocloud_servers{account="default",party="qcloud",region="ap-guangzhou",status="ACTIVE",tenant_id="123"} 25.0
"""


def _metrics_operation(method: str) -> dict[str, Any]:
    operation = _read_operation(f"{method}Metrics", "Show the state of each source that the token opens, and what this "
                                "process did, for Prometheus.", None, True, "TooLarge")
    text = {"schema": {"type": "string"}, "example": _METRICS}
    if method == "get":
        operation["responses"]["200"]["content"] = {
            "text/plain; version=0.0.4; charset=utf-8": text,
            "application/openmetrics-text; version=1.0.0; charset=utf-8": {
                **text, "example": f"{_METRICS}# EOF\n"}}
    return {**operation, "parameters": [
        {"name": "Accept", "in": "header", "required": False, "schema": {"type": "string"},
         "description": "application/openmetrics-text for OpenMetrics 1.0; else the text format 0.0.4."}]}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    shown = {"example": parameter.example} if parameter.example is not None else {}
    return {"name": parameter.name, "in": "query", "required": parameter.required,
            "description": parameter.text, "schema": parameter.form.schema(), **shown}


# ---------------------------------------------------------------- responses

_ERRORS: dict[str, tuple[type[errors.TwocloudError], ...]] = {
    "BadRequest": (errors.InvalidParameter,),
    "Unauthorized": (errors.Unauthorized,),
    "Forbidden": (errors.Forbidden,),
    "AccountNotFound": (errors.AccountNotFound,),
    "MethodNotAllowed": (errors.MethodNotAllowed,),
    "ListChanged": (errors.ListChanged,),
    "TooLarge": (errors.TooLarge,),
    "RateLimited": (errors.RateLimited,),
    "Internal": (errors.Internal,),
    "PartyBad": (errors.PartyDenied, errors.PartyMalformed, errors.PartyFailed),
    "PartyBusy": (errors.PartyThrottled, errors.PartyUnavailable),
    "PartyLate": (errors.PartyTimeout,),
}
_EXTRA_HEADERS = {"Unauthorized": ("WWW-Authenticate",), "MethodNotAllowed": ("Allow",),
                  "RateLimited": ("Retry-After",), "PartyBusy": ("Retry-After",)}


def _errors(*names: str, head: bool = False) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for name in names:
        status = str(_ERRORS[name][0].status)
        responses[status] = ({"description": name, "headers": _header_refs(_EXTRA_HEADERS.get(name, ()))} if head
                         else {"$ref": f"#/components/responses/{name}"})
    return responses


def _error_response(*kinds: type[errors.TwocloudError]) -> dict[str, Any]:
    name = next(name for name, of in _ERRORS.items() if of == kinds)
    description = " ".join(f"`{kind.code}`: {kind.default}" for kind in kinds)
    example = {"code": kinds[0].status, "msg": kinds[0].default, "error": kinds[0].code, "request_id": "…"}
    return {"description": description,
            "headers": _header_refs(_EXTRA_HEADERS.get(name, ())),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}, "example": example}}}


def _response(text: str, body: str | None, *, head: bool = False, headers: Iterable[str] = (),
              example: object = None) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{body}"} if body else {"type": "object"}
    content: dict[str, Any] = {"application/json": {"schema": schema, **({"example": example} if example else {})}}
    return {"description": text, "headers": _header_refs(headers), **({} if head else {"content": content})}


def _headers() -> dict[str, Any]:
    def text(description: str, **schema: object) -> dict[str, Any]:
        return {"description": description, "schema": {"type": "string", **schema}}

    return {
        "X-Request-Id": text("Identifies this request in the service's log."),
        "X-Content-Type-Options": text("Always nosniff.", const="nosniff"),
        "Vary": text("Authorization, Accept-Encoding"),
        "Cache-Control": text("private, no-cache; errors, tokens and metrics: no-store"),
        "X-Total-Count": {"description": "How many servers or changes the whole list holds; absent if unknown.",
                          "schema": {"type": "integer", "minimum": 0}},
        "X-List-Id": text("Names the complete list that this is a part of: pass it as `list` to read more of it. "
                          "Only where that list is kept.", pattern="^[A-Za-z0-9_-]{1,64}$"),
        "Link": text("RFC 8288: the next and the previous range, if the query has f or t."),
        "X-Without-Address": {"description": "How many servers have no such address and so are no targets; only "
                              "with format=prometheus.", "schema": {"type": "integer", "minimum": 0}},
        "ETag": text("Weak: unchanged while the list is unchanged."),
        "Age": {"description": "Age of the oldest snapshot in the answer, in seconds; only if a snapshot is served.",
                "schema": {"type": "integer", "minimum": 0}},
        "Cache-Status": text("RFC 9211: `twocloud; hit` if a snapshot is served; `; detail=` and an error code follow "
                             "if the party failed.", pattern="^twocloud; hit(; detail=[a-z_]+)?$"),
        "WWW-Authenticate": text("Basic"),
        "Allow": text("The methods that this path supports."),
        "Retry-After": {"description": "Whole seconds to wait before a retry.",
                        "schema": {"type": "integer", "minimum": 1}},
    }


def _header_refs(more: Iterable[str]) -> dict[str, Any]:
    names = ("X-Request-Id", "X-Content-Type-Options", "Vary", "Cache-Control", *more)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(
        [ListBody, FullRow, BasicRow, ChangesBody, ChangeEvent, TargetGroup, ErrorBody, TokenBody, TokenRequest,
         PartiesBody, HealthBody, MeBody],
        ref_template="#/components/schemas/{name}")
    for name in ("BasicRow", "FullRow"):
        for key, schema in schemas[name]["properties"].items():
            schemas[name]["properties"][key] = {"type": "string", **schema, **_FIELDS.get(key, {})}
            schemas[name]["properties"][key].pop("anyOf", None)
    schemas["ChangeEvent"]["properties"] |= {
        "at": {"type": "string", "format": "date-time"}, "instance_name": {"type": ["string", "null"]},
        "kind": {"type": "string", "enum": list(changes_query.KINDS)},
        "fields": {"type": "object", "description": "Of `changed`: [before, after] of each field that differs.",
                   "additionalProperties": {"type": "array", "minItems": 2, "maxItems": 2, "items": {}}}}
    schemas["FullRow"]["properties"]["tags"] = {"type": "object", "additionalProperties": {"type": "string"}}
    schemas["BasicRow"]["example"] = _SEED
    schemas["ListBody"]["properties"]["vm_servers"] = {         # SDKs take the first that fits
        "type": "array", "items": {"anyOf": [{"$ref": "#/components/schemas/FullRow"},
                                             {"$ref": "#/components/schemas/BasicRow"}]}}
    schemas["TargetGroup"] |= {"description": "A server, for Prometheus.", "additionalProperties": False}
    schemas["TargetGroup"]["properties"]["targets"] |= {"minItems": 1, "maxItems": 1}
    schemas["TargetGroup"]["properties"]["labels"] |= {"propertyNames": {"pattern": f"^{LABEL}[a-zA-Z0-9_]*$"}}
    schemas["TargetGroups"] = {"type": "array", "items": {"$ref": "#/components/schemas/TargetGroup"},
                               "description": "format=prometheus"}
    schemas["AnsibleInventory"] = _INVENTORY
    schemas["TokenRequest"]["properties"]["parties"]["items"] = {"type": "string", "enum": list(parties.names())}
    for name, schema in schemas.items():
        schema["title"] = name
    return schemas
