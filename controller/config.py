"""The operator's configuration: one YAML file, usually mounted from a ConfigMap.

docs/configuration.md and the schema of the chart are generated from the models.
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from controller.binding import MAX_PATH_PREFIX, ConfigModel, RegistryBinding, RepositoryPolicy
from controller.durations import Duration, between
from controller.names import BINDING_NAME_PATTERN, is_nested


class Timings(ConfigModel):
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


class Creations(ConfigModel):
    """Rate limit of new repositories in each namespace, where tenants may not fill the registry for others.

    Repositories that exist, and those that are created again after they vanished, do not count.
    """

    per_second: float = Field(
        10.0,
        strict=True,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="New repositories per second that each may sustain.",
    )
    burst: int = Field(
        10_000,
        strict=True,
        ge=1,
        le=1_000_000,
        description="New repositories that a namespace may create at once after a pause.",
    )


class OperatorConfig(ConfigModel):
    """The configuration file."""

    default_registry: str = Field(description="Binding name of the registry for objects without `registry`.")
    registries: dict[
        Annotated[str, Field(pattern=BINDING_NAME_PATTERN, max_length=MAX_PATH_PREFIX)], RegistryBinding
    ] = Field(min_length=1, description="The registries, by binding name.")
    repository_policy: RepositoryPolicy = Field(
        RepositoryPolicy.ANY, description="`repositoryPolicy` of registries that set none."
    )
    creations: Creations = Field(default_factory=Creations, description="Rate limit of new repositories.")
    follow_local_registry_hosting: bool = Field(
        True, description="Read addresses of the default registry from `kube-public/local-registry-hosting` (KEP-1755)."
    )
    timings: Timings = Field(default_factory=Timings, description="Intervals and deadlines.")

    @model_validator(mode="before")
    @classmethod
    def _pass_policy_down(cls, data: Any) -> Any:
        """Give each registry without a policy the general one; what is malformed is left to later validation."""
        match data:
            case {"repositoryPolicy": "Any" | "Namespaced" as policy, "registries": dict(registries)}:
                general = {"repositoryPolicy": policy}
                passed = {name: general | one if isinstance(one, dict) else one for name, one in registries.items()}
                return data | {"registries": passed}
            case _:
                return data

    @model_validator(mode="after")
    def _check_default(self) -> Self:
        if self.default_registry not in self.registries:
            known = ", ".join(sorted(self.registries))
            raise ValueError(f"defaultRegistry: no registry is named {self.default_registry!r}: use one of: {known}")
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

    @property
    def unrestricted(self) -> list[str]:
        """The registries where objects of any namespace may choose any repository name."""
        return [
            name
            for name, binding in self.registries.items()
            if binding.repository_policy is RepositoryPolicy.ANY and binding.namespaces is None
        ]


def field_names() -> frozenset[str]:
    """Return the names of all fields, as written in YAML."""
    return frozenset(
        str(field.alias) for model in ConfigModel.__subclasses__() for field in model.model_fields.values()
    )
