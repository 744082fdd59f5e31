"""A real Keystone and a real Nova API on 127.0.0.1, with seeded servers, for as long as a block lasts.

Both run from an environment of their own (`make .tools/openstack/ready`) on sqlite: no message bus, no placement, no
compute node; servers are made with Nova's own objects. Neutron, which Nova asks while it lists, and Cinder are played
by `Neighbours`, ours, so that this proves nothing about them.
"""

import base64
import json
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

HERE = Path(__file__).parent
VENV = HERE.parent.parent / ".tools/openstack"
ADMIN = "secret"                            # of users that no test of ours logs in as


@dataclass(frozen=True, slots=True)
class User:
    name: str
    domain: str                             # its id
    password: str


@dataclass(frozen=True, slots=True)
class Lab:
    """`projects`: name -> id, `disabled` among them. `expected`: project -> what was inserted and is shown, in
    Nova's order."""

    auth_url: str
    folder: Path
    projects: Mapping[str, str]
    user: User                              # roles member and reader in all projects
    foreigner: User                         # of another domain; role reader in all projects
    domain: str                             # the name of that domain
    credential: Mapping[str, str]           # an application credential in `many`, role reader alone
    narrow: Mapping[str, str]               # the same with access rules
    expected: Mapping[str, list[dict[str, Any]]]


@contextmanager
def openstack(folder: Path, user: User, foreigner: User, secret: str, sizes: Mapping[str, int],
              rules: list[dict[str, str]]) -> Iterator[Lab]:
    """`secret`: of the application credentials. `sizes`: project -> how many servers are inserted. `rules`: of
    access."""
    keystone, nova = free_ports(2)
    url = f"http://127.0.0.1:{keystone}"
    processes: list[subprocess.Popen[bytes]] = []
    with Neighbours() as neighbours:
        try:
            configure(folder, url)
            seeding = run(folder, processes, "seed_nova.py", folder)            # makes its databases meanwhile
            wait(run(folder, processes, "make_keystone.py", folder, url, ADMIN), folder)
            run(folder, processes, "serve_openstack.py", "keystone", folder, keystone)
            answering(f"{url}/v3", processes[-1], folder)
            projects, users, credentials = seed_keystone(url, nova, neighbours.url, user, foreigner, secret, sizes,
                                                         rules)
            assert seeding.stdin
            seeding.stdin.write(json.dumps([[projects[name], users[0], size] for name, size in sizes.items()]).encode())
            seeding.stdin.close()
            wait(seeding, folder)
            made = json.loads((folder / "seeded.json").read_bytes())
            neighbours.volumes = made["volumes"]
            run(folder, processes, "serve_openstack.py", "nova", folder, nova)
            answering(f"http://127.0.0.1:{nova}/", processes[-1], folder)
            yield Lab(f"{url}/v3", folder, projects, user, foreigner, "Firma Süd", *credentials,
                      {name: made["expected"][projects[name]] for name in sizes})
        finally:
            for process in processes:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in taken]
    for sock in taken:
        sock.close()
    return ports


def run(folder: Path, processes: list[subprocess.Popen[bytes]], script: str, *words: object) -> subprocess.Popen[bytes]:
    """A script in the environment. Its standard input ends with us, and it with its standard input."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([VENV / "bin/python", HERE / script, *map(str, words)], stdin=subprocess.PIPE,
                                   stdout=log, stderr=log, cwd=folder, env={**os.environ, "HOME": str(folder)})
    processes.append(process)
    return process


def wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait(240):
        raise RuntimeError((folder / "log").read_text()[-4000:])


def answering(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + 90
    while True:
        try:
            requests.get(url, timeout=9)
            return
        except requests.ConnectionError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((folder / "log").read_text()[-4000:]) from None
            time.sleep(0.1)


def configure(folder: Path, keystone: str) -> None:
    keys = folder / "fernet-keys"
    keys.mkdir(mode=0o700)
    for number in ("0", "1"):               # the next key and the present one
        (keys / number).write_bytes(base64.urlsafe_b64encode(secrets.token_bytes(32)))
    (folder / "keystone.conf").write_text(f"""
[DEFAULT]
public_endpoint = {keystone}/
[database]
connection = sqlite:///{folder}/keystone.db
sqlite_synchronous = false
[token]
provider = fernet
[identity]
password_hash_rounds = 4
[fernet_tokens]
key_repository = {keys}
[fernet_receipts]
key_repository = {keys}
[cache]
enabled = false
""")
    service = f"""
auth_type = password
auth_url = {keystone}/
project_domain_id = default
user_domain_id = default
project_name = service
username = nova
password = {ADMIN}
"""
    (folder / "nova.conf").write_text(f"""
[DEFAULT]
state_path = {folder}
transport_url = fake://
enabled_apis = osapi_compute
[api]
auth_strategy = keystone
[api_database]
connection = sqlite:///{folder}/nova_api.db
sqlite_synchronous = false
[database]
connection = sqlite:///{folder}/nova_cell1.db
sqlite_synchronous = false
[oslo_concurrency]
lock_path = {folder}
[keystone_authtoken]
service_type = compute
www_authenticate_uri = {keystone}/
{service}
[neutron]
region_name = RegionOne
{service}
""")
    (folder / "api-paste.ini").write_bytes((VENV / "etc/nova/api-paste.ini").read_bytes())
    (folder / "nova-compute.conf").touch()  # the API does not start without it


def seed_keystone(url: str, nova: int, neighbours: str, user: User, foreigner: User, secret: str,
                  sizes: Mapping[str, int], rules: list[dict[str, str]],
                  ) -> tuple[dict[str, str], list[str], list[dict[str, str]]]:
    """Projects by name, users, two application credentials; the catalogue names a Nova in RegionOne alone."""

    def token(name: str, password: str, project: dict[str, object]) -> dict[str, str]:
        answer = requests.post(f"{url}/v3/auth/tokens", timeout=30, json={"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": name, "domain": {"id": "default"}, "password": password}}},
            "scope": {"project": project}}})
        answer.raise_for_status()
        return {"X-Auth-Token": answer.headers["X-Subject-Token"]}

    def make(path: str, kind: str, headers: dict[str, str], **fields: object) -> dict[str, Any]:
        answer = requests.post(f"{url}/v3/{path}", json={kind: fields}, headers=headers, timeout=30)
        answer.raise_for_status()
        made: dict[str, Any] = answer.json()[kind]
        return made

    admin = token("admin", ADMIN, {"name": "admin", "domain": {"id": "default"}})
    roles = {role["name"]: role["id"]
             for role in requests.get(f"{url}/v3/roles", headers=admin, timeout=30).json()["roles"]}

    def grant(project: str, who: str, *names: str) -> None:
        for name in names:
            requests.put(f"{url}/v3/projects/{project}/users/{who}/roles/{roles[name]}", headers=admin,
                         timeout=30).raise_for_status()

    service = make("projects", "project", admin, name="service", domain_id="default")["id"]
    grant(service, make("users", "user", admin, name="nova", domain_id="default", password=ADMIN)["id"], "admin")
    domain = make("domains", "domain", admin, name="Firma Süd")["id"]
    users = [make("users", "user", admin, name=who.name, domain_id=home, password=who.password)["id"]
             for who, home in ((user, "default"), (foreigner, domain))]
    projects = {name: make("projects", "project", admin, name=name, domain_id="default")["id"] for name in sizes}
    for project in projects.values():
        grant(project, users[0], "member", "reader")
        grant(project, users[1], "reader")
    make("regions", "region", admin, id="RegionTwo")
    for kind, where, region in (("compute", f"http://127.0.0.1:{nova}/v2.1", "RegionOne"),
                                ("network", neighbours, "RegionOne"), ("network", neighbours, "RegionTwo"),
                                ("block-storage", f"{neighbours}/v3/$(project_id)s", "RegionOne")):
        made = make("services", "service", admin, type=kind, name=kind)["id"]
        for interface in ("internal", "public"):
            make("endpoints", "endpoint", admin, service_id=made, interface=interface, url=where, region_id=region)
    own = token(user.name, user.password, {"id": projects["many"]})
    projects["disabled"] = make("projects", "project", admin, name="disabled", domain_id="default")["id"]
    grant(projects["disabled"], users[0], "reader")
    requests.patch(f"{url}/v3/projects/{projects['disabled']}", json={"project": {"enabled": False}}, headers=admin,
                   timeout=30).raise_for_status()
    made = [make(f"users/{users[0]}/application_credentials", "application_credential", own, name=name, secret=secret,
                 roles=[{"name": "reader"}], **narrowed)["id"]
            for name, narrowed in (("twocloud", {}), ("narrow", {"access_rules": rules}))]
    return projects, users, [{"application_credential_id": each, "application_credential_secret": secret}
                             for each in made]


class Neighbours:
    """Neutron without ports, and a Cinder that has `volumes`: project -> its rows. Runs for as long as the block."""

    def __init__(self) -> None:
        self.volumes: dict[str, list[dict[str, Any]]] = {}
        neighbours = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = json.dumps(neighbours.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Neighbours":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> dict[str, Any]:
        there = urlsplit(path)
        document = {"/": {"versions": [{"id": "v2.0", "status": "CURRENT",
                                        "links": [{"rel": "self", "href": f"{self.url}/v2.0/"}]}]},
                    "/v2.0/ports": {"ports": []}, "/v2.0/security-groups": {"security_groups": []}}
        if not there.path.endswith("/volumes/detail"):
            return document.get(there.path.removesuffix(".json"), {})
        parameters, rows = parse_qs(there.query), self.volumes.get(there.path.split("/")[2], [])
        start = next((n + 1 for n, row in enumerate(rows) if row["id"] == parameters.get("marker", [""])[0]), 0)
        limit = min(int(parameters.get("limit", ["1000"])[0]), 1000)
        page = rows[start:start + limit]
        links = {"volumes_links": [{"rel": "next", "href": self.url}]} if len(page) == limit else {}
        return {"volumes": page, **links}
