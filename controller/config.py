"""The operator's configuration: one YAML file, usually mounted from a ConfigMap.

docs/configuration.md and the schema of the chart are generated from the models.
"""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from controller.durations import Duration, between
from controller.errors import InvalidNameError
from controller.names import (
    BINDING_NAME_PATTERN,
    MAX_REGISTRY_PATH,
    MAX_REPOSITORY_NAME,
    is_host,
    is_nested,
    is_unspecified,
    is_within_namespace,
    validate_repository_name,
    validate_template,
)

MAX_PATH_PREFIX: Final = MAX_REGISTRY_PATH - MAX_REPOSITORY_NAME - 1
"""Longest ``pathPrefix`` in characters: every valid ``repositoryName`` then fits the strictest registry."""


def _check_host(value: str) -> str:
    if not is_host(value):
        raise ValueError(f"{value!r} is not a host: write host or host:port (1 to 65535), without scheme and path")
    _check_specified(value)
    return value


def _check_specified(netloc: str) -> None:
    if is_unspecified(netloc):
        raise ValueError(
            f"a server listens on {netloc!r}, but clients need its address: write for example localhost:5001"
        )


Host = Annotated[str, AfterValidator(_check_host)]
"""``host`` or ``host:port``, the first part of an image reference."""


def _check_file(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError("must not contain a NUL character")
    return value


File = Annotated[Path, AfterValidator(_check_file)]
"""Path of a file."""


def normalise_registry_url(value: str) -> str:
    """Return a registry's base URL as ``scheme://host[:port]``.

    A bare ``host:port`` gets ``http://``; a trailing slash is removed.

    Args:
        value: The value in the configuration.

    Raises:
        ValueError: The value is empty or not a usable URL; the message says what to write.
    """
    text = value.strip()
    if not text:
        raise ValueError("must not be empty: write for example http://kind-registry:5000")
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for a port that is out of range
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"scheme '{parts.scheme}' is not supported: use http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user or password: name the files of a Secret in credentials")
    if parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("must end after host and port: use pathPrefix for a path")
    if not is_host(parts.netloc):
        raise ValueError(f"{value!r} has no usable host or port: write for example http://kind-registry:5000")
    _check_specified(parts.netloc)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _authority(url: str) -> str:
    """Return the part of a URL between scheme and path; empty if the URL is malformed."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


class _Model(BaseModel):
    """Base of all models: frozen, camelCase in YAML, and unknown fields are errors."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )


class RepositoryPolicy(StrEnum):
    """Which repository names objects may choose."""

    ANY = "Any"
    """Any name, for clusters whose namespaces trust each other."""

    NAMESPACED = "Namespaced"
    """Only names that start with ``<namespace>/`` or ``<namespace>.``."""


class ReferenceHosts(_Model):
    """The registry's address as seen from each place; defaults come from KEP-1755 or ``registryUrl``."""

    host: Host | None = Field(None, description="Address for pushing from a laptop.")
    container_runtime: Host | None = Field(
        None, description="Address for a Pod's `image:` field. Default: `host`, as in KEP-1755."
    )
    cluster_network: Host | None = Field(None, description="Address for use inside a Pod.")


class BasicAuth(_Model):
    """User name and password, each in its own file (the layout of a `kubernetes.io/basic-auth` Secret)."""

    username_file: File = Field(description="File with the user name.")
    password_file: File = Field(description="File with the password.")


class Credentials(_Model):
    """The operator's credentials for a registry. Changed files are read again without a restart."""

    basic: BasicAuth | None = Field(None, description="User name and password from files.")
    docker_config_file: File | None = Field(
        None, description="A `.dockerconfigjson`, as in a `kubernetes.io/dockerconfigjson` Secret."
    )
    token_realms: tuple[str, ...] = Field(
        (), description="URLs of token services on other hosts to which the credentials may be sent."
    )

    @field_validator("token_realms")
    @classmethod
    def _check_realms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for realm in value:
            # As strict as the client, which compares the realm that a registry names with these.
            if not re.fullmatch(r"https?://[!-\[\]-~]+", realm) or not is_host(_authority(realm)):
                raise ValueError(f"{realm!r} is not a URL: write for example https://auth.example.com/token")
        return value

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        if self.basic is not None and self.docker_config_file is not None:
            raise ValueError("set either basic or dockerConfigFile, not both")
        return self


class TLS(_Model):
    """How the registry's certificate is verified; only for https:// URLs."""

    ca_file: File | None = Field(None, description="CA bundle to trust instead of the system's, in PEM format.")
    insecure_skip_verify: bool = Field(
        False, description="Accept any certificate. For experiments only: anyone can impersonate the registry."
    )

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        if self.ca_file is not None and self.insecure_skip_verify:
            raise ValueError("caFile has no effect with insecureSkipVerify: remove one of them")
        return self


class RegistryBinding(_Model):
    """A registry. Objects refer to it by its binding name."""

    service: Literal["local"] = Field("local", description="Kind of registry; only `local` is supported.")
    registry_url: str = Field(description="Base URL that the operator connects to.")
    path_prefix: str | None = Field(
        None, description="First part of the path of every repository. Default: the binding's name; `''`: no prefix."
    )
    data_dir: str | None = Field(None, description="The registry's data directory. Accepted but not used.")
    references: ReferenceHosts | None = Field(None, description="The registry's address as seen from each place.")
    repository_template: str = Field(
        "{namespace}/{name}", description="Name of the repository of an object without `repositoryName`."
    )
    repository_policy: RepositoryPolicy = Field(
        RepositoryPolicy.ANY, description="Which repository names objects may choose."
    )
    credentials: Credentials | None = Field(None, description="The operator's credentials. Default: anonymous.")
    tls: TLS | None = Field(None, description="How the registry's certificate is verified. Default: the system's CAs.")

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
        is_namespaced = self.repository_policy is RepositoryPolicy.NAMESPACED
        if is_namespaced and not is_within_namespace(self.repository_template, "{namespace}"):
            raise ValueError(
                "repositoryTemplate must start with '{namespace}/' or '{namespace}.' if repositoryPolicy is "
                "Namespaced: with another one, two namespaces may mean the same repository"
            )
        if self.tls is not None and not self.registry_url.startswith("https://"):
            raise ValueError("tls requires a registryUrl that starts with https://")
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """The credential and CA files of this binding, which may change while the operator runs."""
        basic = self.credentials.basic if self.credentials else None
        candidates = (
            basic.username_file if basic else None,
            basic.password_file if basic else None,
            self.credentials.docker_config_file if self.credentials else None,
            self.tls.ca_file if self.tls else None,
        )
        return tuple(path for path in candidates if path is not None)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the registry."""
        parts = urlsplit(self.registry_url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def prefix(self, binding_name: str) -> str:
        """Return the path prefix of repositories of this binding; empty for none."""
        return binding_name if self.path_prefix is None else self.path_prefix


class Timings(_Model):
    """Intervals and deadlines. The defaults suit most clusters."""

    resync_interval: Annotated[Duration, between("1s", "168h")] = Field(
        timedelta(minutes=10), description="Mean interval between two verifications of an object; 1s to 168h."
    )
    unavailable_after: Annotated[Duration, between("1s", "24h")] = Field(
        timedelta(seconds=60),
        description="Duration of a failure after which Ready objects become Unknown; 1s to 24h.",
    )
    progress_deadline: Annotated[Duration, between("1s", "168h")] = Field(
        timedelta(minutes=10),
        description="Time after which an object that is Reconciling becomes Stalled; 1s to 168h.",
    )
    probe_interval: Annotated[Duration, between("100ms", "1h")] = Field(
        timedelta(seconds=5),
        description="Mean interval between two probes of an unavailable registry; 100ms to 1h.",
    )


class OperatorConfig(_Model):
    """The configuration file."""

    default_registry: str = Field(description="Binding name of the registry for objects without `registry`.")
    registries: dict[
        Annotated[str, Field(pattern=BINDING_NAME_PATTERN, max_length=MAX_PATH_PREFIX)], RegistryBinding
    ] = Field(min_length=1, description="The registries, by binding name.")
    timings: Timings = Field(default_factory=Timings, description="Intervals and deadlines.")

    @model_validator(mode="after")
    def _check_default(self) -> Self:
        if self.default_registry not in self.registries:
            known = ", ".join(sorted(self.registries))
            raise ValueError(f"defaultRegistry: no registry is named '{self.default_registry}': use one of: {known}")
        return self

    @model_validator(mode="after")
    def _check_prefixes(self) -> Self:
        """Refuse two ways into the same repositories of which one is Namespaced: it would bypass the policy."""
        for (one, first), (other, second) in itertools.combinations(sorted(self.registries.items()), 2):
            policies = {first.repository_policy, second.repository_policy}
            if first.address != second.address or RepositoryPolicy.NAMESPACED not in policies:
                continue
            prefixes = (first.prefix(one), second.prefix(other))
            if is_nested(*prefixes) and (prefixes[0] != prefixes[1] or len(policies) > 1):
                raise ValueError(
                    f"registries.{one} and registries.{other} share repositories, which bypasses repositoryPolicy "
                    f"Namespaced: give them prefixes that do not contain each other"
                )
        return self


def field_names() -> frozenset[str]:
    """Return the names of all fields, as written in YAML."""
    return frozenset(str(field.alias) for model in _Model.__subclasses__() for field in model.model_fields.values())
