"""A simulator for Microsoft Azure: the login of an app registration, Resource Graph, subscriptions, sizes, locations,
resource groups.

Resource Graph's queries are really run, as far as the words where, project, order and limit go: a query without an
order gives random pages, one without `id` is not paged, what may not be read is left out in silence. Checked as the
real ones do: directory, secret, scope, the token's end, content type, $top from 1 to 1000, 15 queries in 5 seconds.
"""

import base64
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, parse_qsl
from zlib import crc32

import msgspec

from ...simulators.cloud import Branch, Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("eastus", "eastus2", "westeurope", "southeastasia", "chinaeast2")
DIRECTORY = "d1ec7027-0000-4000-8000-000000000000"
CLIENT = "c11e9700-0000-4000-8000-000000000000"
SUBSCRIPTION = "5ab5c219-0000-4000-8000-000000000000"
SIZES = {(1, 1): "Standard_B1s", (1, 2): "Standard_B1ms", (2, 4): "Standard_B2s", (2, 8): "Standard_B2ms",
         (4, 8): "Standard_F4s_v2", (4, 16): "Standard_D4s_v3", (8, 16): "Standard_F8s_v2", (8, 32): "Standard_D8s_v3",
         (16, 64): "Standard_D16s_v3"}
SCOPES = ("https://management.azure.com/.default", "https://management.chinacloudapi.cn/.default")
_COLUMNS = ("id", "name", "type", "tenantId", "kind", "location", "resourceGroup", "subscriptionId", "managedBy", "sku",
            "plan", "properties", "tags", "identity", "zones", "extendedLocation")
_POWER = {"running": "running", "stopped": "deallocated", "starting": "starting", "stopping": "deallocating"}
_PROVISIONING = {"pending": "Creating", "terminated": "Deleting"}
_LIFETIME = 3599
_CONTAINER = "microsoft.resources/subscriptions"
Row = dict[str, Any]


class _Refused(Exception):
    def __init__(self, status: int, body: dict[str, object]) -> None:
        super().__init__(status, body)


def _refused(status: int, code: str, detail: str = "") -> _Refused:
    details = {"details": [{"code": detail, "message": "Details follow."}]} if detail else {}
    return _Refused(status, {"error": {"code": code, "message": "The message is not for callers.", **details}})


class Azure(Simulator):
    """`secrets`: client id -> secret. `fleets`: region -> fleet, all in one subscription.

    `subscriptions`: of an organisation, id -> branch, in place of the one. `above`: see Organise. `hidden`:
    kinds of resources (in lower case) that may not be read. `late`: seconds by which its clock is ahead.
    """

    def __init__(self, secrets: Mapping[str, str], fleets: Mapping[str, Fleet], *, limited: bool = True,
                 subscriptions: Mapping[str, Branch] = {}, above: Mapping[str, str] = {}, late: float = 0.0,
                 port: int = 0, latency: float = 0.0) -> None:
        self.secrets = dict(secrets)
        self.fleets = dict(fleets)
        self.subscriptions = dict(subscriptions) or {SUBSCRIPTION: Branch(name="simulator", fleets=self.fleets)}
        self.above = dict(above)
        self.ids = {branch.name: key for key, branch in self.subscriptions.items()}
        self.units = {"": DIRECTORY, **{name: f"mg-{crc32(name.encode()):08x}" for name in above}}
        self.cut = False                                        # only a part of the subscriptions is searched
        self.hidden: set[str] = set()
        self.late = late
        self.tokens: dict[str, float] = {}                      # -> when it ends, by the simulator's clock
        self._rate = Rate(15, 5.0) if limited else None
        self._rows: dict[str, list[Row]] = {}                   # kind -> rows, ordered by id
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        if call.path.endswith("/oauth2/v2.0/token"):
            return "Login"
        if call.path.lower() == "/providers/microsoft.resourcegraph/resources":
            kind = re.search(rb"type =~ '[a-z.]+/([a-z]+)'", call.body)
            return f"Query {kind[1].decode()}" if kind else "Query"
        if call.path == "/subscriptions":
            return "ListSubscriptions"
        return call.path.rpartition("/")[2]

    def answer(self, call: Call) -> Answer:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        try:
            body, status = (self._login(call) if call.operation == "Login" else self._answer(call)), 200
            if self.cut and call.operation.startswith("Query"):
                headers |= {"x-ms-tenant-subscription-limit-hit": "true"}
        except _Refused as refused:
            status, body = refused.args
            if status == 429:
                headers |= {"x-ms-user-quota-remaining": "0", "x-ms-user-quota-resets-after": "00:00:05"}
        return Answer(status, headers, msgspec.json.encode(body))

    # ---------------------------------------------------------------- login

    def _login(self, call: Call) -> dict[str, object]:
        form = dict(parse_qsl(call.body.decode()))
        if call.path != f"/{DIRECTORY}/oauth2/v2.0/token":
            raise _token_refused(400, "invalid_request", 90002)
        if form.get("grant_type") != "client_credentials" or form.get("scope") not in SCOPES:
            raise _token_refused(400, "invalid_scope", 70011)
        if form.get("client_id") not in self.secrets:
            raise _token_refused(400, "unauthorized_client", 700016)
        if form.get("client_secret") != self.secrets[form["client_id"]]:
            raise _token_refused(401, "invalid_client", 7000215)
        token = f"eyJ0.{uuid.uuid4().hex}.{uuid.uuid4().hex}"
        self.tokens[token] = time.time() + self.late + _LIFETIME
        return {"token_type": "Bearer", "expires_in": _LIFETIME, "ext_expires_in": _LIFETIME, "access_token": token}

    def _answer(self, call: Call) -> dict[str, Any]:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.tokens:
            raise _refused(401, "InvalidAuthenticationToken")
        if self.tokens[token] <= time.time() + self.late:
            raise _refused(401, "ExpiredAuthenticationToken")
        if not re.fullmatch(r"20\d\d-\d\d-\d\d", parse_qs(call.query).get("api-version", [""])[0]):
            raise _refused(400, "MissingApiVersionParameter")
        if call.operation.startswith("Query"):
            return self._query(call, token)
        if call.path == "/subscriptions":
            return self._list_subscriptions(parse_qs(call.query))
        match = re.fullmatch(r"/subscriptions/([^/]+)(/.+)", call.path)
        branch = self.subscriptions.get(match[1]) if match else None
        if not match or branch is None or branch.locked:
            raise _refused(404, "SubscriptionNotFound")
        if branch.closed:
            raise _refused(409, "DisabledSubscription")
        subscription, rest = match.groups()
        if rest == "/locations":
            return {"value": [_location(subscription, name, kind) for name, kind in (
                *((name, "Physical") for name in REGIONS), ("europe", "Logical"))]}
        if sizes := re.fullmatch(r"/providers/Microsoft\.Compute/locations/([^/]+)/vmSizes", rest):
            if sizes[1] not in REGIONS:
                raise _refused(400, "NoRegisteredProviderFound")
            return {"value": [
                {"name": name, "numberOfCores": cpu, "osDiskSizeInMB": 1047552, "resourceDiskSizeInMB": 0,
                 "memoryInMB": memory * 1024, "maxDataDiskCount": 16} for (cpu, memory), name in SIZES.items()]}
        if group := re.fullmatch(r"/resourcegroups/([^/]+)", rest):
            if group[1].lower() not in ("rg-0", "rg-1002189"):
                raise _refused(404, "ResourceGroupNotFound")
            return {"id": f"/subscriptions/{subscription}/resourceGroups/{group[1]}", "name": group[1],
                    "location": "eastus", "type": "Microsoft.Resources/resourceGroups",
                    "properties": {"provisioningState": "Succeeded"}}
        raise _refused(404, "InvalidResourceType")

    def _list_subscriptions(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Fifty to a page; the next page's address is at this host."""
        shown = [self._subscription(key, branch) for key, branch in self.subscriptions.items() if not branch.locked]
        try:
            at = int(base64.b64decode(query["$skiptoken"][0])) if "$skiptoken" in query else 0
        except ValueError:
            raise _refused(400, "InvalidSkipToken") from None
        more = {"nextLink": f"{self.url}/subscriptions?api-version={query['api-version'][0]}&$skiptoken="
                            f"{base64.b64encode(str(at + 50).encode()).decode()}"} if at + 50 < len(shown) else {}
        return {"value": shown[at:at + 50], "count": {"type": "Total", "value": len(shown)}, **more}

    def _subscription(self, key: str, branch: Branch) -> dict[str, object]:
        return {"id": f"/subscriptions/{key}", "subscriptionId": key, "tenantId": DIRECTORY, "displayName": branch.name,
                "state": "Disabled" if branch.closed else "Enabled", "authorizationSource": "RoleBased",
                "managedByTenants": [], "subscriptionPolicies": {"spendingLimit": "Off"}}

    # ---------------------------------------------------------------- Resource Graph

    def _query(self, call: Call, token: str) -> dict[str, Any]:
        if call.method != "POST" or call.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise _refused(500, "InternalServerError")
        if self._rate and not self._rate.allows(token, call.at):
            raise _refused(429, "RateLimiting")
        try:
            request = msgspec.json.decode(call.body, type=dict[str, Any])
            options: dict[str, Any] = request.get("options") or {}
            table, stages = _parsed(request["query"])
            within = self._scope(request)
            rows, ordered, limited = _run(stages, lambda kind: [
                row for row in self._table(table, kind) if row["subscriptionId"] in within])
        except (LookupError, ValueError):
            raise _refused(400, "BadRequest", "InvalidQuery") from None
        top, skip = options.get("$top", 1000), options.get("$skip", 0)
        if type(top) is not int or not 1 <= top <= 1000 or type(skip) is not int or skip < 0:
            raise _refused(400, "BadRequest", "QueryOptionsInvalid")
        if follow := options.get("$skipToken"):
            skip, top = (int(number) for number in base64.b64decode(follow).split(b","))
        if not ordered:
            random.shuffle(rows)
        page = rows[:top] if limited else rows[skip:skip + top]
        more = not limited and bool(page) and "id" in page[0] and skip + len(page) < len(rows)
        body: dict[str, Any] = {
            "totalRecords": len(rows), "count": len(page), "facets": [],
            "resultTruncated": "true" if len(page) < len(rows) and not more else "false",
            "data": page if options.get("resultFormat", "objectArray") == "objectArray" else _as_table(page)}
        if more:
            body["$skipToken"] = base64.b64encode(f"{skip + len(page)},{top}".encode()).decode()
        return body

    def _scope(self, request: Mapping[str, Any]) -> set[str]:
        """The subscriptions that a query searches; those that may not be read are left out in silence."""
        readable = {key for key, branch in self.subscriptions.items() if not branch.locked}
        if groups := request.get("managementGroups"):
            names = {name for name, key in self.units.items() if key in groups}
            if len(names) != len(groups):
                raise _refused(403, "AuthorizationFailed")
            while more := {name for name, above in self.above.items() if above in names} - names:
                names |= more
            return {key for key in readable if self.subscriptions[key].unit in names or self.units[""] in groups}
        wanted = [each.lower() for each in request.get("subscriptions") or ()]
        if len(wanted) > 1000:
            raise ValueError
        return readable & set(wanted)

    def _table(self, table: str, kind: str) -> list[Row]:
        """Every readable resource of the kind ("": of all kinds), in all regions."""
        if not self._rows:
            made = [row for key, branch in self.subscriptions.items() if not branch.closed
                    for region, fleet in branch.fleets.items() for n in range(len(fleet))
                    for row in _resources(fleet[n], region, key)]
            rows: dict[str, list[Row]] = {}                     # whole before another call can see them
            for row in sorted(made, key=lambda row: row["id"]):
                rows.setdefault(row["type"], []).append(row)
            rows[_CONTAINER] = [
                {"id": f"/subscriptions/{key}", "name": branch.name, "type": _CONTAINER, "subscriptionId": key,
                 "properties": {"state": "Disabled" if branch.closed else "Enabled"}}
                for key, branch in sorted(self.subscriptions.items())]
            self._rows = rows
        return [row for name, rows in self._rows.items() if kind in ("", name) and name not in self.hidden
                and (name == _CONTAINER) == (table == "resourcecontainers") for row in rows]


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"directory_id": DIRECTORY, "client_id": CLIENT, "client_secret": secret,
                               "subscription_id": SUBSCRIPTION}
    return Azure({CLIENT: secret}, fleets, limited=limited, latency=latency), keys


def organise(branches: Sequence[Branch], secret: str, *, units: Mapping[str, str] = {}, limited: bool = True,
             latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    subscriptions = {str(uuid.uuid5(uuid.NAMESPACE_OID, f"{n} {branch.name}")): branch
                     for n, branch in enumerate(branches)}
    keys: dict[str, object] = {"directory_id": DIRECTORY, "client_id": CLIENT, "client_secret": secret,
                               "subscription_id": next(iter(subscriptions))}
    return Azure({CLIENT: secret}, {}, subscriptions=subscriptions, above=units, limited=limited, latency=latency), keys


CLOUDS = {"azure": Cloud("eastus", start, organise=organise, least=Least(
    calls=1 + 1 + 2 + 1 + 2 + 1, trips=3, window_calls=6, window_trips=4, rate=(15, 5.0),
    why="The login; by 1,000 to a page with a total 1 of servers, 2 of interfaces, 1 of public addresses, 2 of "
        "disks; the sizes. The first pages of all kinds can be read concurrently. A window's interfaces and disks "
        "can be read once its servers are known, their addresses after that."))}


def _token_refused(status: int, error: str, number: int) -> _Refused:
    return _Refused(status, {"error": error, "error_description": f"AADSTS{number}: The message is not for callers.",
                             "error_codes": [number], "trace_id": str(uuid.uuid4())})


def _location(subscription: str, name: str, kind: str) -> dict[str, object]:
    return {"id": f"/subscriptions/{subscription}/locations/{name}", "name": name, "type": "Region",
            "displayName": name.title(), "regionalDisplayName": name.title(), "metadata": {"regionType": kind}}


# ---------------------------------------------------------------- the machines as resources

def _resources(machine: Machine, region: str, subscription: str) -> list[Row]:
    """A server, its interfaces (the first address on the primary one), public addresses and disks.

    What names another resource spells its resource group in upper case, as recorded rows do.
    """
    group = f"rg-{machine.project}"

    def row(kind: str, name: str, properties: Row, **more: object) -> Row:
        provider, _, short = kind.partition("/")
        return {"id": f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{provider}/{short}/{name}",
                "name": name, "type": kind.lower(), "tenantId": DIRECTORY, "kind": "", "location": region,
                "resourceGroup": group, "subscriptionId": subscription, "managedBy": "", "sku": None, "plan": None,
                "properties": properties, "tags": None, "identity": None, "zones": None, "extendedLocation": None,
                **more}

    def named(resource: Row) -> dict[str, object]:
        return {"id": resource["id"].replace(group, group.upper())}

    public = [row("Microsoft.Network/publicIPAddresses", f"{machine.name}-ip{n}",
                  {"ipAddress": ip, "publicIPAddressVersion": "IPv4", "publicIPAllocationMethod": "Static"})
              for n, ip in enumerate(machine.wan)]
    interfaces = [row("Microsoft.Network/networkInterfaces", f"{machine.name}-nic{n}", {
        "primary": n == 0, "provisioningState": "Succeeded", "ipConfigurations": [{"name": "ipconfig1", "properties": {
            "privateIPAddress": ip, "privateIPAddressVersion": "IPv4", "primary": True,
            "subnet": {"id": f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network/"
                             "virtualNetworks/net/subnets/default"},
            **({"publicIPAddress": named(public[n])} if n < len(public) else {})}}]})
        for n, ip in enumerate(machine.lan)]
    disks = [row("Microsoft.Compute/disks", f"{machine.name}_disk{n}",
                 {"diskSizeGB": size, "diskState": "Attached", "provisioningState": "Succeeded"})
             for n, size in enumerate(machine.disks)]
    attached = [named(nic) | {"properties": {"primary": n == 0}} for n, nic in enumerate(interfaces)]
    power = _POWER.get(machine.state)
    properties: Row = {
        "vmId": str(uuid.uuid5(uuid.NAMESPACE_OID, machine.key)), "hardwareProfile": {
            "vmSize": SIZES.get((machine.cpu, machine.memory_gib), "Standard_F8s_v2")},
        "provisioningState": _PROVISIONING.get(machine.state, "Succeeded"),
        "timeCreated": f"{machine.created:%Y-%m-%dT%H:%M:%S}.1234567+00:00",
        "networkProfile": {"networkInterfaces": attached[::-1]}, "storageProfile": {
            "osDisk": {"name": disks[0]["name"], "osType": "Linux", "managedDisk": named(disks[0])},
            "imageReference": {"publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server",
                               "version": "latest"},
            "dataDisks": [{"lun": n, "name": disk["name"], "managedDisk": named(disk)}
                          for n, disk in enumerate(disks[1:])]}}
    if power:
        properties["extended"] = {"instanceView": {"powerState": {
            "code": f"PowerState/{power}", "displayStatus": f"VM {power}", "level": "Info"}}}
    return [row("Microsoft.Compute/virtualMachines", machine.name, properties, zones=[str(machine.zone)],
                tags=machine.tags or None), *interfaces, *public, *disks]


# ---------------------------------------------------------------- the query language, as far as it goes here

def _parsed(query: str) -> tuple[str, list[list[str]]]:
    """The table, and the words of each stage. Raises ValueError where the language is another."""
    words = re.findall(r"'(?:[^'\\]|\\.)*'|=~|==|in~|[A-Za-z_][A-Za-z0-9_.]*|[0-9]+|\S", query)
    stages: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    table = " ".join(stages[0]).lower()
    if table not in ("resources", "resourcecontainers"):
        raise ValueError
    return table, stages[1:]


def _run(stages: list[list[str]], table: Callable[[str], list[Row]]) -> tuple[list[Row], bool, bool]:
    """The rows, whether they are ordered, and whether their number was limited."""
    kind = next((stage[3] for stage in stages if stage[1:3] == ["type", "=~"]), "''")
    rows: list[Row] = table(_text(kind).lower())
    ordered = limited = False
    for verb, *words in stages:
        if verb == "where":
            while words:
                path, sign, words = words[0], words[1], words[2:]
                end = words.index(")") + 1 if sign == "in~" else 1
                values = {_text(word).lower() for word in words[:end] if word.startswith("'")}
                rows = [row for row in rows if str(_at(row, path)).lower() in values]
                if sign not in ("=~", "in~") or words[end:end + 1] not in ([], ["and"]):
                    raise ValueError
                words = words[end + 1:]
        elif verb == "project":
            columns = [_column(item.split()) for item in " ".join(words).split(" , ")]
            rows = [Row({name: read(row) for name, read in columns}) for row in rows]
        elif verb == "order" and words[0] == "by" and words[2:] in ([], ["asc"], ["desc"]):
            by = words[1]
            rows.sort(key=lambda row: str(_at(row, by)), reverse=words[2:] != ["asc"])
            ordered = True
        elif verb in ("limit", "take"):
            rows, limited = rows[:int(words[0])], True
        else:
            raise ValueError
    return rows, ordered, limited


def _column(words: list[str]) -> tuple[str, Callable[[Row], object]]:
    """`path`, `name=path` or `name=function(path)`."""
    name, value = (words[0], words[2:]) if words[1:2] == ["="] else (words[0], words)
    convert: dict[str, Callable[[Any], object]] = {
        "tostring": lambda value: "" if value is None else str(value), "toint": lambda value: value,
        "tobool": lambda value: value}
    if len(value) == 1:
        return name, lambda row: _at(row, value[0])
    if len(value) != 4 or value[0] not in convert or value[1] + value[3] != "()":
        raise ValueError
    return name, lambda row: convert[value[0]](_at(row, value[2]))


def _at(row: Any, path: str) -> Any:
    column, *rest = path.split(".")
    if column not in row and column not in _COLUMNS:
        raise ValueError
    value = row.get(column)
    for part in rest:
        value = value.get(part) if isinstance(value, dict) else None        # type: ignore[reportUnknownMemberType]
    return value                            # type: ignore[reportUnknownVariableType]


def _text(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal[1:-1])


def _as_table(page: list[Row]) -> dict[str, object]:
    names = list(page[0]) if page else []
    return {"columns": [{"name": name, "type": "object"} for name in names],
            "rows": [[row[name] for name in names] for row in page]}
