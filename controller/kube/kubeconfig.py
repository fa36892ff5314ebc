"""kubeconfig files: found, merged and validated as kubectl does. Nothing that they refer to is read here."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from controller.errors import KubernetesError
from controller.files import stat_regular

SERVICE_ACCOUNT_DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_EXEC_EXTENSION: Final = "client.authentication.k8s.io/exec"
_EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


def _decoded(value: Any) -> Any:
    """Decode base64; the value of an error would be a secret, so it is not shown."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not valid base64") from None


_Base64 = Annotated[bytes, BeforeValidator(_decoded)]


class _Model(BaseModel):
    """Part of a kubeconfig: unknown fields are ignored, and null is the same as absent."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, hide_input_in_errors=True, alias_generator=lambda name: name.replace("_", "-")
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class _Variable(_Model):
    name: str
    value: str = ""


class ExecPlugin(_Model):
    """A command that prints credentials."""

    model_config = ConfigDict(alias_generator=to_camel)

    api_version: str = ""
    command: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: tuple[_Variable, ...] = ()
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""

    @model_validator(mode="after")
    def _can_be_run(self) -> ExecPlugin:
        if self.api_version not in _EXEC_VERSIONS:
            raise ValueError(f"apiVersion '{self.api_version}' is not supported: use {' or '.join(_EXEC_VERSIONS)}")
        if self.interactive_mode == "Always":
            raise ValueError("interactiveMode is Always, but the operator has no terminal")
        return self


class _Extension(_Model):
    name: str
    extension: Any = None


class Cluster(_Model):
    """An API server."""

    server: str = Field(min_length=1)
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: _Base64 = b""
    proxy_url: str = ""
    extensions: tuple[_Extension, ...] = ()

    @property
    def exec_config(self) -> Any:
        """What the cluster has for exec plugins; None if nothing."""
        return next((entry.extension for entry in self.extensions if entry.name == _EXEC_EXTENSION), None)

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Cluster:
        if self.insecure_skip_tls_verify and (self.certificate_authority or self.certificate_authority_data):
            raise ValueError("insecure-skip-tls-verify cannot be combined with a certificate-authority")
        return self


class User(_Model):
    """Credentials for an API server, and whom to impersonate."""

    client_certificate: str = ""
    client_certificate_data: _Base64 = b""
    client_key: str = ""
    client_key_data: _Base64 = b""
    token: str = ""
    token_file: str = Field("", alias="tokenFile")
    username: str = ""
    password: str = ""
    exec: ExecPlugin | None = None
    auth_provider: Any = None
    impersonate: str = Field("", alias="as")
    as_uid: str = ""
    as_groups: tuple[str, ...] = ()
    as_user_extra: Mapping[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _is_supported(self) -> User:
        if self.auth_provider is not None:
            raise ValueError("auth-provider is not supported: use an exec plugin, such as kubelogin for OIDC")
        methods = [bool(self.token or self.token_file), bool(self.username or self.password), self.exec is not None]
        if sum(methods) > 1:
            raise ValueError("only one of token, username and exec is allowed")
        if (self.as_uid or self.as_groups or self.as_user_extra) and not self.impersonate:
            raise ValueError("as-uid, as-groups and as-user-extra need a user to impersonate (as)")
        if bool(self.client_certificate or self.client_certificate_data) != bool(
            self.client_key or self.client_key_data
        ):
            raise ValueError("a client certificate needs a client key, and a key a certificate")
        return self


class _Context(_Model):
    cluster: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A cluster, and the user to access it.

    Args:
        cluster: The cluster.
        user: The user; anonymous without any credentials.
        context: Name of the context they are from; None for the Pod's ServiceAccount.
    """

    cluster: Cluster
    user: User
    context: str | None = None


@dataclass(frozen=True, slots=True)
class KubeconfigSource:
    """Where the address and credentials of the API server come from.

    Args:
        kubeconfig: A kubeconfig file, instead of those in the environment; None for none.
        context: The context to use; None for the current one.
    """

    kubeconfig: Path | None = None
    context: str | None = None

    @property
    def is_in_cluster(self) -> bool:
        """Whether this process runs in a Pod and uses its ServiceAccount."""
        named = self.kubeconfig or os.environ.get("KUBECONFIG")
        return not named and not self.context and "KUBERNETES_SERVICE_HOST" in os.environ

    def load(self, context: str | None = None) -> Entry:
        """Return the cluster and user: from the file, ``KUBECONFIG``, the Pod or ~/.kube/config, in this order.

        Args:
            context: The context that was used before, which is kept when the file names another one.

        Raises:
            KubernetesError: There is none, or a file is invalid.
        """
        if self.is_in_cluster:
            return _service_account()
        files = self._files()
        if context is not None:
            _check_readable_again(files)
        return _selected(files, context or self.context)

    def _files(self) -> Sequence[Path]:
        if self.kubeconfig is not None:
            if not _can_be_opened(self.kubeconfig):
                raise KubernetesError(f"--kubeconfig names {self.kubeconfig}, which is not a file")
            return [self.kubeconfig]
        if named := os.environ.get("KUBECONFIG"):
            files = [path for path in map(Path, filter(None, named.split(os.pathsep))) if _can_be_opened(path)]
            if not files:
                raise KubernetesError(f"KUBECONFIG names {named}, which is not a file")
            return files
        default = Path("~/.kube/config").expanduser()
        if not default.is_file():
            raise KubernetesError(
                "no credentials for a Kubernetes API server: use --kubeconfig or KUBECONFIG to name a kubeconfig file, "
                "or run in a Pod with a ServiceAccount"
            )
        return [default]


def _can_be_opened(path: Path) -> bool:
    return path.exists() and not path.is_dir()  # a pipe from a shell is fine, the first time


def _check_readable_again(files: Sequence[Path]) -> None:
    for path in files:
        try:
            stat_regular(path)
        except OSError as error:
            raise KubernetesError(
                f"kubeconfig {path} cannot be read again ({error.strerror}): save it as a file, and restart"
            ) from error


def _service_account() -> Entry:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    directory = SERVICE_ACCOUNT_DIRECTORY
    cluster = {
        "server": f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        "certificate-authority": str(directory / "ca.crt"),
    }
    return Entry(Cluster.model_validate(cluster), User.model_validate({"tokenFile": str(directory / "token")}))


def _selected(files: Sequence[Path], context: str | None) -> Entry:
    """Return the cluster and user of a context; of entries with the same name, that of the first file counts."""
    documents = [(path, _document(path)) for path in files]
    names = ", ".join(map(str, files))
    if context is None:
        context = next(
            (str(document["current-context"]) for _, document in documents if document.get("current-context")), ""
        )
    if not context:
        raise KubernetesError(f"{names}: no current-context is set: use --context, or kubectl config use-context")
    chosen = _parsed(_Context, _find(documents, "context", context, names=names))
    cluster = _parsed(Cluster, _find(documents, "cluster", chosen.cluster, names=names))
    user = _parsed(User, _find(documents, "user", chosen.user, names=names)) if chosen.user else User()
    return Entry(cluster, user, context)


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise KubernetesError(f"kubeconfig {path} cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        # Not str(error): it quotes the line, which may contain a secret.
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise KubernetesError(f"kubeconfig {path} is not valid YAML: {error.problem}{line}") from None
    except Exception:  # noqa: BLE001 - PyYAML also raises built-in errors, for wrong tags or deeply nested brackets
        raise KubernetesError(f"kubeconfig {path} is not valid YAML") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubernetesError(f"kubeconfig {path} is not a YAML mapping with clusters, users and contexts")
    return document


_Document = tuple[Path, Mapping[str, Any]]


def _find(documents: Sequence[_Document], kind: str, name: str, *, names: str) -> tuple[str, Mapping[str, Any]]:
    """Return where an entry is, for errors, and its content, with paths relative to its file made absolute."""
    for path, document in documents:
        for entry in _entries(document.get(f"{kind}s")):
            if entry.get("name") == name:
                content = entry.get(kind)
                return f"{path}: {kind} '{name}'", _resolved(content, path) if isinstance(content, dict) else {}
    raise KubernetesError(f"{names}: there is no {kind} '{name}'")


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    return (entry for entry in value if isinstance(entry, dict)) if isinstance(value, list) else iter(())


def _resolved(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    folder = path.absolute().parent
    resolved = dict(content)
    for field in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if isinstance(value := resolved.get(field), str) and value:
            resolved[field] = str(folder / value)
    plugin = resolved.get("exec")
    if isinstance(plugin, dict) and isinstance(command := plugin.get("command"), str) and "/" in command:
        resolved["exec"] = {**plugin, "command": str(folder / command)}  # otherwise it is looked up in PATH
    return resolved


_M = TypeVar("_M", bound=_Model)


def _parsed(model: type[_M], found: tuple[str, Mapping[str, Any]]) -> _M:
    place, content = found
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise KubernetesError(f"{place}: {f'{field}: ' if field else ''}{message}") from error
