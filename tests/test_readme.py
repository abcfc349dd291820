"""The README: its commands exist, its table of variables is right, and its queries answer what they say."""

import re
import shlex
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

import psycopg
import pytest
import typer
from pydantic.fields import FieldInfo

from collector.cli import app, run_command
from collector.settings import Settings
from collector.storage.database import connect
from collector.storage.identity import claim_database
from collector.storage.migrations import migrate
from collector.storage.partitions import ensure_ahead
from collector.storage.shipping import prepare

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()
PAST, SPREAD, VOLUME, IMBALANCE, SLIPPAGE, WATCHED, MISSING, BOOK, GRANTS = re.findall(
    r"```sql\n(.*?)```", README, re.DOTALL
)
ONE_SECOND = timedelta(seconds=1)
LARGEST_PICTURE = 250_000  # bytes


def default_of(field: FieldInfo) -> str:
    """A setting's default as the README writes it."""
    if field.is_required() or field.default_factory is not None:
        return "required" if field.is_required() else "see there"
    match field.default:
        case None:
            return "unset"
        case bool() as value:
            return f"`{str(value).lower()}`"
        case (("*", depth),):
            return f"`{depth}`"
        case tuple() as values:
            return f"`{','.join(values)}`"
        case value:
            return f"`{value}`"


def test_every_variable_is_documented_with_its_default() -> None:
    """Prevents a setting that nobody can find, and a default that is not so any more."""
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", README, re.MULTILINE))
    assert documented == {name.upper(): default_of(field) for name, field in Settings.model_fields.items()}


def test_variables_that_do_nothing_yet_are_marked_so() -> None:
    """Prevents a setting that somebody relies on and nothing reads, and a mark that was forgotten."""
    marked = set(re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| .*not used yet", README, re.MULTILINE))
    sources = "\n".join(path.read_text() for path in (PROJECT / "collector").rglob("*.py"))
    unused = {name.upper() for name in Settings.model_fields if not re.search(rf"(settings|self)\.{name}\b", sources)}
    assert marked == unused


def test_every_picture_is_there_light_and_whole() -> None:
    """Prevents a picture that does not show, is slow to load, or asks another host for a font."""
    pictures = {name: PROJECT / name for name in re.findall(r"!\[.+?\]\((.+?)\)", README)}
    assert {picture.stat().st_size < LARGEST_PICTURE for picture in pictures.values()} == {True}
    drawn = pictures["scripts/pictures/status.svg"].read_text()
    assert re.findall(r"\w+://[^\"]+", drawn) == ["http://www.w3.org/2000/svg"]
    assert ET.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"


def test_links_within_lead_somewhere() -> None:
    """Prevents a link to a section that has been renamed, or to a file that has gone."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
    anchors = {"#" + re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = [target for target in re.findall(r"\]\((.+?)\)", README) if "://" not in target]
    assert not [target for target in targets if target not in anchors and not (PROJECT / target).is_file()]


def test_every_script_to_run_is_told_of() -> None:
    """Prevents a script that nobody can find."""
    scripts = {path.name for path in (PROJECT / "scripts").glob("*.sh")} - {"environment.sh"}
    assert scripts == {name for name in scripts if f"scripts/{name}" in README.partition("## Development")[2]}


def test_every_table_is_told_of(connection: psycopg.Connection) -> None:
    """Prevents a table in somebody's database that nothing explains."""
    tables = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert not [name for (name,) in tables if f"`{name}`" not in README]


def test_every_script_that_is_named_exists() -> None:
    """Prevents a first command that does not work."""
    named = set(re.findall(r"\bscripts/[a-z_]+\.[a-z]+", README))
    assert {"scripts/dev.sh", "scripts/test.sh", "scripts/check.sh"} <= named
    for script in named:
        assert (PROJECT / script).is_file()


def test_every_command_is_documented() -> None:
    """Prevents a command that nobody can find, and one that is not there any more."""
    documented = re.findall(r"^\| `([a-z]+)` \| ", README.partition("## Commands")[2], re.MULTILINE)
    assert set(documented) == set(typer.main.get_group(app).commands)


def test_what_is_said_of_taking_data_out_works(
    market_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a first export, or a first look at its files, that fails or shows nothing."""
    first, second, after = (f"2023-11-{day}" for day in (14, 15, 16))
    section = README.partition("## Taking data out")[2].partition("\n## ")[0]
    section = section.replace("2026-11-22", first).replace("2026-11-23", second).replace("2026-11-24", after)
    section = section.replace("2026, 11, 22", "2023, 11, 14").replace("2026, 11, 24", "2023, 11, 16")
    (command,) = re.findall(r"^python -m collector (export .*)$", section, re.MULTILINE)
    (path,) = re.findall(r"writes `(.*?)`", section)
    look, read = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.setenv("DATABASE_URL", market_url)
    assert run_command(shlex.split(command)) == 0
    assert (tmp_path / path).is_file()
    capsys.readouterr()
    exec(compile(look, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown.count(f"{first}") == shown.count(f"{second}") == 3
    found: dict[str, object] = {}
    exec(compile(read, "README.md", "exec"), found)
    assert len(capsys.readouterr().out.splitlines()) > 1000
    assert found["candles"].num_rows > 3  # type: ignore[attr-defined]


@pytest.fixture
def connection(database_url: str):
    """A database with the collector's tables."""
    with connect(database_url, application_name="test") as connection:
        migrate(connection)
        ensure_ahead(connection, (now() - timedelta(days=1)).date(), 2)
        yield connection


def now() -> datetime:
    """The time as the tables write it."""
    return datetime.now(UTC).replace(tzinfo=None)


def put_row(connection: psycopg.Connection, chain: int, seq: int, seconds_ago: int, **columns: str | None) -> None:
    """Store a row of a book of depth 2."""
    values = {"type": "update", "bids": "[]", "asks": "[]", "evicted": None} | columns
    connection.execute(
        "INSERT INTO kraken_orderbook (event_time, pair, bids, asks, type, checksum, chain, seq, evicted)"
        " VALUES (%s, 'BTC/USD', %s, %s, %s, 0, %s, %s, %s)",
        [
            now() - seconds_ago * ONE_SECOND,
            values["bids"],
            values["asks"],
            values["type"],
            chain,
            seq,
            values["evicted"],
        ],
    )


def test_book_query_rebuilds_the_book(connection: psycopg.Connection) -> None:
    """Prevents levels of an older chain, removed levels and evicted levels in the book that the README promises."""
    put_row(connection, 1, 0, 90, type="snapshot", bids="[[99.0, 9]]", asks="[[99.5, 9]]")
    put_row(connection, 2, 0, 60, type="snapshot", bids="[[10.0, 1], [9.0, 1]]", asks="[[11.0, 1.50], [12.0, 1]]")
    put_row(connection, 2, 1, 50, bids="[[10.5, 2]]", evicted='{"bids": [9.0], "asks": []}')
    put_row(connection, 2, 2, 40, asks="[[11.0, 0], [13.0, 3]]")
    put_row(connection, 2, 3, 30, bids="[[10.5, 0], [9.0, 4]]")
    put_row(connection, 1, 1, 20, bids="[[98.0, 9]]")  # another collector's chain, which goes on
    assert connection.execute(BOOK).fetchall() == [
        (1, Decimal(1), Decimal("10.0"), Decimal("12.0"), Decimal(1), Decimal("2.0")),
        (2, Decimal(4), Decimal("9.0"), Decimal("13.0"), Decimal(3), Decimal("4.0")),
    ]


@pytest.fixture
def watched_book(connection: psycopg.Connection) -> None:
    """A book of BTC/USD that was watched from five minutes ago on, until half a minute ago."""
    put_row(connection, 1, 0, 300, type="snapshot", bids="[[99, 6], [98, 2]]", asks="[[100, 1], [101, 0.5], [103, 4]]")
    put_row(connection, 1, 1, 150, bids="[[99.5, 1]]")
    connection.execute(
        "INSERT INTO kraken_coverage SELECT pair, 'book', chain, event_time, %s, 1, 2, NULL, NULL, gen_random_uuid()"
        " FROM kraken_orderbook WHERE seq = 0",
        [now() - 30 * ONE_SECOND],
    )


@pytest.mark.usefixtures("watched_book")
def test_past_query_shows_the_book(connection: psycopg.Connection) -> None:
    """Prevents a first query that is an error."""
    assert [row[1] for row in connection.execute(PAST)] == [
        Decimal(price) for price in ("99.5", "99", "98", "100", "101", "103")
    ]


@pytest.mark.usefixtures("watched_book")
def test_spread_query_leaves_out_what_nobody_watched(connection: psycopg.Connection) -> None:
    """Prevents an error, or a spread that is none, where the minutes asked for include a gap."""
    spreads = [spread for _, spread in connection.execute(SPREAD)]
    assert set(spreads) == {Decimal(1), Decimal("0.5")}
    assert spreads == sorted(spreads, reverse=True)
    assert len(spreads) == 5


@pytest.mark.usefixtures("watched_book")
def test_imbalance_query_weighs_both_sides(connection: psycopg.Connection) -> None:
    """Prevents a sign or a share that is wrong."""
    assert connection.execute(IMBALANCE).fetchall() == [(Decimal(9), Decimal("5.5"), Decimal("0.2414"))]


@pytest.mark.usefixtures("watched_book")
def test_slippage_query_takes_level_after_level(connection: psycopg.Connection) -> None:
    """Prevents a level that is taken whole where a part of it is enough, and a size that was not to be had."""
    assert connection.execute(SLIPPAGE).fetchall() == [
        (Decimal(2), Decimal(100), Decimal(101), Decimal("100.00"))  # 1 at 100, 0.5 at 101, 0.5 at 103
    ]
    bought = connection.execute(SLIPPAGE.replace("2 - better", "9 - better").replace("better < 2", "better < 9"))
    assert bought.fetchone() == (Decimal("5.5"), Decimal(100), Decimal("102.27272727"), Decimal("227.27"))


def test_volume_query_adds_up_by_side(connection: psycopg.Connection) -> None:
    """Prevents volumes of another pair or another hour in the README's sums."""
    minute = now().replace(second=0, microsecond=0) - timedelta(minutes=5)
    for number, (pair, time, volume, side) in enumerate(
        [
            ("BTC/USD", minute, "0.10000000", "buy"),
            ("BTC/USD", minute + ONE_SECOND, "0.2", "sell"),
            ("BTC/USD", minute + 2 * ONE_SECOND, "0.3", "buy"),
            ("ETH/USD", minute, "7", "buy"),
            ("BTC/USD", minute - timedelta(hours=2), "7", "buy"),
        ]
    ):
        connection.execute(
            "INSERT INTO kraken_trades VALUES (%s, %s, 100, %s, %s, 'limit', %s)", [time, pair, volume, side, number]
        )
    assert connection.execute(VOLUME).fetchall() == [(minute, 3, Decimal("0.40000000"), Decimal("0.2"))]


def test_coverage_query_finds_the_gaps(connection: psycopg.Connection) -> None:
    """Prevents a gap that overlapping runs hide, or that a run of another channel hides."""
    start = now().replace(microsecond=0) - timedelta(hours=20)
    for number, (channel, since, until) in enumerate(
        [("book", 0, 3), ("book", 1, 2), ("book", 4, 30), ("trade", 2, 5)],
    ):
        connection.execute(
            "INSERT INTO kraken_coverage VALUES ('BTC/USD', %s, %s, %s, %s, 0, 0, NULL, NULL, gen_random_uuid())",
            [channel, number, start + timedelta(hours=since), start + timedelta(hours=until)],
        )
    gaps = connection.execute(WATCHED).fetchall()
    assert [(since, until) for since, until, _ in gaps][1:] == [
        (start + timedelta(hours=3), start + timedelta(hours=4))
    ]
    assert gaps[0][1] == start


def test_missing_trades_query_finds_the_holes(connection: psycopg.Connection) -> None:
    """Prevents a hole that nobody sees, and one that is none since another pair has that number."""
    for pair, number in [("BTC/USD", 5), ("BTC/USD", 6), ("ETH/USD", 8), ("BTC/USD", 9), ("BTC/USD", 10)]:
        connection.execute(
            "INSERT INTO kraken_trades VALUES (%s, %s, 100, 1, 'buy', 'limit', %s)", [now(), pair, number]
        )
    assert connection.execute(MISSING).fetchall() == [(7, 8)]


def test_grants_are_enough_to_collect(database_url: str) -> None:
    """Prevents a role that follows the README from failing at its first table or at its first row."""
    database = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS collector")
        owner.execute("CREATE ROLE collector LOGIN")
        owner.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        owner.execute(GRANTS.replace("DATABASE market", f"DATABASE {database}"))
    try:
        url = database_url.replace("postgres@", "collector@")
        with connect(url, application_name="test") as connection:
            migrate(connection)
            claim_database(connection, "localhost")
            ensure_ahead(connection, now().date(), 1)
            prepare(connection)
            put_row(connection, 1, 0, 0, type="snapshot")
            assert connection.execute("SELECT current_user, count(*) FROM kraken_orderbook").fetchone() is not None
    finally:
        with psycopg.connect(database_url, autocommit=True) as owner:
            owner.execute("DROP OWNED BY collector CASCADE")
            owner.execute("DROP ROLE collector")
