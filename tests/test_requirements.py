"""The pinned requirements: what is deployed is what was tested, and names no place that others cannot reach."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
RUNTIME = PROJECT / "requirements.txt"
TESTS = PROJECT / "tests" / "requirements.txt"


def pins(path: Path) -> dict[str, str]:
    """Package names and the versions that the file pins them to."""
    lines = [line for line in path.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    found = [re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)( ; .+)?", line) for line in lines]
    assert all(found), "a line that pins nothing"
    return {match[1]: match[2] for match in found if match}


def direct_requirements(*, with_extras: bool = False) -> set[str]:
    """Names of the packages that pyproject.toml says the code imports, with those of its extras but the tests'."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [names for extra, names in project["optional-dependencies"].items() if extra != "tests"]
    names = chain(project["dependencies"], *(extras if with_extras else []))
    return {re.split(r"[\[;]", requirement)[0] for requirement in names}


def test_tests_run_on_the_versions_that_are_deployed() -> None:
    """Prevents tests that pass on other versions than production runs on."""
    assert pins(RUNTIME).items() <= pins(TESTS).items()


def test_direct_requirements_are_pinned() -> None:
    """Prevents a requirement that was added without compiling the pins again."""
    assert direct_requirements() <= pins(RUNTIME).keys()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]["tests"]) <= pins(TESTS).keys()


def test_imports_of_the_collector_are_its_direct_requirements() -> None:
    """Prevents a deployment that fails, or changes, since the collector leaned on a package that another brought."""
    imported = set()
    for path in (PROJECT / "collector").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add((node.module or "").partition(".")[0])
    owners = metadata.packages_distributions()
    foreign = {
        re.sub(r"[-_.]+", "-", owners[name][0]).lower()
        for name in imported - sys.stdlib_module_names - {"collector", "__future__"}
    }
    assert {"trio", "psycopg"} <= foreign <= direct_requirements(with_extras=True)


def test_the_worker_does_without_what_only_commands_need() -> None:
    """Prevents a worker that holds libraries for months that it never uses, or fails where they are not installed."""
    code = "import sys, collector.commands.run; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {"typer", "pyarrow", "matplotlib", "quart", "hypercorn"} & set(loaded.stdout.split())


def test_commands_load_pyarrow_only_when_they_write_parquet() -> None:
    """Prevents every command from failing where the optional package is not installed."""
    code = "import sys, collector.cli, collector.history; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "pyarrow" not in loaded.stdout.split()


@pytest.mark.parametrize("path", [RUNTIME, TESTS], ids=["runtime", "tests"])
def test_pins_name_no_registry_and_no_path(path: Path) -> None:
    """Prevents pins that can only be installed where they were compiled."""
    for word in ("--index-url", "--extra-index-url", "--find-links", "--trusted-host", "://", "file:/", " /"):
        assert word not in path.read_text()
