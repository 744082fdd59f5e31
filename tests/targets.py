"""The three ways to run twocloud, as the contract's tests see them: an address, and a store to put tenants into.

`serve` is `twocloud serve` as a process; `ministack` the packaged template on MiniStack, through its gateway and the
custom authorizer; `runtime` the zip's functions under Amazon's runtime client behind the gateway of
`deploy/gateway.py`.
"""

import base64
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chalicelib import parties
from chalicelib.access import accounts, tokens, users
from chalicelib.fleet import many_sources
from chalicelib.fleet.deployment import Deployment
from chalicelib.parties.aws.simulator import Aws
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators import tls
from chalicelib.simulators.fleet import Fleet
from deploy.gateway import Gateway, Pool
from deploy.ministack import Function
from tests import canaries
from tests.aws.deployed import FUNCTIONS, ROOT, Stack
from tests.fixtures import settings_in

TARGETS = ("serve", "ministack", "runtime")


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        return [row["instance_id"] for row in self.json["vm_servers"]]


@dataclass
class Target:
    """`url`: all before /twocloud. Tenants, users and tokens are put into its store, as an operator does."""

    name: str
    url: str
    deployment: Deployment
    qcloud: Qcloud
    aws: Aws
    keys: dict[str, dict[str, str]]
    local: bool
    made: int = 0

    def tenant(self, *of: str, **changes: Any) -> str:
        """A new tenant with accounts at these parties (qcloud, if none is named)."""
        self.made += 1
        tenant = f"{self.name}-{self.made}"
        for name in of or ("qcloud",):
            self.account(tenant, name, **changes)
        return tenant

    def account(self, tenant: str, party: str, keys: dict[str, str] | None = None) -> None:
        cloud, regions = {"qcloud": (self.qcloud, ("gz", "ap-shanghai")), "aws": (self.aws, ("us-east-1",))}[party]
        made = accounts.check(tenant, parties.load(party), keys or self.keys[party], project=None, regions=regions,
                              deep=False,
                              endpoint=cloud.url, local=self.local)
        accounts.put(self.deployment.store, self.deployment.sealer(), made, time.time(), replace=True)

    def user(self, *tenants: str, **limits: Any) -> users.User:
        self.made += 1
        made = users.User(name=f"{self.name}-{self.made}", uid=users.new_uid(), tenants=tenants,
                          password=users.hash_password("password"), **limits)
        users.add(self.deployment.store, made)
        return made

    def issue(self, user: users.User, born: float = 0.0, lifetime: int = 3600, **limits: Any) -> str:
        return canaries.watch(tokens.issue(self.deployment.store, user, tokens.Limits(**limits), lifetime, born
                                           or time.time())[0])

    def token(self, *tenants: str, **limits: Any) -> str:
        return self.issue(self.user(*tenants, **limits))

    def ask(self, query: str = "", token: str | None = None, method: str = "GET", path: str = "/twocloud/servers",
            body: bytes | None = None, **headers: str) -> Answer:
        """The query goes out as it is. Whatever comes back is held against what holds for every answer."""
        if token is not None:
            headers = {"Authorization": basic(token), **headers}
        there = urlsplit(self.url)
        connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=60)
        try:
            connection.putrequest(method, f"{there.path}{path}{'?' if query else ''}{query}", skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value.encode("latin-1"))
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            reply = connection.getresponse()
            answer = Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()
        always(answer, method, token or "")
        return answer


def basic(name: str, password: str = "password") -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def always(answer: Answer, method: str, token: str) -> None:
    """What holds for every answer."""
    headers, status = answer.headers, answer.status
    assert re.fullmatch(r"[0-9a-f-]{36}", headers.get("x-request-id",
                                                      "")), f"X-Request-Id is {headers.get('x-request-id')}"
    assert headers.get(
        "x-content-type-options") == "nosniff", f"X-Content-Type-Options is {headers.get('x-content-type-options')}"
    assert headers.get("vary") == "Authorization, Accept-Encoding", f"Vary is {headers.get('vary')}"
    assert not token or token.encode() not in answer.body
    if status < 400:
        assert headers.get("cache-control") in ("private, no-cache",
                                                "no-store"), f"Cache-Control is {headers.get('cache-control')}"
        return
    assert headers.get("cache-control") == "no-store", f"Cache-Control is {headers.get('cache-control')}"
    assert headers.get("content-type") == "application/json", f"Content-Type is {headers.get('content-type')}"
    if method != "HEAD":
        body = answer.json
        expected = ["code", "msg", "error", *(["parameter"] if body.get("error") == "invalid_parameter" else []),
                    "request_id"]
        assert list(body) == expected, f"the keys are {list(body)}"
        assert body["code"] == status
        assert body["msg"]
        assert body["request_id"] == headers["x-request-id"]
        assert "vm_servers" not in body
        assert b"Traceback" not in answer.body


@contextmanager
def clouds(authority: Path | None) -> Iterator[tuple[Qcloud, Aws, dict[str, dict[str, str]]]]:
    """Behind TLS, if there is an authority."""
    keys = {"qcloud": {"secret_id": "AKIDtest", "secret_key": canaries.secret("qcloud")},
            "aws": {"access_key_id": "AKIATEST", "secret_access_key": canaries.secret("aws")}}
    with Qcloud({"AKIDtest": keys["qcloud"]["secret_key"]}, {"ap-guangzhou": Fleet(25), "ap-shanghai": Fleet(7, "sh")},
                limited=False) as qcloud, \
            Aws({"AKIATEST": keys["aws"]["secret_access_key"]}, {"us-east-1": Fleet(5, "us")}, limited=False) as aws:
        if authority:
            for cloud in (qcloud, aws):
                tls.wrap(cloud, authority, authority.with_suffix(".key"))
        yield qcloud, aws, keys


@contextmanager
def served(folder: Path) -> Iterator[Target]:
    """`twocloud serve`, as it is started by hand."""
    settings = settings_in(folder)
    deployment = many_sources.open_deployment(settings)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TWOCLOUD_", "AWS_"))}
    process = subprocess.Popen([sys.executable, "-m", "chalicelib", "serve", "--port", "0"], cwd=ROOT, text=True,
                               stderr=subprocess.PIPE,
                               env={**clean, "TWOCLOUD_STORE": settings.store, "TWOCLOUD_KEY": settings.key})
    try:
        assert process.stderr
        line = process.stderr.readline()
        match = re.search(r"(http://\S+)/twocloud/servers", line)
        assert match, line
        threading.Thread(target=process.stderr.read, daemon=True).start()    # or it would wait for us
        with clouds(None) as (qcloud, aws, keys):
            yield Target("serve", match[1], deployment, qcloud, aws, keys, local=True)
    finally:
        process.terminate()
        process.wait(20)
        deployment.close()


@contextmanager
def functions(stack: Stack, task: Path, here: Path, folder: Path) -> Iterator[str]:
    """The URL of a gateway before the zip's functions, which have the store and the variables of the deployed ones."""
    template = json.loads((here / "template.json").read_text())

    def pool(logical: str) -> Pool:
        configuration = stack.function(logical)
        variables = {**configuration["Environment"]["Variables"], **stack.environment}
        most = template["Resources"][logical]["Properties"]["ReservedConcurrentExecutions"]["Fn::If"][1]
        return Pool(lambda: Function(task, FUNCTIONS[logical], variables, configuration["Timeout"], folder), most)

    gateway = Gateway(template, {name: pool(name) for name in ("APIHandler", "Authorize")})
    try:
        yield gateway.url
    finally:
        gateway.close()


@pytest.fixture(scope="session")
def targets(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Target]]:
    """Each is started when it is first asked for."""
    made: dict[str, Target] = {}
    with ExitStack() as opened:
        def target(name: str) -> Target:
            if name in made:
                return made[name]
            folder = tmp_path_factory.mktemp(f"contract-{name}")
            if name == "serve":
                made[name] = opened.enter_context(served(folder))
            else:
                deployed: Stack = request.getfixturevalue("stack")
                url = deployed.url.removesuffix("/twocloud/servers")
                if name == "runtime":
                    url = opened.enter_context(functions(deployed, request.getfixturevalue("task"),
                                                         request.getfixturevalue("here"), folder))
                qcloud, aws, keys = opened.enter_context(clouds(deployed.authority))
                made[name] = Target(name, url, deployed.deployment, qcloud, aws, keys, local=False)
            return made[name]

        yield target
