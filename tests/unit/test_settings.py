"""The environment: defaults, what is accepted, and one clear line for what is not."""

import pytest

from chalicelib import settings
from chalicelib.errors import SettingsError


def test_defaults() -> None:
    values = settings.load({})
    assert (values.store, values.key, str(values.timezone)) == ("sqlite:///.twocloud/twocloud.db", "file:.twocloud/key",
                                                                "UTC")
    assert (values.max_age, values.stale_if_error, values.history, values.local,
            values.in_lambda) == (0, 86400, 30, False, False)


def test_what_is_accepted() -> None:
    values = settings.load({"TWOCLOUD_STORE": "dynamodb://twocloud-prod", "TWOCLOUD_KEY": "kms:alias/twocloud",
                            "TWOCLOUD_TIMEZONE": "Asia/Shanghai", "TWOCLOUD_MAX_AGE": "60",
                            "TWOCLOUD_STALE_IF_ERROR": "0",
                            "TWOCLOUD_HISTORY": "7", "TWOCLOUD_LOCAL": "1", "TWOCLOUD_QUEUE": "stack-Queue-1",
                            "OTHER": "x"})
    assert (values.store, values.key, str(values.timezone)) == ("dynamodb://twocloud-prod", "kms:alias/twocloud",
                                                                "Asia/Shanghai")
    assert (values.max_age, values.stale_if_error, values.history, values.local) == (60, 0, 7, True)
    assert values.queue == "stack-Queue-1"
    assert settings.load({"TWOCLOUD_STORE": "sqlite:////var/lib/twocloud.db"}).store == "sqlite:////var/lib/twocloud.db"
    assert settings.load({"TWOCLOUD_STORE": "", "TWOCLOUD_MAX_AGE": ""}) == settings.load({})


@pytest.mark.parametrize(("name", "value"), [
    *(("TWOCLOUD_STORE", v) for v in ("sqlite://x", "sqlite:///", "sqlite:///a/", "mysql://x", "dynamodb://",
                                      "dynamodb://a b", "x")),
    *(("TWOCLOUD_KEY", v) for v in ("file:", "kms:", "x", "kms:a b", "env:", "env:A-B", "env:1")),
    *(("TWOCLOUD_TIMEZONE", v) for v in ("Mars/Phobos", "../etc/passwd", "/etc/localtime", "UTC\n", "x" * 300, "Asia",
                                         "é")),
    *((n, v) for n in ("TWOCLOUD_MAX_AGE", "TWOCLOUD_STALE_IF_ERROR", "TWOCLOUD_HISTORY") for v in (
        "-1", "+1", "1.5", "01", " 1", "1 ", "1\n", "１", "٥", "1_0", "1e3", "99999999", "x")),
    ("TWOCLOUD_HISTORY", "3651"), *(("TWOCLOUD_QUEUE", v) for v in ("a b", "https://sqs/x", "x.fifo", "q\n", "x" * 81)),
    *(("TWOCLOUD_LOCAL", v) for v in ("yes", "true", "2", "1 ")),
    *(("TWOCLOUD_CORS_ORIGINS", v) for v in (
        "*", "null", "dash.example.com", "https://a/", "https://a,b", "https://*.a", "ftp://a", "https://u@a")),
    *((n, v) for n in ("TWOCLOUD_CONNECTIONS", "TWOCLOUD_ADDRESS_CONNECTIONS", "TWOCLOUD_REQUESTS",
                       "TWOCLOUD_TENANT_REQUESTS", "TWOCLOUD_ADDRESS_REQUESTS", "TWOCLOUD_WRONG_PASSWORDS")
      for v in ("0", "-1", "x", "1.5", "99999")),
    ("TWOCLOUD_CONNECTIONS", "3001"), ("TWOCLOUD_REQUESTS", "1001"), ("TWOCLOUD_ADDRESS_CONNECTIONS", "901"),
    ("TWOCLOUD_TENANT_REQUESTS", "201"), ("TWOCLOUD_ADDRESS_REQUESTS", "201"),
    *(("TWOCLOUD_TRUSTED_PROXY", v) for v in ("x", "*", "10.0.0.0/33", "10.0.0.1:80", "proxy.example.com")),
])
def test_a_bad_setting_stops_with_one_line_that_names_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as stopped:
        settings.load({name: value})
    assert stopped.value.text.startswith(name)
    assert "\n" not in stopped.value.text


def test_in_lambda() -> None:
    inside = {"AWS_LAMBDA_FUNCTION_NAME": "f", "TWOCLOUD_STORE": "dynamodb://twocloud"}
    assert settings.load(inside).in_lambda
    assert settings.load(inside).key == ""
    for name, value in (("TWOCLOUD_LOCAL", "1"), ("TWOCLOUD_KEY", "file:key"), ("TWOCLOUD_KEY", "env:KEY"),
                        ("TWOCLOUD_STORE", "sqlite:///x")):
        with pytest.raises(SettingsError, match=name):
            settings.load({**inside, name: value})


def test_origins_are_as_a_browser_writes_them() -> None:
    read = settings.load({"TWOCLOUD_CORS_ORIGINS": " HTTPS://Dash.example.com:443 ,http://localhost:3000,"})
    assert read.cors_origins == {"https://dash.example.com", "http://localhost:3000"}
    assert settings.load({}).cors_origins == frozenset()


def test_trusted_proxies() -> None:
    read = settings.load({"TWOCLOUD_TRUSTED_PROXY": "10.0.0.5, 192.168.1.7/16,fd00::/8,unix"})
    assert [str(item) for item in read.trusted_proxies] == ["10.0.0.5/32", "192.168.0.0/16", "fd00::/8", "unix"]


def test_a_part_of_a_limit_is_never_more_than_the_whole() -> None:
    assert settings.load({}).limits == settings.ServerLimits()
    small = settings.load({"TWOCLOUD_CONNECTIONS": "40", "TWOCLOUD_REQUESTS": "8", "TWOCLOUD_WRONG_PASSWORDS": "3"})
    assert small.limits == settings.ServerLimits(40, 40, 8, 8, 8, 3)
    wide = settings.load({"TWOCLOUD_REQUESTS": "1000", "TWOCLOUD_TENANT_REQUESTS": "400"})
    assert wide.limits == settings.ServerLimits(requests=1000, tenant_requests=400)
    with pytest.raises(SettingsError, match=r"^TWOCLOUD_TENANT_REQUESTS must be a whole number from 1 to 8, the value "
                                            r"of TWOCLOUD_REQUESTS\.$"):
        settings.load({"TWOCLOUD_REQUESTS": "8", "TWOCLOUD_TENANT_REQUESTS": "9"})
