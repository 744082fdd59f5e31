"""Users and their passwords."""

import threading
import time

import pytest

from chalicelib.access import users
from chalicelib.access.users import User
from chalicelib.errors import Conflict, RateLimited, Unauthorized
from chalicelib.fleet.many_sources import Deployment
from tests.canaries import secret
from tests.fixtures import Clock


@pytest.fixture
def ann(deployment: Deployment) -> str:
    password = secret("password")
    users.add(deployment.store, User(name="ann", uid="1", tenants=("123",), password=users.hash_password(password)))
    return password


def test_add_find_change_remove(deployment: Deployment) -> None:
    store = deployment.store
    users.add(store, User(name="ann", uid="1", tenants=("123",)))
    with pytest.raises(Conflict):
        users.add(store, User(name="ann", uid="2"))
    changed = users.change(store, "ann", lambda user: User(name=user.name, uid=user.uid, disabled=True))
    assert changed
    assert users.find(store, "ann") == changed
    assert changed.disabled
    assert users.change(store, "bob", lambda user: user) is None
    assert users.every(store) == [changed]
    users.remove(store, "ann")
    assert users.find(store, "ann") is None


def test_the_right_password_and_no_other(deployment: Deployment, clock: Clock, ann: str) -> None:
    assert users.check_password(deployment.store, "ann", ann, clock()).name == "ann"
    for name, password in (("ann", ann + "x"), ("ann", ""), ("ann", ann.upper()), ("bob", ann), ("ann", "é" + ann)):
        with pytest.raises(Unauthorized):
            users.check_password(deployment.store, name, password, clock())


def test_a_disabled_user_and_one_without_password(deployment: Deployment, clock: Clock, ann: str) -> None:
    users.change(deployment.store, "ann", lambda user: User(name="ann", uid="1", password=user.password, disabled=True))
    users.add(deployment.store, User(name="eve", uid="3"))
    for name in ("ann", "eve"):
        with pytest.raises(Unauthorized):
            users.check_password(deployment.store, name, ann, clock())


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_after_five_wrong_ones_in_a_minute_the_next_waits(deployment: Deployment, clock: Clock, ann: str,
                                                          name: str) -> None:
    for _ in range(5):
        with pytest.raises(Unauthorized):
            users.check_password(deployment.store, name, "wrong", clock())
        clock.forward(5)
    with pytest.raises(RateLimited) as limited:             # even with the right one
        users.check_password(deployment.store, name, ann, clock())
    assert 30 <= limited.value.retry_after <= 37            # the first of the five is 25 seconds old
    clock.forward(limited.value.retry_after)
    if name == "ann":
        assert users.check_password(deployment.store, name, ann, clock())
    else:
        with pytest.raises(Unauthorized):
            users.check_password(deployment.store, name, ann, clock())


def test_right_ones_are_not_counted_and_free_nobody(deployment: Deployment, clock: Clock, ann: str) -> None:
    for _ in range(4):
        with pytest.raises(Unauthorized):
            users.check_password(deployment.store, "ann", "wrong", clock())
    for _ in range(20):
        users.check_password(deployment.store, "ann", ann, clock())
    with pytest.raises(Unauthorized):
        users.check_password(deployment.store, "ann", "wrong", clock())
    with pytest.raises(RateLimited):
        users.check_password(deployment.store, "ann", "wrong", clock())


def test_many_at_once_do_not_slip_through(deployment: Deployment, clock: Clock, ann: str) -> None:
    kinds: list[type[BaseException]] = []

    def guess() -> None:
        try:
            users.check_password(deployment.store, "ann", "wrong", clock())
        except (Unauthorized, RateLimited) as refused:
            kinds.append(type(refused))

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds.count(Unauthorized) == 5
    assert kinds.count(RateLimited) == 15


def test_what_is_kept_of_a_password(deployment: Deployment, ann: str) -> None:
    row = deployment.store.get("user", "ann")
    assert row
    assert ann.encode() not in row.value
    assert users.hash_password(ann) != users.hash_password(ann)


def test_the_real_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests hash cheaply; the program itself does at least what OWASP asks (n 2^15, r 8, p 3)."""
    monkeypatch.undo()
    assert users._SCRYPT == {"n": 2 ** 15, "r": 8, "p": 3}
    assert users._NOBODY.startswith("scrypt$32768$8$3$")
    assert users.hash_password("password").startswith("scrypt$32768$8$3$")


# ---------------------------------------------------------------- strangers

def test_one_password_at_a_time_and_few_wait(deployment: Deployment, clock: Clock,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses for many users at once: one core at most, a bounded room before it, and a quick no for all others."""
    free, running, most = threading.Event(), [0], [0]
    errors: list[str] = []

    def slow(*arguments: object) -> bytes:
        running[0] += 1
        most[0] = max(most[0], running[0])
        free.wait(20)
        running[0] -= 1
        return b""

    def guess(n: int) -> None:
        try:
            users.check_password(deployment.store, f"user-{n}", "wrong", clock())
        except (Unauthorized, RateLimited) as refused:
            errors.append(refused.code)

    monkeypatch.setattr(users, "_scrypt", slow)
    monkeypatch.setattr(users, "_WAIT_SECONDS", 20)
    threads = [threading.Thread(target=guess, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 10
    while len(errors) < 40 - 1 - users._WAITING and time.monotonic() < until:
        time.sleep(0.01)
    assert errors == ["rate_limited"] * (40 - 1 - users._WAITING)               # while nobody's password is checked yet
    free.set()
    for thread in threads:
        thread.join(20)
    assert most == [1]
    assert errors.count("unauthorized") == 1 + users._WAITING
    with pytest.raises(Unauthorized):       # and the room is free again
        users.check_password(deployment.store, "later", "wrong", clock())


def test_nobody_waits_long_for_a_turn(deployment: Deployment, clock: Clock, ann: str,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_WAIT_SECONDS", 0.05)
    with users._turn(), pytest.raises(RateLimited) as limited:
        users.check_password(deployment.store, "ann", ann, clock())
    assert limited.value.retry_after == 2
    assert "Retry in 2 s." in limited.value.text
    assert users.check_password(deployment.store, "ann", ann, clock())
