"""What the console writes for other programs."""

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.fixtures import App
from tests.http.reader import HOSTILE, Opens, clock, engine, machines, named, opens

__all__ = ["clock", "engine", "opens"]


FORMS = {"csv": "", "json": "", "ndjson": "", "prometheus": "&port=9100&address=wan", "ansible": ""}


def test_an_export_is_what_the_api_writes(served: App, opens: Opens) -> None:
    every = [replace(one, tags={"a-b": "1", "a.b": "2", "名": "值", "__ansible_x": "{{ y }}", "empty": ""} if n % 2
                     else {}, cpu=n + 1, wan=one.wan if n % 3 else (),
                     lan=(f"10.0.0.{n}",), state="stopped" if n < 4 else "running")
             for n, one in enumerate(named(*HOSTILE, "twice", "twice", "all"))]
    machines(served, *every)
    query = "party=all&tenant_id=123&region=all&max_age=9999"
    served.get(query)                       # both read the list that is kept from now on
    reader = opens().signs_in(served.token)

    def saved(forms: Iterable[str]) -> dict[str, bytes]:
        reader.page.click("#share")
        reader.page.fill("#port", "9100")
        reader.page.select_option("#address", "wan")
        files = {form: reader.saves(form) for form in forms}
        reader.page.keyboard.press("Escape")
        return files

    whole = {form: served.get(f"{query}&format={form}{more}" + ("&on_error=partial" if form == "json" else ""))
             for form, more in FORMS.items()}
    for form, content in saved(FORMS).items():
        assert whole[form].status_code == 200, form
        assert content == whole[form].content, form
    reader.searches("status:SHUTOFF ")
    for form, content in saved(FORMS.keys() - {"json"}).items():                # in JSON the counts stay the whole's
        part = served.get(f"{query}&format={form}{FORMS[form]}&status=SHUTOFF")
        assert content == part.content, form
        assert content != whole[form].content, form


@pytest.mark.slow
def test_the_command_gives_what_is_shown(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token, fragment="#q=party:aws+status:SHUTOFF+-name:web")
    reader.page.click("#share")
    curl, command = reader.page.locator("#sheet .command pre").all_inner_texts()[:2]
    assert "$TWOCLOUD_TOKEN" in curl
    assert "tc_" not in reader.page.inner_text("#sheet")
    query = re.search(r"servers\?([^']+)'", curl)[1]            # type: ignore[index]
    reader.page.fill("#port", "70000")
    reader.page.click('[data-format="prometheus"]')             # the API would refuse it, and so nothing is saved
    assert reader.page.evaluate("document.activeElement.id") == "port"
    assert query == "party=aws&tenant_id=123&region=all&on_error=partial&status=SHUTOFF"
    assert (
        command
        == f"twocloud servers --url {served.url} --party aws --tenant 123 --region all --on-error partial "
           f"--status SHUTOFF"
    )
    assert served.get(query).status_code == 200
    assert "-name:web" in reader.page.inner_text("#sheet")
