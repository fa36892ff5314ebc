"""The operator's configuration: one YAML file, usually mounted from a ConfigMap.

The models are the reference: docs/configuration.md and the chart's schema are checked against them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from controller.errors import BindingConfigInvalid, ConfigError, InvalidNameError
from controller.names import (
    BINDING_NAME_PATTERN,
    MAX_REGISTRY_PATH,
    MAX_REPOSITORY_NAME,
    is_host,
    validate_repository_name,
    validate_template,
)

MAX_PATH_PREFIX: Final = MAX_REGISTRY_PATH - MAX_REPOSITORY_NAME - 1
"""Longest ``pathPrefix`` in characters: with it every legal ``repositoryName`` fits the strictest registry."""

_MAX_SENTENCE: Final = 400
_MAX_MESSAGE: Final = 1200
"""Longest description of one wrong field, and of all, in characters: the kubelet keeps the last 2048 bytes of a log as
the message of a container that failed, and the message must not lose its beginning."""

_DURATION = re.compile(r"^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?$")


def _parse_duration(value: object) -> object:
    """Read a duration as Kubernetes writes them (``10m``, ``1h30m``, ``500ms``)."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.match(value) if isinstance(value, str) and value else None
    if match is None:
        raise ValueError("not a duration: write for example 90s, 10m or 1h30m")
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


def format_duration(value: timedelta) -> str:
    """Return a duration as it would be written in the configuration, in one unit: ``500ms``, ``60s``, ``10m``, ``2h``.

    Args:
        value: The duration.
    """
    milliseconds = round(value / timedelta(milliseconds=1))
    for unit, size, least in (("h", 3_600_000, 3_600_000), ("m", 60_000, 120_000), ("s", 1_000, 1_000)):
        if milliseconds >= least and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _check_duration(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


Duration = Annotated[timedelta, BeforeValidator(_parse_duration), AfterValidator(_check_duration)]


def _check_host(value: str) -> str:
    if not is_host(value):
        raise ValueError(f"{value!r} is not a host: write host or host:port, without scheme and path")
    return value


Host = Annotated[str, AfterValidator(_check_host)]
"""``host`` or ``host:port``, as it stands in front of an image reference."""


def normalise_registry_url(value: str) -> str:
    """Return a registry's base URL as ``scheme://host[:port]``.

    A bare ``host:port`` gets ``http://``, as in the seed; a trailing slash is dropped.

    Args:
        value: What stands in the configuration.

    Raises:
        ValueError: It is empty or not a URL that this operator can use; the message says what to write.
    """
    text = value.strip()
    if not text:
        raise ValueError("must not be empty: write for example http://kind-registry:5000")
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"scheme '{parts.scheme}' is not supported: use http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user or password: put them into a Secret and name its files in credentials")
    if parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("must end after host and port: use pathPrefix for a path")
    if not parts.hostname or not is_host(parts.netloc) or port == 0:
        raise ValueError(f"{value!r} has no usable host: write for example http://kind-registry:5000")
    return f"{parts.scheme}://{parts.netloc.lower()}"


class _Model(BaseModel):
    """Frozen, camelCase in YAML, and strict about unknown fields: a misspelt one is an error, not a default."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )


class RepositoryPolicy(StrEnum):
    """Which repository names an object may give itself."""

    ANY = "Any"
    """Every name: for clusters whose namespaces trust each other."""

    NAMESPACED = "Namespaced"
    """Only names that start with ``<namespace>/`` or ``<namespace>.``."""


class ReferenceHosts(_Model):
    """The registry's address as seen from each place; what is left out is told by KEP-1755 or by ``registryUrl``."""

    host: Host | None = Field(None, description="Address to push to from a laptop.")
    container_runtime: Host | None = Field(
        None, description="Address that goes into a Pod's `image:`; default: `host`, as in KEP-1755."
    )
    cluster_network: Host | None = Field(None, description="Address from inside a Pod.")


class BasicAuth(_Model):
    """User and password, each in a file of its own (the layout of a `kubernetes.io/basic-auth` Secret)."""

    username_file: Path = Field(description="File with the user's name.")
    password_file: Path = Field(description="File with the password.")


class Credentials(_Model):
    """How the operator proves itself to a registry. Files are read again when they change."""

    basic: BasicAuth | None = Field(None, description="User and password from files.")
    docker_config_file: Path | None = Field(
        None, description="A `.dockerconfigjson`, as in a `kubernetes.io/dockerconfigjson` Secret."
    )
    token_realms: tuple[str, ...] = Field(
        (), description="URLs of token services on other hosts that may be sent the credentials."
    )

    @field_validator("token_realms")
    @classmethod
    def _check_realms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for realm in value:
            parts = urlsplit(realm)
            # As strict as the client, which compares a registry's realm with these: see answers.Endpoint.
            unusable = "@" in parts.netloc or parts.port == 0 or not re.fullmatch(r"[!-\[\]-~]+", realm)
            if parts.scheme not in ("http", "https") or not parts.hostname or unusable:
                raise ValueError(f"{realm!r} is not a URL: write for example https://auth.example.com/token")
        return value

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        if self.basic is not None and self.docker_config_file is not None:
            raise ValueError("give either basic or dockerConfigFile, not both")
        return self


class TLS(_Model):
    """How a registry's certificate is checked; only for https:// URLs."""

    ca_file: Path | None = Field(None, description="Bundle of certificate authorities to trust, in PEM.")
    insecure_skip_verify: bool = Field(
        False, description="Accept any certificate. For experiments: whoever can answer for the registry is believed."
    )

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        if self.ca_file is not None and self.insecure_skip_verify:
            raise ValueError("caFile has no effect with insecureSkipVerify: drop one of them")
        return self


class RegistryBinding(_Model):
    """One registry, known to objects by its binding name."""

    service: Literal["local"] = Field("local", description="Kind of registry; `local` is the only one.")
    registry_url: str = Field(description="Base URL that the operator itself calls.")
    path_prefix: str | None = Field(
        None, description="First part of every repository's path; default: the binding's name; `''`: the root."
    )
    data_dir: str | None = Field(None, description="Where the registry keeps its data; carried, not used.")
    references: ReferenceHosts | None = Field(None, description="The registry's address as seen from each place.")
    repository_template: str = Field(
        "{namespace}/{name}", description="Name of the repository of an object that gives none."
    )
    repository_policy: RepositoryPolicy = Field(
        RepositoryPolicy.ANY, description="Which names objects may give themselves."
    )
    credentials: Credentials | None = Field(None, description="How the operator proves itself; default: anonymous.")
    tls: TLS | None = Field(None, description="How the registry's certificate is checked; default: the system's CAs.")

    @field_validator("registry_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        return normalise_registry_url(value)

    @field_validator("path_prefix")
    @classmethod
    def _check_prefix(cls, value: str | None) -> str | None:
        if value:
            try:
                validate_repository_name(value, max_length=MAX_PATH_PREFIX)
            except InvalidNameError as error:
                raise ValueError(str(error)) from error
        return value

    @field_validator("repository_template")
    @classmethod
    def _check_template(cls, value: str) -> str:
        try:
            return validate_template(value)
        except InvalidNameError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.repository_policy is RepositoryPolicy.NAMESPACED and "{namespace}" not in self.repository_template:
            raise ValueError("repositoryTemplate must contain {namespace} where repositoryPolicy is Namespaced")
        if self.tls is not None and not self.registry_url.startswith("https://"):
            raise ValueError("tls needs a registryUrl that starts with https://")
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """The credential and CA files of this binding; each may change while the operator runs."""
        basic = self.credentials.basic if self.credentials else None
        candidates = (
            basic.username_file if basic else None,
            basic.password_file if basic else None,
            self.credentials.docker_config_file if self.credentials else None,
            self.tls.ca_file if self.tls else None,
        )
        return tuple(path for path in candidates if path is not None)

    def prefix(self, binding_name: str) -> str:
        """Return the path prefix that repositories of this binding get (empty: none)."""
        return binding_name if self.path_prefix is None else self.path_prefix


class Timings(_Model):
    """How patient the operator is. The defaults suit clusters; tests shorten them."""

    resync_interval: Duration = Field(
        timedelta(minutes=10), description="How often every object is verified again, on average."
    )
    unavailable_after: Duration = Field(
        timedelta(seconds=60), description="How long a registry may fail before Ready objects become Unknown."
    )
    progress_deadline: Duration = Field(
        timedelta(minutes=10), description="How long an object may be Reconciling before it is Stalled."
    )
    probe_interval: Duration = Field(
        timedelta(seconds=5), description="How often a registry that does not answer is asked again, on average."
    )


class OperatorConfig(_Model):
    """The whole file."""

    default_registry: str = Field(description="Binding name of the registry of objects that name none.")
    registries: dict[
        Annotated[str, Field(pattern=BINDING_NAME_PATTERN, max_length=MAX_PATH_PREFIX)], RegistryBinding
    ] = Field(min_length=1, description="The registries by their binding names.")
    timings: Timings = Field(default_factory=Timings, description="How patient the operator is.")

    @model_validator(mode="after")
    def _check_default(self) -> Self:
        if self.default_registry not in self.registries:
            known = ", ".join(sorted(self.registries))
            raise ValueError(f"defaultRegistry: no registry is named '{self.default_registry}': use one of: {known}")
        return self


def parse_binding(binding_name: str, binding: Mapping[str, Any] | RegistryBinding) -> RegistryBinding:
    """Return one registry binding, checked.

    Args:
        binding_name: The binding's name, for the error.
        binding: The fields as in YAML, or what is checked already.

    Raises:
        BindingConfigInvalid: It is not the local variant, or a field cannot be used; the message names it.
    """
    if isinstance(binding, RegistryBinding):
        return binding
    try:
        return RegistryBinding.model_validate(dict(binding))
    except ValidationError as error:
        raise BindingConfigInvalid(binding_name, _sentences(error)) from error


def read_yaml(text: str) -> Any:
    """Return what a YAML document says.

    Args:
        text: The document.

    Raises:
        ConfigError: It is none.
    """
    try:
        return yaml.safe_load(text)
    except Exception as error:
        # Beside YAMLError there come errors of Python's own: for a date that is none, a wrong tag, endless brackets.
        raise ConfigError(f"not valid YAML: {error}") from error


def parse_config(text: str) -> OperatorConfig:
    """Return the configuration that a file's text holds.

    Args:
        text: YAML.

    Raises:
        ConfigError: It is not YAML, or a field is wrong; the message names each by its path, and what is allowed.
    """
    data = read_yaml(text)
    if not isinstance(data, dict):
        raise ConfigError("the file must be a YAML mapping with defaultRegistry and registries")
    try:
        return OperatorConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentences(error)) from error


def load_config(path: Path) -> OperatorConfig:
    """Return the configuration in a file.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be read or used; the message starts with its path.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        return parse_config(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _sentences(error: ValidationError) -> str:
    """Say what is wrong, as far as that fits where Kubernetes shows it."""
    sentences = [_shortened(_sentence(detail)) for detail in error.errors(include_url=False)]
    lengths = accumulate(len(sentence) for sentence in sentences)
    shown = max(1, sum(length <= _MAX_MESSAGE for length in lengths))
    more = [f"and {len(sentences) - shown} more"] if shown < len(sentences) else []
    return "; ".join([*sentences[:shown], *more])


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _MAX_SENTENCE else f"{sentence[:_MAX_SENTENCE]}…"


def _sentence(detail: ErrorDetails) -> str:
    """Say what is wrong with one field, starting with its path; the value itself may be a secret and is left out."""
    path = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "unknown field: check its spelling"
    elif detail["type"] == "missing":
        message = "required, but missing"
    elif detail["type"] == "literal_error":  # `service` is the only such field
        message = "expected the Local variant: write service: local"
    return f"{path}: {message}" if path else message
