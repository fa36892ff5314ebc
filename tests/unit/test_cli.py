"""The command line: `check`, `crd`, and addresses of servers."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controller.cli import main

ROOT = Path(__file__).parents[2]
GOOD = "defaultRegistry: b\nregistries: {b: {registryUrl: 'R:5000/'}, a: {registryUrl: https://a}}\n"


def check(config: Path | str, *, stdin: bytes | None = None) -> Result:
    """Run `check`; it never ends with an exception."""
    result = CliRunner().invoke(main, ["check", "--config", str(config)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_the_crd_is_printed() -> None:
    """The command prints manifests/crd.yaml as it is."""
    answer = CliRunner().invoke(main, ["crd"])
    assert answer.exit_code == 0
    assert answer.output == (ROOT / "manifests" / "crd.yaml").read_text()


def test_a_good_file_is_shown_as_it_is_understood(tmp_path: Path) -> None:
    """The URL of each registry is that which the operator calls."""
    file = tmp_path / "config.yaml"
    file.write_text(GOOD)
    shown = "valid; registries: a, b\n  a: https://a\n  b: http://r:5000 (default)\n"
    assert (check(file).exit_code, check(file).stdout) == (0, f"{file}: {shown}")
    assert check("-", stdin=GOOD.encode()).stdout == f"standard input: {shown}"


def test_the_namespaces_of_a_registry_are_shown() -> None:
    """Only of a registry that is not for all."""
    text = "defaultRegistry: a\nregistries: {a: {registryUrl: 'r:1'}, b: {registryUrl: 'r:1', namespaces: [x, y-*]}}\n"
    assert check("-", stdin=text.encode()).stdout.splitlines()[1:] == [
        "  a: http://r:1 (default)",
        "  b: http://r:1, namespaces: x, y-*",
    ]


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """As of a shell's ``<(helm template ...)``."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(GOOD,))
    writer.start()
    assert check(pipe).exit_code == 0
    writer.join()


def test_a_pipe_cannot_be_followed(tmp_path: Path) -> None:
    """The file of a running operator is read again when it changes, and a pipe would block it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = CliRunner().invoke(main, ["run", "--config", str(pipe)])
    assert result.exit_code == 1
    assert "a pipe or device, which cannot be read again: save it as a file" in result.stderr


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\1\2\xff\xfe",
        b"\xef\xbb\xbf",
        b"- a\n- b\n",
        b"just text",
        b"[" * 5000,
        b"{a: " * 5000,
        b"a: &a [*a, *a]",
        b"registries: &a {x: *a}",
        b"defaultRegistry: null\nregistries: null\ntimings: null\n",
        b"defaultRegistry: a\nregistries: {a: null}\n",
        b"defaultRegistry: 1\nregistries: {1: {registryUrl: 5000, pathPrefix: 7, references: {host: 5}}}\n",
        b"defaultRegistry: A\nregistries: {A: {registryUrl: r}}\n",
        b"defaultRegistry: 2001-99-99\n",
        b'"\\ud800": 1\n',
        b"a: 1\na: 2\n",
        b"registry_url: x\n",
        GOOD.encode() + b"timings: {resyncInterval: 99999999999h}\n",
        GOOD.encode() + b"---\n" + GOOD.encode(),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(content: bytes, tmp_path: Path) -> None:
    """From a file and from standard input alike, without a trace."""
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    for result in (check(file), check("-", stdin=content)):
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert "Traceback" not in result.stderr


def test_what_cannot_be_read_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """A directory, a file that does not exist, a loop of links, a name that is too long."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path, tmp_path / "missing", loop, "x" * 300, "/proc/self/mem"):
        result = check(path)
        assert result.exit_code in (1, 2)
        assert "Error: " in result.stderr


@pytest.mark.parametrize("option", ["--health-address", "--metrics-address"])
@pytest.mark.parametrize(
    "address", [":99999", ":65536", ":0", ":-1", ":http", ":", "", "8080", "x", "::1:80", "[::1]", "a b:80", "[x]:80"]
)
def test_an_address_that_is_none_is_refused(option: str, address: str) -> None:
    """Instead of listening on another port, or on another address, than the one that was meant."""
    result = CliRunner().invoke(main, ["run", "--config", "x", option, address])
    assert result.exit_code == 2
    assert "is not an address: write HOST:PORT or :PORT" in result.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
def test_a_grace_period_without_an_end_is_refused(value: str) -> None:
    """Python reads these as numbers, but no clock does."""
    result = CliRunner().invoke(main, ["run", "--config", "x", "--grace-period", value])
    assert result.exit_code == 2
    assert "is not a number of seconds: write for example 20 or 0.5" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--connect", "--repository", "Team-A/Web"], "'Team-A/Web' is not a repository name: use lower-case"),
        (["--connect", "--repository", "../x"], "is not a repository name"),
        (["--repository", "team-a/web"], "--repository requires --connect"),
    ],
)
def test_a_repository_to_check_is_checked(options: list[str], said: str) -> None:
    """With the status of a wrong command line, before anything is contacted."""
    result = CliRunner().invoke(main, ["check", "--config", "-", *options], input=GOOD.encode())
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaultRegistry: a\nregistries: [{registryUrl: r}]\n", "registries: expected a mapping: write its fields as"),
        ("defaultRegistry: a\nregistries: {a: [r]}\n", "registries.a: expected a mapping: write its fields as"),
        ("defaultRegistry: A\nregistries: {A: {registryUrl: r}}\n", "registries.A: invalid name: use lower-case"),
        (
            "defaultRegistry: a\nregistries: {a: {registryUrl: r, namespaces: team-a}}\n",
            "registries.a.namespaces: expected a list: write [one, two]",
        ),
        ("defaultRegistry: a\nregistries: {a: {registry_url: r}}\n", "write registryUrl instead of registry_url"),
    ],
)
def test_what_to_write_instead(text: str, said: str) -> None:
    """Lists for mappings, the reverse, and names of another form: the message has the path and the right form."""
    result = check("-", stdin=text.encode())
    assert result.exit_code == 1
    assert said in result.stderr


def test_an_empty_name_is_that_of_a_directory() -> None:
    """As an unset variable of a shell leaves it."""
    assert check("").stderr == "Error: .: a directory: name the configuration file in it\n"


def test_closed_standard_input() -> None:
    """``check --config - <&-`` ends in one line."""
    command = [sys.executable, "-m", "controller", "check", "--config", "-"]
    script = ["sh", "-c", '"$@" <&-', "sh", *command]
    result = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr == "Error: standard input is closed: write the configuration to it, or name a file\n"


def test_a_missing_file_is_named() -> None:
    """With what to do."""
    assert check("/nonexistent/config.yaml").stderr == (
        "Error: /nonexistent/config.yaml: no such file: write it there, or name another one with --config\n"
    )


def test_completion_in_bash(tmp_path: Path) -> None:
    """The line in docs/operations.md makes a real bash complete commands and options."""
    program = tmp_path / "artifact-repository-controller"
    program.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m controller "$@"\n')
    program.chmod(0o755)
    (line,) = re.findall(r"^(eval .*bash_source.*)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    script = f"""{line.partition(" #")[0]}
        complete_words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _artifact_repository_controller_completion "$1"; echo "${{COMPREPLY[@]}}"; }}
        complete -p artifact-repository-controller
        complete_words artifact-repository-controller ""
        complete_words artifact-repository-controller check --co
        complete_words artifact-repository-controller run --log-level ""
    """
    answer = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    registered, commands, options, levels = answer.stdout.splitlines()
    assert registered.endswith("artifact-repository-controller")
    assert commands == "check crd run"
    assert options == "--config --connect"
    assert levels == "debug info warning error"
