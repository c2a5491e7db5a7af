"""No login and no token leaves the registry's own host, whatever the registry answers."""

import base64
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import fake_pipeline
from delivery.oci import remote
from delivery.oci.gate import gate_to
from delivery.oci.layout import Layout
from delivery.oci.origin import Origin
from delivery.oci.registry import pull, push
from fake_registry import FakeRegistry, Fault, Handler, isolate
from registry_tools import need
from workspace.errors import UserError
from workspace.machine import this_machine

BASIC = "Basic " + base64.b64encode(b"robot:pa:ss").decode()
SECRETS = (BASIC, "pa:ss", "pa%3Ass", "t0ken", "1dentity")
AUTH = BASIC.removeprefix("Basic ")


class Watched(FakeRegistry):
    """A registry, or another host, that notes the headers and the body of every request."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(host, tls)
        self.heard: list[str] = []
        self.scheme = "https" if tls else "http"

    def hears_a_secret(self) -> bool:
        return any(secret in heard for heard in self.heard for secret in SECRETS)


class Noting(Handler):
    server: Watched

    def handle_request(self) -> None:
        self.server.heard.append(f"{self.path}\n{self.headers}")
        super().handle_request()

    def body(self) -> bytes:
        content = super().body()
        self.server.heard.append(content.decode(errors="replace"))
        return content

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = handle_request  # noqa: N815


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("skopeo")
    monkeypatch.setattr(remote, "DELAYS", [0])
    monkeypatch.delenv("TOKEN_REALM", raising=False)
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[..., Watched]]:
    servers = []

    def started(*arguments: Any) -> Watched:
        servers.append(Watched(*arguments))
        servers[-1].RequestHandlerClass = Noting
        return servers[-1]

    yield started
    for server in servers:
        server.close()


@pytest.fixture
def registry(start: Callable[..., Watched]) -> Watched:
    return start()


@pytest.fixture
def evil(start: Callable[..., Watched]) -> Watched:
    return start("127.0.0.2")


def log_in(tmp_path: Path, host: str, stored: dict[str, str] | None = None) -> None:
    content = {"auths": {host: stored or {"auth": AUTH}}}
    fake_pipeline.write(tmp_path, "docker/config.json", content)


def wants_password(handler: Handler) -> bool:
    if handler.headers.get("Authorization") == BASIC:
        return False
    handler.body()
    handler.answer(401, WWW_Authenticate='Basic realm="registry"')
    return True


def wants_token(realm: str) -> Fault:
    def wants(handler: Handler) -> bool:
        if handler.path.startswith("/token"):
            known = handler.headers.get("Authorization") == BASIC or b"1dentity" in handler.body()
            handler.answer(200 if known else 401, b'{"access_token": "t0ken"}' if known else b"")
            return True
        if handler.headers.get("Authorization") == "Bearer t0ken":
            return False
        handler.body()
        handler.answer(401, WWW_Authenticate=f'Bearer realm="{realm}",service="r"')
        return True

    return wants


def redirect(server: FakeRegistry, to: str, *commands: str, path: str = "") -> Fault:
    def elsewhere(handler: Handler) -> bool:
        if handler.command not in commands or path not in handler.path:
            return False
        handler.body()
        handler.answer(307, Location=f"{to}{handler.path}")
        return True

    return elsewhere


# -- what a registry may answer --------------------------------------------------------------------


def realm_elsewhere(registry: Watched, to: str) -> list[Fault]:
    return [wants_token(f"{to}/token")]


def realm_that_looks_like_its_own(registry: Watched, to: str) -> list[Fault]:
    return [wants_token(to.replace("://", f"://{registry.host}@") + "/token")]


def token_server_that_redirects(registry: Watched, to: str) -> list[Fault]:
    own = f"{registry.scheme}://{registry.host}/token"
    return [redirect(registry, to, "GET", "POST", path="/token"), wants_token(own)]


def realm_that_changes(registry: Watched, to: str) -> list[Fault]:
    first = [wants_token(f"{registry.scheme}://{registry.host}/token")]

    def later(handler: Handler) -> bool:
        return (first.pop() if first else wants_token(f"{to}/token"))(handler)

    return [later]


def first_question_redirected(registry: Watched, to: str) -> list[Fault]:
    return [redirect(registry, to, "GET", path="/v2/"), wants_password]


def blobs_redirected(registry: Watched, to: str) -> list[Fault]:
    return [wants_password, redirect(registry, to, "GET", "HEAD", path="/blobs/")]


def all_redirected(registry: Watched, to: str) -> list[Fault]:
    commands = ("GET", "HEAD", "POST", "PATCH", "PUT")
    return [wants_password, redirect(registry, to, *commands)]


def upload_elsewhere(command: str) -> Callable[[Watched, str], list[Fault]]:
    def attack(registry: Watched, to: str) -> list[Fault]:
        def goes_on(handler: Handler) -> bool:
            if handler.command != command:
                return False
            handler.server.uploading = handler.body()
            handler.answer(202, Location=f"{to}/v2/team/model/blobs/uploads/1?state=x")
            return True

        return [wants_password, goes_on]

    return attack


ATTACKS = {
    "a realm on another host": realm_elsewhere,
    "a realm with its own host as user": realm_that_looks_like_its_own,
    "a token server that redirects": token_server_that_redirects,
    "a realm that changes": realm_that_changes,
    "a first question that is redirected": first_question_redirected,
    "blobs on another host": blobs_redirected,
    "everything on another host": all_redirected,
    "an upload that begins elsewhere": upload_elsewhere("POST"),
    "an upload that ends elsewhere": upload_elsewhere("PATCH"),
}
LOGINS = [{"auth": AUTH}, {"identitytoken": "1dentity"}]


def use(layout: Layout, digest: str, registry: Watched, folder: Path) -> None:
    for step in (
        lambda: push(layout, digest, registry.name),
        lambda: pull(f"{registry.name}@{digest}", folder),
    ):
        with suppress(UserError):
            step()


@pytest.mark.parametrize("stored", LOGINS, ids=["password", "identity token"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_another_host_hears_no_secret(
    tmp_path: Path,
    layout: Layout,
    digest: str,
    registry: Watched,
    evil: Watched,
    attack: Callable[[Watched, str], list[Fault]],
    stored: dict[str, str],
) -> None:
    log_in(tmp_path, registry.host, stored)
    to = f"http://{evil.host}"
    evil.faults += [wants_token(f"{to}/token")]
    registry.faults += attack(registry, to)
    use(layout, digest, registry, tmp_path / "models")
    assert registry.heard and not evil.hears_a_secret()


def test_a_login_for_other_programs_is_not_sent(
    tmp_path: Path,
    layout: Layout,
    digest: str,
    registry: Watched,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (".netrc", "netrc"):
        fake_pipeline.write(tmp_path, name, "machine 127.0.0.1 login robot password pa:ss\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    registry.faults += [wants_password]
    use(layout, digest, registry, tmp_path / "models")
    assert registry.heard and not registry.hears_a_secret()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate of 127.0.0.2, which is far enough to need one, and of a name behind a proxy."""
    need("openssl")
    names = ["-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.2,DNS:registry.test"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    return context


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_secret_is_sent_in_the_clear_after_tls(
    tmp_path: Path,
    layout: Layout,
    digest: str,
    start: Callable[..., Watched],
    tls: ssl.SSLContext,
    attack: Callable[[Watched, str], list[Fault]],
) -> None:
    registry, clear = start("127.0.0.2", tls), start("127.0.0.2")
    log_in(tmp_path, registry.host)
    registry.faults += attack(registry, f"http://{clear.host}")
    use(layout, digest, registry, tmp_path / "models")
    assert registry.heard
    assert not clear.hears_a_secret()


def test_an_own_address_without_tls_is_taken_with_it(
    tmp_path: Path,
    layout: Layout,
    digest: str,
    start: Callable[..., Watched],
    tls: ssl.SSLContext,
) -> None:
    registry = start("127.0.0.2", tls)
    log_in(tmp_path, registry.host)
    plain = f"http://{registry.host}"
    registry.faults += [
        wants_token(f"{plain}/token"),
        *upload_elsewhere("POST")(registry, plain)[1:],
    ]
    push(layout, digest, registry.name)
    pull(f"{registry.name}@{digest}", tmp_path / "models")
    assert (tmp_path / "models/classifier/8/model.onnx").is_file()


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    digest: str,
    start: Callable[..., Watched],
    tls: ssl.SSLContext,
) -> None:
    registry = start("127.0.0.2", tls)
    log_in(tmp_path, registry.host)
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    with pytest.raises(UserError, match="certificate verify failed"):
        push(layout, digest, registry.name)
    assert not registry.heard


def test_a_realm_that_the_user_names_gets_the_password(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    digest: str,
    registry: Watched,
    start: Callable[..., Watched],
) -> None:
    house = start()
    log_in(tmp_path, registry.host)
    registry.faults += [wants_token(f"http://{house.host}/token?a=b")]
    house.faults += [wants_token("")]
    with pytest.raises(UserError, match="which is not its own host: set TOKEN_REALM=") as refusal:
        push(layout, digest, registry.name)
    assert not house.heard
    cure = str(refusal.value).partition("set TOKEN_REALM=")[2].split()[0]
    monkeypatch.setenv("TOKEN_REALM", cure)
    this_machine.cache_clear()  # the next command reads it
    push(layout, digest, registry.name)
    assert house.hears_a_secret() and digest in registry.content


# -- where logins are kept -------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", "/team", "/team/model"])
@pytest.mark.parametrize("stored", LOGINS, ids=["password", "identity token"])
def test_the_longest_part_of_a_name_counts(
    tmp_path: Path,
    layout: Layout,
    digest: str,
    registry: Watched,
    part: str,
    stored: dict[str, str],
) -> None:
    shorter = [registry.host, f"{registry.host}/team"][: part.count("/")]
    wrong = {"auth": base64.b64encode(b"who:knows").decode()}
    others = {**dict.fromkeys(shorter, wrong), f"{registry.host}/team/other": wrong}
    auths = {**others, f"{registry.host}{part}": stored}
    fake_pipeline.write(tmp_path, "docker/config.json", {"auths": auths})
    registry.faults.append(wants_token(f"http://{registry.host}/token"))
    push(layout, digest, registry.name)
    assert digest in registry.content


@pytest.mark.parametrize("where", ["run/containers", "home/.config/containers"])
def test_the_files_of_skopeo_login_are_read(
    tmp_path: Path, layout: Layout, digest: str, registry: Watched, where: str
) -> None:
    content = {"auths": {f"https://{registry.host}/v1/": {"auth": AUTH}}}
    fake_pipeline.write(tmp_path, f"{where}/auth.json", content)
    registry.faults.append(wants_password)
    push(layout, digest, registry.name)


def test_a_login_is_found_where_skopeo_keeps_it_without_a_session(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    digest: str,
    registry: Watched,
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("delivery.oci.login.USERS", tmp_path / "users")
    content = {"auths": {registry.host: {"auth": AUTH}}}
    fake_pipeline.write(tmp_path, f"users/{os.getuid()}/auth.json", content)
    registry.faults.append(wants_password)
    push(layout, digest, registry.name)
    assert digest in registry.content


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (None, {"auths": {"HOST": {"auth": AUTH, "identitytoken": None}}}),
        ({"auths": None}, {"auths": {"HOST": {"auth": AUTH}}, "credsStore": None}),
        ({"auths": {"HOST": None}}, {"auths": {"HOST": {"auth": AUTH}}, "credHelpers": None}),
        (
            {"auths": {"HOST": {"auth": None}}},
            {"auths": {"HOST": {"auth": AUTH}}, "credHelpers": {"HOST": None}},
        ),
    ],
)
def test_null_in_a_file_of_logins_is_nothing(
    tmp_path: Path, layout: Layout, digest: str, registry: Watched, first: Any, second: Any
) -> None:
    for place, content in (("run/containers/auth.json", first), ("docker/config.json", second)):
        text = json.dumps(content).replace("HOST", registry.host)
        fake_pipeline.write(tmp_path, place, text)
    registry.faults.append(wants_password)
    push(layout, digest, registry.name)
    assert digest in registry.content


HELPERS = {
    "not JSON": ("print('who?')", "is not JSON"),
    "another form": ("print('[]')", "what it says: it is"),
    "without a secret": ('print(\'{"Username": "robot"}\')', "'Secret' is missing"),
    "no answer": ("import os; os.kill(os.getpid(), 9)", "run `skopeo login"),
    "not there": (
        None,
        r"docker-credential-test, which .*/config\.json names for passwords, fails",
    ),
}


@pytest.mark.parametrize(("script", "words"), HELPERS.values(), ids=HELPERS.keys())
def test_a_helper_that_fails_is_one_sentence_and_logging_in_without_it_helps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    digest: str,
    registry: Watched,
    script: str | None,
    words: str,
) -> None:
    if script:
        program = tmp_path / "bin/docker-credential-test"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    registry.faults.append(wants_password)
    helpers = {"credHelpers": {registry.host: "test"}}
    fake_pipeline.write(tmp_path, "docker/config.json", helpers)
    with pytest.raises(UserError, match=words):
        push(layout, digest, registry.name)
    (tmp_path / "docker/config.json").write_text("{}")
    login = ["skopeo", "login", "--tls-verify=false", registry.host]
    subprocess.run([*login, "--username=robot", "--password=pa:ss"], check=True)
    push(layout, digest, registry.name)


@pytest.mark.parametrize("auth", ["?", "cm9ib3Q=", "/w=="])
def test_a_stored_login_that_is_damaged_is_one_sentence(
    tmp_path: Path, layout: Layout, digest: str, registry: Watched, auth: str
) -> None:
    log_in(tmp_path, registry.host, {"auth": auth})
    with pytest.raises(UserError, match="is not base64 of <user>:<password>: log in again"):
        push(layout, digest, registry.name)
    log_in(tmp_path, registry.host)
    push(layout, digest, registry.name)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"token": "a\\r\\nb"}', b"{" * 10**6])
def test_a_token_that_is_none_is_one_sentence(
    layout: Layout, digest: str, registry: Watched, answer: bytes
) -> None:
    def gives(handler: Handler) -> bool:
        if not handler.path.startswith("/token"):
            return False
        handler.answer(200, answer)
        return True

    registry.faults += [gives, wants_token(f"http://{registry.host}/token")]
    with pytest.raises(UserError, match=f"the token of {registry.name}"):
        push(layout, digest, registry.name)


def test_the_gate_opens_for_its_key_only(registry: Watched) -> None:
    with gate_to(Origin(registry.name, "pull"), {}) as (gate, key):
        assert key.stat().st_mode & 0o077 == 0 or key.parent.stat().st_mode & 0o077 == 0
        url = f"http://{gate.host}/v2/team/model/manifests/v8"
        for headers in ({}, {"Authorization": BASIC}):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(urllib.request.Request(url, headers=headers))
        assert not registry.heard
        assert json.loads(key.read_text())["auths"].keys() == {gate.host}


def test_a_proxy_of_the_environment_is_asked_for_hosts_that_are_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://me:p%40ss@proxy.test:3128")
    monkeypatch.setenv("no_proxy", "near.test")
    origin = Origin("registry.test/team/model", "pull")
    pool = origin._pool("https://registry.test/v2/")
    assert pool.proxy and pool.proxy.host == "proxy.test"
    sent = base64.b64encode(b"me:p@ss").decode()
    assert pool.proxy_headers == {"proxy-authorization": f"Basic {sent}"}
    assert not origin._pool("https://near.test/v2/").proxy
    assert not origin._pool("https://127.0.0.2/v2/").proxy


class Tunnel(BaseHTTPRequestHandler):
    """A proxy that leads wherever it is asked for to one server."""

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        with socket.create_connection(self.server.to) as there:  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            ways = {self.connection: there, there: self.connection}
            while True:
                for end in select.select([*ways], [], [])[0]:
                    if not (data := end.recv(2**16)):
                        return
                    ways[end].sendall(data)


@pytest.fixture
def far(start: Callable[..., Watched], tls: ssl.SSLContext) -> Watched:
    """A registry that is `registry.test` behind the proxy."""
    return start("127.0.0.2", tls)


@pytest.fixture
def proxy(far: Watched, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Tunnel) as server:
        server.daemon_threads = True
        server.to, server.asked = far.server_address, []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_proxy_is_gone_through_as_others_read_the_environment(
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    digest: str,
    far: Watched,
    proxy: Any,
    name: str,
    scheme: str,
) -> None:
    monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.server_port}")
    push(layout, digest, "registry.test/team/model")
    assert digest in far.content and {*proxy.asked} == {"registry.test:443"}


def test_a_proxy_that_speaks_something_else_is_named_and_another_is_taken(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, digest: str, far: Watched, proxy: Any
) -> None:
    name = "registry.test/team/model"
    monkeypatch.setenv("ALL_PROXY", "socks5h://me:pa55@127.0.0.1:9")
    with pytest.raises(UserError, match="speaks 'socks5h': set https_proxy to one") as refusal:
        push(layout, digest, name)
    assert "pa55" not in str(refusal.value)
    assert "or no_proxy=registry.test where none is needed" in str(refusal.value)
    with monkeypatch.context() as none_needed:
        none_needed.setenv("no_proxy", "registry.test")
        assert not Origin(name, "pull")._pool("https://registry.test/v2/").proxy
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
    push(layout, digest, name)
    assert digest in far.content


@pytest.mark.parametrize(("port", "told"), [(":443", ""), ("", ":443"), ("", "")])
def test_the_port_of_https_goes_without_saying(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    digest: str,
    far: Watched,
    proxy: Any,
    port: str,
    told: str,
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
    log_in(tmp_path, f"registry.test{port}")
    own = f"https://registry.test{told}"
    far.faults += [wants_token(f"{own}/token"), *upload_elsewhere("POST")(far, own)[1:]]
    push(layout, digest, f"registry.test{port}/team/model")
    assert digest in far.content and {*proxy.asked} == {"registry.test:443"}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        *(("registry.test", each) for each in (":80", ":8443", ":", ":443:443", ":443@evil.test")),
        *(("registry.test:443", each) for each in (":80", ":4430", "@evil.test", ".evil.test")),
        *(("registry.test:8443", each) for each in ("", ":443")),
        *(("127.0.0.1:80", each) for each in (":443", ":8080")),
    ],
)
def test_another_port_is_another_host(name: str, other: str) -> None:
    host = name.partition(":")[0]
    origin = Origin(f"{name}/team/model", "pull")
    for scheme in ("http", "https"):
        assert origin.inside(f"{scheme}://{host}{other}/token") is None
    assert origin.inside(f"https://{name}/token") == "/token"


def test_a_token_server_of_the_house_is_known_whether_the_port_is_said_or_not() -> None:
    for host in ("registry.gitlab.com", "registry.gitlab.com:443"):
        address = Origin(f"{host}/team/model", "pull")._realm("https://gitlab.com/jwt/auth")
        assert address == "https://gitlab.com/jwt/auth"
