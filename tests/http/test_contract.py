"""What callers see, sentence by sentence, and the same of all three targets (`tests/targets.py`).

A case is written once, in `tests/http/contract/`. Where a target is known to answer otherwise, DIFFERENCES says how and
why, and the case must fail there in just this way: one that works after all, or fails otherwise, fails the run.
"""

import importlib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.gateway import Gateway, Pool
from tests import ROOT
from tests.aws.deployed import here, here_for_ministack, stack, task
from tests.http import contract
from tests.http.contract.cases import CASES, error, gz, new_tenant
from tests.targets import TARGETS, Target, targets

__all__ = ["here", "here_for_ministack", "stack", "targets", "task"]
for module in contract.MODULES:
    importlib.import_module(module)
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Difference:
    """On `target` the case fails with a text that `pattern` finds. `why` stands in docs/deploy.md."""

    target: str
    case: str
    pattern: str
    why: str


_RENAMED = ("the gateway had cached the policy: the handler refuses, and the gateway renames its `WWW-Authenticate`; "
            "status and body hold")
_UNKNOWN = "the gateway knows no such method on any path and answers 404"
DIFFERENCES = (
    Difference("runtime", "a revoked token is refused on the next request", "WWW-Authenticate is None", _RENAMED),
    Difference("runtime", "a disabled user's token is refused on the next request", "WWW-Authenticate is None",
               _RENAMED),
    Difference("runtime", "a token that expires is refused on the next request", "WWW-Authenticate is None", _RENAMED),
    Difference("runtime", "methods that HTTP does not know are 405", "^404 ", _UNKNOWN),
    Difference("ministack", "methods that HTTP does not know are 405", "^404 ", _UNKNOWN),
    Difference("ministack", "gzip, if the caller accepts it", "Content-Encoding is None",
               "MiniStack does not compress; on AWS the gateway does"),
    Difference("ministack", "a link leads to the requested path", "instead of http",
               "MiniStack passes the function a path without its own prefix, `/_aws/execute-api/ID`"),
)


# MiniStack answers slowly, and what is quick to ask of it is asked in tests/aws/test_stack.py
@pytest.fixture(params=["serve", pytest.param("runtime", marks=pytest.mark.sample(3)),
                        pytest.param("ministack", marks=pytest.mark.slow)])
def target(request: pytest.FixtureRequest, targets: Callable[[str], Target]) -> Iterator[Target]:
    there = targets(request.param)
    yield there
    there.qcloud.forget()
    there.aws.forget()


@pytest.mark.parametrize("sentence", CASES)
def test_what_callers_see(target: Target, sentence: str) -> None:
    known = [it for it in DIFFERENCES if (it.target, it.case) == (target.name, sentence)]
    try:
        CASES[sentence](target)
    except AssertionError as wrong:
        if not any(re.search(it.pattern, str(wrong)) for it in known):
            raise
    else:
        assert not known, f"it works on {target.name} now: take it out of DIFFERENCES and docs/deploy.md"


@pytest.mark.slow
def test_a_cloud_that_hangs_is_given_up_in_time_on_all_three(targets: Callable[[str], Target]) -> None:
    def ask(name: str) -> float:
        target = targets(name)
        tenant, token = new_tenant(target)
        target.qcloud.fail("hang")
        started = time.monotonic()
        error(target.ask(gz(tenant), token), 504, "party_timeout")
        took = time.monotonic() - started
        target.qcloud.forget()
        return took

    for name in TARGETS:
        targets(name)
    with ThreadPoolExecutor() as pool:
        for took in pool.map(ask, TARGETS):
            assert took < 28, "the gateway waits for 29 s"


def test_what_the_gateway_refuses_by_itself(here: Path) -> None:
    """A flood, and a function that has no place left: the template's words, and no function is called."""
    template = json.loads((here / "template.json").read_text())
    gateway = Gateway(template, {"APIHandler": Pool(lambda: pytest.fail("started"), 0)}, limited=True)
    try:
        target = Target("gateway", gateway.url, None, None, None, {}, local=False)      # type: ignore[arg-type]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: target.ask(path="/twocloud/health"), range(200)))
        error(answers[0], 500, "internal")
        flooded = [answer for answer in answers if answer.status == 429]
        assert flooded
        assert {answer.status for answer in answers} == {500, 429}
        error(flooded[0], 429, "rate_limited")
    finally:
        gateway.close()


def test_the_page_names_every_difference() -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    match = re.findall(r"^\| (serve|ministack|runtime) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert match == [(it.target, it.case, it.why) for it in DIFFERENCES]
    assert {it.case for it in DIFFERENCES} <= CASES.keys()
    assert {it.target for it in DIFFERENCES} <= set(TARGETS)
