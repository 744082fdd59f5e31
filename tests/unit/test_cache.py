"""What a warm process remembers: one login at a time, renewed once; catalogues asked only for what is missing."""

import threading
import time

import pytest
import time_machine

from chalicelib.cloud.cache import cached_lookup, with_session
from chalicelib.errors import PartyDenied
from chalicelib.model import Account

ACCOUNT = Account(tenant_id="1", party="x", credentials={"key": "k"}, revision="r")


class Logins:
    def __init__(self, seconds: float = 3600.0) -> None:
        self.made: list[str] = []
        self.seconds = seconds

    def __call__(self) -> tuple[float, str]:
        self.made.append(f"token-{len(self.made)}")
        return time.time() + self.seconds, self.made[-1]


def test_a_login_is_kept_until_shortly_before_its_end() -> None:
    login = Logins()
    assert [with_session(ACCOUNT, "s", login, str) for _ in range(3)] == ["token-0"] * 3
    with time_machine.travel(time.time() + 3600 - 59):
        assert with_session(ACCOUNT, "s", login, str) == "token-1"


def test_logins_of_other_tenants_accounts_and_scopes_are_others() -> None:
    login = Logins()
    others = [ACCOUNT, Account(tenant_id="2", party="x", credentials={"key": "k"}, revision="r"),
              Account(tenant_id="1", party="y", credentials={"key": "k"}, revision="r"),
              Account(tenant_id="1", party="x", credentials={"key": "other"}, revision="r"),
              Account(tenant_id="1", party="x", credentials={"key": "k"}, revision="put again"),
              Account(tenant_id="1", party="x", credentials={"key": "k"}, revision="r", endpoint="https://there")]
    assert len({with_session(account, scope, login, str) for account in others for scope in "st"}) == 12


def test_a_kept_login_that_is_refused_is_renewed_once_and_a_fresh_one_never() -> None:
    login = Logins()
    with_session(ACCOUNT, "s", login, str)

    def ended(token: str) -> str:
        if token == "token-0":
            raise PartyDenied(http_status=401)
        return token

    assert with_session(ACCOUNT, "s", login, ended) == "token-1"
    assert len(login.made) == 2

    def refuse(status: int) -> str:
        raise PartyDenied(http_status=status)

    for status, renewed in ((401, 3), (403, 3), (401, 4)):
        with pytest.raises(PartyDenied):
            with_session(ACCOUNT, "s", login, lambda _, status=status: refuse(status))
        assert len(login.made) == renewed
    with pytest.raises(PartyDenied):                            # a fresh one
        with_session(ACCOUNT, "other", login, lambda _: refuse(401))
    assert len(login.made) == 5


def test_many_threads_make_one_login() -> None:
    login = Logins()

    def slow() -> tuple[float, str]:
        time.sleep(0.05)
        return login()

    tokens: list[str] = []
    threads = [threading.Thread(target=lambda: tokens.append(with_session(ACCOUNT, "s", slow, str))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens == ["token-0"] * 20
    assert login.made == ["token-0"]


def test_a_catalogue_is_asked_only_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []

    def fetch(names):
        batches.append(list(names))
        return {name: len(name) for name in [*names, "more"] if name != "retired"}

    assert cached_lookup(ACCOUNT, "c", ["aa", "b", "", "retired", "b"], fetch) == {"aa": 2, "b": 1}
    assert cached_lookup(ACCOUNT, "c", ["aa", "more", "retired"], fetch) == {"aa": 2, "more": 4}
    assert cached_lookup(ACCOUNT, "other", ["aa"], fetch) == {"aa": 2}
    assert batches == [["aa", "b", "retired"], ["aa"]]
    monkeypatch.setattr("chalicelib.cloud.cache._UNKNOWN_SECONDS", 0.0)
    cached_lookup(ACCOUNT, "c", ["retired"], fetch)
    assert batches[-1] == ["retired"]
