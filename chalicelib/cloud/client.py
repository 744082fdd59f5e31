"""What an adapter calls its cloud with: a Client, bound to one source, its account, and a deadline.

A cloud with a JSON API over GET declares itself (`Cloud`) and its lists (`List`), and reads them by name. A cloud
whose calls are signed gives `call` a function that signs.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, cast, overload
from urllib.parse import urlencode

import msgspec

from .. import concurrency
from ..errors import PartyMalformed
from ..model import WHOLE, Account, Region, Request, Response, Send, Sign, Source, Window
from . import cache
from .answers import Answer, borne_out, keyed, read_list
from .decoding import read
from .paging import Page, Rows, by_page, by_token

_WORKERS = 10
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
T = TypeVar("T")
U = TypeVar("U")

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Client:
    """An account's calls in one region. `send` holds the deadline, the rate limit and the retry."""

    source: Source
    account: Account = field(repr=False)
    send: Send

    @property
    def region(self) -> str:
        return self.source.region

    @property
    def project(self) -> str | None:
        return self.account.project

    @property
    def credentials(self) -> Mapping[str, str]:
        return self.account.credentials

    @property
    def member(self) -> str | None:
        """The id of the member that the account is, None if it is an account of its own."""
        return self.account.member.id if self.account.member else None

    @property
    def door(self) -> "Client":
        """The client of the account whose credentials open this one: what it keeps, all its members share."""
        return self if self.account.member is None else replace(self, account=self.account.door)

    @property
    def below(self) -> str | None:
        """What the account's members are below; None: all that its credentials can see are meant."""
        return self.account.discovery.below if self.account.discovery else None

    def url(self, url: str) -> str:
        return self.account.url(url)

    def call(self, operation: str, sign: Sign, shape: type[T], *, strict: bool = True) -> T:
        """The answer in this shape. `sign` makes a freshly signed request; it is called for each try."""
        return read(self.send(operation, sign), shape, strict=strict)

    def with_session(self, scope: str, login: Callable[[], tuple[float, T]], use: Callable[[T], U]) -> U:
        """`use(what login returned)`, see cache.with_session."""
        return cache.with_session(self.account, scope, login, use)

    def in_session(self, login: Callable[[], T], logout: Callable[[T], object], use: Callable[[T], U], *,
                   ended: Container[str], wrong: Container[str]) -> U:
        """`use(what login returned)` in a session that is ended after it, see cache.in_session."""
        return cache.in_session(self.account, login, logout, use, ended=ended, wrong=wrong)

    # ------------------------------------------------------------ declared lists

    def get(self, cloud: "Cloud", operation: str, path: str, headers: Headers = {}, /, **query: object) -> Response:
        """A JSON GET. A parameter of None is left out, one with several values is repeated."""
        pairs = urlencode({name: value for name, value in query.items() if value is not None}, doseq=True)
        url = self.url(f"https://{cloud.host.format(region=self.region)}{path}{'?' if pairs else ''}{pairs}")
        return cloud.auth(self, lambda opened: self.send(operation, lambda: Request("GET", url, {
            "Accept": "application/json", **opened, **headers})))

    def rows(self, what: "List[T]", headers: Headers = {}, /, **query: object) -> list[T]:
        """The rows of a list without pages."""
        return list(self._answer(what, headers, **query).rows)

    def pages(self, what: "List[T]", window: Window = WHOLE, headers: Headers = {}, /, **query: object) -> Rows[T]:
        """The rows of numbered pages."""
        def fetch(number: int, size: int) -> Page[T]:
            answer = self._answer(what, headers, **query, page=number, **{what.cloud.size: size})
            return Page(keyed(answer.rows, what.mapped), answer.total)

        return by_page(fetch, window, what.cloud.most, _WORKERS, what.cloud.least)

    def walk(self, what: "List[T]", window: Window = WHOLE, headers: Headers = {}, /, **query: object) -> Rows[T]:
        """The rows of pages that each state the cursor of the next."""
        cloud = what.cloud
        size = cloud.most if window.last is None else min(cloud.most, window.last + 1)
        for _ in range(2):
            stated: set[int | None] = set()

            def fetch(cursor: str | None, stated: set[int | None] = stated) -> Page[T]:
                answer = self._answer(what, headers, **query, **{cloud.size: size, cloud.cursor: cursor})
                stated.add(answer.total)
                return Page(keyed(answer.rows, what.mapped), answer.total, answer.cursor)

            rows = by_token(fetch, window)
            if stated == {None} and not what.counted:
                return rows
            totals = sorted(total for total in stated if total is not None)
            if len(totals) == len(stated) and (total := borne_out(rows, totals, window)) is not None:
                return Rows(rows.rows, total)
        raise PartyMalformed("The party's count and its rows still disagree after a second listing.")

    def window(self, what: "List[T]", window: Window, headers: Headers = {}, /, **query: object) -> Rows[T]:
        """The rows of a window, whichever way the cloud's pages go."""
        if what.cloud.cursor:
            return self.walk(what, window, headers, **query)
        if what.cloud.page:
            return self.pages(what, window, headers, **query)
        rows = self.rows(what, headers, **query)
        return Rows(rows, len(rows))

    def all(self, what: "List[T]", headers: Headers = {}, /, **query: object) -> list[T]:
        """Every row of a list, whichever way its pages go."""
        return self.window(what, WHOLE, headers, **query).rows

    def _answer(self, what: "List[T]", headers: Headers, **query: object) -> Answer[T]:
        response = self.get(what.cloud, what.operation, what.path.format(region=self.region), headers,
                            **what.query, **query)
        item: Any = what.item
        return read_list(response, what.key, dict[str, item] if what.mapped else list[item])

    # ------------------------------------------------------------ many calls at once

    @overload
    def run_all(self, one: Callable[[], A], two: Callable[[], B], /) -> tuple[A, B]: ...
    @overload
    def run_all(self, one: Callable[[], A], two: Callable[[], B], three: Callable[[], C], /) -> tuple[A, B, C]: ...
    @overload
    def run_all(self, one: Callable[[], A], two: Callable[[], B], three: Callable[[], C], four: Callable[[], D],
                /) -> tuple[A, B, C, D]: ...
    @overload
    def run_all(self, one: Callable[[], A], two: Callable[[], B], three: Callable[[], C], four: Callable[[], D],
                five: Callable[[], E], /) -> tuple[A, B, C, D, E]: ...
    def run_all(self, *calls: Callable[[], object]) -> Any:
        """The results of calls made at the same time; the first error ends it without waiting for the others."""
        return tuple(concurrency.run_all(calls, len(calls)))

    def for_each(self, values: Iterable[U], call: Callable[[U], T], workers: int = _WORKERS) -> list[T]:
        """The results for each of the values, of calls made at the same time."""
        return concurrency.run_all([lambda value=value: call(value) for value in values], workers)

    def in_batches(self, ids: Sequence[str], size: int, call: Callable[[Sequence[str]], Iterable[T]]) -> list[T]:
        """What the calls for each `size` ids return, joined."""
        batches = [ids[at:at + size] for at in range(0, len(ids), size)]
        return [row for part in self.for_each(batches, call) for row in part]

    def tree(self, top: str, leaves: Callable[[str], Iterable[T]], folders: Callable[[str], Iterable[U]],
             ids: tuple[Callable[[T], str], Callable[[U], str]]) -> list[T]:
        """The leaves below `top`, each id once, read level by level; each folder is read once, so that a circle ends.

        `leaves`, `folders`: what lies directly in a folder. `ids`: of a leaf, and of a folder.
        """
        by_id: dict[str, T] = {}
        level, listed = [top], set[str]()
        while level:
            listed.update(level)
            below = self.for_each(level, lambda parent: self.run_all(lambda: leaves(parent), lambda: folders(parent)))
            by_id |= {ids[0](leaf): leaf for part, _ in below for leaf in part}
            level = sorted({ids[1](folder) for _, part in below for folder in part} - listed)
        return list(by_id.values())

    # ------------------------------------------------------------ the account's project

    def of_project(self, rows: list[T], project_of: Callable[[T], str | None], kind: str = "project") -> list[T]:
        """The rows. Raises PartyMalformed if the account has a project and one of them is of another."""
        if self.project is not None and any(project_of(row) != self.project for row in rows):
            raise PartyMalformed(f"The party listed servers of another {kind} than the account's.")
        return rows


# ---------------------------------------------------------------- what a cloud declares

Auth = Callable[[Client, Callable[[Headers], Response]], Response]


def bearer(client: Client, call: Callable[[Headers], Response]) -> Response:
    """Opens calls with the account's token."""
    return call({"Authorization": f"Bearer {client.credentials['token']}"})


class Cloud(msgspec.Struct, frozen=True):
    """A JSON API over GET.

    `host`: to which all calls go; {region} in it is the client's. `page`: the most rows of a page, None if its lists
    have no pages. `size`: its parameter for the rows of a page, which are at least `least`. `cursor`: its parameter for
    the next page; "": pages are numbered. `auth`: makes a call with the headers that open it.
    """

    host: str
    page: Callable[[], int] | None = None
    size: str = "per_page"
    least: int = 1
    cursor: str = ""
    auth: Auth = bearer

    @property
    def most(self) -> int:
        return self.page() if self.page else 1


class List(msgspec.Struct, Generic[T], frozen=True):
    """A list of a cloud. `path`: {region} in it is the client's. `key`: where an answer holds its rows, "" if it is
    the rows; "servers.server" is a key in a key. `item`: the type of a row.

    Rows must have an `id`, or else differ. `counted`: the answer must state the total; else a walk without one ends
    where there is no next page. `query`: parameters of each call.
    """

    cloud: Cloud
    operation: str
    path: str
    key: str
    item: type[T]
    counted: bool = True
    query: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    mapped: bool = False


def map_of(cloud: Cloud, operation: str, path: str, key: str, item: type[T]) -> List[tuple[str, T]]:
    """A list that answers hold as a map: its rows are (id, row)."""
    return cast(Any, List)(cloud, operation, path, key, item, mapped=True)


def one_row(what: List[Any]) -> Callable[[Client], object]:
    """A check that lists one row."""
    return lambda client: client.window(what, Window(1, 1))


def regions_of(what: List[T], region: Callable[[T], Region]) -> Callable[[Client], list[Region]]:
    """The regions that a list names."""
    return lambda client: [region(row) for row in client.all(what)]
