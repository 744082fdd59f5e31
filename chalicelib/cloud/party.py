"""What twocloud knows of one cloud: the description beside its adapter."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ..errors import Meaning, UnknownRegion
from ..model import Limit, Listing, Region, Response, Status, Window
from .client import Client


class StatusFields(TypedDict):
    """The two status fields of a Server."""

    status: Status
    party_status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A cloud's description.

    `credentials`: the accepted sets of fields, a trailing "?" marks one that may be left out. `forms`: what a field
    looks like, where it is not just printable ASCII without blanks. `objects`: fields that are JSON objects, kept as
    JSON text. `addresses`: fields that are URLs, held to the rules of --endpoint but for the path. `examine` raises
    InvalidParameter for what a form cannot say.
    `grade`: what its answers were held against, see GRADES.
    `order`: in which order the party lists its servers and what its pages start from, and how that is known.
    `permissions`: the narrowest right, the actions that are called; `deep_permissions` for --deep alone.
    `aliases`: other names of a region -> its code. `region_form`: what a region's code looks like.
    `default_region`: where `account check` asks if the account names no region. `unknown_region_is_empty`: an unknown
    region is an empty list at this party, so that an empty list is believed only of a region that it names.
    `closed_is_denied`: in a region that is not enabled for the account the party refuses the credentials.
    `project`: what --project holds ("" if the party has no projects), `project_form` its form.
    `error_code`: the party's own error code in an answer, None if the answer is no error.
    `errors`: that code (or what stands before its first dot) -> what it means. `status`: the same for words of state.
    `limits`: operation -> the rate that the party documents for it.
    `list_servers`: all or nothing. `list_regions`: what the party says is there; the client's region is the account's
    first, or the default. `check`: one cheap signed call; None: to list one server.
    """

    name: str
    title: str
    reference: str
    order: str
    credentials: tuple[tuple[str, ...], ...]
    forms: Mapping[str, str] = field(default_factory=dict[str, str])
    objects: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    examine: Callable[[Mapping[str, str]], None] | None = None
    permissions: tuple[str, ...]
    deep_permissions: tuple[str, ...] = ()
    grade: str = "documented"
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    region_form: str
    default_region: str
    unknown_region_is_empty: bool = False
    closed_is_denied: bool = False
    project: str = ""
    project_form: str = ""
    limits: Mapping[str, Limit]
    error_code: Callable[[Response], str | None]
    errors: Mapping[str, Meaning]
    status: Mapping[str, Status] = field(default_factory=dict[str, Status])
    list_servers: Callable[[Client, Window], Listing]
    list_regions: Callable[[Client], list[Region]]
    check: Callable[[Client], object] | None = None

    def region(self, name: str) -> str:
        """The code of a region under any of its names. Raises UnknownRegion if it cannot be one of this party's."""
        code = self.aliases.get(name, name)
        if not re.fullmatch(self.region_form, code, re.ASCII):
            raise UnknownRegion(f"{self.title} has no region of this name.")
        return code

    def status_of(self, word: str | None) -> StatusFields:
        """The status fields of a Server, from the party's own word."""
        word = word or ""
        return {"status": self.status.get(word.strip(), Status.UNKNOWN), "party_status": word}
