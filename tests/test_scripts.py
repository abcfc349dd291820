"""The scripts that a newcomer runs first, tried on machines that lack something."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
SHELL_SCRIPTS = [*sorted((PROJECT / "scripts").glob("*.sh")), PROJECT / ".ci" / "run"]
COMMANDS = [path for path in SHELL_SCRIPTS if path.name != "environment.sh"]


@pytest.fixture
def newcomer(tmp_path: Path) -> Path:
    """A project that was just cloned: its scripts and pins, and an empty PATH in `bin` with what every system has."""
    project = tmp_path / "project with a space"
    (project / "tests").mkdir(parents=True)
    shutil.copytree(PROJECT / "scripts", project / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for pins in ("requirements.txt", "tests/requirements.txt"):
        shutil.copy(PROJECT / pins, project / pins)
    programs = project / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "dirname", "env"):
        (programs / name).symlink_to(shutil.which(name) or name)
    return project


def put_python(project: Path, body: str) -> None:
    """Put a `python3` on the newcomer's PATH that does what the lines of shell in `body` say."""
    program = project / "bin" / "python3"
    program.write_text(f"#!/bin/sh\nreal={sys.executable}\n{body}\n")
    program.chmod(0o755)


def run(project: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the newcomer's scripts, as from another folder."""
    return subprocess.run(
        [project / script, *arguments],
        env={"PATH": str(project / "bin")},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shell_script_has_no_syntax_error(script: Path) -> None:
    """Prevents a script that fails in a branch that nobody takes here."""
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.name)
def test_script_can_be_run_and_stops_at_its_first_failure(script: Path) -> None:
    """Prevents a check that fails in the middle and passes at the end."""
    assert os.access(script, os.X_OK)
    assert "\nset -euo pipefail\n" in script.read_text()


def test_missing_venv_package_is_told_with_the_command_that_mends_it(newcomer: Path) -> None:
    """Prevents a newcomer on Debian from being left with a half-made environment and a traceback."""
    put_python(newcomer, 'case "$*" in *ensurepip*) exit 1 ;; esac\nexec "$real" "$@"')
    result = run(newcomer, "scripts/test.sh")
    assert result.returncode == 2
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt-get install -y python{version}-venv\n" in result.stderr
    assert not (newcomer / ".venv").exists()


@pytest.mark.parametrize("script", ["scripts/test.sh", "scripts/check.sh", "scripts/dev.sh"])
def test_python_that_is_too_old_is_told(newcomer: Path, script: str) -> None:
    """Prevents a syntax error deep inside the collector as the answer to an old Python."""
    put_python(newcomer, "exit 1")
    result = run(newcomer, script)
    assert (result.returncode, result.stderr) == (2, "Python 3.11 or newer is needed, and none is on PATH.\n")


def test_installs_when_the_pins_changed_and_only_then(newcomer: Path) -> None:
    """Prevents tests that run on yesterday's packages, and a start that waits for pip every time."""
    body = """
case "$*" in
*"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/pip ;;
*"-m pip"*) echo pip >>calls; [ ! -e offline ] ;;
*"-m pytest"*) echo "pytest $4" >>calls ;;
*browser.py) ;;
*) exec "$real" "$@" ;;
esac
"""
    put_python(newcomer, body)
    for name in ("mkdir", "cp"):
        (newcomer / "bin" / name).symlink_to(shutil.which(name) or name)

    def calls_of(*arguments: str) -> tuple[int, str]:
        (newcomer / "calls").unlink(missing_ok=True)
        status = run(newcomer, "scripts/test.sh", *arguments).returncode
        return status, (newcomer / "calls").read_text()

    assert calls_of("-k", "a b") == (0, "pip\npytest a b\n")
    assert calls_of("-k", "spool") == (0, "pytest spool\n")
    with (newcomer / "tests" / "requirements.txt").open("a") as pins:
        pins.write("another==1.0\n")
    (newcomer / "offline").touch()
    assert calls_of("-k", "spool") == (1, "pip\n")
    (newcomer / "offline").unlink()
    assert calls_of("-k", "spool") == (0, "pip\npytest spool\n")
    assert calls_of("-k", "spool") == (0, "pytest spool\n")


def test_environment_whose_making_was_interrupted_is_made_again(newcomer: Path) -> None:
    """Prevents a Ctrl-C during the first start from breaking every later one."""
    put_python(newcomer, 'case "$*" in *"-m venv --clear .venv") echo again; exit 3 ;; esac\nexec "$real" "$@"')
    (newcomer / ".venv" / "bin").mkdir(parents=True)
    (newcomer / ".venv" / "bin" / "python").symlink_to(sys.executable)
    result = run(newcomer, "scripts/test.sh")
    assert (result.returncode, result.stdout) == (3, "again\n")


@pytest.mark.parametrize(
    ("pip_audit", "status", "told"),
    [
        ("exit 0", 0, "pip-audit: no known vulnerability\n"),
        ("echo connection refused; exit 1", 0, "pip-audit: not checked, the advisory data is out of reach\n"),
        ("echo Found 1 known vulnerability in 1 package; exit 1", 1, "Found 1 known vulnerability in 1 package\n"),
        ("echo Found 2 known vulnerabilities in 1 package; exit 1", 1, "Found 2 known vulnerabilities in 1 package\n"),
    ],
)
def test_check_fails_for_a_vulnerability_and_not_for_a_missing_line(
    newcomer: Path, pip_audit: str, status: int, told: str
) -> None:
    """Prevents a vulnerability that passes as a network fault, and a network fault that stops all work."""
    programs = newcomer / ".venv" / "bin"
    programs.mkdir(parents=True)
    bodies = {"python": f'exec {sys.executable} "$@"', "pip-audit": pip_audit}
    for name in ("python", "pip", "ruff", "mypy", "pip-audit"):
        (programs / name).write_text(f"#!/bin/sh\n{bodies.get(name, 'exit 0')}\n")
        (programs / name).chmod(0o755)
    pins = (newcomer / "requirements.txt").read_text() + (newcomer / "tests" / "requirements.txt").read_text()
    (newcomer / ".venv" / "installed-requirements").write_text(pins)
    (newcomer / "bin" / "grep").symlink_to(shutil.which("grep") or "grep")
    result = run(newcomer, "scripts/check.sh")
    assert (result.returncode, result.stdout) == (status, told)


@pytest.mark.parametrize("can_install", [True, False])
def test_missing_browser_is_installed_or_told(newcomer: Path, can_install: bool) -> None:
    """Prevents the dashboard's tests from failing one by one where there is no browser, with no word of what to do."""
    tested = '"-m pytest --numprocesses 2 --ignore tests/faults") echo tested ;; *tests/faults) echo faults ;;'
    answer = f'case "$*" in *browser.py) exit 1 ;; {tested} *) exec {sys.executable} "$@" ;; esac'
    programs = {
        ".venv/bin/python": answer,
        ".venv/bin/pip": "exit 0",
        "bin/id": "echo 0",
        "bin/apt-get": f'echo "apt-get $1"; exit {int(not can_install)}',
    }
    (newcomer / ".venv" / "bin").mkdir(parents=True)
    for name, body in programs.items():
        (newcomer / name).write_text(f"#!/bin/sh\n{body}\n")
        (newcomer / name).chmod(0o755)
    pins = (newcomer / "requirements.txt").read_text() + (newcomer / "tests" / "requirements.txt").read_text()
    (newcomer / ".venv" / "installed-requirements").write_text(pins)
    result = run(newcomer, "scripts/test.sh")
    if can_install:
        assert (result.returncode, result.stdout) == (0, "tested\nfaults\n")
        assert "apt-get update\napt-get install\n" in result.stderr
    else:
        assert (result.returncode, result.stdout) == (2, "")
        assert "  sudo apt-get update && sudo apt-get install -y chromium" in result.stderr
