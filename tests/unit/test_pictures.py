"""What README.md shows of a tour is what today's code would show; if a test fails, run `make demo-pictures`."""

import html
import re
from collections.abc import Sequence

import pytest
import yaml

from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.reasons import Reason
from devcluster.demo_tour import Played, Step, steps
from devcluster.manifests import MANIFESTS, ROOT
from hack import pictures
from hack.states import situations

README = (ROOT / "README.md").read_text()
STEPS = {step.name: step for step in steps(f"127.0.0.1:{pictures.REGISTRY_PORT}")}
COLUMNS = yaml.safe_load((MANIFESTS / "crd.yaml").read_text())["spec"]["versions"][0]["additionalPrinterColumns"]


def block(name: str) -> str:
    """Return a block of README.md, without the fence around it."""
    begin, end = f"<!-- begin {name}: written by {pictures.COMMAND} -->\n", f"<!-- end {name} -->"
    assert README.count(begin) == README.count(end) == 1
    text = README.partition(begin)[2].partition(end)[0].strip()
    found = re.fullmatch(r"```\w+\n(.*)```", text, re.DOTALL)
    assert found, f"{name} is empty"
    return found[1]


def shown(name: str) -> dict[str, str]:
    """Return the output of each step in a block."""
    text, outputs = block(name), {}
    for step in reversed([STEPS[step] for step in pictures.SHOWN[name]]):
        text, found, outputs[step.name] = text.rpartition(f"$ {step.command}\n")
        assert found, step.command
    assert text == ""
    return outputs


def rows(output: str) -> list[Sequence[str]]:
    """Return the rows of a table of kubectl, after a check of its header."""
    header, *lines = output.splitlines()
    assert header.split() == ["NAME", *(column["name"].upper() for column in COLUMNS if not column.get("priority"))]
    return [line.split() for line in lines]


def test_columns() -> None:
    """The tables have the columns of the CRD, and the reasons of the code."""
    names = {path.stem for path in (MANIFESTS / "samples").iterdir()} - {"named"} | {"backend"}
    ready, outage = rows(shown("tour-ready")["get"]), rows(shown("tour-outage")["outage"])
    assert {row[0] for row in ready} == {row[0] for row in outage} == names
    assert {(row[1], row[3]) for row in ready} == {("True", Reason.REPOSITORY_READY)}
    assert {(row[1], row[3]) for row in outage} == {("Unknown", Reason.REGISTRY_UNAVAILABLE)}


def test_events() -> None:
    """The events are those that the operator records."""
    told = [line.split()[1:3] for line in shown("tour-outage")["events"].splitlines()[1:]]
    assert told == [["Warning", Reason.REGISTRY_UNAVAILABLE], ["Normal", Reason.REPOSITORY_READY]]
    assert " RepositoryRecreated " in shown("tour-recreated")["recreated"]


def test_object() -> None:
    """The object has the fields and conditions that the operator writes for a new repository."""
    document = yaml.safe_load(block("tour-object"))
    status = document["status"]
    expected = dict(situations())["Created or verified"].status
    assert status.keys() == expected.keys() | {"tags"}  # the demo reports them
    assert {c["type"] for c in status["conditions"]} == {ConditionType.READY, ConditionType.POPULATED}
    ready = next(c for c in status["conditions"] if c["type"] == ConditionType.READY)
    wanted = next(c for c in expected["conditions"] if c["type"] == ConditionType.READY)
    assert ready.keys() == wanted.keys()
    assert (ready["status"], ready["reason"], ready["message"]) == (
        ConditionStatus.TRUE,
        Reason.REPOSITORY_READY,
        "Push and pull URI:TAG",
    )
    assert document["spec"] == {}


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures(name: str) -> None:
    """The pictures are on the page, load nothing, and have the commands and columns of today."""
    path = f"docs/images/tour-{name}.svg"
    assert f'="{path}"' in README
    picture = (ROOT / path).read_text()
    assert re.findall(r"url\((?!#)[^)]*\)|href=|@import", picture) == []
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", picture)
    told = html.unescape("".join(texts)).replace("\N{NO-BREAK SPACE}", " ")
    for step in pictures.PICTURED:
        assert f"$ {STEPS[step].command}" in told
        assert f"# {STEPS[step].text}" in told
    assert all(column["name"].upper() in told for column in COLUMNS if not column.get("priority"))
    assert told.count("Unknown") >= len(list((MANIFESTS / "samples").iterdir()))


def test_output_is_pasted_as_it_is() -> None:
    """A block has the commands and the output of its steps, in their order, and nothing else."""
    played = [Played(Step(name, "", f"run {name}"), f"{name}\nsaid\n") for name in STEPS]
    blocks = pictures.blocks(played)
    assert blocks["tour-recreated"]() == (
        "```console\n$ run forget\nforget\nsaid\n$ run recreated\nrecreated\nsaid\n```"
    )
    assert blocks.keys() == {*pictures.SHOWN, "tour-object"}
