"""Check of a registry with the operator's own client: can it be reached, logged in to, listed and pushed to?

The questions follow each other: one that fails leaves the rest unanswered. Nothing is stored in the registry.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.binding import RegistryBinding
from controller.errors import (
    AccessDenied,
    BindingConfigInvalid,
    InvalidNameError,
    RegistryError,
    RegistryUnavailable,
    ResourceNotFound,
    TLSVerificationFailed,
)
from controller.names import RepositoryPath, expand_template, join_path
from controller.reconcile.explanations import explain
from controller.redaction import redact
from controller.registry.client import RegistryClient
from controller.registry.transport import Timeouts

TIMEOUTS: Final = Timeouts(connect=5.0, read=10.0, pool=10.0, total=15.0)
"""Shorter than the operator's, because somebody waits for the result."""

_NOBODY: Final = "connection_check"
"""Namespace and name of an object that cannot exist: Kubernetes allows no underscore there."""


class Question(StrEnum):
    """What is asked about a registry."""

    CONFIGURATION = "configuration"
    CONNECTION = "connection"
    CERTIFICATE = "certificate"
    API = "registry API"
    LOGIN = "login"
    LIST = "list tags"
    PUSH = "push"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Args:
        question: The question.
        problem: What is wrong and what to do; None if nothing is.
        note: What else is worth knowing.
    """

    question: Question
    problem: str | None = None
    note: str | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.question}: failed: {self.problem}"
        return f"{self.question}: ok ({self.note})" if self.note else f"{self.question}: ok"


async def check_registry(
    name: str, binding: RegistryBinding, *, repository: str | None = None, timeouts: Timeouts = TIMEOUTS
) -> list[Answer]:
    """Ask a registry one question after another, until one fails.

    Args:
        name: Its binding name.
        binding: Its configuration.
        repository: The repository to ask about, without the path prefix. Default: one that no object means by the
            registry's template.
        timeouts: Timeouts of each request.
    """
    try:
        name_asked = repository or expand_template(binding.repository_template, namespace=_NOBODY, name=_NOBODY)
        path = join_path(binding.prefix(name), name_asked)
        client = RegistryClient(name, binding, timeouts=timeouts)
    except BindingConfigInvalid as error:
        return [Answer(Question.CONFIGURATION, error.reason)]
    except InvalidNameError as error:
        return [Answer(Question.CONFIGURATION, str(error))]
    try:
        return await _answers(client, binding, path)
    finally:
        await client.close()


async def _answers(client: RegistryClient, binding: RegistryBinding, path: RepositoryPath) -> list[Answer]:
    try:
        await client.ping()
    except RegistryError as error:
        return _unreachable(binding, error, client.endpoint)
    answers = [*_connected(binding), Answer(Question.API)]
    credentials = binding.credentials
    if credentials is not None and (credentials.basic or credentials.docker_config_file):
        answers.append(await _ask(Question.LOGIN, client.log_in(), client.endpoint))
    if answers[-1].problem is not None:
        return answers
    return [*answers, *await _listed_and_pushed(client, path)]


async def _listed_and_pushed(client: RegistryClient, path: RepositoryPath) -> list[Answer]:
    try:
        existed = await _exists(client, path)
    except RegistryError as error:
        return [Answer(Question.LIST, _problem(error, client.endpoint, Question.LIST))]
    return [Answer(Question.LIST), await _ask(Question.PUSH, _push(client, path, existed=existed), client.endpoint)]


def _unreachable(binding: RegistryBinding, error: RegistryError, endpoint: str) -> list[Answer]:
    """Return the answers where already a request without credentials fails."""
    problem = _problem(error, endpoint)
    if isinstance(error, TLSVerificationFailed):
        return [Answer(Question.CONNECTION), Answer(Question.CERTIFICATE, problem)]
    if isinstance(error, RegistryUnavailable) and error.status is None:
        return [Answer(Question.CONNECTION, problem)]
    return [*_connected(binding), Answer(Question.API, problem)]


def _connected(binding: RegistryBinding) -> list[Answer]:
    """Return the answers that any response gives."""
    proxy = binding.http_proxy
    connection = Answer(Question.CONNECTION, note=f"through proxy {proxy.url}" if proxy else None)
    if not binding.registry_url.startswith("https://"):
        return [connection]
    is_unverified = binding.tls is not None and binding.tls.insecure_skip_verify
    return [
        connection,
        Answer(Question.CERTIFICATE, note="not verified: insecureSkipVerify" if is_unverified else None),
    ]


async def _ask(question: Question, asked: Awaitable[str | None], endpoint: str) -> Answer:
    """Return the answer to a question; what is awaited returns a note."""
    try:
        return Answer(question, note=await asked)
    except RegistryError as error:
        return Answer(question, _problem(error, endpoint))


async def _push(client: RegistryClient, path: RepositoryPath, *, existed: bool) -> str | None:
    await client.try_push(path)
    if existed or not await _exists(client, path):
        return None
    return f"but the registry keeps an empty repository {path}: name one that exists by --repository"


async def _exists(client: RegistryClient, path: RepositoryPath) -> bool:
    """Return whether a registry knows a repository; either answer shows that tags may be listed."""
    try:
        await client.list_tags(path, at_most=1)
    except ResourceNotFound:
        return False
    return True


def _problem(error: RegistryError, endpoint: str, question: Question | None = None) -> str:
    """Return what is wrong and what to do, without secrets; with the server's address if it is not the registry's."""
    if isinstance(error, ResourceNotFound):
        return "404 for /v2/, so this is no registry; check registryUrl"
    if question is Question.LIST and isinstance(error, AccessDenied):
        return redact(f"{error.cause}; allow the operator to list tags")
    explanation = explain(error)
    return explanation.detail if error.endpoint == endpoint else f"{explanation.subject}{explanation.detail}"
