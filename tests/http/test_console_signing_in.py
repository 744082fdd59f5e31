"""Signing in to the console, and the tenants of a token."""


import pytest

from chalicelib.access import tokens
from tests.fixtures import App
from tests.http.reader import CHOOSER, Opens, clock, engine, opens, two_tenants
from tests.http.test_me import put

__all__ = ["clock", "engine", "opens"]


# ---------------------------------------------------------------- signing in

def test_a_fleet_is_shown_and_nothing_is_left_behind(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    assert "287 servers" in reader.text().replace("\n", " ")
    assert len(reader.column("server")) == 50
    assert set(reader.column("party")) == {"aws", "qcloud"}
    page = reader.page
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.hash]") == [
        0, 0, "", ""]
    assert page.evaluate("JSON.stringify(history.state)") == "null"
    assert page.input_value("#token") == ""
    assert served.token not in page.content()
    page.reload()
    assert page.is_visible("#signin-form")
    assert not page.is_visible("#fleet")


@pytest.mark.slow
def test_the_token_is_kept_for_the_tab_only_if_that_is_wanted(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token, keep=True)
    page = reader.page
    page.reload()
    page.wait_for_selector("#place table")
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert "tc_" not in page.url
    page.click("#signout")
    assert page.evaluate("sessionStorage.length") == 0
    assert not page.is_visible("#fleet")
    assert "hehe" not in page.content()
    page.reload()
    assert page.is_visible("#signin-form")


def test_a_token_that_is_refused_is_forgotten(served: App, opens: Opens) -> None:
    wrong = served.issue(served.user("bob", tenants=("123",)))
    tokens.revoke_all(served.deployment.store, "bob")
    reader = opens().signs_in(wrong, keep=True, wait="#signin-problem:not([hidden])")
    assert "refused" in reader.page.inner_text("#signin-problem")
    assert reader.page.evaluate("sessionStorage.length") == 0
    reader = opens().signs_in("tc_short", wait="#signin-problem:not([hidden])")
    assert not any("/servers" in url for url in reader.requests)                # a form that cannot be is not even sent


def test_a_token_that_is_revoked_in_use_clears_the_screen(served: App, opens: Opens) -> None:
    mine = served.issue(served.user("bob", tenants=("123",)))
    reader = opens().signs_in(mine, keep=True)
    tokens.revoke_all(served.deployment.store, "bob")
    reader.page.click("#refresh")
    reader.page.wait_for_selector("#signin-problem:not([hidden])")
    assert "ins-" not in reader.page.content()
    assert reader.page.evaluate("sessionStorage.length") == 0


# ---------------------------------------------------------------- the tenants of a token

@pytest.mark.slow
def test_a_token_for_one_tenant_needs_no_choice(served: App, opens: Opens) -> None:
    put(served, "7", "aws")
    reader = opens().goes()
    assert reader.page.evaluate("document.activeElement.id") == "token"
    reader.page.fill("#token", served.token)
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_selector("#place table")
    assert reader.page.locator("#tenant option").all_inner_texts() == ["tenant 123"]
    assert [url.rpartition("/")[2].partition("?")[0] for url in reader.requests] == ["", "me", "servers", "parties"]


@pytest.mark.slow
def test_the_tenant_is_chosen_and_changed_without_signing_out(served: App, opens: Opens) -> None:
    reader = opens().goes()
    page = reader.page
    token = two_tenants(served)
    page.fill("#token", token)
    page.click("#signin-form button")
    page.wait_for_selector(CHOOSER)
    assert page.locator("#choose-tenant option").all_inner_texts() == ["all tenants (2)", "tenant 123", "tenant 7"]
    assert page.evaluate("document.activeElement.id") == "choose-tenant"
    assert page.input_value("#token") == ""
    assert not any("/servers" in url for url in reader.requests)
    page.click("#choose-form button[type=submit]")
    page.wait_for_selector("#place table")
    assert "299 servers" in reader.text().replace("\n", " ")
    assert set(reader.column("tenantColumn")) <= {"123", "7"}
    page.click('[data-facet="tenant"] [data-value="7"]')
    assert reader.column("tenantColumn") == ["7"] * 12
    page.click("#place tbody tr >> nth=0 >> .open")
    page.wait_for_selector("#drawer[open]")
    assert "7" in page.locator("#drawer dd code").all_inner_texts()
    page.keyboard.press("Escape")
    page.click("#share")
    assert "tenant_id=7" in page.inner_text("#sheet .command >> nth=0")
    page.keyboard.press("Escape")
    reader.searches("")
    page.select_option("#tenant", "7")
    reader.until("document.querySelectorAll('th.c-tenantColumn').length === 0 "
                 "&& document.querySelectorAll('#place tbody tr').length === 12")
    assert page.title() == "tenant:7 · tenant 7 · twocloud"      # a bookmark is called by its filters
    assert page.is_hidden("#signin")
    assert "tenant=" not in page.url


def test_servers_of_two_tenants_are_never_mixed_up(served: App, opens: Opens) -> None:
    """Both list the same machines through their own accounts: each row opens its own details."""
    reader = opens().signs_in(two_tenants(served), tenant="all", fragment="#q=party:aws&sort=id")
    page = reader.page
    owners = reader.column("tenantColumn")
    assert sorted(owners) == ["123"] * 12 + ["7"] * 12
    for row in (0, 1):
        page.click(f"#place tbody tr >> nth={row} >> .open")
        page.wait_for_selector("#drawer[open]")
        fields = dict(zip(page.locator("#drawer .fields dt").all_inner_texts(),
                          page.locator("#drawer .fields dd > span:first-child").all_inner_texts(), strict=False))
        assert fields["Tenant"] == owners[row]
        page.keyboard.press("Escape")
    served.clouds["aws"].fail("401")
    reader.refreshes()
    page.click("#sources")
    names = page.locator("#sheet tr.stale th").all_inner_texts()
    assert {name.partition(" Amazon EC2")[0] for name in names} == {"123", "7"}


@pytest.mark.slow
def test_a_link_to_a_tenant_that_the_token_does_not_open_offers_the_others(served: App, opens: Opens) -> None:
    """Whether the tenant exists changes nothing."""
    put(served, "8", "aws")
    texts = []
    for tenant in ("8", "9"):
        reader = opens().goes(f"#tenant={tenant}")
        reader.page.fill("#token", served.token)
        reader.page.click("#signin-form button")
        reader.page.wait_for_selector(CHOOSER)
        texts.append(reader.page.inner_text(CHOOSER).replace(f"tenant {tenant}", "tenant ID"))
        assert not any("/servers" in url for url in reader.requests)
        reader.page.click("#choose-form button[type=submit]")
        reader.page.wait_for_selector("#place table")
        assert reader.page.input_value("#tenant") == "123"
    assert texts[0] == texts[1]
    assert "opens no account of tenant ID" in texts[0]


@pytest.mark.slow
def test_a_token_without_tenants_and_a_server_that_is_down(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.issue(served.user("bob", ("7",))), wait="#signin-problem:not([hidden])", keep=True)
    assert "opens no tenant" in reader.page.inner_text("#signin-problem")
    assert reader.page.evaluate("sessionStorage.length") == 0
    reader.page.route("**/me", lambda route: route.abort("connectionrefused"))
    reader.signs_in(served.token, wait="#signin-problem:not([hidden])")
    assert "cannot be reached" in reader.page.inner_text("#signin-problem")
    reader.faults.clear()
    reader.page.unroute("**/me")
    reader.page.click("#signin-form button")                    # the token is still there
    reader.page.wait_for_selector("#place table")


@pytest.mark.slow
def test_a_kept_token_keeps_its_tenant_and_offers_the_others(served: App, opens: Opens) -> None:
    reader = opens().signs_in(two_tenants(served), tenant="7", keep=True)
    reader.page.reload()
    reader.page.wait_for_selector("#place table")
    reader.until("document.querySelectorAll('#tenant option').length === 3")
    assert reader.page.input_value("#tenant") == "7"
    reader.page.select_option("#tenant", "123")
    reader.until("document.title.startsWith('tenant 123')")
    reader.page.reload()
    reader.until("document.title.startsWith('tenant 123')")


@pytest.mark.slow
def test_what_the_token_opens_is_offered_though_it_has_no_servers(served: App, opens: Opens) -> None:
    put(served, "123", "aws", "empty", regions=("eu-west-1",))  # nothing listens there: what it has is not known
    reader = opens().signs_in(served.token)
    assert reader.page.locator('[data-facet="account"] [data-value]').all_inner_texts() == ["empty\n?", "default\n287"]
    assert reader.page.locator('#suggestions option[value="account:empty"]').count() == 1
    assert reader.page.locator('#suggestions option[value="region:eu-west-1"]').count() == 1
    reader.searches("account:default ")
    assert len(reader.column("server")) == 50
    reader.page.click("#share")
    assert "account=default" in reader.page.inner_text("#sheet .command >> nth=0")
