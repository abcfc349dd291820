"""The settings, from the process environment and from `.env` in the working directory; the environment wins.

Nothing else in the collector reads the environment. Every problem is found in one pass and told by the variable's
name, with what it got and what it takes; a secret is never part of that text, nor of a `repr`.
"""

import sys
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from collector.earliest import EARLIEST
from collector.kraken.pairs import parse_patterns
from collector.selection import DepthRule, Selection, parse_depths

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
SHORTEST_TOKEN = 16  # characters: random ones are not guessed, even with many requests a second
SMALLEST_SPOOL = 16 * 2**20  # bytes: a few segments of depth-1000 snapshots must fit


def _split(text: str, schemes: dict[str, bool]) -> SplitResult:
    """Split a URL whose scheme must be one of `schemes` (scheme: whether it leaves the host's own loopback)."""
    url = urlsplit(text)
    if url.scheme not in schemes or not url.hostname:
        raise ValueError
    _ = url.port  # raises ValueError for a port that is none
    if not schemes[url.scheme] and url.hostname not in LOOPBACK_HOSTS:
        raise ValueError
    return url


def _websocket_url(text: str) -> str:
    _split(text, {"wss": True, "ws": False})
    return text


def _rest_url(text: str) -> str:
    _split(text, {"https": True, "http": False})
    return text.rstrip("/")


def _database_url(secret: SecretStr) -> SecretStr:
    if urlsplit(secret.get_secret_value()).scheme not in ("postgresql", "postgres"):
        raise ValueError
    return secret


def _redis_url(secret: SecretStr) -> SecretStr:
    _split(secret.get_secret_value(), {"redis": True, "rediss": True})
    return secret


def _utc(text: Any) -> datetime:
    moment = datetime.fromisoformat(str(text).strip())
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if not EARLIEST <= moment <= datetime.now(UTC):
        raise ValueError
    return moment


class Settings(BaseSettings):
    """Everything that can be set; each field's description says what its variable takes."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,  # a platform's empty variable is an unset one
        extra="ignore",  # a .env is shared with other programs
        frozen=True,
        hide_input_in_errors=True,
    )

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        description="postgresql://user:password@host:port/database (postgres:// works too)"
    )
    use_redis: bool = Field(default=False, description="true or false")
    redis_host: str = Field("localhost", min_length=1, description="a host name or address")
    redis_port: int = Field(6379, ge=1, le=65535, description="a port from 1 to 65535")
    redis_url: Annotated[SecretStr | None, AfterValidator(lambda value: value and _redis_url(value))] = Field(
        None, description="redis://[:password@]host:port/0, or rediss:// for TLS"
    )
    pairs: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_patterns)] = Field(
        ("BTC/USD",), description="a comma list of Kraken's v2 symbols, such as BTC/USD,ETH/EUR; * stands for any"
    )
    book_depth: Annotated[tuple[DepthRule, ...], NoDecode, BeforeValidator(parse_depths)] = Field(
        (("*", 1000),),
        validate_default=False,
        description="10, 25, 100, 500 or 1000, or depths by pair, the one for all others last: BTC/USD:1000,*:100",
    )
    kraken_ws_url: Annotated[str, AfterValidator(_websocket_url)] = Field(
        "wss://ws.kraken.com/v2", description="wss://host/path; ws:// for a loopback host only"
    )
    kraken_rest_url: Annotated[str, AfterValidator(_rest_url)] = Field(
        "https://api.kraken.com", description="https://host; http:// for a loopback host only"
    )
    flush_interval: float = Field(0.5, ge=0.01, le=60, description="seconds from 0.01 to 60")
    flush_rows: int = Field(5000, ge=1, le=1_000_000, description="a count from 1 to 1000000")
    spool_dir: Path = Field(Path(".spool"), description="a folder that this process may write to")
    spool_max_bytes: int = Field(2**30, ge=SMALLEST_SPOOL, description=f"bytes, at least {SMALLEST_SPOOL}")
    snapshot_interval: float = Field(600, ge=1, le=86_400, description="seconds from 1 to 86400")
    book_retention_days: int | None = Field(None, ge=1, le=36_500, description="whole days, at least 1")
    backfill_since: Annotated[datetime, BeforeValidator(_utc)] | None = Field(
        None, description="a time from 2013 to now, such as 2026-01-31 or 2026-01-31T12:00:00Z"
    )
    audit_interval: float = Field(3600, ge=60, le=604_800, description="seconds from 60 to 604800")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="a port from 1 to 65535")
    port: int = Field(8000, ge=1, le=65535, description="a port from 1 to 65535")
    dashboard_token: SecretStr | None = Field(
        None, min_length=SHORTEST_TOKEN, description=f"a secret of at least {SHORTEST_TOKEN} characters"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["console", "json"] = Field(
        default_factory=lambda: "console" if sys.stderr.isatty() else "json", description="console or json"
    )

    @property
    def redis_address(self) -> str:
        """Where Redis is: REDIS_URL when set, else host and port."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"redis://{self.redis_host}:{self.redis_port}/0"

    @property
    def selection(self) -> Selection:
        """The pairs to collect, and how deep the book of each is to be."""
        return Selection(self.pairs, self.book_depth)

    @property
    def origin(self) -> str:
        """The host of the feed, by which a database knows what it holds; every loopback address is `localhost`."""
        host = urlsplit(self.kraken_ws_url).hostname or ""
        return "localhost" if host in LOOPBACK_HOSTS else host


class SettingsError(Exception):
    """The settings cannot be used; the text has a line for each variable that is wrong. Exit status 2."""


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: with every problem at once.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # the fields come from the environment
    except ValidationError as error:
        problems = {str(problem["loc"][0]): problem for problem in error.errors()}
        raise SettingsError("\n".join(starmap(_describe, problems.items()))) from None


def _describe(name: str, problem: ErrorDetails) -> str:
    field = Settings.model_fields[name]
    if problem["type"] == "missing":
        got = "it is not set"
    elif field.annotation in (SecretStr, SecretStr | None):
        got = "got something else (not shown)"
    else:
        got = f"got {problem['input']!r}"
    return f"{name.upper()}: {got}; it takes {field.description}"
