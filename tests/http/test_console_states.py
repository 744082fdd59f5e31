"""What the console says of sources that failed or are old: once for equal failures, in the reader's language, and only
of sources that the filters leave in sight."""

import time

import pytest

from tests.fixtures import App
from tests.http.test_console import Opens, clock, engine, opens, violations

__all__ = ["clock", "engine", "opens"]


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
