"""The settings: the contract's defaults, every problem at once, and no secret in any text."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from collector.kraken.pairs import BOOK_DEPTHS
from collector.settings import Settings, SettingsError, load_settings

DATABASE = "postgresql://user:hunter2@db.example:5432/market?sslmode=require"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with nothing set but what is required."""
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    return monkeypatch


def problems() -> dict[str, str]:
    """What is told of each variable that is wrong."""
    with pytest.raises(SettingsError) as error:
        load_settings()
    lines = str(error.value).splitlines()
    told = dict(line.split(": ", 1) for line in lines)
    assert len(told) == len(lines)
    return told


@pytest.mark.usefixtures("environment")
def test_defaults_are_those_of_the_contract() -> None:
    """Prevents a deployment from changing its ways because a default did."""
    assert load_settings().model_dump(exclude={"log_format"}) == {
        "database_url": SecretStr(DATABASE),
        "use_redis": False,
        "redis_host": "localhost",
        "redis_port": 6379,
        "redis_url": None,
        "pairs": ("BTC/USD",),
        "book_depth": (("*", 1000),),
        "kraken_ws_url": "wss://ws.kraken.com/v2",
        "kraken_rest_url": "https://api.kraken.com",
        "flush_interval": 0.5,
        "flush_rows": 5000,
        "spool_dir": Path(".spool"),
        "spool_max_bytes": 2**30,
        "snapshot_interval": 600.0,
        "book_retention_days": None,
        "backfill_since": None,
        "audit_interval": 3600.0,
        "metrics_port": None,
        "port": 8000,
        "dashboard_token": None,
        "log_level": "info",
    }


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("terminal", "log_format"), [(True, "console"), (False, "json")])
def test_log_format_follows_the_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool, log_format: str) -> None:
    """Prevents colours in a log collector, and JSON in a person's face."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert load_settings().log_format == log_format


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        *(("USE_REDIS", text, True) for text in ("true", "True", "1", "yes")),
        *(("BOOK_DEPTH", str(depth), (("*", depth),)) for depth in BOOK_DEPTHS),
        ("DATABASE_URL", "postgres://u@h/d", SecretStr("postgres://u@h/d")),
        ("REDIS_URL", "rediss://:s3cret@r.example:6380/1", SecretStr("rediss://:s3cret@r.example:6380/1")),
        ("PAIRS", "xbt/usd, XDG/USD,ETH/EUR,BTC/USD", ("BTC/USD", "DOGE/USD", "ETH/EUR")),
        ("BOOK_DEPTH", "XBT/USD:1000, */eur:25, *:100", (("BTC/USD", 1000), ("*/EUR", 25), ("*", 100))),
        ("PAIRS", "*/usd,BTC/EUR", ("*/USD", "BTC/EUR")),
        ("KRAKEN_WS_URL", "ws://localhost:9000/v2", "ws://localhost:9000/v2"),
        ("KRAKEN_WS_URL", "ws://[::1]:9000", "ws://[::1]:9000"),
        ("KRAKEN_REST_URL", "http://127.0.0.1:9001/", "http://127.0.0.1:9001"),
        ("BACKFILL_SINCE", "2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("BACKFILL_SINCE", "2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("FLUSH_INTERVAL", "0.01", 0.01),
        ("BOOK_RETENTION_DAYS", "30", 30),
        ("METRICS_PORT", "9090", 9090),
        ("SPOOL_DIR", "/var/spool/collector", Path("/var/spool/collector")),
        ("LOG_FORMAT", "json", "json"),
    ],
)
def test_values_that_are_taken(environment: pytest.MonkeyPatch, variable: str, text: str, value: Any) -> None:
    """Prevents a documented spelling from being refused or read as something else."""
    environment.setenv(variable, text)
    assert getattr(load_settings(), variable.lower()) == value


BAD = {
    "USE_REDIS": ["maybe"],
    "REDIS_PORT": ["0", "65536", "http"],
    "REDIS_URL": ["http://r:s3cret@example", "redis://", "redis://h:port"],
    "DATABASE_URL": ["mysql://u:s3cret@h/d", "host=localhost password=s3cret", "s3cret"],
    "PAIRS": ["BTCUSD", " , ", "BTC/USD;ETH/USD"],
    "BOOK_DEPTH": ["27", "10.0", "deep", "-10", "BTC/USD:1000", "*:100,BTC/USD:10"],
    "KRAKEN_WS_URL": [
        *("https://ws.kraken.com/v2", "ws://ws.kraken.com/v2", "ws://localhost.example/v2", "ws.kraken.com"),
        *("wss://", "ws://localhost@evil.example/", "wss://host:99999/", "ws://10.0.0.1/v2", "wss://[::1/"),
    ],
    "KRAKEN_REST_URL": ["http://api.kraken.com", "wss://api.kraken.com", "ftp://localhost"],
    "FLUSH_INTERVAL": ["0", "-1", "61", "nan", "inf", "soon"],
    "FLUSH_ROWS": ["0", "1.5"],
    "SPOOL_MAX_BYTES": ["1", "1GiB"],
    "SNAPSHOT_INTERVAL": ["0", "nan"],
    "BOOK_RETENTION_DAYS": ["0", "-1", "1.5"],
    "BACKFILL_SINCE": ["2012-12-31", "2999-01-01", "yesterday", "1735689600"],
    "AUDIT_INTERVAL": ["1"],
    "METRICS_PORT": ["0", "70000"],
    "LOG_LEVEL": ["loud"],
    "LOG_FORMAT": ["xml"],
}


@pytest.mark.parametrize(("variable", "text"), [(variable, text) for variable, texts in BAD.items() for text in texts])
def test_value_that_is_refused_is_told_with_what_it_takes(
    environment: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    """Prevents a wrong value from being used, and a message that leaves a person to guess; a secret is not shown."""
    environment.setenv(variable, text)
    told = problems()
    assert list(told) == [variable]
    assert told[variable].endswith(f"; it takes {Settings.model_fields[variable.lower()].description}")
    if variable in ("DATABASE_URL", "REDIS_URL"):
        assert told[variable].startswith("got something else (not shown)")
        assert "s3cret" not in told[variable]
    else:
        assert told[variable].startswith(f"got {text!r}")


def test_problems_are_told_all_at_once(environment: pytest.MonkeyPatch) -> None:
    """Prevents a person from mending one variable after the other, a restart each."""
    for variable, texts in BAD.items():
        environment.setenv(variable, texts[0])
    assert set(problems()) == set(BAD)


@pytest.mark.parametrize("empty", [True, False])
def test_what_is_required_is_told_as_not_set(monkeypatch: pytest.MonkeyPatch, empty: bool) -> None:
    """Prevents a hunt for a wrong value where there is none; an empty variable is an unset one."""
    if empty:
        monkeypatch.setenv("DATABASE_URL", "")
    assert problems()["DATABASE_URL"].startswith("it is not set; it takes postgresql://")


def test_empty_variables_are_unset(environment: pytest.MonkeyPatch) -> None:
    """Prevents a platform that sets every variable, some to nothing, from breaking the start."""
    for name in Settings.model_fields:
        if name != "database_url":
            environment.setenv(name.upper(), "")
    environment.setenv("UNKNOWN_TO_US", "1")
    assert load_settings().pairs == ("BTC/USD",)
    assert load_settings().redis_url is None


def test_file_is_read_and_the_environment_wins(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prevents a forgotten file from overruling the platform, or the platform's silence from hiding the file."""
    (tmp_path / ".env").write_text("PAIRS=ETH/EUR\nBOOK_DEPTH=100\nSOMEBODY_ELSES=1\nDATABASE_URL=mysql://\n")
    environment.setenv("BOOK_DEPTH", "10")
    settings = load_settings()
    assert (settings.pairs, settings.book_depth) == (("ETH/EUR",), (("*", 10),))
    assert settings.database_url.get_secret_value() == DATABASE


def test_problem_in_the_file_is_told_like_one_in_the_environment(tmp_path: Path) -> None:
    """Prevents a wrong line of `.env` from being told as not set, or as the environment's."""
    (tmp_path / ".env").write_text("PAIRS=BTCUSD\nDATABASE_URL=mysql://u:s3cret@h/d\nBOOK_DEPTH=27\n")
    told = problems()
    assert list(told) == ["DATABASE_URL", "PAIRS", "BOOK_DEPTH"]
    assert told["PAIRS"].startswith("got 'BTCUSD'; it takes ")
    assert told["BOOK_DEPTH"].startswith("got '27'; it takes 10, 25")
    assert told["DATABASE_URL"].startswith("got something else (not shown); it takes ")


def test_secrets_are_in_no_text(environment: pytest.MonkeyPatch) -> None:
    """Prevents a password in a log, a traceback or an error report."""
    environment.setenv("REDIS_URL", "redis://:hunter2@r.example:6379/0")
    settings = load_settings()
    for text in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert "hunter2" not in text
    assert settings.database_url.get_secret_value() == DATABASE


def test_error_carries_no_secret_in_its_traceback(environment: pytest.MonkeyPatch) -> None:
    """Prevents the library's own error, which knows the values, from being printed behind ours."""
    environment.setenv("DATABASE_URL", "mysql://u:hunter2@h/d")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert error.value.__suppress_context__
    assert "hunter2" not in repr(error.value)


@pytest.mark.usefixtures("environment")
def test_settings_cannot_change_while_we_run() -> None:
    """Prevents one task from changing what another has read."""
    with pytest.raises(ValidationError):
        load_settings().book_depth = (("*", 10),)


def test_redis_address(environment: pytest.MonkeyPatch) -> None:
    """Prevents REDIS_HOST from winning over REDIS_URL."""
    environment.setenv("REDIS_HOST", "cache")
    environment.setenv("REDIS_PORT", "6380")
    assert load_settings().redis_address == "redis://cache:6380/0"
    environment.setenv("REDIS_URL", "rediss://r.example")
    assert load_settings().redis_address == "rediss://r.example"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("wss://ws.kraken.com/v2", "ws.kraken.com"),
        ("wss://WS.Kraken.com:443/v2", "ws.kraken.com"),
        ("ws://localhost:9000/v2", "localhost"),
        ("ws://127.0.0.1:9000/v2", "localhost"),
        ("ws://[::1]:9001", "localhost"),
    ],
)
def test_origin_of_the_feed(environment: pytest.MonkeyPatch, url: str, origin: str) -> None:
    """Prevents simulated rows among real ones, and a database that is refused because of an address's spelling."""
    environment.setenv("KRAKEN_WS_URL", url)
    assert load_settings().origin == origin


def test_future_is_no_start_of_a_history(environment: pytest.MonkeyPatch) -> None:
    """Prevents a backfill of what has not happened."""
    environment.setenv("BACKFILL_SINCE", (datetime.now(UTC) + timedelta(minutes=5)).isoformat())
    assert list(problems()) == ["BACKFILL_SINCE"]
