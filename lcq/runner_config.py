"""The settings that reach into runners: what an input may be, where weights are, an IOPaint beside us.

Apart from lcq.config, which reads files and the environment: a runner is told its settings, and is started often.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    create_model,
    field_validator,
    model_validator,
)


class Section(BaseModel):
    """The common ground of all sections: frozen, strict about names; built when it is first used."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class LimitsConfig(Section):
    """What an input may be, checked from its header before anything is decoded."""

    image_bytes: int = Field(default=512 * 2**20, ge=1)
    """The size of its file: 512 MiB."""
    image_pixels: int = Field(default=200_000_000, ge=1)
    """Its width times its height."""
    frames: int = Field(default=1, ge=1)
    """How many pictures may be in the file."""


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value  # some programs print sums in capitals


Sha256 = Annotated[str, BeforeValidator(_lower), StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, BeforeValidator(_lower), StringConstraints(pattern=r"^[0-9a-f]{32}$")]
AllowedSum = Annotated[str, BeforeValidator(_lower), StringConstraints(pattern=r"^(any|[0-9a-f]{32}|[0-9a-f]{64})$")]


class ModelSource(Section):
    """Where a model's weights come from, and what they must be."""

    urls: tuple[str, ...] = ()
    """Tried in this order; http(s) addresses, file:// ones, or paths."""
    sha256: Sha256 | None = None
    """The SHA-256 of the file. Where md5 is given too, both must be right."""
    md5: Md5 | None = None
    """The MD5 of the file."""
    file: str | None = None
    """The member of the file that has the weights, where it is a zip of several (big-lama.zip)."""


# Addresses and MD5 sums as the parent programs publish them; the SHA-256 as several independent projects pin it.
_MODELS_AT = "https://github.com/Sanster/models/releases/download"
DEFAULT_SOURCES: dict[str, ModelSource] = {
    "lama": ModelSource(
        urls=(f"{_MODELS_AT}/add_big_lama/big-lama.pt",),
        sha256="344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9",
        md5="e3aa4aaa15225a33ec84f9f4bc47e500",
    ),
    "anime-lama": ModelSource(
        urls=(f"{_MODELS_AT}/AnimeMangaInpainting/anime-manga-big-lama.pt",),
        md5="29f284f36a0a510bcacf39ecf4c4d54f",
    ),
}


class ModelsConfig(Section):
    """Weights: where they are kept, where they come from, which files are trusted."""

    folder: Path | None = None
    """Where converted weights are kept; default: "models" in the data folder."""
    sources: dict[str, ModelSource] = Field(default_factory=lambda: dict(DEFAULT_SOURCES))
    """By model name; what is given here is added to the known ones, key by key: a known model with another
    address keeps its checksums. One checksum replaces both."""
    allow: tuple[AllowedSum, ...] = ("7ba7aa7ac37a4d41fdbbeba3a2af7ead18058552997e3a3cd1a3b2210c9e6b4c",)
    """SHA-256 or MD5 sums of further weight files that may be added. "any" lets every well-formed file in."""
    timeout_s: float = Field(default=30.0, gt=0)
    """How long a download may stand still."""

    @field_validator("sources", mode="before")
    @classmethod
    def _with_the_known_ones(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        merged: dict[Any, Any] = dict(DEFAULT_SOURCES)
        for name, source in given.items():
            known = DEFAULT_SOURCES.get(name)
            if known is None or not isinstance(source, Mapping):
                merged[name] = source
                continue
            kept = known.model_dump(exclude_none=True)
            if source.get("sha256") or source.get("md5"):  # another file: the sums of ours say nothing of it
                kept = {key: value for key, value in kept.items() if key not in ("sha256", "md5")}
            merged[name] = kept | dict(source)
        return merged


class IopaintConfig(Section):
    """An IOPaint server as a neighbour, for models that LCQ does not run itself. Off unless one is named."""

    command: tuple[str, ...] | None = None
    """The program that starts it, such as ["/opt/iopaint/bin/iopaint"]; "start" and its options are added."""
    venv: Path | None = None
    """A virtual environment with iopaint in it; its bin/iopaint is the command."""
    url: str | None = None
    """A server that somebody else runs, such as http://gpu-7:8080. It is never started or ended by us; the
    agents of one user on one host use it one at a time."""
    models: dict[str, str] = Field(default_factory=dict)
    """The models to offer: the name that tasks use, and IOPaint's name. Or a list of IOPaint's names (mat, zits,
    ldm, fcf, manga, migan …): of one with slashes, tasks then use what is after the last."""
    model_dir: Path | None = None
    """Its --model-dir; default: its own. It must have the weights, or the host a way to download them."""
    options: tuple[str, ...] = ()
    """Further options of "iopaint start", such as ["--low-mem", "--no-half"]."""
    start_s: float = Field(default=180.0, gt=0)
    """How long it may take to start, to load a model, or to become free."""

    @field_validator("models", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
            return {name.rpartition("/")[2]: name for name in given}
        return given

    @field_validator("command")
    @classmethod
    def _not_empty(cls, command: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if command is not None and not any(command[:1]):
            raise ValueError('must name a program, such as ["/opt/iopaint/bin/iopaint"]')
        return command

    @field_validator("url")
    @classmethod
    def _is_web_address(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"^https?://[^/\s]+", url):
            raise ValueError("must begin with http:// or https:// and a host")
        return url

    @model_validator(mode="after")
    def _one_place(self) -> IopaintConfig:
        named = [name for name in ("command", "venv", "url") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are both set: name one place where IOPaint is")
        return self


_STORES = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "gcs": ("gcsfs", "gs")}
"""What fsspec needs for an exchange, and which extra has it."""
_WEB = re.compile(r"^https?://[^/?#\s]+([/?#]\S*)?$")
_OPENFAAS = re.compile(r"^https?://[^/\s]+(/[^?#\s]*)?/(async-)?function/[^/?#\s]+")
_EXCHANGE = re.compile(r"^(?!(https?|file|local|memory)://)[a-z][a-z0-9+.-]*://[^/?#\s]+(/[^?#\s]*)?$")
_HEADER = re.compile(r"^[A-Za-z0-9-]{1,64}$")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor what it is a part of
        return False


_TAKEN_HEADERS = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-type", "host", "idempotency-key",
        "transfer-encoding", "x-callback-url",
    }
)  # fmt: skip
"""What a call has of its own."""


def _without_secrets(url: str) -> str:
    """``url`` as it may be told: without its user and password, and its query."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    shown = f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}" if mark else url
    return repr(re.split("[?#]", shown)[0][:200])


_ModelName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_Seconds = Annotated[float, Field(gt=0, le=86400)]


class FunctionAuth(Section):
    """How an agent shows a function who it is. Nothing: the function is open to all."""

    token_file: Path | None = None
    """A file with a bearer token."""
    header: str = "Authorization"
    """Where it goes: "Authorization" has "Bearer " before it, any other header the token alone."""
    oidc: bool = False
    """A Google identity token for the address, by google-auth (lcq[google]): Cloud Run functions."""
    audience: str = ""
    """Whom that token is for. "": the function, by scheme and host of its url (and by its path, where that is at
    cloudfunctions.net). Behind a domain of yours: its *.run.app address, or a custom audience."""
    sigv4: bool = False
    """The call is signed with the credentials of AWS, by boto3 (lcq[lambda]): a Lambda function's URL, or API Gateway,
    with AWS_IAM. The kind lambda is always."""

    @property
    def ways(self) -> tuple[str, ...]:
        """By what it shows that, by the names of these settings."""
        given = {"token_file": self.token_file is not None, "oidc": self.oidc, "sigv4": self.sigv4}
        return tuple(name for name, is_given in given.items() if is_given)

    @field_validator("header")
    @classmethod
    def _is_free(cls, header: str) -> str:
        if not _HEADER.match(header) or header.lower() in _TAKEN_HEADERS:
            raise ValueError("must be the name of a header that a call does not have anyway, such as X-Functions-Key")
        return header

    @model_validator(mode="after")
    def _one_way(self) -> FunctionAuth:
        if len(self.ways) > 1:
            raise ValueError(f"{' and '.join(self.ways)} are both set: a function is shown one of them")
        if self.audience and not self.oidc:
            raise ValueError("audience is whom an identity token is for: set oidc, or leave it out")
        if self.token_file is None and self.header != "Authorization":
            raise ValueError(f"header is where the token goes, and there is none for {self.header}: set token_file")
        return self


class PrewarmConfig(Section):
    """Wakes instances before they are needed: calls that load a model and do nothing, paid for as any other."""

    instances: int = Field(default=0, ge=0, le=1024)
    """How many are to be warm when overflow is near; 0: none is woken but by hand (lcq functions warm)."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Overflow is near where a waiting task that may leave the house is predicted to be done by it no sooner than in
    this share of serverless.overflow_after_s, or of the time until its deadline."""
    idle_after_s: float = Field(default=120.0, ge=0)
    """Where that was so for the last time so long ago, none is woken any more: the platform may end them all."""


if TYPE_CHECKING:
    _Asynchronous = Section
else:  # a word of Python's own, which no class can spell
    _Asynchronous = create_model(
        "_Asynchronous",
        __base__=Section,
        __module__=__name__,
        **{
            "async": (
                bool,
                Field(
                    default=False,
                    description="Of OpenFaaS: its gateway queues the call, and calls back with the answer, at "
                    "http.public_url of a scheduler. For what takes longer than a gateway waits.",
                ),
            )
        },
    )


class FunctionConfig(_Asynchronous):
    """A serverless function that inpaints (docs/serverless.md): a device of this node, of the kind serverless."""

    kind: Literal["http", "openfaas", "lambda", "runpod"] = "http"
    """How it is called: a POST that waits for the answer (Cloud Run functions, Knative, Azure); the same at OpenFaaS's
    gateway, or with async one that it queues; AWS Lambda's Invoke (lcq[lambda]); RunPod's /run and /status."""
    url: str
    """Its address; of OpenFaaS https://GATEWAY/function/NAME; of a Lambda function its name or ARN; of RunPod
    https://api.runpod.ai/v2/ENDPOINT."""
    models: dict[_ModelName, _Seconds] = Field(min_length=1)
    """What it can run: by model, the seconds that a picture of ordinary size takes there."""
    concurrency: int = Field(default=4, ge=1, le=1024)
    """Calls at a time."""
    timeout_s: float = Field(default=300.0, gt=0, le=3600)
    """How long a call may take: the function's own limit on its platform. By a longer one there a call may cost more
    than was reserved for it; a shorter one ends calls that are waited for."""
    payload_kib: int | None = Field(default=None, ge=16, le=64 * 1024)
    """Pictures go inside a call up to so much (request and answer alike); larger ones by way of exchange, or of the
    scheduler where it has an http.public_url. null: 256 where there is an exchange or the call is queued, 4096 else."""
    keeps_warm_s: float = Field(default=300.0, gt=0, le=86400)
    """For how long its platform keeps an instance that nobody calls: those heard within it count as warm."""
    prewarm: PrewarmConfig = PrewarmConfig()
    exchange: str = ""
    """Where larger pictures are left and results are fetched, by addresses that are valid for one call: s3://bucket/
    folder (lcq[s3], storage.options). "": at the scheduler, where it has an http.public_url; else a node of the house
    has to do what is larger than payload_kib."""
    price_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """What a second of a call costs, in the currency of the budget."""
    price_call: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """What a call costs beside that."""
    auth: FunctionAuth = FunctionAuth()
    region: str = ""
    """Of a Lambda function, or where auth.sigv4 signs for; default: as its address says, or boto3 finds it."""

    @field_validator("exchange")
    @classmethod
    def _has_addresses(cls, exchange: str) -> str:
        if exchange and not _EXCHANGE.match(exchange):
            raise ValueError(
                "must be an object store that lends addresses, such as s3://bucket/folder or gs://bucket/folder; "
                'a scheduler lends some where it has an http.public_url, and exchange is ""'
            )
        return exchange

    @model_validator(mode="after")
    def _address_has_its_form(self) -> FunctionConfig:
        shown = _without_secrets(self.url)
        if self.kind == "lambda":
            self._refuse_for_lambda()
        elif not _WEB.match(self.url):
            raise ValueError(f"url must begin with http:// or https:// and a host, and have no spaces; found {shown}")
        elif self.region and not self.auth.sigv4:
            raise ValueError(f"region is of kind lambda and of auth.sigv4, and this one is {self.kind} without that")
        if self.kind == "openfaas" and not _OPENFAAS.match(self.url):
            raise ValueError(f"url must be https://GATEWAY/function/NAME, found {shown}")
        if self.kind == "runpod" and re.search(r"/(run|runsync|status|cancel|health)/?$", self.url):
            raise ValueError(f"url must end with the endpoint, to which /run and /status are added; found {shown}")
        if self.is_async and self.kind != "openfaas":
            raise ValueError(f"async is of kind openfaas, and this one is {self.kind}")
        if self.prewarm.instances > self.concurrency:
            raise ValueError(
                f"prewarm.instances is {self.prewarm.instances}, and concurrency {self.concurrency}: no more than that "
                "are called at a time, so no more can be woken"
            )
        return self

    @model_validator(mode="after")
    def _shows_one_thing(self) -> FunctionConfig:
        if not self.auth.ways:
            return self
        if self.kind == "lambda":
            raise ValueError("auth is of no use to kind lambda: boto3 signs its calls with the credentials of AWS")
        if self.kind == "runpod" and self.auth.token_file is None:
            raise ValueError(
                f"auth.{self.auth.ways[0]} is of no use to kind runpod: it wants an API key, so token_file"
            )
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise ValueError("url has a user, and auth another way to show who calls: leave one of them out")
        return self

    def _refuse_for_lambda(self) -> None:
        if "://" in self.url:
            raise ValueError("url must be a function's name or ARN; for the address of a function, kind is http")
        if not re.match(r"^[A-Za-z0-9:_$-]{1,256}$", self.url):
            raise ValueError(f"url must be the name or ARN of a Lambda function, found {_without_secrets(self.url)}")

    @property
    def is_async(self) -> bool:
        """Whether its answer comes by a call of its gateway's own."""
        return bool(getattr(self, "async"))

    @property
    def lack(self) -> str:
        """What is not installed here and would be needed for a call, in words; "": nothing."""
        scheme = self.exchange.partition("://")[0]
        needs = (
            (bool(self.exchange), f"exchange {scheme}://", *_STORES.get(scheme, ("fsspec", "s3"))),
            (self.kind == "lambda", "kind: lambda", "boto3", "lambda"),
            (self.auth.sigv4, "auth.sigv4", "boto3", "lambda"),
            (self.auth.oidc, "auth.oidc", "google.auth", "google"),
        )
        for is_set, what, module, extra in needs:
            if is_set and not _is_installed(module):
                return f"{what} needs {module.replace('.', '-')}: pip install 'lcq[{extra}]'"
        return ""

    @property
    def may_be_lent(self) -> bool:
        """Whether it has use for addresses at the scheduler."""
        return self.is_async or not self.exchange

    @property
    def inline_bytes(self) -> int:
        """The largest document that a call, or its answer, may be."""
        return (self.payload_kib or (256 if self.exchange or self.is_async else 4096)) << 10

    @property
    def shown_url(self) -> str:
        """Its address without what only it may know: a user and a password, a query."""
        from urllib.parse import urlsplit, urlunsplit  # here: no runner needs it

        if self.kind == "lambda":
            return self.url
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def worst_price(self) -> float:
        """What one call can cost at most."""
        return self.price_of(self.timeout_s)

    def price_of(self, seconds: float) -> float:
        """What a call costs that took so long there, its cold start with it; no more than the dearest."""
        return self.price_call + self.price_s * min(seconds, self.timeout_s)
