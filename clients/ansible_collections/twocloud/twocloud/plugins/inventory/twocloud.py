# Copyright: (c) 2026, twocloud contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Knows the API alone: nothing of twocloud's own code is imported."""

from __future__ import annotations

DOCUMENTATION = r"""
name: twocloud
short_description: The servers of a tenant in any cloud, as twocloud lists them
description:
  - One request to C(GET /twocloud/servers) gives every host. The source is a YAML file whose name ends in
    C(twocloud.yml) or C(twocloud.yaml).
  - Each field of the full view is a variable C(twocloud_...) of its host. In O(compose), O(groups) and O(keyed_groups)
    the fields also go by their own names, such as C(status).
  - Names, tags and everything else from a cloud is data to Ansible. Templates in it are not run.
  - If the list is not complete, the plugin fails and says why, with the request id. Ansible only warns about a source
    that fails and continues without its hosts, with exit code 0, unless
    C(ANSIBLE_INVENTORY_UNPARSED_FAILED) or C(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED) is true. Set one of them.
  - If a cloud fails, its snapshot is used with a warning. See O(on_error).
author:
  - twocloud contributors (@twocloud)
extends_documentation_fragment:
  - constructed
  - inventory_cache
notes:
  - Every option except O(compose), O(groups), O(keyed_groups) and O(hostnames) may be a template, such as
    C({{ lookup('ansible.builtin.file', 'token.secret') }}). It sees the variables given with C(--extra-vars).
  - An option that does not exist is an error.
  - The cache holds the list without the token. A run with another token or other options does not use it.
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [twocloud.twocloud.twocloud]
  url:
    description:
      - The address of twocloud, without C(/twocloud/servers).
      - It must be https, or http on this machine. Redirects are refused, since they would carry the token elsewhere.
    type: str
    required: true
    env:
      - name: TWOCLOUD_URL
  token:
    description:
      - A token of this twocloud. Keep it in the environment, in O(token_file) or in a vault rather than in this file.
      - One of O(token) and O(token_file) must be given; the file wins.
    type: str
    env:
      - name: TWOCLOUD_TOKEN
  token_file:
    description: A file that holds only the token.
    type: path
    env:
      - name: TWOCLOUD_TOKEN_FILE
  tenant_id:
    description:
      - The tenant, several separated by commas, or V(all). Quote it, or YAML takes C(007) for a number.
    type: str
    required: true
  party:
    description: The clouds; V(all) is every one at which the tenant has an account.
    type: list
    elements: str
    default: [all]
  region:
    description: The regions, by their codes or aliases; V(all) is every one that the accounts name.
    type: list
    elements: str
    default: [all]
  account:
    description: The tenant's accounts at the clouds, by their names; V(all) is every one.
    type: list
    elements: str
  status:
    description: Only servers with this status, such as V(ACTIVE), or with one of several separated by commas.
    type: str
  tag:
    description: Only servers with this tag, as V(KEY) or V(KEY=VALUE).
    type: str
  name:
    description: Only servers whose name contains this text.
    type: str
  max_age:
    description: Accept a snapshot up to this many seconds old; V(0) always queries the clouds..
    type: int
  on_error:
    description: If a cloud fails, V(stale) uses its snapshot and warns, V(fail) fails.
    type: str
    choices: [stale, fail]
    default: stale
  hostnames:
    description:
      - What a host is called. Each entry is V(instance_name), V(instance_id), V(lan_ip), V(wan_ip), an expression over
        the fields as in O(compose), such as C(instance_name ~ '.' ~ region), or a template with braces.
      - The first entry decides that gives a name which can be a host's name, is no other server's id and no other
        server has. Without one it is the id, and if that is there twice, party, account (if it has a name), region
        and id.
      - Letters, digits, C(_), C(.) and C(-) can be in a host's name. V(localhost) and names like those of groups, such
        as C(tag_web), cannot be one.
      - If another source already has a host of that name and it is another machine, the plugin fails. Make the names
        differ with O(hostnames) or O(host_prefix).
    type: list
    elements: str
    default: [instance_name]
  host_prefix:
    description: A text before the name of every host, such as V(aws-), to keep the hosts of two files apart.
    type: str
    default: ""
  address:
    description:
      - What C(ansible_host) is. V(any) is the first public address, else the first private one; V(wan) and V(lan) are
        only these; IPv4 comes before IPv6. Left out if there is none.
    type: str
    choices: [any, wan, lan]
    default: any
  timeout:
    description: Seconds to wait for the answer. twocloud takes at most 25.
    type: int
    default: 30
  validate_certs:
    description: Check the server's certificate.
    type: bool
    default: true
  ca_path:
    description: A file with the certificates to trust, instead of the machine's.
    type: path
"""

EXAMPLES = r"""
# servers.twocloud.yml, with the token in TWOCLOUD_TOKEN:
#   ANSIBLE_INVENTORY_UNPARSED_FAILED=1 ansible-inventory -i servers.twocloud.yml --graph
plugin: twocloud.twocloud.twocloud
url: https://twocloud.example.org
tenant_id: "123"
keyed_groups:
  - {prefix: party, key: party}
  - {prefix: region, key: region}
  - {prefix: status, key: status}
  - {prefix: tag, key: tags}
groups:
  big: (cpu_num or 0) >= 8
compose:
  ansible_user: "'debian'"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ansible-twocloud
cache_timeout: 300
"""

import difflib
import hashlib
import ipaddress
import json
import re
from collections import Counter
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qsl, urlencode, urlsplit

from ansible.errors import AnsibleParserError
from ansible.module_utils.urls import ConnectionError as NoConnection
from ansible.module_utils.urls import SSLValidationError, open_url
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

try:
    from ansible.utils.unsafe_proxy import wrap_var
except ImportError:  # it ends with ansible-core 2.23; since 2.19 only what is marked as trusted is a template

    def wrap_var(value):
        return value


_LEGAL = re.compile(r"\w[\w.-]{0,252}")  # the rest means something in Ansible's patterns of hosts
_ILLEGAL = re.compile(r"[^\w.-]")
_TAKEN = re.compile(r"(tenant|party|account|region|zone|status|project|tag)_.*|all|ungrouped|localhost(\..*)?"
                    r"|127\.0\.0\.1",
                    re.ASCII | re.IGNORECASE)  # names of groups, and of the machine that Ansible runs on
_ADDRESSES = {
    "any": ("wan_ip_set", "lan_ip_set", "wan_ipv6_set", "lan_ipv6_set"),
    "wan": ("wan_ip_set", "wan_ipv6_set"),
    "lan": ("lan_ip_set", "lan_ipv6_set"),
}
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 _.,:/@+=\x80-\U0010ffff-]")  # what a template's delimiter may begin with
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+")  # ssh reads any other text as its own options
_CALLED = {
    "instance_name": lambda server: server["instance_name"],
    "instance_id": lambda server: server["instance_id"],
    "lan_ip": lambda server: server["lan_ip_set"].split(",")[0],
    "wan_ip": lambda server: server["wan_ip_set"].split(",")[0],
}
_EXPRESSIONS = ("compose", "groups", "keyed_groups", "hostnames")  # evaluated for each host
_MACHINE = ("party", "tenant_id", "account", "region", "instance_id")  # what tells one machine from another
_LONGEST = 64 * 1024 * 1024
_PART = 4000  # servers of one request, where the whole is too long for one answer
_TRIES = 3  # readings of such a list, if it goes meanwhile
_AGE = 120  # seconds: the whole was kept just now


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "twocloud.twocloud.twocloud"

    def verify_file(self, path):
        return super().verify_file(path) and path.endswith(("twocloud.yml", "twocloud.yaml"))

    def set_options(self, task_keys=None, var_options=None, direct=None):
        """What the file says is checked and evaluated first, so that a number may be a template, too."""
        if direct:
            unknown = sorted(set(map(str, direct)) - set(self.option_definitions))
            if unknown:
                near = difflib.get_close_matches(unknown[0], self.option_definitions, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise AnsibleParserError(f"There is no option {unknown[0][:60]!r}.{hint}")
            direct = {name: value if name in _EXPRESSIONS else self._evaluated(name, value)
                      for name, value in direct.items()}
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)

    def _evaluated(self, name, value):
        if isinstance(value, list):
            return [self._evaluated(name, one) for one in value]
        if not isinstance(value, str) or "{" not in value:
            return value
        self.templar.available_variables = self._vars
        try:
            return self.templar.template(value)
        except Exception as problem:
            raise AnsibleParserError(f"{name} cannot be evaluated: {problem}") from None

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        servers = self._kept(path, cache)
        strict = self.get_option("strict")
        hosts = self._names(servers)
        for host, server in zip(hosts, servers):
            _refuse_another_machine(inventory.hosts.get(host), host, server)
        for host, server in zip(hosts, servers):
            fields = wrap_var(_with_plain_keys(server))
            inventory.add_host(host)
            for name, value in fields.items():
                inventory.set_variable(host, f"twocloud_{name}", value)
            address = next((fields[name] for name in _ADDRESSES[self.get_option("address")] if fields[name]), "")
            if _ADDRESS.fullmatch(address.split(",")[0]):
                inventory.set_variable(host, "ansible_host", wrap_var(address.split(",")[0]))
            known = {**fields, **inventory.get_host(host).get_vars()}
            self._set_composite_vars(self.get_option("compose"), known, host, strict)
            self._add_host_to_composed_groups(self.get_option("groups"), known, host, strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, host, strict)

    def _names(self, servers):
        prefix = str(self.get_option("host_prefix") or "")
        if prefix and not _is_legal(f"{prefix}x"):
            raise AnsibleParserError(f"host_prefix {prefix[:60]!r} cannot begin a host's name.")
        preferences = self.get_option("hostnames")
        for kind in preferences:
            if servers and re.fullmatch(r"\w+", kind) and kind not in (*_CALLED, *servers[0]):
                raise AnsibleParserError(f"hostnames: there is no field {kind[:60]!r}.")
        called = [[self._called(server, kind) for kind in preferences] for server in servers]
        return _host_names(servers, called, prefix)

    def _called(self, server, kind):
        """A server's name by one entry of hostnames; "" if it gives none."""
        if kind in _CALLED:
            return _CALLED[kind](server)
        try:
            fields = wrap_var(_with_plain_keys(server))
            if "{{" not in kind:
                return str(self._compose(kind, fields))
            self.templar.available_variables = fields
            return str(self.templar.template(kind))
        except Exception as problem:
            if self.get_option("strict"):
                raise AnsibleParserError(f"hostnames: {kind} cannot be evaluated: {problem}") from None
            return ""

    def _kept(self, path, cache):
        """The servers, from Ansible's cache if it may be used. They are kept as one text: what reads a cache obeys
        some keys of JSON, and tags may have any."""
        url, token = self._request()
        if not self.get_option("cache"):
            return self._ask(url, token)
        self.load_cache_plugin()
        digest = hashlib.sha256("\n".join((url, token)).encode()).hexdigest()
        key = f"{self.get_cache_key(path)}_{digest[:24]}"
        if cache:
            try:
                return json.loads(self._cache[key])
            except (KeyError, TypeError, ValueError):
                pass
        servers = self._ask(url, token)
        self._cache[key] = json.dumps(servers)
        return servers

    def _request(self):
        """What is asked for, and the token."""
        base, token = self.get_option("url").rstrip("/"), self.get_option("token")
        if not _is_safe(base):
            raise AnsibleParserError("url must be https, or http on this machine: a token must not travel in the open.")
        if self.get_option("token_file"):
            try:
                with open(self.get_option("token_file"), encoding="ascii") as file:
                    token = file.read()
            except (OSError, ValueError) as problem:
                raise AnsibleParserError(f"token_file cannot be read: {type(problem).__name__}.") from None
        token = (token or "").strip()
        if not re.fullmatch(r"[!-~]+", token):
            raise AnsibleParserError("token must be a token: give it by token, token_file or TWOCLOUD_TOKEN.")
        parameters = {name: self.get_option(name) for name in ("tenant_id", "status", "name", "tag", "max_age",
                                                          "on_error")}
        parameters.update({name: ",".join(self.get_option(name)) for name in ("party", "region")}, view="full")
        if self.get_option("account"):
            parameters["account"] = ",".join(self.get_option("account"))
        query = urlencode({name: value for name, value in sorted(parameters.items()) if value is not None})
        return f"{base}/twocloud/servers?{query}", str(token)

    def _ask(self, url, token):
        """The whole list, in parts where it is too long for one answer. Raises AnsibleParserError if the answer is
        anything but a complete list."""
        where, body, _ = self._get(url, token)
        if body["code"] == 413:
            body = self._in_parts(url, token, body)
        if body["code"] != 200:
            hint = " Write a file for each party or region." if body.get("error") == "too_large" else ""
            details = f"{body['code']} {body.get('error')}, request id {body.get('request_id')}"
            raise AnsibleParserError(_printable(f"twocloud: {body['msg']}{hint} ({details})"))
        servers = body.get("vm_servers")
        if not _is_list_of_servers(servers) or body.get("complete") is False:
            raise AnsibleParserError(f"{where} did not answer with a complete list of servers.")
        if body["msg"]:
            self.display.warning(f"twocloud: {_printable(body['msg'])}")
        return servers

    def _in_parts(self, url, token, refusal):
        """An answer with the servers of all parts of one list, or the answer that refuses them; again from the start
        if that list goes meanwhile. `refusal`: that the whole is too long, which stands if the parts name no list."""
        base, query = url.split("?")
        parameters, size = dict(parse_qsl(query)), _PART
        parameters["max_age"] = max(int(parameters.get("max_age", 0)), _AGE)
        for _ in range(_TRIES):
            servers, named, body = [], {}, refusal
            while size:
                window = {"f": len(servers) + 1, "t": len(servers) + size}
                _, body, headers = self._get(f"{base}?{urlencode({**parameters, **named, **window})}", token)
                if body["code"] == 413:
                    size //= 2
                    continue
                if body["code"] != 200 or not isinstance(body.get("vm_servers"), list):
                    break
                servers += body["vm_servers"]
                if len(body["vm_servers"]) < size:
                    return {**body, "vm_servers": servers}
                if "X-List-Id" not in headers:
                    return refusal
                named = {"list": headers["X-List-Id"]}
            if body["code"] != 409:
                break
            self.display.warning("twocloud: the list changed while it was read. It is read again.")
        return body

    def _get(self, url, token):
        """(the server's address, its answer's body, which may be an error, and headers). Raises AnsibleParserError."""
        where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        try:
            answer = open_url(
                url, headers={"Accept": "application/json"}, http_agent="twocloud-ansible",
                url_username=token, url_password="", force_basic_auth=True, use_netrc=False, follow_redirects="none",
                timeout=self.get_option("timeout"), validate_certs=self.get_option("validate_certs"),
                ca_path=self.get_option("ca_path"),
            )
        except HTTPError as refusal:
            answer = refusal
        except (URLError, NoConnection, SSLValidationError, OSError) as problem:
            raise AnsibleParserError(f"{where} cannot be asked: {getattr(problem, 'reason', problem)}") from None
        try:
            with answer:
                body = json.loads(answer.read(_LONGEST))
            if not isinstance(body, dict) or not isinstance(body.get("msg"), str):
                raise ValueError
        except Exception:  # http.client has many for an answer that is cut
            text = f"{where} is not a twocloud server, or its answer was cut: HTTP {answer.code}."
            raise AnsibleParserError(text) from None
        return where, {**body, "code": body.get("code") if answer.code == 200 else answer.code}, answer.headers


def _is_safe(url):
    try:
        there = urlsplit(url)
        host = there.hostname or ""
        if there.username is not None or there.query or there.fragment:
            return False
        here = there.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
        return bool(host) and (there.scheme == "https" or here)
    except ValueError:
        return False


def _is_list_of_servers(servers):
    texts = ("instance_id", "instance_name", "party", "region", *_ADDRESSES["any"])
    return isinstance(servers, list) and all(
        isinstance(server, dict) and isinstance(server.get("tags"), dict)
        and all(isinstance(server.get(name), str) for name in texts) for server in servers)


def _with_plain_keys(value):
    """The value with keys that no Ansible obeys, at any depth. Before core 2.19 Ansible runs a template that is a
    key, and a key cannot be marked; what reads JSON obeys names such as __ansible_vault. No entry is lost."""
    if isinstance(value, list):
        return [_with_plain_keys(one) for one in value]
    if not isinstance(value, dict):
        return value
    plain_value, taken, last = {}, set(value), {}
    for key, one in value.items():
        plain = _NOT_PLAIN.sub("_", key)
        if plain.startswith("__ansible"):
            plain = f"_{plain}"
        if plain != key:
            plain = _unique(plain, taken, last)
            taken.add(plain)
        plain_value[plain] = _with_plain_keys(one)
    return plain_value


def _printable(text):
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _refuse_another_machine(there, name, server):
    """Ansible would make one host of two machines: the groups of both, the address of the later."""
    if there is None:
        return
    known = there.get_vars()
    if any(known.get(f"twocloud_{field}") != server.get(field) for field in _MACHINE):
        raise AnsibleParserError(
            f"Another source already has a host {name}, and it is not this machine ({server['instance_id']} at "
            f"{server['party']}). Make the names differ with host_prefix or hostnames. Put a source that only adds "
            "variables after this one.")


def _host_names(servers, called, prefix=""):
    """A name for each server, none given twice. Ids go first, so that no server is called what another one is.
    `called`: for each server the names that it may have, the preferred one first."""
    ids = Counter(server["instance_id"] for server in servers)
    counts = [Counter(column) for column in zip(*called)]
    name_of, taken, last, later = {}, set(), {}, []

    def give(number, name):
        name_of[number] = _unique(name, taken, last)
        taken.add(name_of[number])

    def by_id(server):
        key = server["instance_id"]
        if ids[key] == 1 and _is_legal(f"{prefix}{key}"):
            return key
        account = server.get("account", "default")
        named = "" if account == "default" else f"{account}."
        return _ILLEGAL.sub("_", f"{server['party']}.{named}{server['region']}.{key}")

    for number, server in enumerate(servers):
        names = (name for name, count in zip(called[number], counts) if count[name] == 1)
        own = next((name for name in names if name and _is_legal(f"{prefix}{name}") and name not in ids), None)
        if own is None:
            give(number, by_id(server))
        else:
            later.append((number, own))
    for number, own in later:
        give(number, own if own not in taken else by_id(servers[number]))
    return [f"{prefix}{name_of[number]}" for number in range(len(servers))]


def _is_legal(name):
    return bool(_LEGAL.fullmatch(name)) and not _TAKEN.fullmatch(name)


def _unique(name, taken, last):
    number, free = last.get(name, 1), name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    last[name] = number
    return free
