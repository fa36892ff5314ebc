"""Refusals: what a registry means by a 4xx response, from its status, its error codes and its words.

Registries agree on few codes. What the specification has no code for (a quota, a pull-through cache) is in the words.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    NameRefused,
    RegistryError,
    RegistryReadOnly,
)

NAME_UNKNOWN: Final = "NAME_UNKNOWN"
TOO_MANY_REQUESTS: Final = "TOOMANYREQUESTS"

SESSION_LOST: Final = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})
"""Codes of an upload session that the responding replica of a registry does not know."""

_NOT_FOUND: Final = frozenset({"BLOB_UNKNOWN", "MANIFEST_UNKNOWN", NAME_UNKNOWN})
_DENIED: Final = frozenset({"DENIED", "FORBIDDEN", "UNAUTHORIZED"})
_OTHER: Final = _DENIED | {"NAME_INVALID", "UNSUPPORTED", TOO_MANY_REQUESTS}
"""Codes that mean something else than not-found, also with status 404. Codes outside the specification do not: for
what does not exist, Harbor has NOT_FOUND, and Quay TAG_EXPIRED."""

_WRITES: Final = frozenset({"POST", "PATCH", "PUT"})

_OTHER_NAME: Final = "choose another repositoryName"
_IS_MIRROR: Final = "a mirror or pull-through cache accepts no pushes: use the registry behind it"
_QUOTA = re.compile(r"quota|storage limit|insufficient storage", re.IGNORECASE)
_MIRROR = re.compile(r"pull[- ]through|mirror|proxy (project|repositor|cache)|cached? repositor", re.IGNORECASE)


def is_not_found(method: str, status: int, codes: Collection[str]) -> bool:
    """Return whether a 4xx is a definite not-found. A write's never is: that would be a reason to create."""
    if method in _WRITES or status == HTTPStatus.UNAUTHORIZED or not _OTHER.isdisjoint(codes):
        return False
    return status == HTTPStatus.NOT_FOUND or not _NOT_FOUND.isdisjoint(codes)


def refusal(method: str, status: int, codes: Collection[str], cause: str) -> tuple[type[RegistryError], str | None]:
    """Return the error class of a 4xx, and advice where the class alone does not imply it.

    Args:
        method: The request's method.
        status: HTTP status.
        codes: The specification's error codes in the response.
        cause: What the response says.
    """
    if method not in _WRITES:
        class_ = _common(status, codes)
        return class_, _OTHER_NAME if class_ is NameRefused else None
    class_, advice = _refused_write(method, status, codes)
    return class_, _advice_by_words(cause) or advice


def _common(status: int, codes: Collection[str]) -> type[RegistryError]:
    if status == HTTPStatus.UNAUTHORIZED:
        return AuthenticationFailed
    if "NAME_INVALID" in codes:
        return NameRefused
    if status == HTTPStatus.FORBIDDEN or not _DENIED.isdisjoint(codes):
        return AccessDenied
    return RegistryError


def _refused_write(method: str, status: int, codes: Collection[str]) -> tuple[type[RegistryError], str | None]:
    opening = method == "POST"
    if status == HTTPStatus.METHOD_NOT_ALLOWED or (opening and "UNSUPPORTED" in codes):
        # Distribution's read-only mode responds without a code, its pull-through cache with one.
        return RegistryReadOnly, _IS_MIRROR if codes else None
    class_ = _common(status, codes)
    if class_ is NameRefused:
        return class_, _OTHER_NAME
    if opening and status == HTTPStatus.NOT_FOUND and class_ is RegistryError:
        # With an error code, the registry does not create repositories on a push; without, it has no such route.
        return NameRefused, "it creates no repository on a push: create it, or enable create-on-push" if codes else None
    if class_ is not RegistryError:
        return class_, None
    if not SESSION_LOST.isdisjoint(codes):
        return class_, "give all replicas of the registry the same http.secret and storage"
    return class_, "check the registry's logs"


def _advice_by_words(cause: str) -> str | None:
    """Return what to do where a registry says the reason in words only; names of repositories do not count."""
    words = re.sub(r"\S*/\S*", "", cause)
    if _QUOTA.search(words):
        return "free space there or raise the quota"
    return _IS_MIRROR if _MIRROR.search(words) else None
