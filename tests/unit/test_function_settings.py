"""Settings of functions that cannot be right are refused where they are read, and say what to do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lcq.models import explain_invalid
from lcq.runner_config import FunctionConfig

BURST: dict[str, Any] = {"url": "https://clean.example/f", "models": {"lama": 4}}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"exchange": "/srv/exchange"}, "s3://bucket/folder"),
        ({"exchange": "https://bucket.example"}, "s3://bucket/folder"),
        ({"exchange": "s3://"}, "s3://bucket/folder"),
        ({"exchange": "S3://bucket"}, "s3://bucket/folder"),
        ({"models": {"lama": 0}}, "greater than 0"),
        ({"models": {"lama": float("inf")}}, "86400"),
        ({"models": {"": 4}}, "at least 1 character"),
        ({"price_s": float("inf")}, "finite"),
        ({"url": "https://clean example/f"}, "no spaces"),
        ({"region": "eu-west-1"}, "region is of kind lambda"),
        ({"auth": {"oidc": True, "sigv4": True}}, "shown one of them"),
        ({"auth": {"audience": "https://clean.example"}}, "set oidc"),
        ({"prewarm": {"instances": 5}}, "concurrency 4"),
        ({"kind": "lambda"}, "kind is http"),
        ({"kind": "lambda", "url": ""}, "name or ARN"),
        ({"kind": "lambda", "url": "clean", "auth": {"oidc": True}}, "boto3 signs"),
        ({"kind": "runpod", "auth": {"oidc": True}}, "API key"),
        ({"kind": "runpod", "url": "https://api.runpod.ai/v2/one/run"}, "/run and /status are added"),
        ({"auth": {"header": "X-Functions-Key"}}, "set token_file"),
        ({"auth": {"header": "Content-Length", "token_file": "/t"}}, "X-Functions-Key"),
        ({"auth": {"header": "X-Key: x", "token_file": "/t"}}, "X-Functions-Key"),
        ({"url": "https://me:word@clean.example", "auth": {"token_file": "/t"}}, "leave one of them out"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_and_says_what_to_do(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        FunctionConfig.model_validate(BURST | config)
    assert says in explain_invalid(refusal.value)


@pytest.mark.parametrize(
    "config",
    [
        {"exchange": "s3://bucket"},
        {"exchange": "gs://bucket/some/folder"},
        {"url": "https://clean.example?code=abc"},
        {"url": "http://[::1]:8080/a/b?c=d"},
        {"kind": "lambda", "url": "arn:aws:lambda:eu-west-1:123456789012:function:clean:live"},
        {"kind": "lambda", "url": "123456789012:function:clean", "region": "eu-west-1"},
        {"kind": "runpod", "url": "https://api.runpod.ai/v2/one", "auth": {"token_file": "/t"}},
        {"auth": {"token_file": "/t", "header": "X-Functions-Key"}},
        {"prewarm": {"instances": 4}},
        {"auth": {"sigv4": True}, "region": "eu-west-1"},
        {"auth": {"oidc": True, "audience": "our-cleaner"}},
    ],
)
def test_what_can_be_right_is_taken(config: dict[str, Any]) -> None:
    FunctionConfig.model_validate(BURST | config)


def test_a_refusal_tells_no_secret_of_an_address() -> None:
    with pytest.raises(ValidationError) as refusal:
        FunctionConfig.model_validate(BURST | {"url": "ftp://me:s3cr3t@clean.example/f?code=s3cr3t"})
    (first,) = refusal.value.errors()
    assert "ftp://clean.example/f" in first["msg"]
    assert "s3cr3t" not in first["msg"]
