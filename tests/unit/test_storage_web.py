"""Web addresses that strangers name: which hosts are asked, and what is taken from them."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lcq.errors import AddressRefused, BlobTooLarge, StorageUnreachable
from lcq.storage.web import Web, is_public

PICTURE = b"a picture " * 50_000
SUM = hashlib.sha256(PICTURE).hexdigest()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1",
        "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:db8::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_what_is_not_anybodys_on_the_internet_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_what_is_anybodys_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


class _Pages(BaseHTTPRequestHandler):
    """Answers by path; ``server.seen`` has what was asked for."""

    server: _Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers.items())))
        page = self.path.partition("?")[0]
        match page:
            case "/picture":
                self._send(200, PICTURE, {"Content-Length": str(len(PICTURE))})
            case "/endless":
                self._send(200, PICTURE * 10, {})
            case "/short":
                self._send(200, PICTURE[:100], {"Content-Length": str(len(PICTURE))})
            case "/packed":
                self._send(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
            case "/circle":
                self._send(302, b"", {"Location": "/circle?again"})
            case "/onward":
                self._send(302, b"", {"Location": "/picture"})
            case "/slow":
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.end_headers()
                    while not self.server.is_over.wait(0.05):
                        self.wfile.write(b".")
            case _ if page.startswith("/status/"):
                self._send(int(page[8:]), b"", {})
            case _ if page.startswith("/to/"):
                self._send(307, b"", {"Location": bytes.fromhex(page[4:]).decode()})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *told: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Pages)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.is_over = threading.Event()

    def handle_error(self, *told: object) -> None:
        """A client that breaks off is no error here."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()


def asking(
    server: _Server, *, most_bytes: int = 2**20, seconds: float = 120.0, trust: ssl.SSLContext | None = None
) -> Web:
    """One for which this host's loopback is the internet."""
    port = server.server_address[1]
    return Web(most_bytes, seconds, public=lambda ip: str(ip) == "127.0.0.1", ports=frozenset({port}), trust=trust)


def at(server: _Server, page: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
    return f"{scheme}://{host}:{server.server_address[1]}{page}"


def test_a_picture_is_fetched_with_its_sum(server: _Server, tmp_path: Path) -> None:
    moved: list[int] = []
    assert asking(server).get(at(server, "/picture?size=1"), tmp_path / "a", moved=moved.append) == (len(PICTURE), SUM)
    assert (tmp_path / "a").read_bytes() == PICTURE
    assert sum(moved) == len(PICTURE)
    [(page, headers)] = server.seen
    assert page == "/picture?size=1"
    assert headers["Accept-Encoding"] == "identity"


def test_a_redirect_is_followed_where_it_may_go(server: _Server, tmp_path: Path) -> None:
    assert asking(server).get(at(server, "/onward"), tmp_path / "a")[1] == SUM


@pytest.mark.parametrize(
    "onward",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://127.0.0.2/",
    ],
)
def test_each_redirect_is_judged_anew(server: _Server, tmp_path: Path, onward: str) -> None:
    with pytest.raises(AddressRefused):
        asking(server).get(at(server, f"/to/{onward.encode().hex()}"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_redirects_come_to_an_end(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(AddressRefused, match="on and on"):
        asking(server).get(at(server, "/circle"), tmp_path / "a")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://2130706433/", "http://0x7f.1/", "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/", "http://10.0.0.1/", "ftp://8.8.8.8/", "http://me:secret@8.8.8.8/", "http://8.8.8.8:22/",
        "http:///nothing", "http://8.8.8.8/a b", "http://8.8.8.8/\n", "http://8.8.8.8:99999/", "http://8.8.8.8/ä",
    ],
)  # fmt: skip
def test_by_default_nothing_of_our_own_and_nothing_odd_is_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(AddressRefused) as refusal:
        Web(2**20).get(url, tmp_path / "a")
    assert "secret" not in str(refusal.value)


def test_a_name_is_looked_up_once_and_that_very_address_is_asked(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers with another address the second time gains nothing by it."""
    asked: list[str] = []
    plain = socket.getaddrinfo

    def rebinding(host: str, *more: object, **most: object) -> object:
        if host == "picture.example":
            asked.append(host)
            host = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return plain(host, *more, **most)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert asking(server).get(at(server, "/picture", "picture.example"), tmp_path / "a")[1] == SUM
    assert len(asked) == 1
    assert server.seen[0][1]["Host"] == f"picture.example:{server.server_address[1]}"


def test_a_name_of_which_one_address_is_our_own_is_not_asked(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = socket.getaddrinfo

    def both(host: str, *more: object, **most: object) -> object:
        if host == "picture.example":
            return [*plain("127.0.0.1", *more, **most), *plain("127.0.0.2", *more, **most)]  # type: ignore[arg-type]
        return plain(host, *more, **most)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(AddressRefused, match="no public host"):
        asking(server).get(at(server, "/picture", "picture.example"), tmp_path / "a")
    assert server.seen == []


def test_no_proxy_is_asked(server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert asking(server).get(at(server, "/picture"), tmp_path / "a")[1] == SUM


@pytest.mark.parametrize("page", ["/picture", "/endless"])
def test_what_is_too_large_is_broken_off_announced_or_not(server: _Server, tmp_path: Path, page: str) -> None:
    with pytest.raises(BlobTooLarge):
        asking(server, most_bytes=len(PICTURE) - 1).get(at(server, page), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_what_breaks_off_is_not_taken_for_whole(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(StorageUnreachable):
        asking(server).get(at(server, "/short"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_what_drips_for_ever_is_broken_off(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(StorageUnreachable):
        asking(server, seconds=0.3).get(at(server, "/slow"), tmp_path / "a")


@pytest.mark.parametrize(("page", "error"), [
    ("/status/404", AddressRefused), ("/status/403", AddressRefused), ("/packed", AddressRefused),
    ("/status/503", StorageUnreachable), ("/status/429", StorageUnreachable),
])  # fmt: skip
def test_what_another_try_would_not_change_is_refused_and_the_rest_is_tried_again(
    server: _Server, tmp_path: Path, page: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        asking(server).get(at(server, page), tmp_path / "a")


def test_our_own_disk_is_not_taken_for_the_hosts_fault(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asking(server).get(at(server, "/picture"), tmp_path / "none" / "a")


def test_a_host_that_nobody_knows_may_be_known_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*told: object, **more: object) -> object:
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(StorageUnreachable):
        Web(2**20).get("http://picture.example/", tmp_path / "a")


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server called ``name`` shows, and what trusts it."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    shows = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shows.load_cert_chain(pem)
    return shows, ssl.create_default_context(cafile=str(pem))


def resolved_to_loopback(name: str, plain: Callable[..., object]) -> Callable[..., object]:
    return lambda host, *more, **most: plain("127.0.0.1" if host == name else host, *more, **most)


def test_a_certificate_must_be_that_of_the_name_and_trusted(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows, trusts = certified(tmp_path, "picture.example")
    server.socket = shows.wrap_socket(server.socket, server_side=True)
    monkeypatch.setattr(socket, "getaddrinfo", resolved_to_loopback("picture.example", socket.getaddrinfo))
    right = at(server, "/picture", "picture.example", "https")
    assert asking(server, trust=trusts).get(right, tmp_path / "a")[1] == SUM
    with pytest.raises(AddressRefused, match="certificate"):
        asking(server).get(right, tmp_path / "b")
    with pytest.raises(AddressRefused, match="certificate"):
        asking(server, trust=trusts).get(at(server, "/picture", "127.0.0.1", "https"), tmp_path / "b")
    downgrade = f"/to/{at(server, '/picture').encode().hex()}"
    with pytest.raises(AddressRefused, match="something else"):
        asking(server, trust=trusts).get(at(server, downgrade, "picture.example", "https"), tmp_path / "b")
