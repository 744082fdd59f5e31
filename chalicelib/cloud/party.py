"""What twocloud knows of one cloud: the description beside its adapter."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import msgspec

from ..errors import Meaning, PartyError, UnknownRegion
from ..model import Account, Limit, Listing, Member, Region, Response, Server, Status, Window
from .client import Client

# What a region of any party can be called: in a host's name or a path it changes neither's other parts.
_LABEL = "[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"


class StatusFields(TypedDict):
    """The two status fields of a Server."""

    status: Status
    party_status: str


class RegionNames(TypedDict):
    """The two fields of a Party with names of regions."""

    region_names: Callable[[], Mapping[str, str]]
    region_names_zh: Callable[[], Mapping[str, str]]


def region_names(names: Mapping[str, str | tuple[str, str]]) -> RegionNames:
    """`names`: a region's code -> its name, or (English, Chinese)."""
    return {"region_names": lambda: {code: name if isinstance(name, str) else name[0] for code, name in names.items()},
            "region_names_zh": lambda: {code: name[1] for code, name in names.items() if not isinstance(name, str)}}


@dataclass(frozen=True, slots=True)
class OwnFile:
    """What a vendor's own file of credentials holds for one account.

    `regions`: those of the account if none are given. `ca_file`: where the authority's file is, "" if it names none.
    `remarks`: for the operator, on what in the file has no effect.
    """

    credentials: Mapping[str, str] = field(repr=False)
    regions: tuple[str, ...] = ()
    ca_file: str = ""
    remarks: Sequence[str] = ()


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """A cloud's description.

    `credentials`: the accepted sets of fields, a trailing "?" marks one that may be left out. `forms`: what a field
    looks like, where it is not just printable ASCII without blanks. `objects`: fields that are JSON objects, kept as
    JSON text. `addresses`: fields that are URLs, held to the rules of --endpoint but for the path. `hosts`: those of
    them that may also be a host's name, with or without a port; https is meant then, see `joining.base_url`. `examine`
    raises InvalidParameter for what a form cannot say. `own_file`: reads the vendor's own file of credentials, from its
    text and the name of the entry in it (None: the only one); raises InvalidParameter. None: only JSON is accepted.
    `grade`: what its answers were held against, see GRADES.
    `order`: in which order the party lists its servers and what its pages start from, and how that is known.
    `permissions`: the narrowest right, the actions that are called; `deep_permissions` for --deep alone.
    `aliases`: other names of a region -> its code. `region_form`: what the codes of its regions look like, as far as
    they are known: a name of another form is sent to the party only if its list of regions names it.
    `region_names`: code -> what people call the region, as far as the vendor's documents, API or library say.
    `region_names_zh`: the same in Chinese, as the consoles of China's clouds show it.
    `default_region`: where `account check` asks if the account names no region. `usual_region`: the same for a cloud of
    several sites, from the credentials and a region's code or "": a region that certainly exists in the site of that
    region, or of the credentials. `unknown_region_is_empty`: an unknown region is an empty list at this party, so that
    an empty list is believed only of a region that it names.
    `region_in_host`: an unknown region is a host name that cannot be looked up, so that a party that cannot be reached
    is asked for its regions at another host.
    `closed_is_denied`: in a region that is not enabled for the account the party refuses the credentials.
    `project`: what --project holds ("" if the party has no projects), `project_form` its form.
    `error_code`: the party's own error code in an answer, None if the answer is no error.
    `errors`: that code (or what stands before its first dot) -> what it means. `status`: the same for words of state.
    `limits`: operation -> the rate that the party documents for it.
    `list_servers`: all or nothing. `list_regions`: what the party says is there; the client's region is the account's
    first, or the default. `check`: one cheap signed call; None: to list one server.
    `warn`: what an operator should know of servers that the party hides from this account, or "".
    `discover`: all members behind an account with `discovery`, its own included, to the last page or an error; None:
    this party has no organisations. Where a client's account is a `member`, the adapter opens it with the door's
    credentials (a role, a scope, another subscription), and sessions are kept per member.
    `discover_permissions`: the actions that discovery needs beside `permissions`.
    `below`: what a discovery's `below` is at this party ("" if it cannot be narrowed), `below_form` its form.
    `role`: the usual role in a member ("" if no role is assumed), `role_form` the form of a role's name.
    `regional_limits`: the party documents that its rates count in each region by themselves. Else they count for the
    credentials: all regions share them.
    `principal`: the fields that name whom shared rates count for, where accounts with other fields share them; (): all.
    `shared_limits`: operations whose rate counts for the credentials although others' count in each region: all members
    behind an account share it, too.
    `list_many`: whole lists of many members at once, in calls that do not grow with them. Each of the members gets an
    entry: its servers by region, in the order of `list_servers`, or the error by which this member failed. A region
    that an entry does not name holds no server. The client's account is the door, without a `project`. None: members
    are listed one by one.
    """

    name: str
    title: str
    reference: str
    order: str
    credentials: tuple[tuple[str, ...], ...]
    forms: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    objects: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    examine: Callable[[Mapping[str, str]], None] | None = None
    own_file: Callable[[str, str | None], OwnFile] | None = None
    permissions: tuple[str, ...]
    deep_permissions: tuple[str, ...] = ()
    grade: str = "documented"
    aliases: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    region_names: Callable[[], Mapping[str, str]] = dict[str, str]
    region_names_zh: Callable[[], Mapping[str, str]] = dict[str, str]
    region_form: str
    default_region: str
    usual_region: Callable[[Mapping[str, str], str], str] | None = None
    unknown_region_is_empty: bool = False
    region_in_host: bool = False
    closed_is_denied: bool = False
    project: str = ""
    project_form: str = ""
    limits: Mapping[str, Limit]
    error_code: Callable[[Response], str | None]
    errors: Mapping[str, Meaning]
    status: Mapping[str, Status] = msgspec.field(default_factory=dict[str, Status])
    list_servers: Callable[[Client, Window], Listing]
    list_regions: Callable[[Client], list[Region]]
    check: Callable[[Client], object] | None = None
    warn: Callable[[Client], str] | None = None
    discover: Callable[[Client], list[Member]] | None = None
    discover_permissions: tuple[str, ...] = ()
    below: str = ""
    below_form: str = ""
    role: str = ""
    role_form: str = ""
    regional_limits: bool = False
    principal: tuple[str, ...] = ()
    shared_limits: frozenset[str] = frozenset()
    list_many: Callable[[Client, Sequence[Member]], Mapping[str, Mapping[str, list[Server]] | PartyError]] | None = None

    def region(self, name: str) -> str:
        """The code of a region under any of its names. Raises UnknownRegion if no call can hold a name like this."""
        code = self.aliases.get(name, name)
        if not self.expects(code) and not re.fullmatch(_LABEL, code, re.ASCII):
            raise UnknownRegion(f"{self.title} has no region of this name.")
        return code

    def expects(self, code: str) -> bool:
        """Whether the code has the form of the regions that this party is known to have."""
        return bool(re.fullmatch(self.region_form, code, re.ASCII))

    def home(self, account: Account, region: str = "") -> str:
        """The region where this account is asked if nobody names one, or one that exists in the site of `region`."""
        return self.usual_region(account.credentials, region) if self.usual_region else self.default_region

    def shares(self, operation: str) -> bool:
        """Whether the operation's rate counts for the credentials, in all regions and for all members."""
        return not self.regional_limits or operation in self.shared_limits

    def status_of(self, word: str | None) -> StatusFields:
        """The status fields of a Server, from the party's own word."""
        word = word or ""
        return {"status": self.status.get(word.strip(), Status.UNKNOWN), "party_status": word}
