"""The application: who may pass, what is answered, and what a browser is told to allow."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
import trio
from conftest import new_database
from embedded import EmbeddedPostgres
from quart.typing import TestClientProtocol as Client
from simulated_store import simulate, store

from collector.dashboard import app as module
from collector.dashboard.app import make_app
from collector.dashboard.follower import Followers
from collector.dashboard.reader import Reader
from collector.dashboard.views import LADDER_LEVELS
from collector.kraken.times import format_time, read_time
from collector.members import Member
from collector.records import BookRow
from collector.storage.database import connect
from collector.storage.history import book_at
from collector.storage.members import Presence, report

PAIR = "BTC/USD"
TOKEN = "a secret of some length"
LOCAL = {"Host": "localhost:8000"}
TIME = max(record.event_time for record in simulate((PAIR,), count=300) if isinstance(record, BookRow))


@pytest.fixture(scope="module")
def stored_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """A database with a pair's market."""
    with new_database(postgres_server, "dashboard_app", migrated_template) as url:
        store(url, simulate((PAIR,), count=300))
        yield url


@asynccontextmanager
async def open_client(url: str, token: str | None = None) -> AsyncIterator[Client]:
    reader = Reader(url)
    async with trio.open_nursery() as nursery:
        yield make_app(reader, Followers(nursery, reader), token).test_client()
        nursery.cancel_scope.cancel()
    reader.close()


async def ask(client: Client, path: str, **query: str) -> tuple[int, object]:
    response = await client.get(path, query_string=query, headers=LOCAL)
    return response.status_code, json.loads(await response.get_data())


async def test_page_and_its_parts_need_nothing_else(stored_url: str) -> None:
    """Prevents a page that names what is not there, and a policy that lets in what is not ours."""
    async with open_client(stored_url) as client:
        page = await client.get("/", headers=LOCAL)
        assert page.status_code == 200
        names = [path.name for path in module.STATIC.iterdir()]
        text = await page.get_data(as_text=True)
        assert "index.html" in names
        assert "style=" not in text
        for name in names:
            part = await client.get(f"/static/{name}", headers=LOCAL)
            assert part.status_code == 200
            assert "unsafe" not in part.headers["Content-Security-Policy"]
            assert part.headers["Content-Security-Policy"].startswith("default-src 'none';")
            assert part.headers["X-Content-Type-Options"] == "nosniff"
            await part.get_data()
        assert (await client.get("/static/../app.py", headers=LOCAL)).status_code == 404


async def test_past_book_is_that_of_the_database(stored_url: str) -> None:
    """Prevents another book than kraken_book_at's, and trades of after that time."""
    async with open_client(stored_url) as client:
        status, past = await ask(client, "/api/past", pair=PAIR, at=TIME)
    with connect(stored_url, application_name="tests") as connection:
        book = book_at(connection, PAIR, read_time(TIME))
    assert (status, past["note"]) == (200, None)
    assert past["book"]["time"] == TIME
    assert past["book"]["levels"] == [len(book.bids), len(book.asks)]
    for side, levels in (("bids", book.bids), ("asks", book.asks)):
        assert past["book"][side] == [[f"{level.price:f}", f"{level.size:f}"] for level in levels[:LADDER_LEVELS]]
    assert past["trades"]
    assert all(trade[1] <= TIME for trade in past["trades"])


async def test_time_without_a_book_says_why(stored_url: str) -> None:
    """Prevents an empty ladder that could be a market without orders."""
    early = format_time(read_time(TIME) - timedelta(days=1))
    async with open_client(stored_url) as client:
        status, past = await ask(client, "/api/past", pair=PAIR, at=early)
    assert (status, past["book"]) == (200, None)
    assert "nobody was watching before" in past["note"]


async def test_book_that_failed_an_audit_shows_what_is_verified(stored_url: str) -> None:
    """Prevents levels that an audit found wrong from being shown, and the ten that are right from being held back."""
    with connect(stored_url, application_name="tests") as connection:
        connection.execute("UPDATE kraken_coverage SET suspect_since = started_at WHERE channel = 'book'")
        async with open_client(stored_url) as client:
            _, past = await ask(client, "/api/past", pair=PAIR, at=TIME)
        connection.execute("UPDATE kraken_coverage SET suspect_since = NULL")
    assert past["book"]["levels"] == [10, 10]
    assert "an audit found it wrong" in past["note"]


async def test_collectors_are_told(stored_url: str) -> None:
    """Prevents a process that collects from being missed, and one that is gone from looking alive."""
    with connect(stored_url, application_name="tests") as living, connect(stored_url, application_name="tests") as dead:
        members = {name: Member(UUID(int=number), ("*",)) for number, name in enumerate(("one", "two"))}
        report(dead, Presence(members["two"], "two", ["ETH/USD"], 1, 2))
        dead.close()
        report(living, Presence(members["one"], "one", [PAIR], 120, 3))
        async with open_client(stored_url) as client:
            status, (told,) = await ask(client, "/api/collectors")
    assert status == 200
    assert {**told, "since": None} == {
        "name": "one",
        "is_available": True,
        "pairs": [PAIR],
        "rows_per_second": 120,
        "waiting_rows": 3,
        "since": None,
    }


async def test_charts_are_answered(stored_url: str) -> None:
    """Prevents a chart that fails over real rows."""
    async with open_client(stored_url) as client:
        status, candles = await ask(client, "/api/candles", pair=PAIR, width="1m", until=TIME)
        assert status == 200
        assert sum(candle[6] for candle in candles["candles"]) > 10
        assert all(candles["since"] <= read_time(candle[0]).timestamp() for candle in candles["candles"])
        status, coverage = await ask(client, "/api/coverage", pair=PAIR)
        assert status == 200
        assert [channel["channel"] for channel in coverage["channels"]] == ["book", "trade"]
        assert await ask(client, "/api/pairs") == (200, {"pairs": [PAIR], "origin": None})


@pytest.mark.parametrize(
    ("path", "query", "told"),
    [
        ("/api/stream", {}, "pair: got None"),
        ("/api/stream", {"pair": "ETH/USD"}, "pair: got 'ETH/USD', which was never collected"),
        ("/api/candles", {"pair": PAIR, "width": "7m"}, "width: got '7m'"),
        ("/api/candles", {"pair": PAIR, "width": "1m", "until": "x"}, "until: got 'x'"),
        ("/api/coverage", {"pair": PAIR, "hours": "1000"}, "hours: got '1000'"),
        ("/api/past", {"pair": PAIR}, "at: it is not given"),
        ("/api/past", {"pair": PAIR, "at": "2012-01-01"}, "at: got '2012-01-01'; it takes a time from 2013 on"),
        ("/api/past", {"pair": "'; DROP TABLE kraken_trades; --", "at": "2026-01-01"}, "pair: got"),
    ],
)
async def test_wrong_question_is_told(stored_url: str, path: str, query: dict[str, str], told: str) -> None:
    """Prevents a fault of the server, or an empty answer, over a slip of the pen."""
    async with open_client(stored_url) as client:
        status, answer = await ask(client, path, **query)
    assert status == 400
    assert answer["error"].startswith(told)


async def test_database_that_is_away_is_told() -> None:
    """Prevents a page that loads for ever, or a traceback, during an outage."""
    async with open_client("postgresql://postgres:secret@127.0.0.1:1/nowhere") as client:
        status, answer = await ask(client, "/api/pairs")
    assert status == 503
    assert answer["error"].startswith("The database cannot be read: ")
    assert "secret" not in answer["error"]


async def test_only_who_has_the_token_may_pass(stored_url: str) -> None:
    """Prevents a page on the internet that everyone can read, or a token that stays in the address."""
    async with open_client(stored_url, TOKEN) as client:
        for path in ("/", "/api/pairs", "/static/main.js", "/nothing"):
            assert (await client.get(path)).status_code == 401
        assert (await client.get("/?token=another")).status_code == 401
        assert (await client.get("/api/pairs", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200
        welcome = await client.get("/", query_string={"token": TOKEN}, headers={"X-Forwarded-Proto": "https"})
        assert (welcome.status_code, welcome.headers["Location"]) == (303, "/")
        cookie = welcome.headers["Set-Cookie"]
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Secure"))
        assert TOKEN not in cookie
        headers = {"Cookie": cookie.partition(";")[0]}
        assert (await client.get("/api/pairs", headers=headers)).status_code == 200


async def test_another_name_is_refused_without_a_token(stored_url: str) -> None:
    """Prevents a page of another site, whose name was made to point here, from reading along."""
    async with open_client(stored_url) as client:
        response = await client.get("/api/pairs", headers={"Host": "evil.example"})
        assert response.status_code == 403
        assert (await client.post("/", headers=LOCAL)).status_code == 405
