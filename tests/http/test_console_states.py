"""What the console says of sources that failed or are old: once for equal failures, in the reader's language, and only
of sources that the filters leave in sight; then each state by itself."""

import json
import time

import msgspec
import pytest
import yaml

from chalicelib.access import accounts, users
from tests import ROOT
from tests.fixtures import App
from tests.http.reader import Opens, clock, engine, machines, named, opens, violations
from tests.http.test_me import put

__all__ = ["clock", "engine", "opens"]


# ---------------------------------------------------------------- failures and old snapshots

def test_equal_failures_are_one_line_in_one_bar(served: App, opens: Opens) -> None:
    served.get("party=all&tenant_id=123&region=all")
    served.clock.forward(3 * 3600)
    served.clouds["aws"].fail("503")
    served.clouds["qcloud"].fail("401")     # refused credentials: its snapshot is too old to serve
    reader = opens().signs_in(served.token)
    assert reader.page.locator("#notices .notice").count() == 1
    assert reader.kinds() == ["partial", "stale"]
    failed, stale = (reader.page.locator(f"#notices [data-kind={kind}]") for kind in ("partial", "stale"))
    assert failed.locator("li").count() == stale.locator("li").count() == 1
    assert "refused this account's credentials. party_denied Tencent Cloud CVM" in failed.inner_text()
    assert "Amazon EC2 (6 regions)" in stale.inner_text()
    assert "6 sources are shown from stale snapshots" in stale.inner_text()
    assert "as of 3 hours ago" in stale.inner_text()
    assert violations(reader) == []


@pytest.mark.slow
def test_the_bar_speaks_chinese(served: App, opens: Opens) -> None:
    served.clouds["aws"].fail("reset")
    reader = opens(locale="zh-CN").signs_in(served.token)
    text = reader.page.inner_text("#notices")
    assert "没有结果" in text
    assert "无法连接云。 party_unavailable Amazon EC2" in text


@pytest.mark.slow
def test_a_source_that_the_filters_leave_out_is_not_mentioned(served: App, opens: Opens) -> None:
    served.clouds["aws"].fail("reset")
    reader = opens().signs_in(served.token)
    assert reader.kinds() == ["partial"]
    for search, kinds in {"party:qcloud ": [], "-party:aws ": [], "account:other ": ["noMatch"],
                          "region:ap-* ": ["partial"],
                          "status:SHUTOFF ": ["partial"]}.items():
        reader.searches(search)
        assert reader.kinds() == kinds, search
        reader.page.press("#search", "Escape")


@pytest.mark.slow
def test_what_a_silent_source_could_hold_is_not_known(served: App, opens: Opens) -> None:
    """None of the listed servers fits the filter: that is no proof of none, while the cloud that it names is silent."""
    served.clouds["aws"].fail("reset")
    reader = opens().signs_in(served.token, fragment="#q=party:aws")
    assert "does not mean that there are none" in reader.page.inner_text("#place")
    assert reader.kinds() == ["partial", "partial"]
    assert violations(reader) == []
    reader.page.click("#place .instead button")
    assert len(reader.column("server")) == 50


@pytest.mark.slow
def test_ages_are_told_by_the_servers_clock(served: App, opens: Opens) -> None:
    served.get("party=all&tenant_id=123&region=all")
    served.clock.forward(110 * 60)
    served.clouds["aws"].fail("503")
    reader = opens()
    reader.page.clock.install(time=time.time() + 5 * 3600)      # the reader's own is five hours fast
    reader.signs_in(served.token)
    assert "as of 110 minutes ago" in reader.page.inner_text("#notices")            # not "1 hour ago"
    assert "as of 110 minutes ago" in reader.page.inner_text("#asof")


# ---------------------------------------------------------------- each state

def test_a_cloud_that_fails_is_named_and_no_format_hides_it(served: App, opens: Opens) -> None:
    served.clouds["aws"].fail("reset")
    reader = opens().signs_in(served.token)
    assert reader.kinds() == ["partial"]
    assert "Amazon EC2" in reader.page.inner_text("#notices")
    assert reader.page.get_attribute("#notices bdi", "title") == "aws"
    assert "party_unavailable" in reader.page.inner_text("#notices")
    assert set(reader.column("party")) == {"qcloud"}
    reader.page.click("#share")
    assert reader.page.locator("[data-format]:disabled").count() == 4           # json has room to say it
    body = json.loads(reader.saves("json"))
    assert body["complete"] is False
    assert any(one["state"] == "failed" for one in body["sources"])
    reader.page.keyboard.press("Escape")
    reader.searches("party:qcloud ")
    reader.page.click("#share")
    # the one that failed could add nothing here
    assert reader.page.locator("[data-format]:disabled").count() == 0


@pytest.mark.slow
def test_an_old_list_is_marked_with_its_age(served: App, opens: Opens) -> None:
    served.get("party=all&tenant_id=123&region=all")
    served.clock.forward(3 * 3600)
    served.clouds["aws"].fail("503")
    reader = opens().signs_in(served.token)
    assert reader.kinds() == ["stale"]
    assert "3 hours ago" in reader.page.inner_text("#notices")
    assert "party_unavailable" in reader.page.inner_text("#notices")
    assert "as of 3 hours ago" in reader.page.inner_text("#asof")
    assert reader.page.locator("tr.old").count() == 12
    assert reader.page.locator("tr:not(.old) td.c-party:has-text('aws')").count() == 0
    reader.page.click("#sources")
    old = reader.page.locator("#sheet tr.stale th").all_inner_texts()
    assert old
    assert all(name.startswith("Amazon EC2 ") for name in old)
    assert "party_unavailable" in reader.page.inner_text("#sheet")


def test_no_answer_at_all_is_not_an_empty_fleet(served: App, opens: Opens) -> None:
    for cloud in served.clouds.values():
        cloud.fail("reset")
    reader = opens().signs_in(served.token)
    assert reader.kinds() == ["offline"]
    assert "No cloud answered" in reader.text()
    assert "No servers" not in reader.text()


def test_empty_missing_forbidden_and_nothing_found_look_different(served: App, opens: Opens) -> None:
    store = served.deployment.store
    narrowed = opens().signs_in(served.issue(served.user("bob", ("123",))))
    users.change(store, "bob", lambda user: msgspec.structs.replace(user, tenants=("7",)))
    assert narrowed.refreshes().kinds() == ["forbidden"]
    put(served, "8", "aws")
    removed = opens().signs_in(served.issue(served.user("eve", ("8",))), wait="#place .instead:not(.loading)")
    accounts.remove(store, "8", "aws")
    assert removed.refreshes().kinds() == ["missing"]
    assert "tenant 8" in removed.text()
    reader = opens().signs_in(served.token)
    reader.searches("no such thing")
    assert reader.kinds() == ["noMatch"]
    reader.page.click("#place .instead button")
    assert len(reader.column("server")) == 50
    machines(served)
    reader.refreshes()
    assert reader.kinds() == ["empty"]
    assert "tenant 123" in reader.text()


def test_a_server_that_is_down_leaves_the_last_list_with_its_time(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    reader.page.route("**/servers?*", lambda route: route.abort("connectionrefused"))
    reader.page.click("#refresh")
    reader.page.wait_for_selector('[data-kind="offline"]')
    assert len(reader.column("server")) == 50
    assert "The list below is the one of" in reader.text()
    reader.faults.clear()


@pytest.mark.slow
def test_the_gateways_throttle_is_waited_for(served: App, opens: Opens) -> None:
    definition = yaml.safe_load(
        (ROOT / "chalicelib/packaging/merge.yaml").read_text())["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    body = definition["x-amazon-apigateway-gateway-responses"]["THROTTLED"]["responseTemplates"]["application/json"]
    reader = opens()
    reader.page.route("**/servers?*", lambda route: route.fulfill(
        status=429, body=body, headers={"Content-Type": "application/json", "Retry-After": "1"}), times=1)
    reader.signs_in(served.token)
    assert reader.kinds() == ["throttled"]
    assert "Too many requests" in reader.text()
    reader.page.wait_for_selector("#place table")               # tried again, by itself
    assert reader.kinds() == []


@pytest.mark.slow
def test_loading_is_shown_and_a_late_answer_is_dropped(served: App, opens: Opens) -> None:
    for cloud in served.clouds.values():
        cloud.latency = 1.5
    reader = opens().signs_in(served.token, wait='[data-kind="loading"]')
    assert "Querying every cloud" in reader.text()
    reader.page.wait_for_selector("#place table", timeout=40_000)
    reader.page.evaluate("""() => {         // the next answer is held back, and can no longer be called off
        const real = window.fetch;
        let held = false;
        window.fetch = async (url, options) => {
            if (held) return real(url, options);
            held = true;
            const answer = await real(url, { ...options, signal: undefined });
            await new Promise((done) => { window.letGo = done; });
            window.wasLate = true;
            return answer;
        };
    }""")
    for cloud in served.clouds.values():
        cloud.latency = 0
    reader.page.click("#refresh")
    reader.until("Boolean(window.letGo)")
    machines(served, *named("the-only-one"))
    reader.page.click("#refresh")
    reader.until("document.querySelectorAll('#place tbody tr').length === 1")
    reader.page.evaluate("window.letGo()")
    reader.until("window.wasLate")
    reader.page.wait_for_timeout(100)
    assert reader.column("server") == ["the-only-one"]


@pytest.mark.slow
def test_refreshing_goes_on_until_it_is_paused(served: App, opens: Opens) -> None:
    reader = opens()
    reader.page.clock.install()
    reader.signs_in(served.token)
    count = lambda: sum("/servers?" in url for url in reader.requests)  # noqa: E731
    assert count() == 1
    with reader.page.expect_response(lambda answer: "max_age=300" in answer.url):
        reader.page.clock.run_for(62_000)
    reader.page.click("#pause")
    before = count()
    reader.page.clock.run_for(200_000)
    assert count() == before == 2
    assert "paused" in reader.page.inner_text("#asof")
