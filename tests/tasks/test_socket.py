"""The socket task against a server with every fault: it tells what happened in order, and comes back."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from collecting import PROJECT, Kraken, at_once, open_kraken, open_market, settings_for, wait_until
from feeding import feeding
from structlog.testing import capture_logs

from collector.assignment import Assignment
from collector.backoff import AttemptBudget
from collector.feed import Alive, Connected, Disconnected, FeedEvent, ResyncRequests, Subscribed
from collector.kraken import connection
from collector.kraken.messages import BookMessage, TradeMessage
from collector.kraken.server.tape import TapeSource
from collector.kraken.simulator.simulation import simulated_frames
from collector.statistics import Statistics
from collector.tasks import socket
from collector.tasks.socket import Attempts
from collector.tasks.sockets import run_sockets

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # these tests store nothing
# Rare enough that the server's heartbeat, which comes each second, keeps a healthy connection alive.
WATCH_INTERVAL = 0.15


async def test_events_come_in_order(tmp_path: Path) -> None:
    """Prevents a snapshot from being seen before the answer that it belongs to, or data without a connection."""
    async with (
        open_market() as market,
        open_kraken(market) as kraken,
        feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed,
    ):
        await feed.wait_for(BookMessage, 10)
        kraken.faults.close()
        await feed.wait_for(Connected, 2)
        await wait_until(lambda: len({row.chain for row in feed.rows()}) == 2)
    assert [event.connection for event in feed.of_kind(Connected)] == [1, 2]
    assert isinstance(feed.events[0], Connected)
    position = feed.events.index(Connected(2))
    first, second = feed.events[:position], feed.events[position:]
    assert isinstance(first[-1], Disconnected)
    for events in (first, second):
        kinds = [type(event) for event in events if not isinstance(event, Alive)]
        granted = [event.channel for event in events if isinstance(event, Subscribed)]
        assert granted == ["trade", "book"]
        places = [kinds.index(kind) for kind in (Connected, Subscribed, TradeMessage, BookMessage)]
        assert places == sorted(places)
        assert kinds.index(BookMessage) > kinds.index(Subscribed, places[1] + 1)
        messages = [event for event in events if isinstance(event, BookMessage)]
        assert [message.type for message in messages] == ["snapshot"] + ["update"] * (len(messages) - 1)


@pytest.mark.parametrize(
    ("code", "pause"),
    [(1000, 0.0), (1001, 0.0), (1012, 0.0), (1013, connection.BUSY_PAUSE), (1008, connection.POLICY_PAUSE)],
)
async def test_close_codes(code: int, pause: float, tmp_path: Path) -> None:
    """Prevents a close from ending the collector, and one that asks for distance from being answered at once."""
    async with open_market() as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed:
                await feed.wait_for(BookMessage)
                kraken.faults.close(code, "reason")
                await wait_until(lambda: any(log["event"] == "disconnected" for log in logs))
                if not pause:
                    await wait_until(lambda: len({row.chain for row in feed.rows()}) == 2)
    (log,) = [log for log in logs if log["event"] == "disconnected"]
    assert (log["reason"], log["detail"], log["retry_in"]) == (f"closed_{code}", "reason", pause)
    assert [run.end_reason for run in feed.ended()] == [f"closed_{code}"]
    assert [run.end_reason for run in feed.ended("trade")] == [f"closed_{code}"]


@pytest.mark.parametrize(
    ("status", "pause"), [(429, connection.BUSY_PAUSE), (503, connection.BUSY_PAUSE), (403, connection.POLICY_PAUSE)]
)
async def test_refused_upgrade(status: int, pause: float, tmp_path: Path) -> None:
    """Prevents a server that refuses us from being tried again at once, which ends in a ban."""
    async with open_market() as market, open_kraken(market) as kraken:
        kraken.faults.refuse_upgrade(status)
        with capture_logs() as logs:
            async with feeding(settings_for(kraken, NOWHERE, tmp_path)):
                await wait_until(lambda: any(log["event"] == "disconnected" for log in logs))
    assert logs[-1]["reason"] == f"rejected_{status}"
    assert logs[-1]["retry_in"] == pause


async def test_broken_connection(tmp_path: Path) -> None:
    """Prevents a connection that breaks without a word from being the last."""
    async with (
        open_market() as market,
        open_kraken(market) as kraken,
        feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed,
    ):
        for count in (1, 2, 3):
            await wait_until(lambda count=count: len({row.chain for row in feed.rows()}) == count)
            kraken.faults.reset()
        await wait_until(lambda: len({row.chain for row in feed.rows()}) == 4)
    assert {event.reason[:6] for event in feed.of_kind(Disconnected)} <= {"connec", "closed"}
    assert len(feed.of_kind(Disconnected)) == 3


async def test_server_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """Prevents a server that refuses connections from being given up, or from being tried beyond the budget."""
    attempts = Attempts(at_once)
    attempts.budget = AttemptBudget(limit=5, window=1.0)
    async with open_market() as market, open_kraken(market) as kraken:
        kraken.faults.stop_listening()
        await trio.sleep(0.1)
        async with feeding(settings_for(kraken, NOWHERE, tmp_path), attempts) as feed:
            await feed.wait_for(Disconnected, 5)
            await trio.sleep(0.3)
            assert len(feed.of_kind(Disconnected)) == 5
            kraken.faults.lift()
            await wait_until(lambda: bool(feed.rows()))
    assert {event.reason for event in feed.of_kind(Disconnected)} == {"connection_lost"}
    assert feed.statistics.connections == 1


async def test_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a half-open connection from being listened to for ever, and a quiet healthy one from being dropped."""
    monkeypatch.setattr(socket, "WATCH_INTERVAL", WATCH_INTERVAL)
    frames = list(simulated_frames(["BTC/USD"], 10, seed=1, count=20))
    async with open_kraken(TapeSource(frames)) as kraken, feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed:
        await feed.wait_for(Alive, 3)
        assert not feed.of_kind(Disconnected)
        kraken.faults.go_silent()
        await feed.wait_for(Disconnected)
        await wait_until(lambda: len({row.chain for row in feed.rows()}) == 2)
    (disconnected,) = feed.of_kind(Disconnected)
    assert disconnected.reason == "silent"
    (run,) = feed.ended()
    assert run.ended_at == run.last_at


async def test_slow_reader_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a book task that is behind from making a healthy connection look dead."""
    monkeypatch.setattr(socket, "WATCH_INTERVAL", 0.02)
    frames = list(simulated_frames(["BTC/USD"], 10, seed=1, count=20_000))
    events, feed = trio.open_memory_channel[FeedEvent](0)
    async with open_kraken(TapeSource(frames)) as kraken, trio.open_nursery() as nursery:
        settings = settings_for(kraken, NOWHERE, tmp_path)
        assignment = Assignment(settings.pairs, settings.pairs)
        nursery.start_soon(run_sockets, settings, assignment, events, ResyncRequests(), Attempts(at_once), Statistics())
        await feed.receive()
        await trio.sleep(0.02 * socket.SILENT_LOOKS * 3)
        with trio.fail_after(30):
            for _ in range(1000):
                assert not isinstance(await feed.receive(), Disconnected)
        nursery.cancel_scope.cancel()


def test_stopped_process_first_reads_what_arrived(tmp_path: Path) -> None:
    """Prevents a process that was stopped for longer than the limit from dropping what has arrived meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}:{PROJECT / 'scripts'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGSTOP)
        subprocess.run(["sleep", "1.5"], check=True)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "0 disconnected\n"
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# Kraken and the socket in one process, so that both are stopped: the connection is healthy all the time.
STOPPED = """
import sys
from pathlib import Path
import trio
from collecting import open_kraken, open_market, settings_for
from feeding import feeding
from collector.feed import Disconnected
from collector.kraken.messages import BookMessage
from collector.tasks import socket

async def main():
    socket.WATCH_INTERVAL = 0.05
    async with open_market() as market, open_kraken(market) as kraken:
        async with feeding(settings_for(kraken, "postgresql://x@127.0.0.1:1/x", Path(sys.argv[1]))) as feed:
            await feed.wait_for(BookMessage, 10)
            sys.stdout.write("reading\\n")
            sys.stdout.flush()
            await trio.sleep(1.5)
            await feed.wait_for(BookMessage, len(feed.of_kind(BookMessage)) + 10)
            sys.stdout.write(f"{len(feed.of_kind(Disconnected))} disconnected\\n")

from structlog.testing import capture_logs
with capture_logs():
    trio.run(main)
"""


async def test_frames_that_break_the_protocol(tmp_path: Path) -> None:
    """Prevents a frame that nobody expects from ending the stream, or from passing without being counted."""
    async with open_market() as market, open_kraken(market) as kraken:
        with capture_logs() as logs:
            async with feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed:
                await feed.wait_for(BookMessage)
                kraken.faults.send(b"{not json")
                kraken.faults.send(b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD"}]}')
                kraken.faults.send(b"\x00\x01", is_binary=True)
                kraken.faults.send(b'{"channel":"ohlc","type":"update","data":[]}')
                kraken.faults.send(b'{"channel":"ohlc","type":"update","data":[]}')
                kraken.faults.set_system("maintenance")
                await wait_until(lambda: feed.statistics.malformed.total() == 3 and feed.statistics.unknown == 2)
                await feed.wait_for(BookMessage, len(feed.of_kind(BookMessage)) + 5)
    assert feed.statistics.malformed == {"frame": 2, "trade": 1}
    assert [log["reason"] for log in logs if log["event"] == "malformed_message"][-1] == "a binary frame"
    assert [log["channel"] for log in logs if log["event"] == "unknown_channel"] == ["ohlc"]
    assert [log["system"] for log in logs if log["event"] == "exchange_status"] == ["online", "maintenance"]
    assert not feed.of_kind(Disconnected)
    assert len({row.chain for row in feed.rows()}) == 1


async def test_malformed_book_message_costs_its_run(tmp_path: Path) -> None:
    """Prevents a book from going on as if whole when a message of it could not be read."""
    message = b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":0,"asks":[],"checksum":1}]}'
    async with (
        open_market() as market,
        open_kraken(market) as kraken,
        feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed,
    ):
        await wait_until(lambda: bool(feed.rows()))
        kraken.faults.send(message)
        await wait_until(lambda: len({row.chain for row in feed.rows()}) == 2)
    assert [run.end_reason for run in feed.ended()] == ["malformed"]
    assert not feed.of_kind(Disconnected)


async def test_oversize_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a frame without bounds from filling the memory."""
    monkeypatch.setattr(connection, "MAX_MESSAGE_SIZE", 100_000)
    async with (
        open_market() as market,
        open_kraken(market) as kraken,
        feeding(settings_for(kraken, NOWHERE, tmp_path)) as feed,
    ):
        await feed.wait_for(BookMessage)
        kraken.faults.send(b'{"channel":"' + b"x" * 100_000 + b'"}')
        await wait_until(lambda: len({row.chain for row in feed.rows()}) == 2)
    assert [event.reason for event in feed.of_kind(Disconnected)] == ["closed_1009"]


async def test_bug_is_no_feed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a bug in the socket task from passing for a bad connection, and being retried without a trace."""

    def fail(_self: object, _frame: object) -> list[object]:
        raise ZeroDivisionError

    monkeypatch.setattr("collector.kraken.messages.Decoder.decode", fail)
    async with open_market() as market, open_kraken(market) as kraken:
        with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError), flatten_subgroups=True):
            await _run_alone(kraken, tmp_path)


async def _run_alone(kraken: Kraken, directory: Path) -> None:
    events, _feed = trio.open_memory_channel[FeedEvent](1000)
    settings = settings_for(kraken, NOWHERE, directory)
    with trio.fail_after(30):
        assignment = Assignment(settings.pairs, settings.pairs)
        await run_sockets(settings, assignment, events, ResyncRequests(), Attempts(at_once), Statistics())
