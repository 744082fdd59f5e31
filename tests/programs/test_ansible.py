"""Ansible with our inventory plugin and with format=ansible as an inventory script."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chalicelib.fleet import many_sources
from chalicelib.http import formats
from chalicelib.model import Source
from chalicelib.simulators.faults import Answer
from chalicelib.simulators.fleet import Machine, Machines, seed_machine
from chalicelib.simulators.server import Call, Simulator
from tests.fixtures import App
from tests.programs import ANSIBLES, ROOT, ansible_core, block, run

COLLECTION = ROOT / "clients/ansible_collections/twocloud/twocloud"
GROUPS = block("ansible.md", "yaml", "keyed_groups").split("keyed_groups")[1]
EVIL = "{{ lookup('ansible.builtin.pipe', 'touch TEMPLATE-WAS-RUN') }}"
NAMES = ["web", "twice", "twice", "", EVIL, "{% if 1 %}x{% endif %}", "a\nb", 'q"\'q', "\u202egnp.exe",
         "=cmd|'/c calc'!A0", "localhost", "all",
         "tag_role_web", "名-1", "x" * 300, "!unsafe 1", "a b", "i-00000000", "${x}", "\\u007b{1}}"]
TAGS: list[dict[str, str]] = [{"role": "web"}, {"role": EVIL, EVIL: "x"}, {
    "__ansible_vault": "x", "__ansible_unsafe": "y", "___ansible_vault": "z", "__ansible_vault_2": "w"},
                              {"a-b": "1", "a.b": "1"}, {"": ""}, {"__ansible_type": "_DateTime", "value": "x"}]


def machine(number: int, name: str, tags: Mapping[str, str] = {}, **more: Any) -> Machine:
    seed = {**{key: getattr(seed_machine(), key) for key in Machine.__slots__}, "number": number,
            "key": f"{number:08d}", "name": name}
    return Machine(**{**seed, "tags": dict(tags), "lan": (f"10.0.0.{number + 1}",), "wan": (), **more})


@dataclass
class Ansible:
    """A folder with an inventory file, run as its user would."""

    app: App
    folder: Path
    paths: str                              # where the commands of its ansible-core are

    def write(self, text: str, name: str = "servers.twocloud.yml") -> str:
        head = (
            f'plugin: twocloud.twocloud.twocloud\nurl: {self.app.url}\ntenant_id: "123"\nparty: qcloud\nregion: gz\n'
        )
        (self.folder / name).write_text(head + text)
        return name

    def run(self, *arguments: str, token: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        chosen = {"ANSIBLE_COLLECTIONS_PATH": f"{ROOT}/clients", "ANSIBLE_NOCOLOR": "1",
                  "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
                  "ANSIBLE_INVENTORY_ENABLED": "twocloud.twocloud.twocloud", "COLUMNS": "1000",
                  "TWOCLOUD_TOKEN": self.app.token if token is None else token, "PATH": self.paths, **environment}
        done = run(arguments, self.folder, {name: value for name, value in chosen.items() if value})
        assert self.app.token not in done.stdout + done.stderr
        # it wraps lines
        done.stderr = re.sub(r"\n(?=\S)", " ", done.stderr) if self.paths == ANSIBLES["2.16"] else done.stderr
        return done

    def list(self, *sources: str, **environment: str) -> dict[str, Any]:
        done = self.run("ansible-inventory", "--list", *(part for name in sources or ("servers.twocloud.yml",)
                                                         for part in ("-i", name)), **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout, object_hook=lambda value: value.get("__ansible_unsafe", value) if len(value) == 1
                          else value)


@pytest.fixture
def ansible(request: pytest.FixtureRequest, served: App, tmp_path: Path) -> Ansible:
    """Core 2.19, or each of ANSIBLES where a test says so."""
    folder = tmp_path / "ansible"
    folder.mkdir()
    return Ansible(served, folder, ansible_core(getattr(request, "param", "2.19")))


# one core is quick and the other slow; the older one evaluates templates in any text
newest_core = pytest.mark.parametrize("ansible", ["2.19", pytest.param("2.16", marks=pytest.mark.slow)], indirect=True)
oldest_core = pytest.mark.parametrize("ansible", ["2.16", pytest.param("2.19", marks=pytest.mark.slow)], indirect=True)


@pytest.fixture
def script(ansible: Ansible) -> Iterator[str]:
    """The script of the docs, as it stands; `twocloud` is this clone's."""
    (ansible.folder / "twocloud").write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m chalicelib "$@"\n')
    (ansible.folder / "twocloud").chmod(0o755)
    made = run(["bash", "-euc", block("ansible.md", "sh", "twocloud.sh")], ansible.folder,
               {"TWOCLOUD_URL": ansible.app.url, "TWOCLOUD_TOKEN": ansible.app.token,
                "PATH": f"{ansible.folder}:{os.environ['PATH']}"})
    assert made.returncode == 0, made.stderr
    assert "_meta" in made.stdout, made.stderr
    (ansible.folder / "ansible.cfg").write_text(block("ansible.md", "ini", "twocloud.sh"))
    yield f"{ansible.folder}:{ansible.paths}"


def fleet_of(app: App, *machines: Machine) -> None:
    app.clouds["qcloud"].fleets["ap-guangzhou"] = Machines(machines)      # type: ignore[attr-defined]


def hostile(app: App) -> None:
    fleet_of(app, *(machine(number, name, TAGS[number % len(TAGS)], wan=("122.0.0.1",) if number == 0 else ())
                      for number, name in enumerate(NAMES)))


@pytest.mark.slow
@newest_core
def test_the_plugin_and_the_script_say_the_same_of_hostile_names(ansible: Ansible, script: str) -> None:
    """Every host, every variable; and the groups of the docs are those of the script."""
    hostile(ansible.app)
    ansible.write(f"keyed_groups{GROUPS}")
    plugin, written = ansible.list(), ansible.list("./twocloud.sh", PATH=script, ANSIBLE_INVENTORY_ENABLED="script")
    hosts, variables = plugin["_meta"]["hostvars"], written["_meta"]["hostvars"]
    assert list(hosts)
    assert hosts.keys() == variables.keys()
    assert len(hosts) == len(NAMES)
    assert {name for name in hosts if not name.startswith("ins-")} == {"web", "名-1", "i-00000000"}
    for host in hosts:
        for name in variables[host].keys() - {"twocloud_seen_at"}:
            assert hosts[host][name] == variables[host][name], (host, name)
    assert sorted(vars["twocloud_instance_name"] for vars in hosts.values()) == sorted(NAMES)
    for group in ("party_qcloud", "region_ap_guangzhou", "status_ACTIVE", "tag_role_web"):
        assert sorted(plugin[group]["hosts"]) == sorted(written[group]["hosts"])
    assert plugin["big"]["hosts"]
    assert hosts["web"]["ansible_host"] == "122.0.0.1"
    assert hosts["名-1"]["ansible_host"] == "10.0.0.14"


@oldest_core
@pytest.mark.parametrize("source", ["plugin", pytest.param("script", marks=pytest.mark.slow)])
def test_a_playbook_pings_and_runs_no_name(ansible: Ansible, script: str, source: str) -> None:
    """As a module runs on each host, every variable is shown, and used in a template of the playbook's own."""
    fleet_of(ansible.app, machine(0, "web", {"role": "web"}), machine(1, EVIL, TAGS[1]), machine(2, "x", TAGS[2]))
    (ansible.folder / "play.yml").write_text("""
- hosts: all
  gather_facts: false
  vars: {ansible_connection: local, ansible_host: 127.0.0.1,
         ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  tasks:
    - ping:
    - debug: {msg: "{{ twocloud_instance_name }} {{ twocloud_tags }} {{ hostvars[inventory_hostname] | to_json }}"}
    - copy: {content: "{{ twocloud_instance_name }}", dest: "{{ playbook_dir }}/name-{{ twocloud_instance_id }}"}
    - command: {argv: [printf, "%s", "{{ twocloud_instance_name }}"]}
      register: printed
    - assert: {that: printed.stdout == twocloud_instance_name}
""")
    ansible.write(f"compose: {{called: twocloud_instance_name, ansible_connection: \"'local'\"}}\ngroups: "
                  f"{{evil: called is search('pipe')}}\n"
                  f"strict: true\nkeyed_groups{GROUPS.split('groups:')[0]}  - {{prefix: name, key: instance_name}}\n")
    inventory, environment = {"plugin": ("servers.twocloud.yml", {}), "script": (
        "./twocloud.sh", {"PATH": script, "ANSIBLE_INVENTORY_ENABLED": "script"})}[source]
    done = ansible.run("ansible-playbook", "-i", inventory, "play.yml", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("unreachable=0    failed=0") == 3, done.stdout + done.stderr
    assert (ansible.folder / "name-ins-00000001").read_text() == EVIL
    assert not list(ansible.folder.rglob("TEMPLATE-WAS-RUN"))
    assert not Path("TEMPLATE-WAS-RUN").exists()


class Liar(Simulator):
    """What else may answer in place of twocloud."""

    ANSWERS = {
        "hotel": b"<html>Welcome", "empty": b"{}", "list": b"[]",
        "none": b'{"code": 200, "msg": "", "vm_servers": null}',
        "rows": b'{"code": 200, "msg": "", "vm_servers": [{}]}',
        "partial": b'{"code": 200, "msg": "", "vm_servers": [], "complete": false}',
        "refusal": b'{"code": 502, "msg": "no", "vm_servers": []}', "redirect": b"",
    }

    def operation(self, call: Call) -> str:
        return call.path.split("/")[1]

    def answer(self, call: Call) -> Answer:
        name = self.operation(call)
        return Answer(302 if name == "redirect" else 200, {"Location": "/elsewhere"} if name == "redirect" else {},
                      self.ANSWERS.get(name, b'{"code": 200, "msg": "", "vm_servers": []}'))


def test_no_inventory_is_empty_in_silence(ansible: Ansible) -> None:
    """Whatever is wrong is said in one line, ends with 1, and shows no token."""
    sources: dict[str, str] = {}
    with Liar() as liar:
        liar.fail("cut body", operation="cut")
        for name in (*Liar.ANSWERS, "cut"):
            sources[ansible.write("", f"{name}.twocloud.yml")] = ""
            text = (ansible.folder / f"{name}.twocloud.yml").read_text()
            (ansible.folder / f"{name}.twocloud.yml").write_text(text.replace(ansible.app.url, f"{liar.url}/{name}"))
        ansible.write("token_file: nowhere\n", "nofile.twocloud.yml")
        ansible.write("status: RUNNING\n", "refused.twocloud.yml")
        ansible.write("region: nowhere-1\nname: x\n", "region.twocloud.yml")
        for name, url in (("open", "http://192.0.2.1"), ("gone", "http://127.0.0.1:1"),
                          ("inside", "https://tc_x@127.0.0.1")):
            (ansible.folder / f"{name}.twocloud.yml").write_text(
                f'plugin: twocloud.twocloud.twocloud\nurl: {url}\ntenant_id: "123"\n')
        texts = {"hotel": "is not a twocloud server", "empty": "is not a twocloud server",
                 "list": "is not a twocloud server",
                 "none": "complete list",
                 "rows": "complete list", "partial": "complete list", "refusal": "twocloud: no",
                 "redirect": "is not a twocloud server",
                 "cut": "is not a twocloud server", "nofile": "token_file cannot be read",
                 "refused": "status must be one of",
                 "region": "400 invalid_parameter, request id ", "open": "url must be https", "gone": "cannot be asked",
                 "inside": "url must be https"}
        done = ansible.run("ansible-inventory", "--list",
                           *(part for name in texts for part in ("-i", f"{name}.twocloud.yml")))
        assert done.returncode == 1
        assert liar.count("elsewhere") == 0
        assert "No inventory was parsed" in done.stderr
        parts = {match[2]: match[1] for match in re.finditer(
            r"<<< caused by >>>\s+(.*?)\s*Origin: <.*?source '[^']*/(\w+)\.twocloud\.yml'", done.stderr, re.DOTALL)}
        assert parts.keys() == texts.keys(), done.stderr
        for name, text in texts.items():
            assert text in parts[name], (name, parts[name])


def test_a_bad_token_is_a_failure_as_documented(ansible: Ansible) -> None:
    ansible.write("")
    (ansible.folder / "ansible.cfg").write_text(block("ansible.md", "ini", "servers.twocloud.yml"))
    for command in (["ansible-inventory", "--list"], ["ansible", "all", "-m", "ping"]):
        done = ansible.run(*command, token="tc_bad", ANSIBLE_INVENTORY_UNPARSED_FAILED="", ANSIBLE_INVENTORY_ENABLED="")
        assert done.returncode == 1, done
        assert "request id " in done.stderr, done
        assert "401 unauthorized" in done.stderr, done
    (ansible.folder / "ansible.cfg").unlink()
    done = ansible.run("ansible-inventory", "--list", "-i", "servers.twocloud.yml", token="tc_bad",
                       ANSIBLE_INVENTORY_UNPARSED_FAILED="", ANSIBLE_INVENTORY_ENABLED="")
    assert done.returncode == 0
    assert "401 unauthorized" in done.stderr


@pytest.mark.slow
def test_a_cloud_that_is_off(ansible: Ansible) -> None:
    ansible.write("")
    before = ansible.list()
    ansible.app.clouds["qcloud"].fail("reset")
    done = ansible.run("ansible-inventory", "--list", "-i", "servers.twocloud.yml")
    assert done.returncode == 0
    assert json.loads(done.stdout)["_meta"]["hostvars"].keys() == before["_meta"]["hostvars"].keys()
    assert "[WARNING]: twocloud: " in done.stderr
    assert "this is a stale snapshot, 0 s old" in done.stderr
    ansible.write("on_error: fail\n")
    done = ansible.run("ansible-inventory", "--list", "-i", "servers.twocloud.yml")
    assert done.returncode == 1
    assert "503 party_unavailable, request id " in done.stderr


@pytest.mark.slow
@newest_core
def test_the_cache_of_ansible(ansible: Ansible) -> None:
    """It saves the request, keeps hostile tags unchanged, holds no token, and is another one for another token."""
    app = ansible.app
    hostile(app)
    ansible.write(block("ansible.md", "yaml", "cache_plugin"))
    first = ansible.list()
    calls = app.clouds["qcloud"].count()
    assert calls
    assert ansible.list() == first
    assert app.clouds["qcloud"].count() == calls
    kept = [path for path in (ansible.folder / ".cache/ansible-twocloud").rglob("*") if path.is_file()]
    assert kept
    assert not any(app.token.encode() in path.read_bytes() for path in kept)
    app.clock.forward(1)
    (ansible.folder / "none.yml").write_text("- hosts: nobody\n  tasks: []\n")
    assert ansible.run("ansible-playbook", "none.yml", "-i", "servers.twocloud.yml", "--flush-cache").returncode == 0
    assert app.clouds["qcloud"].count() > calls
    done = ansible.run("ansible-inventory", "--list", "-i", "servers.twocloud.yml", token="tc_bad")
    assert done.returncode == 1
    assert "401 unauthorized" in done.stderr
    narrow = app.issue(app.user("narrow", tenants=("9",)))
    done = ansible.run("ansible-inventory", "--list", "-i", "servers.twocloud.yml", token=narrow)
    assert done.returncode == 1
    assert "403 forbidden" in done.stderr


@pytest.mark.slow
@newest_core
def test_options(ansible: Ansible) -> None:
    fleet_of(ansible.app, machine(0, "web", wan=("122.0.0.1",)), machine(1, "web"), machine(2, "", lan=("10.0.0.1",)),
             machine(3, "off", state="stopped"))
    (ansible.folder / "token.secret").write_text(f"{ansible.app.token}\n")
    ansible.write(
        "hostnames: [wan_ip, lan_ip]\naddress: lan\ntoken_file: token.secret\nstatus: ACTIVE\nmax_age: "
        "60\ntimeout: 20\n")
    hosts = ansible.list(TWOCLOUD_TOKEN="tc_other")["_meta"]["hostvars"]
    assert {name: vars.get("ansible_host") for name, vars in hosts.items()} == {
        "122.0.0.1": "10.0.0.1", "10.0.0.2": "10.0.0.2", "ins-00000002": "10.0.0.1"}
    ansible.write("address: wan\nname: WE\n")
    hosts = ansible.list()["_meta"]["hostvars"]
    assert {name: vars.get("ansible_host") for name, vars in hosts.items()} == {
        "ins-00000000": "122.0.0.1", "ins-00000001": None}


def fails(ansible: Ansible, *sources: str) -> str:
    done = ansible.run("ansible-inventory", "--list", *(part for name in sources for part in ("-i", name)),
                       ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="1",
                       ANSIBLE_INVENTORY_ENABLED="twocloud.twocloud.twocloud,ini")
    assert done.returncode != 0, done.stdout
    return " ".join(done.stderr.split())


@pytest.mark.slow
@newest_core
def test_two_machines_are_never_one_host(ansible: Ansible) -> None:
    """Equal names in two files, or in a file of another kind: a failure, or names that differ."""
    fleet_of(ansible.app, machine(0, "web", {"role": "a"}), machine(1, "db"))
    ansible.app.clouds["aws"].fleets["us-east-1"] = Machines([machine(7, "web", {"role": "b"})])      # type: ignore[attr-defined]
    first = ansible.write("keyed_groups: [{prefix: party, key: party}]\n", "first.twocloud.yml")

    def second(more: str) -> str:
        name = ansible.write(f"keyed_groups: [{{prefix: party, key: party}}]\n{more}", "second.twocloud.yml")
        text = (ansible.folder / name).read_text().replace("party: qcloud\nregion: gz", "party: aws\nregion: us-east-1")
        (ansible.folder / name).write_text(text)
        return name

    assert "Another source already has a host web, and it is not this machine" in fails(ansible, first, second(""))
    for more, called in (("host_prefix: aws-\n", "aws-web"), ("host_prefix: \"{{ 'a' ~ 'ws-' }}\"\n", "aws-web"),
                         ("hostnames: [\"instance_name ~ '.' ~ party\"]\n", "web.aws"),
                         ('hostnames: ["{{ instance_name }}.{{ region }}"]\n', "web.us-east-1"),
                         ("hostnames: [tags.nothing, tags.role]\n", "b"),
                         ("hostnames: [zone]\nhost_prefix: z_\n", "z_us-east-1c")):
        hosts = ansible.list(first, second(more))
        assert hosts["party_aws"]["hosts"] == [called], more
        assert sorted(hosts["party_qcloud"]["hosts"]) == ["db", "web"], more
        assert hosts["_meta"]["hostvars"][called]["twocloud_party"] == "aws"
    assert ansible.list(first, first) == ansible.list(first)    # the same machine is one host
    (ansible.folder / "own.ini").write_text("web ansible_host=192.0.2.9\n")
    assert "Another source already has a host web" in fails(ansible, "own.ini", first)
    added = ansible.list(first, "own.ini", ANSIBLE_INVENTORY_ENABLED="twocloud.twocloud.twocloud,ini")
    assert added["_meta"]["hostvars"]["web"]["ansible_host"] == "192.0.2.9"
    for wrong, message in (("host_prefix: tag_\n", "host_prefix 'tag_' cannot begin"),
                        ("host_prefix: a b\n", "cannot begin"), ("hostnames: [nam]\n", "no field 'nam'"),
                        ("hostnames: [tags.nothing]\nstrict: true\n", "hostnames: tags.nothing cannot be evaluated")):
        assert message in fails(ansible, second(wrong)), wrong


@pytest.mark.slow
@newest_core
def test_an_option_that_is_none_is_refused_and_the_others_are_templates(ansible: Ansible) -> None:
    fleet_of(ansible.app, machine(0, "web", wan=("122.0.0.1",)))
    for wrong, text in (("regions: [gz]\n", "There is no option 'regions'. Did you mean region?"),
                        ("filters: {}\n", "There is no option 'filters'."),
                        ("status: \"{{ nothing_of_this_name }}\"\n", "status cannot be evaluated"),
                        ("1: x\n", "There is no option '1'.")):
        assert text in fails(ansible, ansible.write(wrong)), wrong
    (ansible.folder / "token.secret").write_text(f"{ansible.app.token}\n")
    (ansible.folder / "servers.twocloud.yml").write_text(f"""plugin: twocloud.twocloud.twocloud
url: "{{{{ lookup('ansible.builtin.env', 'WHERE') }}}}"
token: "{{{{ lookup('ansible.builtin.file', '{ansible.folder}/token.secret') }}}}"
tenant_id: "{{{{ tenant }}}}"
party: ["{{{{ 'qcloud' }}}}"]
region: "{{{{ ['gz'] }}}}"
status: "{{{{ 'ACT' ~ 'IVE' }}}}"
max_age: "{{{{ 30 + 30 }}}}"
timeout: "{{{{ wait | default(20) }}}}"
address: "{{{{ 'l' ~ 'an' }}}}"
validate_certs: "{{{{ 1 == 1 }}}}"
""")
    done = ansible.run("ansible-inventory", "--list", "-i", "servers.twocloud.yml", "-e", "tenant='123'", token="",
                       WHERE=ansible.app.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["_meta"]["hostvars"]["web"]["ansible_host"]["__ansible_unsafe"] == "10.0.0.1", (
        done.stderr)
    ansible.write("token_file: \"{{ 'token' }}.secret\"\nname: \"{{ '{{' }}x\"\n")
    done = ansible.run("ansible-inventory", "--list", "-i", "servers.twocloud.yml", token="")
    assert done.returncode == 0, done.stderr     # no name holds {{x
    assert json.loads(done.stdout)["_meta"].get("hostvars", {}) == {}, done.stderr


@pytest.mark.slow
def test_the_collection_is_one(ansible: Ansible, tmp_path: Path) -> None:
    """It builds, installs from what was built, is documented, and works from there; the docs name every option."""
    built = run(["ansible-galaxy", "collection", "build", "--output-path", tmp_path, COLLECTION], ansible.folder)
    (archive,) = tmp_path.glob("twocloud-twocloud-*.tar.gz")
    installed = run(["ansible-galaxy", "collection", "install", "--offline", "-p", tmp_path / "there", archive],
                    ansible.folder)
    assert built.returncode == installed.returncode == 0, built.stderr + installed.stderr
    there = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "there")}
    ansible.write("")
    assert len(ansible.list(**there)["_meta"]["hostvars"]) == 25
    documentation = ansible.run("ansible-doc", "-t", "inventory", "--json", "twocloud.twocloud.twocloud", **there)
    options = json.loads(documentation.stdout)["twocloud.twocloud.twocloud"]["doc"]["options"]
    page = (ROOT / "docs/ansible.md").read_text()
    assert all(f"`{name}`" in page or f"{name}:" in page for name in options
               if not name.startswith(("cache", "leading", "use_extra"))), options.keys()
    shown = ansible.run("ansible-doc", "-t", "inventory", "twocloud.twocloud.twocloud", **there)
    assert shown.returncode == 0
    assert "TWOCLOUD_TOKEN" in shown.stdout
    source = (COLLECTION / "plugins/inventory/twocloud.py").read_text()
    assert not re.search(
        r"^\s*(import|from) (?!ansible\b|__future__\b|difflib\b|hashlib\b|ipaddress\b|json\b|re\b|collections\b|"
        r"urllib\b)", source, re.M)


@pytest.mark.slow
def test_a_list_that_is_too_long_for_one_answer_is_read_in_parts(ansible: Ansible,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """While the fleet changes between any two of them."""
    cloud: Any = ansible.app.clouds["qcloud"]
    cloud.fleets["ap-guangzhou"] = Machines([machine(n, f"web-{n}") for n in range(20)])
    write, written = formats.write, list[int]()

    def short(fleet: Any, query: Any, zone: Any) -> Any:
        if query.list_id:
            written.append(len(written))
            ansible.app.clock.forward(1)
            cloud.fleets["ap-guangzhou"] = Machines([machine(n, f"web-{n}") for n in range(20 + len(written))])
            many_sources.list_servers(ansible.app.deployment, Source("123", "qcloud", "ap-guangzhou"))
        return write(fleet, query, zone, most=5000)

    monkeypatch.setattr(formats, "write", short)
    ansible.write("")
    assert set(ansible.list()["_meta"]["hostvars"]) == {f"web-{n}" for n in range(20)}
    assert len(written) > 1
