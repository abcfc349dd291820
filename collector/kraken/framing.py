"""How a WebSocket message is framed (RFC 6455 5.2), as far as an unfragmented one of a server goes."""

import struct
from enum import IntEnum

SHORT_LENGTH, LONG_LENGTH = 126, 127  # the length follows in two, or in eight bytes


class Opcode(IntEnum):
    """What a message is."""

    TEXT = 1
    BINARY = 2


def frame_header(opcode: Opcode, length: int) -> bytes:
    """What stands before the payload of an unfragmented frame of a server, which is never masked."""
    if length < SHORT_LENGTH:
        return struct.pack("!BB", 0x80 | opcode, length)
    if length < 2**16:
        return struct.pack("!BBH", 0x80 | opcode, SHORT_LENGTH, length)
    return struct.pack("!BBQ", 0x80 | opcode, LONG_LENGTH, length)
