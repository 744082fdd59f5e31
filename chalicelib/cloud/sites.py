"""Sites: parts of one cloud that have accounts, regions and hosts of their own."""

from collections.abc import Callable

from ..errors import UnknownRegion
from .client import Client


def own_site(client: Client, title: str, site_of: Callable[[str], str]) -> str:
    """The site of the account: what its field `site` says, else the site that all its regions are in, else that of the
    region in question. `site_of`: the site of a region.

    Raises UnknownRegion for a region of another site: the account's credentials must not be sent there.
    """
    named = {client.credentials["site"]} if "site" in client.credentials else {
        site_of(region) for region in client.account.regions}
    there = site_of(client.region)
    if len(named) == 1 and there not in named:
        raise UnknownRegion(f"The account is of {title}'s site {named.pop()}, which has no such region. Put an account "
                            "of this region's site.")
    return there
