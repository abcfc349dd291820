"""The dashboard in a real browser, over a collector that collects a simulated market: what a person sees.

The tests are a story: they share the servers and what is stored, and each leaves all of them running.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from browser import find_browser
from collecting import PROJECT, clean_environment, own_postgres
from embedded import EmbeddedPostgres, free_port
from playwright.sync_api import Browser, Page, expect, sync_playwright

SCREENSHOTS = PROJECT / ".screenshots"  # kept for who wants to look; git does not know them
DEADLINE = 30_000  # ms within which anything that is waited for has happened, on a machine that does much else
SHOWN = (
    "() => [...document.querySelectorAll('#{0} tr')].map((row) => [...row.cells].slice(0, 2).map((c) => c.innerText))"
)
DRAWN = """(id) => {
    const canvas = document.getElementById(id);
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(new Uint32Array(pixels.buffer)).size;
}"""


class Program:
    """`python -m collector …`, that can be killed and started again."""

    def __init__(self, directory: Path, environment: dict[str, str], *arguments: str) -> None:
        self._directory, self._environment, self._arguments = directory, environment, arguments
        self.log = directory / f"{arguments[0]}.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "collector", *self._arguments],
                cwd=self._directory,
                env=clean_environment() | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + DEADLINE / 1000
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)


class Stage:
    """What plays: the market, the database, the dashboard, and the address of the page."""

    def __init__(self, database: EmbeddedPostgres, directory: Path) -> None:
        port, market_port = free_port(), free_port()
        kraken = f"127.0.0.1:{market_port}"
        self.database = database
        self.address = f"http://127.0.0.1:{port}/"
        url = {"DATABASE_URL": database.url()}
        settings = {"KRAKEN_WS_URL": f"ws://{kraken}/v2", "KRAKEN_REST_URL": f"http://{kraken}", "BOOK_DEPTH": "25"}
        self.market = Program(directory, {}, "simulate", "--port", str(market_port), "--rate", "40")
        self.market.wait_for("KRAKEN_REST_URL=")
        self.collector = Program(directory, url | settings | {"FLUSH_INTERVAL": "0.1"}, "run")
        self.dashboard = Program(directory, url, "dashboard", "--port", str(port))
        self.dashboard.wait_for(f"The dashboard is at {self.address}")

    def close(self) -> None:
        for program in (self.dashboard, self.collector, self.market):
            program.kill()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with own_postgres() as database:
        stage = Stage(database, tmp_path_factory.mktemp("stage"))
        yield stage
        stage.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_browser()
    assert path is not None, "no Chromium on this machine: scripts/test.sh installs it"
    with sync_playwright() as playwright:
        # No sandbox: the tests may run as root, for whom Chromium has none.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, stage: Stage, *, tolerated: str = "$^", **context: object) -> Iterator[Page]:
    """A page in a context of its own; at its end nothing of it has failed, and no other host was asked."""
    with browser.new_context(viewport=context.pop("viewport", {"width": 1360, "height": 900}), **context) as opened:
        page = opened.new_page()
        page.set_default_timeout(DEADLINE)
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(stage.address) else problems.append(asked.url))
        page.goto(stage.address)
        expect(page.locator("#health")).to_have_attribute("data-state", "live", timeout=DEADLINE)
        expect(page.locator("#trades tr").first).to_be_visible(timeout=DEADLINE)
        yield page
        assert [problem for problem in problems if not re.search(tolerated, problem)] == []


def keep(page: Page, name: str) -> None:
    """Keep a screenshot."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def shown(page: Page, body: str) -> list[list[str]]:
    """Price and size of each row of a part of the ladder, from its top, as the digits alone."""
    return [[text.replace("\u2009", "") for text in row] for row in page.evaluate(SHOWN.format(body))]


def test_page_shows_a_moving_market(browser: Browser, stage: Stage) -> None:
    """Prevents a page that stands still, is half empty, or needs anything from elsewhere."""
    with opened(browser, stage) as page:
        expect(page.locator("#connection")).to_have_text("connected")
        expect(page.locator("#bids tr")).to_have_count(20)
        expect(page.locator("#asks tr")).to_have_count(20)
        first, trade = shown(page, "bids"), page.locator("#tape-time").inner_text()
        page.wait_for_function("(first) => document.querySelector('#bids').innerText !== first", arg=first)
        expect(page.locator("#tape-time")).not_to_have_text(trade, timeout=DEADLINE)
        expect(page.locator("#levels")).to_have_text("25, 25")
        expect(page.locator("#rate")).to_have_text(re.compile(r"\d+\.\d /s"), timeout=DEADLINE)
        expect(page.locator("#timeline .seen")).to_have_count(2)
        expect(page.locator("#gap-rows")).to_have_text("none")
        expect(page.locator("#collector-rows td:nth-child(2)")).to_have_text(["1"])
        for chart in ("candles", "depth", "spreads", "rates"):
            page.wait_for_function(f"(id) => ({DRAWN})(id) > 4", arg=chart)
        page.locator("#widths button", has_text="15m").click()
        expect(page.locator("#candle-readout")).to_have_text(re.compile(r":(00|15|30|45):00 +open "), timeout=DEADLINE)
        keep(page, "light")


def test_past_book_is_that_of_the_database(browser: Browser, stage: Stage) -> None:
    """Prevents a book of another time, or one with other digits than are stored, under the time that was chosen."""
    with opened(browser, stage) as page:
        at = (datetime.now(UTC) - timedelta(seconds=2)).replace(microsecond=0, tzinfo=None)
        page.locator("#at").fill(at.isoformat())
        page.get_by_role("button", name="Go there").click()
        expect(page.locator("#connection")).to_have_text("past", timeout=DEADLINE)
        expect(page.locator("#book-time")).to_have_text(f"{at} UTC", timeout=DEADLINE)
        with psycopg.connect(stage.database.url()) as connection:
            rows = connection.execute(
                "SELECT side, price::text, size::text FROM kraken_book_at('BTC/USD', %s::timestamp, 20)", [at]
            ).fetchall()
        assert shown(page, "bids") == [[price, size] for side, price, size in rows if side == "bid"]
        assert shown(page, "asks")[::-1] == [[price, size] for side, price, size in rows if side == "ask"]
        assert len(rows) == 40
        expect(page.locator("#timeline .marker")).to_have_count(2)
        keep(page, "past")
        page.reload()  # the address says which time it is
        expect(page.locator("#book-time")).to_have_text(f"{at} UTC", timeout=DEADLINE)
        page.locator("#timeline .track").first.click(position={"x": 2, "y": 5})
        expect(page.locator("#book-notice")).to_contain_text("nobody was watching before", timeout=DEADLINE)
        page.get_by_role("button", name="Live").click()
        expect(page.locator("#connection")).to_have_text("connected", timeout=DEADLINE)
        expect(page.locator("#bids tr")).to_have_count(20)


def test_gap_is_seen_with_its_reason(browser: Browser, stage: Stage) -> None:
    """Prevents an exchange that is gone from looking like a quiet market, and a gap from being forgotten."""
    with opened(browser, stage) as page:
        stage.market.kill()
        expect(page.locator("#health")).to_have_attribute("data-state", "ended", timeout=15_000)
        expect(page.locator("#health-text")).to_contain_text("Not collecting since")
        going_on = page.locator("#gap-rows tr", has_text="goes on").first
        expect(going_on).to_be_visible(timeout=15_000)
        reason = going_on.locator("td").last.inner_text()
        assert reason in page.locator("#timeline .gap").first.get_attribute("title")
        with psycopg.connect(stage.database.url()) as connection:
            stored = connection.execute("SELECT DISTINCT end_reason FROM kraken_coverage").fetchall()
        assert stored == [("closed_1006",)]
        assert reason == "the connection broke off (closed_1006)"
        keep(page, "gap")
        stage.market.start()
        expect(page.locator("#health")).to_have_attribute("data-state", "live", timeout=DEADLINE)
        expect(page.locator("#gap-rows tr", has_text="goes on")).to_have_count(0, timeout=DEADLINE)
        expect(page.locator("#gap-rows tr", has_text=reason).first).to_be_visible()


def test_lost_dashboard_is_seen_and_mends_itself(browser: Browser, stage: Stage) -> None:
    """Prevents old numbers that pass for the present, and a page that has to be loaded again by hand."""
    with opened(browser, stage, tolerated="Failed to load resource: net::ERR_") as page:
        stage.dashboard.kill()
        expect(page.locator("#connection")).to_have_text("reconnecting …", timeout=DEADLINE)
        stage.dashboard.start()
        expect(page.locator("#connection")).to_have_text("connected", timeout=DEADLINE)
        expect(page.locator("#health")).to_have_attribute("data-state", "live", timeout=DEADLINE)
        expect(page.locator("#bids tr")).to_have_count(20)


def test_lost_database_is_seen_and_mends_itself(browser: Browser, stage: Stage) -> None:
    """Prevents an outage of the database from looking like a quiet market, or from lasting until a restart."""
    with opened(browser, stage, tolerated="the server responded with a status of 503") as page:
        stage.database.stop()
        expect(page.locator("#health")).to_have_attribute("data-state", "outage", timeout=DEADLINE)
        expect(page.locator("#health-text")).to_contain_text("The database cannot be read: ")
        stage.database.start()
        expect(page.locator("#health")).to_have_attribute("data-state", "live", timeout=DEADLINE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_has_room_for_all(browser: Browser, stage: Stage, scheme: str) -> None:
    """Prevents a page that has to be pushed sideways, or that is white at night."""
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "device_scale_factor": 2}
    with opened(browser, stage, color_scheme=scheme, **phone) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        expect(page.locator("#bids tr:visible")).to_have_count(8)
        expect(page.locator("#timeline .gap").first).to_be_visible(timeout=DEADLINE)
        page.wait_for_function(f"(id) => ({DRAWN})(id) > 4", arg="candles")
        red, green, blue = map(
            int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
        )
        assert (red + green + blue > 600) == (scheme == "light")
        keep(page, f"phone-{scheme}")
