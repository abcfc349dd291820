"""Book rows are read back from their lines as they were written there."""

from hypothesis import given
from hypothesis import strategies as st
from samples import book_row

from collector.storage.book_lines import BookLine, split_lines
from collector.storage.copy_text import book_line, escape

rows = st.builds(
    book_row,
    st.integers(0, 2**31 - 1),
    pair=st.sampled_from(["BTC/USD", "A\tB/C", "\\N/USD"]),
    chain=st.integers(0, 2**63 - 1),
)


@given(st.lists(rows))
def test_lines_are_read_back(written: list) -> None:
    """Prevents a row from being taken for one of another run, or for another row of its own."""
    lines = split_lines([b"".join(map(book_line, written[:2])), b"".join(map(book_line, written[2:]))])
    read = [BookLine.parse(line) for line in lines]
    assert [row.line for row in read] == list(map(book_line, written))
    assert [(row.event_time, row.run, row.type, row.seq) for row in read] == [
        (row.event_time, (escape(row.pair), row.chain), row.type, row.seq) for row in written
    ]
