"""Models of the case files; unknown keys are errors, so that no part of a report is ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from controller.registry.protocol import Origin

DIRECTORY: Final = Path(__file__).parent / "registries"

Name = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Generate(_Model):
    """A large body that is described instead of written out."""

    what: Literal["tags"]
    count: int


class Answer(_Model):
    """A rule of a scripted registry: the conditions of a request, and what is answered."""

    on: str = Field(pattern=r"^(\*|[A-Z]+(\|[A-Z]+)*) \S+$")
    times: int | None = None
    body: Literal["full", "empty"] | None = None
    authorization: str | None = None
    scope: str | None = None
    status: int | None = None
    status_instead: int | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    json_body: Any = Field(None, alias="json")
    text: str | None = None
    chunked: bool = False
    generate: Generate | None = None


class ScriptedRegistry(_Model):
    """A registry that answers by rules, and otherwise as Distribution does."""

    answers: tuple[Answer, ...] = ()
    holds: dict[str, dict[str, Literal["image", "index", "marker"]]] = Field(default_factory=dict)


class CaseCredentials(_Model):
    """The operator's credentials: user and password, or the content of a .dockerconfigjson."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)

    username: str | None = None
    password: str | None = None
    docker_config: dict[str, Any] | None = None
    token_realms: tuple[str, ...] = ()


class CallExpectation(_Model):
    """What must come of a call."""

    outcome: Literal["created", "created already", "adopted already", "error"]
    error: str | None = None
    message_has: tuple[str, ...] = ()
    message_has_any: tuple[str, ...] = ()
    message_lacks: tuple[str, ...] = ()


class Call(_Model):
    """An operation of ``LocalArtifactRegistry``."""

    ensure: Name
    known: Origin | None = None
    expect: CallExpectation


class _Case(_Model):
    """The part that every case has; what was seen, and what would be right, is for people."""

    id: Name
    held_out: bool = False
    threads: tuple[Name, ...] = Field(min_length=1)
    what: Name
    right_because: Name


class AnswersCase(_Case):
    """Calls on a scripted registry."""

    kind: Literal["registry-answers"]
    registry: ScriptedRegistry
    binding: dict[str, Any] = Field(default_factory=dict)
    credentials: CaseCredentials | None = None
    calls: tuple[Call, ...] = Field(min_length=1)


class ReferencesInput(_Model):
    """Where addresses come from."""

    binding: dict[str, Any]
    advertised: str | None = None
    repository: str = "default/web"


class ReferencesExpectation(_Model):
    """The expected addresses; those that a case does not name are not compared."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)

    uri: str | None = None
    host: str | None = None
    container_runtime: str | None = None
    cluster_network: str | None = None
    longest_reference: int | None = Field(None, alias="longest_reference")
    error: str | None = None
    message_has: tuple[str, ...] = Field((), alias="message_has")


class ReferencesCase(_Case):
    """Addresses and references of a repository."""

    kind: Literal["references"]
    input: ReferencesInput
    expect: ReferencesExpectation


class DescribedCase(_Case):
    """A case in words, shown by ordinary tests."""

    kind: Literal["real-registry", "tls", "operator", "configuration"]
    setup: tuple[str | None, ...] = ()
    right: Name
    observed: dict[str, str] = Field(min_length=1)
    shown_by: tuple[Name, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _collect_observations(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Collect the keys ``observed_at_<commit>``."""
        observed = {key: value for key, value in data.items() if key.startswith("observed_at_")}
        return {key: value for key, value in data.items() if key not in observed} | {"observed": observed}


Case = Annotated[AnswersCase | ReferencesCase | DescribedCase, Field(discriminator="kind")]
_CASE: Final[TypeAdapter[Case]] = TypeAdapter(Case)


class InvalidCase(Exception):
    """A case file that does not have the format; the message names file and key."""


def load_case(path: Path) -> Case:
    """Read a case file.

    Raises:
        InvalidCase: It lacks a key, or has one that the format does not have.
    """
    try:
        case = _CASE.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise InvalidCase(f"{path.name}: {error}") from error
    if case.id != path.stem:
        raise InvalidCase(f"{path.name}: id is {case.id!r}, must be the file's name")
    return case
