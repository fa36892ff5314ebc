"""Condition types and statuses."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ConditionType(StrEnum):
    """Condition types owned by this operator; conditions of other types are never changed."""

    READY = "Ready"
    """True if the repository exists and can be pushed to. Always present."""

    RECONCILING = "Reconciling"
    """True while the operator retries. Absent otherwise, by the convention of kstatus."""

    POPULATED = "Populated"
    """True if the repository has a tag besides the marker. Present only where tags are reported."""

    STALLED = "Stalled"
    """True if retries have failed for long or cannot succeed. Absent otherwise, by the convention of kstatus."""


OWNED: Final = frozenset(ConditionType)
"""The types as a set, which may be asked about any value."""


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"
