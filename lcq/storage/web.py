"""Pictures at web addresses that strangers name: only public hosts are asked, and only those that were looked at.

A name is looked up once; unless every address that it has is public, none is asked, and the connection goes to one of
just these. Each redirect is judged anew. No proxy is used, nothing but http and https on their own ports, nothing is
packed, and what is too large or too slow is broken off.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

from lcq import __version__
from lcq.errors import AddressRefused, BlobTooLarge, StorageUnreachable
from lcq.storage.blobs import CHUNK, Moved, nothing

_REDIRECTS = 5
_MOVED = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({400, 401, 403, 404, 405, 406, 410, 414, 451})
_PORTS = {"http": 80, "https": 443}
_LONGEST_URL = 4096
_HINT = "send the picture itself: lcq submit uploads files"

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
IsPublic = Callable[[Ip], bool]

# What stands for an IPv4 address inside an IPv6 one: those must not lead where the plain ones may not.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")


def is_public(ip: Ip) -> bool:
    """Whether ``ip`` is anybody's on the internet: not this host's, a neighbour's, nor a cloud's own service."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64_LOCAL:
            return False
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if ip in ipaddress.ip_network("::/96") or ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


@dataclass(frozen=True)
class Web:
    """``most_bytes`` and ``seconds`` are for one picture, redirects included.

    ``public`` and ``ports`` are as they are for all but tests, which have no internet.
    """

    most_bytes: int
    seconds: float = 120.0
    silence_s: float = 20.0
    public: IsPublic = is_public
    ports: frozenset[int] = frozenset(_PORTS.values())
    trust: ssl.SSLContext | None = None

    def get(self, url: str, target: Path, *, moved: Moved = nothing) -> tuple[int, str]:
        """Have what is at ``url`` in the new file ``target``; answers its size and SHA-256.

        Raises:
            AddressRefused: it is, or leads, where strangers may not send us; or there is nothing. Another try is none.
            BlobTooLarge; StorageUnreachable: it may be there another time. OSError: the file cannot be written.
        """
        try:
            return self._got(url, target, moved)
        except _Unwritable as failure:
            raise failure.error from None

    def _got(self, url: str, target: Path, moved: Moved) -> tuple[int, str]:
        until = time.monotonic() + self.seconds
        at = url
        for _ in range(_REDIRECTS + 1):
            with self._asked(at, until) as answer:
                if answer.status not in _MOVED:
                    self._check(at, answer)
                    return self._saved(at, answer, target, until, moved)
                onward = urljoin(at, answer.getheader("Location") or "")
            if urlsplit(at).scheme == "https" and urlsplit(onward).scheme != "https":
                raise AddressRefused(url, "it leads from https to something else", hint=_HINT)
            if onward == at:
                break
            at = onward
        raise AddressRefused(url, f"it leads on and on, more than {_REDIRECTS} times", hint=_HINT)

    # ------------------------------------------------------------ where to

    def _place(self, url: str) -> tuple[str, str, int, str]:
        """Scheme, host, port and what to ask for.

        Raises:
            AddressRefused: by its form alone.
        """
        if len(url) > _LONGEST_URL or any(char <= " " or char == "\x7f" or char == "\\" for char in url):
            raise AddressRefused(url, "that is no web address", hint=_HINT)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
            plain = host.encode("idna").decode("ascii") if not host.isascii() else host
        except (ValueError, UnicodeError) as error:
            raise AddressRefused(url, "that is no web address", hint=_HINT) from error
        if parts.scheme not in _PORTS:
            raise AddressRefused(url, "only http and https are asked", hint=_HINT)
        if not plain or parts.username is not None or parts.password is not None:
            raise AddressRefused(url, "it must name a host, and no account", hint=_HINT)
        if port not in self.ports:
            raise AddressRefused(url, f"port {port} is not asked, only those of the web", hint=_HINT)
        asked = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            asked.encode("ascii")
        except UnicodeEncodeError as error:
            raise AddressRefused(url, "what is not ASCII in it must be written with %", hint=_HINT) from error
        return parts.scheme, plain, port, asked

    def _addresses(self, url: str, host: str, port: int) -> list[str]:
        """Where ``host`` is; all of it public.

        Raises:
            AddressRefused: some of it is not. StorageUnreachable: it cannot be told now.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError) as error:
            raise StorageUnreachable(url, f"{host} is not known: {error}") from error
        addresses = list(dict.fromkeys(str(place[4][0]) for place in found))
        for address in addresses:
            try:
                public = self.public(ipaddress.ip_address(address))
            except ValueError:  # with a zone: of this link only
                public = False
            if not public:
                raise AddressRefused(url, f"{host} is no public host", hint=_HINT)
        return addresses

    @contextlib.contextmanager
    def _asked(self, url: str, until: float) -> Iterator[http.client.HTTPResponse]:
        scheme, host, port, asked = self._place(url)
        addresses = self._addresses(url, host, port)
        line = self._connected(url, addresses, port, until)
        # Who sends a byte now and then is silent never, and done never.
        watch = threading.Timer(max(0.0, until - time.monotonic()), lambda: _cut(line))
        watch.daemon = True
        watch.start()
        try:
            if scheme == "https":
                context = self.trust or ssl.create_default_context()
                line = context.wrap_socket(line, server_hostname=host)
            connection = http.client.HTTPConnection(host, port, timeout=self.silence_s)
            connection.sock = line  # so it never looks the name up again
            name = f"[{host}]" if ":" in host else host
            connection.putrequest("GET", asked, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", name if port == _PORTS[scheme] else f"{name}:{port}")
            connection.putheader("User-Agent", f"lcq/{__version__}")
            connection.putheader("Accept", "image/*, */*;q=0.5")
            connection.putheader("Accept-Encoding", "identity")
            connection.putheader("Connection", "close")
            connection.endheaders()
            with connection.getresponse() as answer:
                yield answer
        except ssl.SSLCertVerificationError as error:
            raise AddressRefused(url, f"its certificate is not trusted: {error.verify_message}", hint=_HINT) from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise StorageUnreachable(url, said[:300]) from error
        finally:
            watch.cancel()
            line.close()

    def _connected(self, url: str, addresses: list[str], port: int, until: float) -> socket.socket:
        problem = "it has no address"
        for address in addresses:
            patience_s = min(self.silence_s, until - time.monotonic())
            if patience_s <= 0:
                break
            try:
                line = socket.create_connection((address, port), timeout=patience_s)
            except OSError as error:
                problem = error.strerror or str(error)
                continue
            line.settimeout(self.silence_s)
            return line
        raise StorageUnreachable(url, problem)

    # ------------------------------------------------------------ what comes

    def _check(self, url: str, answer: http.client.HTTPResponse) -> None:
        if answer.status in _GONE:
            raise AddressRefused(url, f"it answered {answer.status} {answer.reason}", hint=_HINT)
        if answer.status != http.HTTPStatus.OK:
            raise StorageUnreachable(url, f"it answered {answer.status} {answer.reason}")
        if (answer.getheader("Content-Encoding") or "identity").strip().lower() != "identity":
            raise AddressRefused(url, "it sends packed what was asked for plain", hint=_HINT)
        announced = answer.getheader("Content-Length") or ""
        if announced.isdigit() and int(announced) > self.most_bytes:
            raise BlobTooLarge(url, self.most_bytes, int(announced))

    def _saved(
        self, url: str, answer: http.client.HTTPResponse, target: Path, until: float, moved: Moved
    ) -> tuple[int, str]:
        found = hashlib.sha256()
        size = 0
        out = _opened(target)
        try:
            with out:
                while chunk := answer.read1(CHUNK):
                    size += len(chunk)
                    if size > self.most_bytes:
                        raise BlobTooLarge(url, self.most_bytes)
                    found.update(chunk)
                    _write(out, chunk)
                    moved(len(chunk))
            if time.monotonic() >= until:  # then we have broken it off ourselves
                raise StorageUnreachable(url, f"it has not sent all within {self.seconds:g} s")
            if answer.length:  # what was announced and did not come
                raise StorageUnreachable(url, f"it broke off after {size:,} bytes")
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return size, found.hexdigest()


class _Unwritable(Exception):
    """Our own disk is at fault."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _opened(target: Path) -> IO[bytes]:
    try:
        return target.open("xb", buffering=0)
    except OSError as error:
        raise _Unwritable(error) from error


def _write(out: IO[bytes], chunk: bytes) -> None:
    try:
        rest = memoryview(chunk)
        while rest:
            rest = rest[out.write(rest) :]
    except OSError as error:
        raise _Unwritable(error) from error


def _cut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
