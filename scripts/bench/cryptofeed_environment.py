"""An environment of its own for cryptofeed, which wants a newer Python than the collector does."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

REQUIREMENTS = ("cryptofeed==3.0.1", "asyncpg")  # with what its PostgreSQL backend imports
VERSIONS = ("3.14", "3.13", "3.12")  # of Python: those that it runs on
STAMP = "installed"


def find_environment(cache: Path) -> Path | str:
    """The Python of an environment with cryptofeed, made in `cache` if it is not there yet; or why there is none."""
    python = next((candidate for candidate in _candidates() if _runs(candidate)), None)
    if python is None:
        return f"no Python {VERSIONS[-1]} or newer was found"
    environment = cache / f"cryptofeed-{python.name}"
    if not (environment / STAMP).exists():
        failure = _make(python, environment)
        if failure is not None:
            return f"it could not be installed: {failure}"
    return environment / "bin" / "python"


def _candidates() -> Iterator[Path]:
    """Newest first, on PATH and where pyenv keeps what it has installed."""
    for version in VERSIONS:
        name = f"python{version}"
        if (found := shutil.which(name)) is not None:
            yield Path(found)
        yield from sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/{name}"), reverse=True)


def _runs(python: Path) -> bool:
    """Whether a Python can be started: a version manager's shim may be there, and yet not run."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def _make(python: Path, environment: Path) -> str | None:
    """Make the environment; what went wrong, if anything did."""
    make: list[str | Path] = [python, "-m", "venv", "--clear", environment]
    install: list[str | Path] = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS]
    for command in (make, install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
    (environment / STAMP).touch()  # last: an interrupted installation is done again
    return None
