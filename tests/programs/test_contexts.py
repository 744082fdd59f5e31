"""Which server the command asks, with which token, and what it says of one that is none."""

import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib import settings
from chalicelib.cli import remote
from chalicelib.cli.contexts import There
from chalicelib.cli.output import Network
from chalicelib.simulators.faults import Answer
from chalicelib.simulators.server import Call, Simulator
from chalicelib.simulators.tls import certificate
from tests.canaries import secret, watch
from tests.fixtures import App
from tests.programs.test_terminal import GZ
from tests.programs.test_terminal import run as run_process
from tests.programs.test_terminal import run_here as run

CONFIG = ".config/twocloud/config.toml"


def token(letter: str) -> str:
    return watch("tc_" + (letter * 6 + secret()[-24:] + "000000"))


class Other(Simulator):
    """A web server that is no twocloud: it says what it is told to and remembers what it was sent."""

    def __init__(self, answer: Answer) -> None:
        self.response = answer
        super().__init__()

    def operation(self, call: Call) -> str:
        return call.path

    def answer(self, call: Call) -> Answer:
        return self.response


@pytest.fixture
def other() -> Iterator[Other]:
    with Other(Answer(200, {"Content-Type": "text/html"}, b"<h1>Welcome to Hotel Wi-Fi</h1>")) as other:
        yield other


def add(folder: Path, name: str, url: str, text: str) -> None:
    done = run(folder, "context", "add", name, "--url", url, "--token-stdin", stdin=text + "\n")
    assert done.returncode == 0, done.stderr
    assert text not in done.stdout + done.stderr, done.stderr


# ---------------------------------------------------------------- the file

def test_contexts_are_kept_and_their_tokens_never_shown(tmp_path: Path) -> None:
    one, two = token("a"), token("b")
    add(tmp_path, "prod", "https://prod.example/", one)
    path = tmp_path / CONFIG
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (tmp_path / "t.secret").write_text(two)
    assert run(tmp_path, "context", "add", "a.b", "--url", "http://127.0.0.1:8000", "--token-file",
               "t.secret").returncode == 0
    output = run(tmp_path, "context", "list", "-o", "json").stdout
    assert json.loads(output) == [
        {"name": "local", "current": False, "url": None},
        {"name": "a.b", "current": False, "url": "http://127.0.0.1:8000"},
        {"name": "prod", "current": True, "url": "https://prod.example"}]
    assert run(tmp_path, "context", "use", "a.b").returncode == 0
    assert json.loads(run(tmp_path, "context", "show", "-o", "json").stdout)["name"] == "a.b"
    assert json.loads(run(tmp_path, "context", "show", "prod", "-o", "json").stdout)["current"] is False
    assert run(tmp_path, "context", "use", "local").returncode == 0
    assert "local" in run(tmp_path, "context", "show").stdout
    assert run(tmp_path, "context", "remove", "prod").returncode == 0
    assert one not in path.read_text()
    assert two in path.read_text()
    for words in (("use", "prod"), ("show", "prod"), ("remove", "prod"), ("remove", "local")):
        assert run(tmp_path, "context", *words).returncode == 4
    assert [file.name for file in path.parent.iterdir()] == ["config.toml"]
    path.unlink()


@pytest.mark.parametrize(("arguments", "stdin"), [
    (("x", "--url", "https://h", "--token-stdin"), "tc_short"), (("x", "--url", "https://h", "--token-stdin"), ""),
    (("x", "--url", "https://h"), "x"), (("local", "--url", "https://h", "--token-stdin"), "tc_" + "0" * 36),
    (("a/b", "--url", "https://h", "--token-stdin"), "x"),
    *((("x", "--url", url, "--token-stdin"), "tc_" + "0" * 36) for url in (
        "http://h", "http://10.0.0.1", "ftp://h", "h", "https://", "https://u:p@h", "https://h?x", "https://h#x",
        "https://h:99999", "http://127.0.0.1.evil.example",
        "http://localhost.evil.example", "http://[::1", "http://127.0.0.1@evil.example")),
])
def test_contexts_that_are_refused(tmp_path: Path, arguments: tuple[str, ...], stdin: str) -> None:
    done = run(tmp_path, "context", "add", *arguments, stdin=stdin)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / CONFIG).exists()
    assert stdin not in done.stderr or len(stdin) < 2


@pytest.mark.parametrize("mode", [
    0o640, *(pytest.param(mode, marks=pytest.mark.slow) for mode in (0o604, 0o660, 0o644))])
def test_a_file_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    add(tmp_path, "prod", "http://127.0.0.1:9", token("c"))
    (tmp_path / CONFIG).chmod(mode)
    for words in (("servers", *GZ), ("context", "list"), ("context", "use", "local"), ("explain", *GZ)):
        done = run(tmp_path, *words)
        assert done.returncode == 2
        assert f"chmod 600 {tmp_path / CONFIG}" in done.stderr
    assert "chmod 600" in run(tmp_path, "doctor", "--offline").stdout
    assert run(tmp_path, "user", "list").returncode == 0        # needs none of it
    (tmp_path / CONFIG).unlink()


@pytest.mark.parametrize("content", ["x", "current = 1", "[context.a]\nurl = 'https://h'",
                                     "[context.a]\nurl = 1\ntoken = 'x'", "more = 1", "context = 3", "\x00",
                                     "[context.a]\ntoken = 'tc_SECRETSECRET\n",
                                     "[context]\na = 1"])
def test_a_file_of_another_form_is_one_clear_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / CONFIG
    path.parent.mkdir(parents=True)
    path.write_text(content)
    path.chmod(0o600)
    done = run(tmp_path, "servers", *GZ)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(path) in done.stderr
    assert "SECRET" not in done.stderr


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).symlink_to(tmp_path / "dotfiles/config.toml")
    add(tmp_path, "prod", "https://h", token("d"))
    assert (tmp_path / CONFIG).is_symlink()
    assert (tmp_path / "dotfiles/config.toml").stat().st_mode & 0o777 == 0o600
    (tmp_path / "dotfiles/config.toml").unlink()


def test_where_the_file_is() -> None:
    def where(**environment: str) -> str:
        return str(settings.client(environment).config)

    assert where(HOME="/h") == "/h/.config/twocloud/config.toml"
    assert where(HOME="/h", XDG_CONFIG_HOME="/x") == "/x/twocloud/config.toml"
    assert where(HOME="/h", XDG_CONFIG_HOME="relative") == "/h/.config/twocloud/config.toml"
    assert where(TWOCLOUD_CONFIG="/a/b", HOME="/h") == "/a/b"
    assert "tc_x" not in repr(settings.client({"TWOCLOUD_TOKEN": "tc_x", "HOME": "/h"}))


# ---------------------------------------------------------------- which one is asked

def test_the_order_of_precedence_and_whose_token_goes_where(tmp_path: Path, other: Other) -> None:
    """Every way to name a server at once; what arrived, and with which token."""
    kept, chosen, usual = token("e"), token("f"), token("g")
    servers = {name: Other(other.response) for name in ("option", "context", "environment", "named", "current")}
    try:
        add(tmp_path, "ctx", servers["context"].url, chosen)
        add(tmp_path, "named", servers["named"].url, chosen)
        add(tmp_path, "cur", servers["current"].url, kept)
        assert run(tmp_path, "context", "use", "cur").returncode == 0
        steps = [("option", ("--url", servers["option"].url), usual), ("context", ("--context", "ctx"), chosen),
                 ("environment", (), usual), ("named", (), chosen), ("current", (), kept)]
        environment = {"TWOCLOUD_URL": servers["environment"].url, "TWOCLOUD_CONTEXT": "named", "TWOCLOUD_TOKEN": usual}
        for who, arguments, its_token in steps:
            if who == "named":
                del environment["TWOCLOUD_URL"]
            if who == "current":
                del environment["TWOCLOUD_CONTEXT"]
            for server in servers.values():
                server.forget()
            assert run(tmp_path, "servers", *GZ, *arguments, **environment).returncode == 3
            called = {name for name, server in servers.items() if server.calls}
            assert called == {who}
            sent = servers[who].calls[0].headers["authorization"]
            from base64 import b64decode
            assert b64decode(sent.removeprefix("Basic ")).decode() == f"{its_token}:"
        local = run(tmp_path, "servers", *GZ, "--context", "local")
        assert local.returncode == 4
        assert "no such account" in local.stderr
        assert run(tmp_path, "--context", "local", "servers", *GZ).returncode == 4
        assert run(tmp_path, "servers", *GZ, "--url", "http://127.0.0.1:9", "--context", "ctx").returncode == 2
        unknown = run(tmp_path, "servers", *GZ, "--context", "nope")
        assert unknown.returncode == 2
        assert "Contexts: local, ctx, cur, named" in unknown.stderr
    finally:
        for server in servers.values():
            server.close()
        (tmp_path / CONFIG).unlink()


def test_servers_through_a_context(served: App, tmp_path: Path) -> None:
    add(tmp_path, "here", served.url, served.token)
    done = run_process(tmp_path, "servers", *GZ, "-o", "json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["vm_servers"]) == 25
    refused = run_process(tmp_path, "servers", *GZ, "--from", "0")
    assert refused.returncode == 4
    assert "(request id " in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    debug = run_process(tmp_path, "servers", *GZ, "--debug", "--to", "1")
    line = json.loads(debug.stderr.splitlines()[-1])
    assert (line["event"], line["status"]) == ("asked", 200)
    assert line["request_id"]
    assert served.token not in debug.stderr
    (tmp_path / CONFIG).unlink()


# ---------------------------------------------------------------- what is no server of ours

def test_a_redirect_gets_no_token(tmp_path: Path, other: Other) -> None:
    with Other(Answer(302, {"Location": f"{other.url}/twocloud/servers"}, b"")) as here:
        done = run(tmp_path, "servers", *GZ, "--url", here.url, TWOCLOUD_TOKEN=token("h"))
    assert done.returncode == 3
    assert "redirect to 127.0.0.1, which is not followed" in done.stderr
    assert not other.calls


def test_a_proxy_sees_no_token_for_this_machine(tmp_path: Path, other: Other) -> None:
    with Other(Answer(200, {}, b"")) as proxy:
        run(tmp_path, "servers", *GZ, "--url", other.url, TWOCLOUD_TOKEN=token("i"), HTTP_PROXY=proxy.url,
            http_proxy=proxy.url, ALL_PROXY=proxy.url)
        assert other.calls
        assert not proxy.calls


def silent() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_every_way_to_be_no_twocloud_is_one_line_and_exit_3(tmp_path: Path, other: Other) -> None:
    pem, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    secure = Other(other.response)
    secure.speak_tls(context)
    plain_as_tls = other.url.replace("http:", "https:")
    evil = Other(Answer(200, {"Content-Type": "application/json", "X-Request-Id": "r"},
                        b'{"code": 1, "msg": "\\u001b[2J", "error": "x"}'))
    liar = Other(Answer(200, {"Content-Type": "application/json", "X-Request-Id": "r", "ETag": "x"},
                        b'{"vm_servers": 3, "msg": ""}'))
    odd = [Other(Answer(200, {"Content-Type": kind, "X-Request-Id": "r", "ETag": "x"}, body)) for kind, body in (
        ("application/json", b'{"vm_servers": [3], "msg": ""}'),
        ("application/json", b'{"vm_servers": [{"instance_id": "i"}], "msg": "", "sources": [1]}'),
        ("application/json", b'{"msg": "\xff"}'), ("application/json", b'{"msg": ' + b"[" * 9999),
        ("application/x-ndjson", b'{"party": "\xff"}\n'), ("application/x-ndjson", b"[1]\n"),
        ("application/x-ndjson", b'{"instance_id": "i"}\n'))]
    with silent() as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    environment = {"TWOCLOUD_TOKEN": token("j")}
    for url, message in (
            (other.url, "a web page. Perhaps this network requires a login"),
            (secure.url, "the authority that signed it is unknown"),
            (plain_as_tls, "Does this port serve https?"), (closed, "connection refused"),
            ("https://no-such-host.invalid", "DNS does not know the name"),
            (evil.url, "is not a twocloud server"), (liar.url, "is not a twocloud server"),
            ("http://example.com", "it would send the token unencrypted"),
            ("https://u:p@h.example", "without user"), ("https://:p@h.example", "without user"),
            ("h", "the URL must be"),
            ("https://h:x", "not a valid URL")):
        done = run(tmp_path, "servers", *GZ, "--url", url, **environment)
        assert (done.returncode, done.stdout) == (3, ""), (url, done)
        assert message in done.stderr, (url, done.stderr)
        assert len(done.stderr.splitlines()) == 1, (url, done.stderr)
        assert "\x1b" not in done.stderr, (url, done.stderr)
    for server in odd:
        for words in (("servers", *GZ), ("servers", *GZ, "-o", "ndjson", "--sort", "id"), ("explain", *GZ)):
            done = run(tmp_path, *words, "--url", server.url, **environment)
            assert done.returncode == 3, (server.response, words, done)
            assert len(done.stderr.splitlines()) == 1, (server.response, words, done)
        server.close()
    assert run(tmp_path, "servers", *GZ, "--url", other.url, TWOCLOUD_TOKEN="tc_\u4e2d").returncode == 2
    trusted = run(tmp_path, "servers", *GZ, "--url", secure.url.replace("127.0.0.1", "localhost"),
                  REQUESTS_CA_BUNDLE=str(pem), **environment)
    assert trusted.returncode == 3
    for server in (secure, evil, liar):
        server.close()


@pytest.mark.parametrize("fault", ["hang", "slow body", "reset"])
def test_a_server_that_does_not_end(fault: str, other: Other) -> None:
    other.fail(fault)
    with pytest.raises(Network) as failure:
        remote.get(There(other.url, token("k"), "--url"), "/x", seconds=1.0)
    assert "did not answer in time" in failure.value.message or fault == "reset"


def test_a_certificate_of_another_host(tmp_path: Path, other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reached under a name of this machine that the certificate does not have, trusted or not."""
    pem, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    other.speak_tls(context)
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, 1)
    except OSError:
        pytest.skip("this machine's own name cannot be looked up")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    with pytest.raises(Network):
        remote.get(There(f"https://{name}:{other.port}", token("l"), "--url"), "/x", seconds=5)


# ---------------------------------------------------------------- completion, in the shells themselves

ASK_BASH = r"""
eval "$(PYTHON -m chalicelib completion bash)"
twocloud() { PYTHON -m chalicelib "$@"; }; export -f twocloud
compopt() { :; }
ask() { COMP_WORDS=(twocloud "$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMPREPLY=(); _twocloud_completion PROGRAM;
        printf '%s ' "${COMPREPLY[@]}"; echo; }
ask doc
ask context us
ask servers --pa
ask servers --party qcl
ask servers --party aws,qcl
ask servers --party qcloud --region g
ask servers --party qcloud --tenant ''
ask token issue --user a
ask servers --context ''
ask account show 123 qc
ask completion ''
ask servers --output nd
"""


def test_completion_in_bash(served: App, tmp_path: Path) -> None:
    add(tmp_path, "prod", "https://h", token("m"))
    database = served.deployment.settings.store
    program = tmp_path / "twocloud"
    import sys
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m chalicelib "$@"\n')
    program.chmod(0o755)
    from tests.programs.test_terminal import ROOT
    done = subprocess.run(["bash", "-c", ASK_BASH.replace("PYTHON", sys.executable).replace("PROGRAM", str(program))],
                          capture_output=True, text=True, timeout=100, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
                               "HOME": str(tmp_path), "TWOCLOUD_STORE": database})
    answers = [line.split() for line in done.stdout.splitlines()]
    assert answers[:5] == [["doctor"], ["use"], ["--party"], ["qcloud"], ["aws,qcloud"]], (answers, done.stderr)
    assert "gz" in answers[5]
    assert all(region.startswith("g") for region in answers[5])
    assert answers[6:] == [["123"], ["ann"], ["local", "prod"], ["qcloud"], ["bash", "zsh", "fish"], ["ndjson"]]
    (tmp_path / CONFIG).unlink()


@pytest.mark.slow
def test_completion_makes_no_store_and_hides_every_fault(tmp_path: Path) -> None:
    import sys
    for environment in ({}, {"TWOCLOUD_STORE": "mysql://x"}, {"TWOCLOUD_STORE": "dynamodb://nowhere"},
                        {"TWOCLOUD_CONFIG": "/dev/null/x"}):
        for words in ("twocloud servers --tenant ", "twocloud token show ", "twocloud servers --context ",
                      "twocloud servers --party x --region "):
            done = run_process(tmp_path, _TWOCLOUD_COMPLETE="bash_complete", COMP_WORDS=words,
                       COMP_CWORD=str(len(words.split())), **environment)
            assert done.returncode == 0, (words, environment, done)
            assert done.stderr == "", (words, environment, done)
    assert sorted(tmp_path.iterdir()) == []
    assert sys.executable


ASK_ZSH = r'''
autoload -Uz compinit && compinit -u -d DUMP
eval "$(twocloud completion zsh)"
'''


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_in_other_shells(shell: str, tmp_path: Path) -> None:
    import shutil
    import sys

    from tests.programs.test_terminal import ROOT
    from tests.terminal import Terminal
    if not shutil.which(shell):
        pytest.skip(
            f"{shell} is not on this machine (Debian: apt-get install {shell}); only its script's syntax was not tried")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/twocloud"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m chalicelib "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    if shell == "fish":
        done = subprocess.run([shell, "--no-config", "-c",
                               "twocloud completion fish | source; complete -C 'twocloud servers --party qcl'; "
                               "complete -C 'twocloud doc'"],
                              capture_output=True, text=True, timeout=60, cwd=tmp_path,
                              env={**os.environ, "PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)})
        words = [line.split("\t")[0] for line in done.stdout.splitlines()]
        assert "qcloud" in words, done
        assert "doctor" in words, done
        return
    with Terminal("-f", "-i", folder=tmp_path, program=(shutil.which(shell) or "",), PATH=path, columns=100) as screen:
        screen.type("PS1='> '; " + ASK_ZSH.strip().replace("\n", "; ").replace("DUMP", str(tmp_path / "dump"))
                    + "; echo re''ady\r")
        screen.until(lambda text: "\nready" in text)
        screen.type("twocloud servers --party qcl\t")
        screen.until(lambda text: "--party qcloud" in text)
        screen.type("\x15twocloud doc\t")
        screen.until(lambda text: "twocloud doctor" in text)
        screen.type("\x15exit\r")
        screen.end()


def test_threads_are_not_left(other: Other) -> None:
    assert not any(thread.name == "twocloud-waiting" for thread in threading.enumerate())
