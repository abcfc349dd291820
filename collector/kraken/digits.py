"""Prices and quantities as the digits that Kraken sent.

The checksum is taken over these digits, and they are what is stored, so a number is never turned into anything else:
it stays the ASCII text of the JSON token. Only for the rare token that is not plain (`5.1e-05`, or quoted) is that
text rewritten, to the same number in plain notation.
"""

import re
from decimal import Decimal

from collector.errors import MalformedMessage

# Kraken's longest are 8 to 10 digits on either side of the point; 18 decimals are what the finest token divides into.
MAX_DECIMALS = 18
MAX_LENGTH = 40  # characters of a number; a longer one is no price, and an exponent could ask for a gigabyte of zeros

_PLAIN = re.compile(rb"(0|[1-9][0-9]*)(\.[0-9]+)?")  # as JSON has it: a quoted number may have leading zeros
_NUMBER = re.compile(rb"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


def plain_digits(token: bytes) -> bytes:
    """The digits of a JSON number or of a string that holds one, in plain notation: at least one digit, one point.

    Raises:
        MalformedMessage: it is no number, is negative, or is too long or too fine to be a price or a quantity.

    """
    if token[:1] == token[-1:] == b'"':
        token = token[1:-1]
    if not _PLAIN.fullmatch(token):
        if len(token) > MAX_LENGTH or not _NUMBER.fullmatch(token):
            raise MalformedMessage(f"not a number of zero or more: {token[:MAX_LENGTH]!r}")
        number = Decimal(token.decode("ascii"))
        if abs(number.adjusted()) > MAX_LENGTH:
            raise MalformedMessage(f"out of range: {token!r}")
        token = f"{number:f}".encode("ascii")
    if len(token) > MAX_LENGTH or len(token.partition(b".")[2]) > MAX_DECIMALS:
        raise MalformedMessage(f"more digits than a price or a quantity has: {token[:MAX_LENGTH]!r}")
    return token


def with_decimals(digits: bytes, decimals: int) -> bytes:
    """The same number, in plain notation, with that many decimals, or with more where those are not all zeros."""
    whole, _, fraction = digits.partition(b".")
    fraction = fraction[:decimals].ljust(decimals, b"0") + fraction[decimals:].rstrip(b"0")
    return whole + b"." + fraction if fraction else whole
