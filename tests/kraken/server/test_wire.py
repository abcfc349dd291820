"""The stream under a server's WebSocket."""

import trio

from collector.kraken.server.wire import Wire


async def test_what_was_read_of_the_head_is_read_again() -> None:
    """The handshake waits for bytes that were already taken from the socket."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with (
        listener,
        await trio.open_tcp_stream(*listener.socket.getsockname()) as client,
        await listener.accept() as accepted,
    ):
        wire = Wire(accepted, b"head")
        await client.send_all(b" and more")
        assert await wire.receive_some(2) == b"head"
        assert await wire.receive_some() == b" and more"
