"""Which parameters are refused, and how."""

from collections.abc import Callable

from tests.http.contract.cases import case, error, gz, new_tenant
from tests.targets import Target

REFUSED = {
    "a parameter that must be there is missing": [
        ("party", "tenant_id=T&region=gz"), ("tenant_id", "party=qcloud&region=gz"),
        ("region", "party=qcloud&tenant_id=T"), ("party", "")],
    "parameters that nobody knows are refused": [
        ("x", "S&x=1"), ("Party", "S&Party=qcloud"), ("limit", "S&limit=10"), ("offset", "S&offset=0"), ("F", "S&F=1"),
        ("?", "S&=1")],
    "repeated parameters are refused": [
        ("party", "S&party=qcloud"), ("tenant_id", "S&tenant_id=T"), ("region", "S&region=ap-shanghai"),
        ("f", "S&f=1&f=1"), ("view", "S&view=full&view=basic")],
    "a tenant is 1 to 64 of certain characters": [
        ("tenant_id", f"party=qcloud&region=gz&tenant_id={value}") for value in
        ("", "a" * 65, "a%20b", "a/b", "a%00", "%E7%A7%9F", "%EF%BC%91", "a%0A", "a,", "a,all",
         "*", "%ff", "a%2Bb", "a+b")],
    "numbers are plain ASCII digits": [
        (name, f"S&{name}={value}") for name in ("f", "t") for value in
        ("", "0", "-1", "%2B1", "+1", "01", "1.0", "1e3", "10000000", "99999999999999999999", "%EF%BC%91", "%D9%A5",
         "1_0", "%201", "1%20", "1%0A", "0x1", "a", "%C2%B2")],
    "f is not after t": [("t", "S&f=2&t=1"), ("t", "S&t=9&f=10")],
    "a party is one of those known": [
        ("party", f"tenant_id=T&region=gz&party={value}")
        for value in ("", "nobody", "QCLOUD", "qcloud%20", "..%2Faws", "q%EF%BD%83loud", "qcloud;aws", "*", "qcloud,",
                      "qcloud,nobody", "qcloud,qcloud,x")],
    "a region is one label": [
        ("region", f"party=qcloud&tenant_id=T&region={value}") for value in
        ("", "evil.com/", "x%40evil.com", "a.b", "GZ%20", "%2e%2e", "a" * 100, "gz,", "gz%00", "gz%0d%0aX:1", "-",
         "%E5%B9%BF")],
    "an alias belongs to one party": [("region", "party=aws&tenant_id=T&region=gz")],
    "choices are what they are": [
        ("format", "S&format=xml"), ("format", "S&format="), ("format", "S&format=JSON"), ("view", "S&view=all"),
        ("view", "S&view="), ("status", "S&status=active"),
        ("status", "S&status=ACTIVE,"), ("status", "S&status=ACTIVE,all"),
        ("status", "S&status="), ("on_error", "S&on_error=ignore"),
        ("on_error", "S&on_error=")],
    "port and address belong to prometheus": [
        ("port", "S&port=80"), ("address", "S&address=wan"), ("port", "S&format=csv&port=80"),
        ("port", "S&format=prometheus&port=0"),
        ("port", "S&format=prometheus&port=65536"), ("port", "S&format=prometheus&port=08"),
        ("address", "S&format=prometheus&address=ipv6")],
    "prometheus and ansible are whole lists": [
        ("f", "S&format=prometheus&f=1"), ("t", "S&format=prometheus&t=1"), ("f", "S&format=ansible&f=1"),
        ("t", "S&format=ansible&t=9")],
    "an address is exact": [("ip", f"S&ip={value}") for value in ("", "10.0.0", "1.2.3.4/32", "256.1.1.1", "01.2.3.4",
                                                                  "10.0.0.1,10.0.0.2", "x")],
    "a name is not empty": [("name", "S&name="), ("name", f"S&name={'x' * 129}"), ("name", "S&name=a%00b")],
    "max_age is seconds": [("max_age", f"S&max_age={value}")
                           for value in ("", "-1", "1.5", "00", "10000000", "1h", "%EF%BC%91")],
    "changed_since is an RFC 3339 time": [
        ("changed_since", f"S&changed_since={value}") for value in
        ("", "yesterday", "2026-09-21", "1790000000", "2026-13-01T00:00:00Z", "2026-09-21T00:00:00",
         "2026-09-21T00:00:00Z%0A")],
    "a time before the history is refused": [("changed_since", "S&changed_since=2001-01-01T00:00:00Z")],
    "partial needs several sources": [("on_error", "S&on_error=partial")],
    "formats that are never partial": [
        ("on_error", f"party=qcloud,aws&tenant_id=T&region=all&on_error=partial&format={written}")
        for written in ("csv", "prometheus", "ansible")],
    "broken escapes are no way in": [("tenant_id", "party=qcloud&region=gz&tenant_id=%zz"), ("name", "S&name=%00"),
                                     ("party", "party=%&tenant_id=T&region=gz")],
}


def refused(rows: list[tuple[str, str]]) -> Callable[[Target], None]:
    def check(target: Target) -> None:
        tenant, token = new_tenant(target)
        before = target.qcloud.count() + target.aws.count()
        for parameter, query in rows:
            path = query.replace("S&", gz("T") + "&", 1).replace("tenant_id=T", f"tenant_id={tenant}")
            try:
                error(target.ask(path, token), 400, "invalid_parameter", parameter)
            except AssertionError as wrong:
                raise AssertionError(f"{query}: {wrong}") from wrong
        assert target.qcloud.count() + target.aws.count() == before, "a party was called"

    return check


for _sentence, _rows in REFUSED.items():
    case(_sentence)(refused(_rows))


@case("token and password in the query are refused and not repeated")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    for name in ("token", "password"):
        answer = target.ask(gz(tenant, f"&{name}={token}"), token)
        error(answer, 400, "invalid_parameter", name)
