"""The pinned requirements: what is deployed is what was tested, and names no place that others cannot reach."""

import ast
import re
import sys
import tomllib
from importlib import metadata
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


def direct_requirements() -> set[str]:
    """Names of the packages that pyproject.toml says the code imports."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return {re.split(r"[\[;]", requirement)[0] for requirement in project["dependencies"]}


def optional_requirements() -> dict[str, set[str]]:
    """Names of the packages of each extra."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return {extra: set(names) for extra, names in project["optional-dependencies"].items()}


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
    extras = optional_requirements()
    del extras["tests"]
    assert {"trio", "psycopg"} <= foreign <= direct_requirements().union(*extras.values())


@pytest.mark.parametrize("path", [RUNTIME, TESTS], ids=["runtime", "tests"])
def test_pins_name_no_registry_and_no_path(path: Path) -> None:
    """Prevents pins that can only be installed where they were compiled."""
    for word in ("--index-url", "--extra-index-url", "--find-links", "--trusted-host", "://", "file:/", " /"):
        assert word not in path.read_text()
