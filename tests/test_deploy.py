"""The start commands of the hosts, and the settings that they hand over."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from collector.settings import Settings

PROJECT = Path(__file__).parent.parent
PROCFILE = (PROJECT / "Procfile").read_text()
RENDER = "\n".join(line.partition("#")[0] for line in (PROJECT / "render.yaml").read_text().splitlines())


def run(*command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a start command as a host does, without any setting."""
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def commands() -> list[str]:
    """Every command that Procfile and render.yaml start."""
    heroku = re.findall(r"^[a-z]+: python (.+)$", PROCFILE, re.MULTILINE)
    render = re.findall(r"(?:start|preDeploy)Command: python (.+?)\s*$", RENDER, re.MULTILINE)
    assert len(heroku) == len(PROCFILE.splitlines())
    assert len(render) == 2
    return sorted({*heroku, *render, "collector.py"})


@pytest.mark.parametrize("command", commands())
def test_start_command_reaches_the_collector(command: str, tmp_path: Path) -> None:
    """Prevents a deployment whose process ends at once, since its command is not there any more."""
    arguments = [str(PROJECT / part) if part.endswith(".py") else part for part in command.split()]
    result = run(*arguments, directory=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("DATABASE_URL: it is not set; it takes postgresql://")


def test_collector_py_does_what_the_package_does(tmp_path: Path) -> None:
    """Prevents `python collector.py` from importing itself in place of the package of the same name."""
    by_file = run(str(PROJECT / "collector.py"), "--help", directory=tmp_path)
    by_package = run("-m", "collector", "--help", directory=tmp_path)
    assert (by_file.returncode, by_file.stdout) == (0, by_package.stdout)
    assert "migrate" in by_file.stdout


def test_release_and_worker_are_what_the_hosts_expect() -> None:
    """Prevents a worker that starts before its tables are there, or that a host takes for a web server."""
    assert PROCFILE == "release: python -m collector migrate\nworker: python -m collector\n"
    assert re.search(r"type: worker\b.*\bpreDeployCommand: python -m collector migrate\b", RENDER, re.DOTALL)


def test_render_sets_only_what_the_collector_reads() -> None:
    """Prevents a misspelt variable that silently does nothing, and a database that is not the one described."""
    variables = re.findall(r"- key: ([A-Z_]+)", RENDER)
    assert "DATABASE_URL" in variables
    assert {name.lower() for name in variables} <= Settings.model_fields.keys()
    described = re.search(r"^databases:\s+- name: (\S+)", RENDER, re.MULTILINE)
    used = re.search(r"fromDatabase:\s+name: (\S+)\s+property: connectionString", RENDER)
    assert described is not None
    assert used is not None
    assert described[1] == used[1]


def test_hosts_run_the_python_that_the_code_is_checked_for() -> None:
    """Prevents a host from choosing a Python that nobody tried."""
    assert (PROJECT / ".python-version").read_text() == "3.11\n"
