"""How a call shows who makes it: a token from a file, an identity token of Google's, a signature of AWS's."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from lcq.runner_config import FunctionConfig
from worker.engines.hidden import Hidden

_AWS_HOST = re.compile(r"\.(lambda-url|execute-api)\.([a-z0-9-]+)\.(on\.aws|amazonaws\.com)(\.cn)?$")
_LONGEST = 300  # characters of what a library says

_identities: dict[str, Any] = {}  # by audience: each is good for an hour, and asking for one takes three requests
_lock = threading.Lock()


class NoCredentials(Exception):
    """A call cannot show who makes it; in words."""


def shown_with(
    config: FunctionConfig, hidden: Hidden, url: str, headers: Mapping[str, str], body: bytes | None
) -> dict[str, str]:
    """``headers`` of a POST of ``body`` to ``url``, and those that show who makes it; what of those is secret is hidden
    from then on. Made anew for each call: tokens are replaced while we run.

    Raises:
        NoCredentials.
    """
    auth = config.auth
    if auth.sigv4:
        return _signed(config.region, url, headers, body or b"")
    if auth.oidc:
        token = _identity_token(auth.audience or audience_of(url))
        hidden.add(token)
        return {**headers, "Authorization": f"Bearer {token}"}
    if auth.token_file is None:
        return dict(headers)
    try:
        token = auth.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise NoCredentials(f"its token cannot be read from {auth.token_file}: {error}") from error
    if not token:
        raise NoCredentials(f"its token in {auth.token_file} is empty")
    if not (token.isascii() and token.isprintable()):  # it can be in no header: no call goes out
        raise NoCredentials(f"its token in {auth.token_file} is no single line of ASCII")
    hidden.add(token)
    return {**headers, auth.header: f"Bearer {token}" if auth.header.lower() == "authorization" else token}


def audience_of(url: str) -> str:
    """Whom an identity token for ``url`` is for: the service. Cloud Run knows it by scheme and host alone, functions of
    the first generation by their path too; a query is neither's."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    path = parts.path.rstrip("/") if host.endswith(".cloudfunctions.net") else ""
    return f"{parts.scheme}://{host}{path}"


def _identity_token(audience: str) -> str:
    try:
        from google.auth.transport.requests import Request
        from google.oauth2 import id_token
    except ImportError as missing:
        raise NoCredentials("auth.oidc needs google-auth: pip install 'lcq[google]'") from missing
    try:
        with _lock:
            known = _identities.get(audience)
            if known is None:
                known = id_token.fetch_id_token_credentials(audience, request=Request())  # type: ignore[no-untyped-call]
            if not known.valid:
                known.refresh(Request())
            _identities[audience] = known
            return str(known.token)
    except Exception as error:
        raise NoCredentials(f"google-auth gives no identity token for {audience}: {_line(error)}") from error


def forget_identity(config: FunctionConfig) -> None:
    """An identity token was refused: the next call gets a new one."""
    if config.auth.oidc:
        with _lock:
            _identities.pop(config.auth.audience or audience_of(config.url), None)


def _signed(region: str, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """AWS's signature (SigV4): a function's URL, or a gateway's, whose authorisation is AWS_IAM."""
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError as missing:
        raise NoCredentials("auth.sigv4 needs boto3: pip install 'lcq[lambda]'") from missing
    told = _AWS_HOST.search(urlsplit(url).hostname or "")
    service = "execute-api" if told is None or told[1] == "execute-api" else "lambda"
    try:
        session = Session()
        where = region or (told[2] if told else "") or session.get_config_variable("region")
        credentials = session.get_credentials()
    except BotoCoreError as unusable:
        raise NoCredentials(f"boto3 signs no call: {_line(unusable)}") from unusable
    if credentials is None:
        raise NoCredentials("auth.sigv4 finds no credentials of AWS: see boto3's documentation for where it looks")
    if not where:
        raise NoCredentials("auth.sigv4 does not know the region of this address: set region")
    request = AWSRequest(method="POST", url=url, data=body, headers=dict(headers))
    try:
        SigV4Auth(credentials.get_frozen_credentials(), service, where).add_auth(request)
    except BotoCoreError as unusable:
        raise NoCredentials(f"boto3 signs no call: {_line(unusable)}") from unusable
    return {str(name): str(value) for name, value in request.headers.items()}


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said[:_LONGEST]
