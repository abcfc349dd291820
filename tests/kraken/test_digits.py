"""The digits of a number: kept where they are plain, rewritten to the same number where they are not."""

import re
from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MalformedMessage
from collector.kraken.digits import MAX_DECIMALS, MAX_LENGTH, plain_digits

PLAIN = re.compile(rb"[0-9]+(\.[0-9]+)?")
numbers = st.builds(
    lambda units, places: Decimal(units).scaleb(-places), st.integers(0, 10**19), st.integers(0, MAX_DECIMALS)
)


@given(numbers)
def test_plain_number_keeps_every_digit(number: Decimal) -> None:
    """Prevents a lost trailing zero, which would break the checksum of every book."""
    digits = f"{number:f}".encode()
    assert plain_digits(digits) == digits
    assert plain_digits(b'"' + digits + b'"') == digits


@given(numbers, st.sampled_from("eE"))
def test_exponent_becomes_the_same_number_in_plain_notation(number: Decimal, letter: str) -> None:
    """Prevents `1E-8` from reaching the checksum or JSONB as it is, or as another number."""
    digits = plain_digits(f"{number:e}".replace("e", letter).encode())
    assert PLAIN.fullmatch(digits)
    assert Decimal(digits.decode()) == number


@pytest.mark.parametrize(
    ("token", "digits"),
    [
        (b"5.1e-05", b"0.000051"),
        (b"1E-8", b"0.00000001"),
        (b"1e5", b"100000"),
        (b"0", b"0"),
        (b"0.00000000", b"0.00000000"),
        (b'"00012.50"', b"12.50"),
        (b"1e39", b"1" + 39 * b"0"),
        (b"0." + 17 * b"0" + b"1", b"0." + 17 * b"0" + b"1"),
    ],
)
def test_tokens_as_they_were_seen_and_at_the_limits(token: bytes, digits: bytes) -> None:
    """Prevents the documented spellings, and the longest numbers allowed, from being read differently."""
    assert plain_digits(token) == digits


@pytest.mark.parametrize(
    "token",
    [
        *(
            b"",
            b'""',
            b"null",
            b"true",
            b"{}",
            b"[1]",
            b"-1",
            b"-0",
            b"-0.0",
            b"+1",
            b"1.",
            b".5",
            b"1_000",
            b" 1",
            b"1\n",
        ),
        *(b"NaN", b"Infinity", b'"NaN"', b'"1,5"', b'"\\u0031"', b"0x10", "٣".encode(), '"٣"'.encode(), b"1.2.3"),
        *(b"1e40", b"1e999", b"1e-999", b"0e999", b"1e99999999", b"1" * 41, b"0." + 18 * b"0" + b"1", b"1e-19"),
    ],
)
def test_what_is_no_price_is_refused(token: bytes) -> None:
    """Prevents negative, endless or meaningless numbers from becoming prices, and a gigabyte of zeros."""
    with pytest.raises(MalformedMessage):
        plain_digits(token)


@given(st.one_of(st.binary(max_size=60), st.text('0123456789.eE+-"', max_size=60).map(str.encode)))
def test_anything_is_either_refused_or_a_bounded_plain_number(token: bytes) -> None:
    """Prevents a token that raises something unforeseen, or comes out as text that PostgreSQL does not take."""
    try:
        digits = plain_digits(token)
    except MalformedMessage:
        return
    assert PLAIN.fullmatch(digits)
    assert len(digits) <= MAX_LENGTH
    assert len(digits.partition(b".")[2]) <= MAX_DECIMALS
    try:
        assert Decimal(digits.decode()) == Decimal(token.decode().strip('"'))
    except InvalidOperation:
        pytest.fail(f"accepted {token!r}")
