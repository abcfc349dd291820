"""The pages and the JSON of the dashboard, as a Quart application on trio.

Parameters that make no sense are answered with status 400, a database that cannot be read with 503, each with an
`{"error": …}` that says what to do. A time of which there is no book has an answer, with a note that says why.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from quart import Response, redirect, request
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio

from collector.commands.arguments import WrongUsage
from collector.dashboard import parameters, queries
from collector.dashboard.access import COOKIE, HEADERS, Access
from collector.dashboard.candles import read_candles
from collector.dashboard.follower import TAPE, Followers
from collector.dashboard.reader import Reader
from collector.dashboard.shared import SharedAnswers
from collector.dashboard.stream import PairStream
from collector.dashboard.views import (
    CollectorView,
    CoverageView,
    book_view,
    collector_views,
    coverage_view,
    digits,
    trade_rows,
)
from collector.errors import StorageUnavailable, UnusableDatabase
from collector.kraken.orderbook import CHECKSUM_LEVELS
from collector.kraken.times import format_time
from collector.storage.database import Connection
from collector.storage.history import Book, NoBook, PriceLevel, book_at
from collector.storage.members import living_collectors

STATIC = Path(__file__).parent / "static"
COOKIE_AGE = 30 * 24 * 3600  # seconds: a month, after which a person shows the token again
OTHER_ERRORS = {
    404: "There is no such page.",
    405: "This can only be read.",
    500: "The dashboard has a fault: its log tells more.",
}
COVERAGE_FRESH_FOR = 2.0  # seconds; a page asks each 5 s
MAX_STREAMS = 100  # open at a time: each costs a socket and some 50 KB


def make_app(reader: Reader, followers: Followers, token: str | None) -> QuartTrio:
    """The application over a database."""
    app = QuartTrio(__name__, static_folder=str(STATIC), static_url_path="/static")
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 0  # a browser asks whether a file has changed: they are small
    _guard(app, Access(token))
    _answer_errors(app)
    _add_live_routes(app, reader, followers)
    _add_chart_routes(app, reader)
    _add_past_route(app, reader)
    return app


def _guard(app: QuartTrio, access: Access) -> None:
    @app.before_request
    async def check() -> ResponseReturnValue | None:
        if not access.is_name_allowed(request.host):
            return _error(403, "This dashboard has no DASHBOARD_TOKEN, and answers to the name localhost only.")
        given = request.args.get("token")
        if given is not None and access.is_token(given):
            welcome = redirect(request.path, 303)  # to an address without the token
            secure = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
            welcome.set_cookie(COOKIE, access.cookie, COOKIE_AGE, httponly=True, samesite="Strict", secure=secure)
            return welcome
        if access.may_pass(request.headers.get("Authorization"), request.cookies.get(COOKIE)):
            return None
        return _error(401, "Open /?token=… with the DASHBOARD_TOKEN of this dashboard, or send it as a bearer token.")

    @app.after_request
    async def secure(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers[name] = value
        if not request.path.startswith("/static/"):
            response.headers["Cache-Control"] = "no-store"
        return response


def _answer_errors(app: QuartTrio) -> None:
    @app.errorhandler(WrongUsage)
    async def wrong_usage(error: WrongUsage) -> Response:
        return _error(400, str(error))

    @app.errorhandler(StorageUnavailable)
    @app.errorhandler(UnusableDatabase)
    async def no_database(error: Exception) -> Response:
        return _error(503, f"The database cannot be read: {error}.")

    for status, text in OTHER_ERRORS.items():
        app.register_error_handler(status, partial(_tell, status, text))


def _add_live_routes(app: QuartTrio, reader: Reader, followers: Followers) -> None:
    @app.get("/")
    async def page() -> Response:
        return await app.send_static_file("index.html")

    @app.get("/api/pairs")
    async def pairs() -> Response:
        def query(connection: Connection) -> dict[str, Any]:
            return {"pairs": queries.known_pairs(connection), "origin": queries.origin(connection)}

        return _json(await reader.read(query))

    @app.get("/api/stream")
    async def stream() -> Response:
        pair = await _read_pair(reader)
        if followers.watchers >= MAX_STREAMS:
            return _error(503, f"{MAX_STREAMS} pages are open already: close some.")
        response = Response(PairStream(followers, pair), content_type="text/event-stream")
        response.timeout = None
        return response


def _add_chart_routes(app: QuartTrio, reader: Reader) -> None:
    shared = SharedAnswers()

    @app.get("/api/candles")
    async def candles() -> Response:
        pair, width = await _read_pair(reader), parameters.read_width(request.args.get("width"))
        until = parameters.read_moment("until", request.args.get("until"))
        if until is not None:
            return _json(await read_candles(reader, pair, width, until))
        question = "candles", pair, width.name
        latest = partial(read_candles, reader, pair, width, datetime.now(UTC))
        return _json(await shared.get(question, width.fresh_for, latest))

    @app.get("/api/coverage")
    async def coverage() -> Response:
        pair, hours = await _read_pair(reader), parameters.read_hours(request.args.get("hours"))

        async def read() -> CoverageView:
            now = _bare(datetime.now(UTC))
            since = now - timedelta(hours=hours)
            found = await reader.read(lambda connection: queries.coverage(connection, pair, since, now))
            return coverage_view(found, since, now)

        return _json(await shared.get(("coverage", pair, hours), COVERAGE_FRESH_FOR, read))

    @app.get("/api/collectors")
    async def collectors() -> Response:
        async def read() -> list[CollectorView]:
            return collector_views(await reader.read(living_collectors))

        return _json(await shared.get("collectors", COVERAGE_FRESH_FOR, read))


def _add_past_route(app: QuartTrio, reader: Reader) -> None:
    @app.get("/api/past")
    async def past() -> Response:
        pair, at = await _read_pair(reader), parameters.read_moment("at", request.args.get("at"))
        if at is None:
            raise WrongUsage("at: it is not given; it takes a time such as 2026-01-31T12:00:00Z")
        trades = await reader.read(lambda connection: queries.past_trades(connection, pair, _bare(at), TAPE))
        note: str | None = None
        book: Book | None
        try:
            book = await reader.read(lambda connection: book_at(connection, pair, at))
        except NoBook as whole:
            # After an audit that failed the ten best levels are verified still: then this is told beside them.
            book, note = await _best_levels(reader, pair, at), str(whole)
        shown = None if book is None else book_view(format_time(at), _levels(book.bids), _levels(book.asks))
        return _json({"book": shown, "note": note, "trades": trade_rows(trades)})


async def _read_pair(reader: Reader) -> str:
    return parameters.read_pair(request.args.get("pair"), await reader.read(queries.known_pairs))


async def _best_levels(reader: Reader, pair: str, at: datetime) -> Book | None:
    try:
        return await reader.read(lambda connection: book_at(connection, pair, at, CHECKSUM_LEVELS))
    except NoBook:
        return None


def _levels(levels: list[PriceLevel]) -> list[tuple[str, str]]:
    return [(digits(level.price), digits(level.size)) for level in levels]


def _bare(moment: datetime) -> datetime:
    """A time as the tables have it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _json(answer: object) -> Response:
    return Response(msgspec.json.encode(answer), content_type="application/json")


async def _tell(status: int, text: str, _: Exception) -> Response:
    return _error(status, text)


def _error(status: int, text: str) -> Response:
    return Response(msgspec.json.encode({"error": text}), status, content_type="application/json")
