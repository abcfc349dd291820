from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from collector.kraken.server.source import format_nanoseconds, parse_nanoseconds

SECONDS = st.integers(1_356_998_400, 4_102_444_800)  # 2013 to 2100
BELOW_A_SECOND = st.integers(0, 10**9 - 1)


@given(seconds=SECONDS, nanoseconds=BELOW_A_SECOND)
def test_times_are_cut_to_microseconds_and_read_back(seconds: int, nanoseconds: int) -> None:
    """A rounded microsecond puts a trade after the one that REST places behind it."""
    time = seconds * 10**9 + nanoseconds
    text = format_nanoseconds(time)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)
    assert text == moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert parse_nanoseconds(text) == time // 1000 * 1000
