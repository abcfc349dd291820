"""What the hosts are told: start commands, settings, add-ons, and addresses as they hand them over."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from collector.settings import Settings

PROJECT = Path(__file__).parent.parent
PROCFILE: dict[str, str] = yaml.safe_load((PROJECT / "Procfile").read_text())
RENDER_TEXT = (PROJECT / "render.yaml").read_text()
HEROKU: dict[str, Any] = json.loads((PROJECT / "app.json").read_text())
MARK = re.compile(r"^( *)# (?=( *)(- )?\w+:( |$))", re.MULTILINE)  # before a line that may be switched on


def blueprint(*, with_everything: bool) -> dict[str, Any]:
    """render.yaml, as it stands or with all that is switched off by a mark."""
    head, databases, rest = RENDER_TEXT.partition("databases:\n")
    read: dict[str, Any] = yaml.safe_load(head + databases + (MARK.sub(r"\1", rest) if with_everything else rest))
    return read


BLUEPRINTS = [blueprint(with_everything=False), blueprint(with_everything=True)]


def service(read: dict[str, Any], kind: str) -> dict[str, Any]:
    """The one service of a type."""
    (found,) = [service for service in read["services"] if service["type"] == kind]
    return dict(found)


def variables(read: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the worker is told, by variable."""
    return {variable["key"]: variable for variable in service(read, "worker")["envVars"]}


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
    worker = service(BLUEPRINTS[0], "worker")
    started = [*PROCFILE.values(), worker["startCommand"], worker["preDeployCommand"]]
    return sorted({*(command.removeprefix("python ") for command in started), "collector.py"})


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
    assert PROCFILE == {"release": "python -m collector migrate", "worker": "python -m collector"}
    assert HEROKU["formation"].keys() == {"worker"}
    for read in BLUEPRINTS:
        worker = service(read, "worker")
        assert worker["preDeployCommand"] == "python -m collector migrate"
        assert (PROJECT / worker["buildCommand"].removeprefix("pip install --requirement ")).is_file()
        assert worker["maxShutdownDelaySeconds"] >= 30


def test_hosts_set_only_what_the_collector_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a misspelt variable that silently does nothing, and a value that the collector refuses."""
    monkeypatch.setenv("DATABASE_URL", "postgres://host/database")
    told = [{name: told.get("value") for name, told in HEROKU["env"].items()}]
    told += [{name: told.get("value") for name, told in variables(read).items()} for read in BLUEPRINTS]
    for values in told:
        assert {name.lower() for name in values} <= Settings.model_fields.keys()
        with monkeypatch.context() as environment:
            for name, value in values.items():
                if value is not None:
                    assert isinstance(value, str)
                    environment.setenv(name, value)
            assert Settings().pairs == ("BTC/USD",)  # type: ignore[call-arg]


def test_every_variable_of_heroku_is_described() -> None:
    """Prevents a form that asks for something without saying what, or that cannot be left as it is."""
    for told in HEROKU["env"].values():
        assert told["description"]
        assert "value" in told or told["required"] is False


def test_render_names_what_it_describes() -> None:
    """Prevents a worker that waits for a database or a store which the blueprint does not make."""
    for read in BLUEPRINTS:
        (database,) = read["databases"]
        assert variables(read)["DATABASE_URL"]["fromDatabase"] == {
            "name": database["name"],
            "property": "connectionString",
        }
    everything = BLUEPRINTS[1]
    store = service(everything, "keyvalue")
    assert variables(everything)["REDIS_URL"]["fromService"] == {
        "type": "keyvalue",
        "name": store["name"],
        "property": "connectionString",
    }


def test_disk_of_render_holds_the_spool() -> None:
    """Prevents a spool that is not on its disk, that outgrows it, or that two instances would share."""
    without, everything = (service(read, "worker") for read in BLUEPRINTS)
    assert "disk" not in without
    assert "SPOOL_DIR" not in variables(BLUEPRINTS[0])
    assert variables(BLUEPRINTS[1])["SPOOL_DIR"]["value"] == everything["disk"]["mountPath"]
    assert everything["disk"]["sizeGB"] * 10**9 > Settings.model_fields["spool_max_bytes"].default
    assert everything["numInstances"] == 1


@pytest.mark.parametrize(
    "url",
    [
        "postgres://name:p4ss@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d1a2b3c4",
        "postgresql://kraken_user:p4ss@dpg-abc123-a/kraken_db?sslmode=require",
    ],
)
def test_address_that_a_host_hands_over_is_understood(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a first deploy that fails at an address which nobody wrote by hand."""
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("REDIS_URL", "rediss://:p4ss@ec2-1-2-3-4.compute-1.amazonaws.com:6380")
    settings = Settings()  # type: ignore[call-arg]
    assert settings.redis_address.startswith("rediss://")
    understood = conninfo_to_dict(settings.database_url.get_secret_value())
    assert understood["password"] == "p4ss"
    assert understood.get("sslmode") == ("require" if "sslmode" in url else None)


def test_hosts_run_the_python_that_the_code_is_checked_for() -> None:
    """Prevents a host from choosing a Python that nobody tried."""
    assert (PROJECT / ".python-version").read_text() == "3.11\n"
