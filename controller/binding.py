"""Bindings: how the operator reaches a registry, what it may do there, and which names objects may choose."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from controller.errors import InvalidNameError
from controller.names import (
    DEFAULT_PORTS,
    MAX_REGISTRY_PATH,
    MAX_REPOSITORY_NAME,
    NAMESPACE_GLOB_PATTERN,
    is_host,
    is_namespace_in,
    is_within_namespace,
    validate_repository_name,
    validate_template,
)
from controller.urls import Proxy, check_specified, is_near, normalise_registry_url, shown

MAX_PATH_PREFIX: Final = MAX_REGISTRY_PATH - MAX_REPOSITORY_NAME - 1
"""Longest ``pathPrefix`` in characters: every valid ``repositoryName`` then fits the strictest registry."""


def _check_host(value: str) -> str:
    if not is_host(value):
        raise ValueError(f"{shown(value)} is not a host: write host or host:port (1 to 65535), without scheme and path")
    check_specified(value)
    return value


Host = Annotated[str, AfterValidator(_check_host)]
"""``host`` or ``host:port``, the first part of an image reference."""


def _check_file(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError("must not contain a NUL character")
    if not value.name:
        raise ValueError("not a file: write its path, such as /etc/registries/shared/password")
    return value


File = Annotated[Path, AfterValidator(_check_file)]
"""Path of a file."""


def _check_namespaces(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("list at least one namespace, or omit the field to allow all")
    for pattern in value:
        if not re.fullmatch(NAMESPACE_GLOB_PATTERN, pattern):
            raise ValueError(f"{shown(pattern)} is not the name of a namespace: write for example team-a, or team-*")
    return value


Namespaces = Annotated[tuple[str, ...], AfterValidator(_check_namespaces)]
"""Names of namespaces, or patterns of them such as ``team-*``."""


def _authority(url: str) -> str:
    """Return the part of a URL between scheme and path; empty if the URL is malformed."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


class ConfigModel(BaseModel):
    """Base of the models of the configuration file: frozen, camelCase in YAML, and unknown fields are errors."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )


class RepositoryPolicy(StrEnum):
    """Which repository names objects may choose."""

    ANY = "Any"
    """Any name, for clusters whose namespaces trust each other."""

    NAMESPACED = "Namespaced"
    """Only names that start with ``<namespace>/`` or ``<namespace>.``."""


class ReferenceHosts(ConfigModel):
    """The registry's address as seen from each place; defaults come from KEP-1755 or ``registryUrl``."""

    host: Host | None = Field(None, description="Address for pushing from a laptop.")
    container_runtime: Host | None = Field(
        None, description="Address for a Pod's `image:` field. Default: `host`, as in KEP-1755."
    )
    cluster_network: Host | None = Field(None, description="Address for use inside a Pod.")


class BasicAuth(ConfigModel):
    """User name and password, each in its own file (the layout of a `kubernetes.io/basic-auth` Secret)."""

    username_file: File = Field(description="File with the user name.")
    password_file: File = Field(description="File with the password.")


class Credentials(ConfigModel):
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
                raise ValueError(f"{shown(realm)} is not a URL: write for example https://auth.example.com/token")
        return value

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("set basic or dockerConfigFile, or remove the field for anonymous access")
        if self.basic is not None and self.docker_config_file is not None:
            raise ValueError("set either basic or dockerConfigFile, not both")
        return self


class TLS(ConfigModel):
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


class RegistryBinding(ConfigModel):
    """A registry. Objects refer to it by its binding name."""

    service: Literal["local"] = Field("local", description="Kind of registry; only `local` is supported.")
    registry_url: str = Field(
        description="Base URL that the operator connects to. Without a scheme: `http://` for a loopback address or a "
        "host of one word, `https://` for any other host."
    )
    proxy: SecretStr | None = Field(
        None,
        description="URL of an HTTP proxy for all requests to this registry and its token service: "
        "`http://[USER:PASSWORD@]HOST:PORT`, or `https://`. `HTTPS_PROXY` does not apply to registries.",
    )
    allow_plain_http: bool = Field(
        False,
        description="Send `credentials` over `http://` to a host that is neither loopback nor one word, although "
        "anybody on the way can read them.",
    )
    path_prefix: str | None = Field(
        None, description="First part of the path of every repository. Default: the binding's name; `''`: no prefix."
    )
    data_dir: str | None = Field(None, description="The registry's data directory. Accepted but not used.")
    references: ReferenceHosts | None = Field(None, description="The registry's address as seen from each place.")
    advertised_by_cluster: bool = Field(
        False,
        description="This is the registry in `kube-public/local-registry-hosting` (KEP-1755) although neither its "
        "`hostFromClusterNetwork` nor its `host` is the host of `registryUrl`. Only for the default registry.",
    )
    repository_template: str = Field(
        "{namespace}/{name}", description="Name of the repository of an object without `repositoryName`."
    )
    repository_policy: RepositoryPolicy = Field(
        RepositoryPolicy.ANY,
        description="Which repository names objects may choose. Default: the top-level `repositoryPolicy`.",
    )
    namespaces: Namespaces | None = Field(
        None,
        description="Namespaces whose objects may use this registry; `*` stands for any characters, as in `team-*`. "
        "Default: all.",
    )
    report_tags: int = Field(
        0,
        strict=True,
        ge=0,
        le=100,
        description="Report in `status.tags` how many tags a repository has, and up to this many of their names, and "
        "report the condition Populated. One or two more requests for each verification. 0: do not.",
    )
    credentials: Credentials | None = Field(None, description="The operator's credentials. Default: anonymous.")
    tls: TLS | None = Field(None, description="How the registry's certificate is verified. Default: the system's CAs.")

    @field_validator("registry_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        return normalise_registry_url(value)

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            Proxy.parse(value.get_secret_value())
        return value

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
        is_unverified = self.tls is not None and self.tls.insecure_skip_verify
        if is_unverified and self.http_proxy is not None and self.http_proxy.url.startswith("https://"):
            raise ValueError("an https:// proxy would not be verified with insecureSkipVerify: use tls.caFile")
        return self

    @model_validator(mode="after")
    def _check_plain_http(self) -> Self:
        if self.credentials is None or self.allow_plain_http:
            return self
        for url in (self.registry_url, *self.credentials.token_realms):
            receivers = (url, self.http_proxy.url) if self.http_proxy else (url,)
            far = [parts for parts in map(urlsplit, receivers) if not is_near(parts.hostname or "")]
            if url.startswith("http://") and far:
                raise ValueError(
                    f"credentials would be sent to {far[0].netloc} unencrypted: use https:// in registryUrl and "
                    "tokenRealms, or set allowPlainHttp: true"
                )
        return self

    @property
    def http_proxy(self) -> Proxy | None:
        """The proxy for requests to the registry; None for none."""
        return None if self.proxy is None else Proxy.parse(self.proxy.get_secret_value())

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
        return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]

    def is_open_to(self, namespace: str) -> bool:
        """Return whether objects in a namespace may use this registry."""
        return self.namespaces is None or is_namespace_in(namespace, self.namespaces)

    def prefix(self, binding_name: str) -> str:
        """Return the path prefix of repositories of this binding; empty for none."""
        return binding_name if self.path_prefix is None else self.path_prefix
