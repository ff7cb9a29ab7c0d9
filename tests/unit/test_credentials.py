"""How calls show who makes them: identity tokens by google-auth itself, signatures that are computed here anew."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lcq.models import TaskType
from lcq.runner_config import FunctionConfig
from worker.calls import Call, parcel
from worker.engines import credentials
from worker.engines.credentials import audience_of
from worker.engines.endpoints import EndpointRefuses, endpoint_of

CALL = Call(key="06ft3k/1", task_type=TaskType.INPAINT, model="cv2-telea", image=parcel(b"i"), mask=parcel(b"m"))
KEY = Path(__file__).parent.parent / "tls" / "server.key"


@dataclass
class Seen:
    """``asked``: of each request its path, its headers by small letters, and its body; ``status``: of the function."""

    url: str = ""
    status: int = 200
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def of(self, path: str) -> list[tuple[dict[str, str], bytes]]:
        return [(heads, body) for asked, heads, body in self.asked if asked.partition("?")[0] == path]


def unsigned(claims: Mapping[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({}, claims)]
    return ".".join((*parts, "c2ln"))


def claims_of(token: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return told


@pytest.fixture
def seen() -> Iterator[Seen]:
    with platform() as told:
        yield told


@contextmanager
def platform() -> Iterator[Seen]:
    """A function, and at /token who gives identity tokens to service accounts."""
    told = Seen()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status, answer = told.status, b"well" if told.status == 200 else b"no"
            if self.path == "/token":
                (assertion,) = urllib.parse.parse_qs(body.decode())["assertion"]
                claims = {"aud": claims_of(assertion)["target_audience"], "exp": int(time.time()) + 3600}
                status, answer = 200, json.dumps({"id_token": unsigned(claims | {"n": len(told.asked)})}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    told.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    try:
        yield told
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def called(url: str, **config: object) -> None:
    endpoint = endpoint_of(FunctionConfig.model_validate({"url": url, "models": {"cv2-telea": 0.2}} | config))
    try:
        endpoint.call(CALL, timeout_s=30)
    finally:
        endpoint.close()


def test_an_identity_token_is_for_the_service_and_is_kept_until_it_is_refused(
    seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("google.auth")
    account = {
        "type": "service_account", "client_email": "lcq@example", "private_key_id": "1",
        "token_uri": f"{seen.url}/token", "private_key": KEY.read_text(),
    }  # fmt: skip
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setattr(credentials, "_identities", {})
    for _ in range(2):
        called(f"{seen.url}/clean?size=big", auth={"oidc": True})
    tokens = [heads["authorization"].removeprefix("Bearer ") for heads, _ in seen.of("/clean")]
    assert {claims_of(token)["aud"] for token in tokens} == {seen.url}  # no path and no query: Cloud Run refuses those
    assert len(set(tokens)) == len(seen.of("/token")) == 1
    seen.status = 403
    with pytest.raises(EndpointRefuses):
        called(f"{seen.url}/clean", auth={"oidc": True})
    seen.status = 200
    called(f"{seen.url}/clean", auth={"oidc": True})
    assert len(seen.of("/token")) == 2
    called(f"{seen.url}/clean", auth={"oidc": True, "audience": "our-cleaner"})
    assert claims_of(seen.of("/clean")[-1][0]["authorization"])["aud"] == "our-cleaner"


@pytest.mark.parametrize(
    ("url", "audience"),
    [
        ("https://clean-abc123.a.run.app/clean?size=1", "https://clean-abc123.a.run.app"),
        ("https://me@clean-abc123.a.run.app", "https://clean-abc123.a.run.app"),
        ("https://eu-west1-us.cloudfunctions.net/clean/?x=1", "https://eu-west1-us.cloudfunctions.net/clean"),
    ],
)
def test_an_identity_token_is_for_whom_google_says_it_is(url: str, audience: str) -> None:
    assert audience_of(url) == audience


def signature(secret: str, where: str, url: str, heads: Mapping[str, str], body: bytes) -> str:
    """As AWS's reference describes it (Signature Version 4), of the headers that a request says it has signed."""
    told = heads["authorization"]
    _, scope = told.partition("Credential=")[2].split(",")[0].split("/", 1)
    names = told.partition("SignedHeaders=")[2].split(",")[0].split(";")
    parts = urllib.parse.urlsplit(url)
    canonical = "\n".join(
        [
            "POST",
            parts.path or "/",
            "&".join(sorted(parts.query.split("&"))),
            *(f"{name}:{' '.join(heads[name].split())}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    date, region, service, last = scope.split("/")
    assert f"{region}/{service}" == where
    text = "\n".join(["AWS4-HMAC-SHA256", heads["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for step in (date, region, service, last, text):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return key.hex()


def test_a_call_is_signed_as_aws_wants_it(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "for-a-while")
    url = f"{seen.url}/live/clean?b=2&a=1"
    called(url, auth={"sigv4": True}, region="eu-west-1")
    ((heads, body),) = seen.of("/live/clean")
    assert heads["x-amz-security-token"] == "for-a-while"
    assert {"host", "x-amz-date", "content-type", "idempotency-key"} <= set(
        heads["authorization"].partition("SignedHeaders=")[2].split(",")[0].split(";")
    )
    told = heads["authorization"].partition("Signature=")[2]
    assert told == signature("its-secret", "eu-west-1/execute-api", url, heads, body)
    at = "https://abcdefg.lambda-url.eu-central-1.on.aws/"
    config = FunctionConfig.model_validate({"url": at, "models": {"lama": 1}, "auth": {"sigv4": True}})
    signed = credentials.shown_with(config, credentials.Hidden(), at, {}, b"{}")
    assert "/eu-central-1/lambda/aws4_request" in signed["Authorization"]


def test_a_call_that_cannot_show_who_makes_it_does_not_go_out(
    seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(EndpointRefuses, match="finds no credentials"):
        called(seen.url, auth={"sigv4": True}, region="eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its-secret")
    with pytest.raises(EndpointRefuses, match="set region"):
        called(seen.url, auth={"sigv4": True})
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(EndpointRefuses, match="is empty"):
        called(seen.url, auth={"token_file": str(tmp_path / "token")})
    assert not seen.asked
