"""The benchmark's short form: a few hundred messages through every part of it. Counts are asserted, never times."""

import json
from array import array
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from bench import __main__ as bench
from bench import cryptofeed_environment, processes, scaling, throughput
from bench.contestants import COLLECTOR, collector
from bench.frame_server import sent_times_of
from bench.latency import Spread, arrivals, sent_times, spread
from bench.processes import BenchError, hear, open_helper
from bench.report import comparison, stage_table
from bench.subscriber import messages
from bench.tape import Tape, make_tape, read_schedule
from bench.throughput import Run, check_stored
from embedded import EmbeddedRedis, open_temporary_folder, postgres
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import TextMessage

MESSAGES = 1000  # CPU is counted in ticks of 10 ms, and fewer may take none
STAGES = {
    "transport": 12.0,
    "decode": 6.0,
    "book and checksum": 2.0,
    "rows": 4.0,
    "spool": 1.5,
    "COPY": 0.5,
    "Redis": 9.0,
}
RUNS = [Run(20_000.0, 40.0, 80.0, 200.0), Run(18_000.0, 50.0, 81.0, 200.0), Run(10_000.0, 90.0, 82.0, 201.0)]
OTHER_RUNS = [Run(9_000.0, 100.0, 40.0, 250.0)] * 3


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, redis_service: EmbeddedRedis) -> Iterator[Path]:
    """The folder of results, and a benchmark that is over in seconds, since nothing in it is for the figures' sake."""
    folder = tmp_path_factory.mktemp("bench")
    with (
        open_temporary_folder() as data,
        postgres(data / "data", fsync="off", **bench.POSTGRES) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for module in (bench, scaling):
            patch.setattr(module, "postgres", lambda *_arguments, **_settings: nullcontext(server))
            patch.setattr(module, "redis_server", lambda: nullcontext(redis_service))
        patch.setattr(bench, "CACHE", folder)
        patch.setattr(bench, "RESULTS", folder / "results.json")
        patch.setattr(bench, "find_environment", lambda _cache: "no Python 3.12 or newer was found")
        patch.setattr(bench, "MESSAGES", MESSAGES)
        patch.setattr(bench, "RUNS", 1)
        patch.setattr(bench, "LATENCY_RUNS", {1000.0: MESSAGES / 1000})
        patch.setattr(scaling, "RESULTS", folder / "scaling.json")
        patch.setattr(scaling, "PAIR_COUNTS", (12,))
        patch.setattr(scaling, "DEPTHS", (10,))
        patch.setattr(scaling, "MESSAGES", MESSAGES)
        patch.setattr(scaling, "LONG_MESSAGES", MESSAGES)
        patch.setattr(scaling, "SAMPLE_INTERVAL", 0.1)
        patch.setattr(throughput, "QUIET", 0.8)
        patch.setattr(processes, "SETTLED_FOR", 0.2)
        yield folder


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    """A short feed of two pairs."""
    return make_tape(tmp_path / "some.frames", ["BTC/USD", "ETH/USD"], 10, MESSAGES)


def rendered(table: object) -> str:
    """A table as a person sees it."""
    console = Console(width=bench.WIDTH)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_whole_benchmark_measures_what_was_stored(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a benchmark that has fallen behind the collector, and figures of rows that were never stored."""
    assert bench.main() == 0
    printed = capsys.readouterr().out
    results = json.loads((small / "results.json").read_bytes())
    assert results["feed"]["messages"] == MESSAGES
    assert results["feed"]["book_updates"] > MESSAGES / 2
    assert list(results["runs"]) == [COLLECTOR]
    assert results["medians"][COLLECTOR] == results["runs"][COLLECTOR][0]
    assert all(value > 0 for value in results["medians"][COLLECTOR].values())
    assert results["ratios"] == {}
    assert results["stages_cpu_microseconds"].keys() == STAGES.keys()
    (latency,) = results["latency_milliseconds"]
    assert latency["missed"] == 0
    for times in (latency["to_subscriber"], latency["to_commit"]):
        assert 0 < times["p50"] <= times["p99"] <= times["max"]
    assert "cryptofeed is left out: no Python 3.12 or newer was found." in printed
    for title in ("Throughput, medians", "CPU of the stages", "Latency from the sending", "Disk for a day"):
        assert title in printed


def test_scaling_measures_every_pair(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a measurement of many pairs that only the first of them pass through."""
    assert scaling.main() == 0
    results = json.loads((small / "scaling.json").read_bytes())
    assert [(scale["pairs"], scale["depth"]) for scale in results["scaling"]] == [(12, 10)]
    assert len(results["memory_megabytes"]) > 1
    assert all(megabytes > 1 for megabytes in results["memory_megabytes"])
    assert f"Memory over {MESSAGES:,} messages" in capsys.readouterr().out


def test_tape_is_the_same_each_time_and_says_what_is_in_it(tape: Tape, tmp_path: Path) -> None:
    """Prevents runs that are compared on different feeds, and counts that no contestant can reach."""
    again = make_tape(tmp_path / "again.frames", tape.pairs, tape.depth, MESSAGES)
    assert again.path.read_bytes() == tape.path.read_bytes()
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(tape.path.read_bytes())
    events = list(client.events())
    assert all(isinstance(event, TextMessage) and event.message_finished for event in events)
    frames = [event.data for event in events]
    assert frames == list(tape.frames())
    decoded = [json.loads(frame) for frame in frames]
    books = [message["type"] for message in decoded if message["channel"] == "book"]
    assert (len(frames), books.count("snapshot"), books.count("update")) == (MESSAGES, 2, tape.book_updates)
    assert sum(len(message["data"]) for message in decoded if message["channel"] == "trade") == tape.trades > 0
    due, ends = read_schedule(tape.path)
    assert list(due) == sorted(due)
    assert (len(due), ends[-1]) == (MESSAGES, tape.path.stat().st_size)


@pytest.mark.parametrize("missing", ["book_updates", "trades"])
def test_rows_that_are_not_stored_are_told(migrated_url: str, tape: Tape, missing: str) -> None:
    """Prevents a fast collector that is fast because it drops rows."""
    nothing = replace(tape, book_updates=0, trades=0)
    with psycopg.connect(migrated_url) as connection:
        check_stored(connection, collector(), nothing)
        with pytest.raises(BenchError, match="stored"):
            check_stored(connection, collector(), replace(nothing, **{missing: 1}))


def test_helper_that_ends_is_told(tmp_path: Path) -> None:
    """Prevents a benchmark that waits for ever for a server that did not start."""
    with (
        open_helper("bench.frame_server", [str(tmp_path / "none"), "x"]) as process,
        pytest.raises(BenchError, match="'port'"),
    ):
        hear(process, "port")


def test_times_are_those_of_each_row(tape: Tape, tmp_path: Path) -> None:
    """Prevents latencies that are measured from another row's frame."""
    one = make_tape(tmp_path / "one.frames", ["BTC/USD"], 10, MESSAGES)
    sent_times_of(one.path).write_bytes(array("q", range(1000, 1000 + MESSAGES)).tobytes())
    sent = sent_times(one)
    trade_id, sent_at = next(iter(sent.trades.items()))
    assert sent.updates[0] == 1001  # the first frame is the snapshot
    assert f'"trade_id":{trade_id},' in list(one.frames())[sent_at - 1000]
    heard = tmp_path / "heard"
    snapshot = '900 kraken_orderbook {"seq": 0, "type": "snapshot"}'
    heard.write_text(f'{snapshot}\n2000 kraken_orderbook {{"seq": 7}}\n3000 kraken_trades {{"trade_id": {trade_id}}}\n')
    # Row 7 of the book is its third update: what else is before it are checkpoints.
    took = arrivals(heard, sent, {7: 2})
    assert sorted(took.values()) == sorted([2000 - sent.updates[2], 3000 - sent_at])
    heard.write_text(heard.read_text() * 2)
    with pytest.raises(BenchError, match="twice"):
        arrivals(heard, sent, {7: 2})


def test_spread_is_of_the_times_in_order() -> None:
    """Prevents a p99 that is any other row's time."""
    assert spread(number * 1_000_000 for number in reversed(range(101))) == Spread(50.0, 99.0, 100.0)


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary())))
def test_subscriber_takes_what_came_apart(published: list[tuple[bytes, bytes]]) -> None:
    """Prevents a message that holds a line end from being counted as two, or timed as the next one."""
    data, ends = b"", []
    for channel, message in published:
        parts = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in (b"message", channel, message))
        data += b"*3\r\n" + parts
        ends.append(len(data))
    expected = [(end, *one) for end, one in zip(ends, published, strict=True)]
    assert list(messages(data)) == expected


def test_tables_tell_medians_and_their_ratio() -> None:
    """Prevents a ratio that is the wrong way round, or of other runs than those beside it."""
    text = rendered(comparison({COLLECTOR: RUNS, "another": OTHER_RUNS}))
    assert "18,000 (10,000, 20,000)" in text
    assert [line.split()[-1] for line in text.splitlines() if "(" in line][1:] == ["2.00", "0.50", "2.02", "0.80"]
    text = rendered(stage_table(STAGES, 50.0))
    assert next(line.split()[-2:] for line in text.splitlines() if "the rest" in line) == ["24.0", "48%"]
    assert next(line.split()[-2:] for line in text.splitlines() if "all but the transport" in line) == ["38.0", "76%"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with an empty PATH in `bin`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def put_python(program: Path, body: str) -> None:
    """A Python that does what the shell says."""
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def test_cryptofeed_is_left_out_with_the_reason(home: Path) -> None:
    """Prevents a benchmark that fails where cryptofeed cannot be had, and one that keeps half an environment."""
    cache = home / "cache"
    assert cryptofeed_environment.find_environment(cache) == "no Python 3.12 or newer was found"
    put_python(home / "bin" / "python3.14", "exit 127")  # a version manager's shim of a Python that is not chosen
    put_python(
        home / ".pyenv" / "versions" / "3.13.0" / "bin" / "python3.13", '[ "$1" = -c ] || { echo no venv >&2; exit 1; }'
    )
    assert cryptofeed_environment.find_environment(cache) == "it could not be installed: no venv"
    assert not list(cache.glob("*/installed"))


def test_cryptofeed_is_installed_once(home: Path) -> None:
    """Prevents an installation at every run of the benchmark."""
    log = home / "log"
    install = f'echo "$@" >>{log}'
    make = f'mkdir -p "$4/bin"; printf "#!/bin/sh\\necho \\"\\$@\\" >>{log}" >"$4/bin/python"; chmod +x "$4/bin/python"'
    put_python(home / "bin" / "python3.13", f'[ "$1" = -c ] || {{ {install}; {make}; }}')
    for name in ("mkdir", "chmod"):
        (home / "bin" / name).symlink_to(f"/bin/{name}")
    cache = home / "cache"
    python = cryptofeed_environment.find_environment(cache)
    assert python == cache / "cryptofeed-python3.13" / "bin" / "python"
    assert cryptofeed_environment.find_environment(cache) == python
    calls = log.read_text().splitlines()
    assert [call.split()[:2] for call in calls] == [["-m", "venv"], ["-m", "pip"]]
    assert "cryptofeed==3.0.1" in calls[1]
