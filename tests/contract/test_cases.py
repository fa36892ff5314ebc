"""Cases from the field (tests/cases): every file is run, or names the tests that show it."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import yaml

from controller.addresses import RegistryHosting, resolve_addresses
from controller.configfile import parse_binding
from controller.errors import InvalidNameError, OperatorError, RegistryError
from controller.names import join_path
from controller.reconcile.explanations import explain
from controller.registry.local import LocalArtifactRegistry
from tests.cases.models import (
    DIRECTORY,
    AnswersCase,
    Call,
    CallExpectation,
    CaseCredentials,
    DescribedCase,
    InvalidCase,
    ReferencesCase,
    load_case,
)
from tests.fakes.scripted_registry import HELD, Script, scripted_registry

FILES: Final = sorted(DIRECTORY.glob("*.yaml"))
ROOT: Final = DIRECTORY.parents[2]
BINDING: Final = "artifacts"


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in FILES])
async def test_case(path: Path, tmp_path: Path) -> None:
    """What the case expects is what happens."""
    match load_case(path):
        case AnswersCase() as case:
            await _run_answers(case, tmp_path)
        case ReferencesCase() as case:
            _run_references(case)
        case DescribedCase() as case:
            for place in case.shown_by:
                _check_place(place)


async def _run_answers(case: AnswersCase, directory: Path) -> None:
    """Call the client on the scripted registry; what the registry held at the start is still there at the end."""
    async with AsyncExitStack() as stack:
        script = await stack.enter_async_context(scripted_registry(case.registry))
        fields = {"registryUrl": f"http://{script.host}", **case.binding}
        if case.credentials is not None:
            fields["credentials"] = _credentials(case.credentials, script.host, directory)
        registry = await stack.enter_async_context(LocalArtifactRegistry(BINDING, fields))
        for number, call in enumerate(case.calls, start=1):
            outcome, error = await _call(registry, call)
            _compare(call.expect, outcome, error, f"call {number} (ensure {call.ensure})")
        _check_kept(case, script)


async def _call(registry: LocalArtifactRegistry, call: Call) -> tuple[str, OperatorError | None]:
    try:
        ensured = await registry.ensure_repository(call.ensure, known_origin=call.known)
    except OperatorError as error:
        return "error", error
    return f"{ensured.origin.lower()}{'' if ensured.created else ' already'}", None


def _compare(expected: CallExpectation, outcome: str, error: OperatorError | None, where: str) -> None:
    text = _message(error)
    assert outcome == expected.outcome, f"{where}: {text}"
    if expected.error is not None:
        assert expected.error in {kind.__name__ for kind in type(error).__mro__}, f"{where}: {type(error)}: {text}"
    missing = [words for words in expected.message_has if words not in text]
    assert not missing, f"{where}: {text!r} lacks {missing}"
    assert not [words for words in expected.message_lacks if words in text], f"{where}: {text}"
    alternatives = expected.message_has_any
    assert not alternatives or any(words in text for words in alternatives), f"{where}: {text}"


def _message(error: OperatorError | None) -> str:
    """Return everything that a person is told: the log's sentence, and the condition's message."""
    if not isinstance(error, RegistryError):
        return str(error or "")
    explanation = explain(error)
    return f"{error}\n{explanation.subject}{explanation.detail}"


def _check_kept(case: AnswersCase, script: Script) -> None:
    for path, tags in case.registry.holds.items():
        repository = script.content.repositories[path]
        for tag, what in tags.items():
            assert repository.manifests[repository.tags[tag]] == HELD[what], f"{path}:{tag} was overwritten"


def _credentials(credentials: CaseCredentials, host: str, directory: Path) -> dict[str, object]:
    """Write the credential files; return the binding's ``credentials``."""
    realms = [realm.replace("{host}", host) for realm in credentials.token_realms]
    if credentials.docker_config is not None:
        path = directory / "config.json"
        path.write_text(json.dumps(credentials.docker_config).replace("{host}", host))
        return {"dockerConfigFile": str(path), "tokenRealms": realms}
    (directory / "username").write_text(credentials.username or "")
    (directory / "password").write_text(credentials.password or "")
    files = {"usernameFile": str(directory / "username"), "passwordFile": str(directory / "password")}
    return {"basic": files, "tokenRealms": realms}


def _run_references(case: ReferencesCase) -> None:
    expected = case.expect
    if expected.error is not None:
        with pytest.raises(OperatorError) as raised:
            _references(case)
        assert expected.error in {kind.__name__ for kind in type(raised.value).__mro__}
        assert all(words in str(raised.value) for words in expected.message_has)
        return
    try:
        found = _references(case)
    except InvalidNameError:
        if expected.longest_reference is None:
            raise
        return
    if expected.longest_reference is not None:
        assert all(len(reference) <= expected.longest_reference for reference in found.values() if reference)
    # An address that is named with null is expected to be unknown.
    named = expected.model_dump(
        by_alias=True, exclude_unset=True, exclude={"longest_reference", "error", "message_has"}
    )
    assert {place: found[place] for place in named} == named


def _references(case: ReferencesCase) -> dict[str, str | None]:
    binding = parse_binding(BINDING, case.input.binding)
    advertised = case.input.advertised
    hosting = None if advertised is None else RegistryHosting.parse(advertised)
    addresses = resolve_addresses(binding, hosting)
    path = join_path(binding.prefix(BINDING), case.input.repository)
    references = addresses.references(path)
    places = ("host", "containerRuntime", "clusterNetwork")
    return {"uri": f"{addresses.uri}/{path}"} | {place: references.get(place) for place in places}


def _check_place(place: str) -> None:
    """Check that ``file.py::test`` or ``page.md#heading`` exists."""
    file, _, name = place.partition("#" if ".md" in place else "::")
    path = ROOT / file
    assert path.is_file(), f"shown_by: {file} does not exist"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        assert name in {heading.lower().replace(" ", "-") for heading in headings}, f"shown_by: no heading {name}"
    else:
        *_, function = name.split("::")
        assert re.search(rf"^\s*(async )?def {re.escape(function)}\(", text, flags=re.MULTILINE), f"no test {place}"


def test_case_files_are_found() -> None:
    """The folder has the cases, so a moved folder is noticed."""
    assert len(FILES) >= 41


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"wat": 1}, "wat"),
        ({"registry": {"answers": [{"on": "GET /x", "staus": 404}]}}, "staus"),
        ({"calls": [{"ensure": "x", "expect": {"outcome": "perhaps"}}]}, "outcome"),
        ({"kind": "wish"}, "kind"),
        ({"kind": "tls"}, "shown_by"),
        ({"id": "another"}, "id"),
    ],
)
def test_invalid_case_is_rejected(tmp_path: Path, change: dict[str, object], named: str) -> None:
    """A key that the format does not have, or a missing one, is an error that names file and key."""
    case = yaml.safe_load((DIRECTORY / "mount-400.yaml").read_text())
    (tmp_path / "mount-400.yaml").write_text(yaml.safe_dump(case | change))
    with pytest.raises(InvalidCase, match=rf"(?s)mount-400\.yaml: .*{named}"):
        load_case(tmp_path / "mount-400.yaml")
