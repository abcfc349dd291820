"""The messages that a v2 server sends on its own account: status, heartbeat and the instruments."""

from collections.abc import AsyncGenerator, Mapping, Sequence

from collector.kraken.pairs import Instrument

HEARTBEAT = b'{"channel":"heartbeat"}'


def status_message(system: str, connection_id: int) -> bytes:
    """The message that greets a connection and tells a change of the engine's state."""
    return (
        f'{{"channel":"status","type":"update","data":[{{"version":"2.0.10","system":"{system}","api_version":"v2",'
        f'"connection_id":{connection_id},"upcoming_maintenance":[],"emergency":[]}}]}}'
    ).encode()


def instrument_snapshot(instruments: Mapping[str, Instrument]) -> bytes:
    """All assets and pairs. Increments are written as Kraken writes them: with an exponent from 1e-05 down."""
    assets = dict.fromkeys(asset for instrument in instruments.values() for asset in instrument.symbol.split("/"))
    asset_rows = ",".join(
        f'{{"id":"{asset}","status":"enabled","precision":10,"precision_display":5,"borrowable":false,'
        f'"collateral_value":1.0}}'
        for asset in assets
    )
    pair_rows = ",".join(_pair_row(instrument) for instrument in instruments.values())
    return (
        f'{{"channel":"instrument","type":"snapshot","data":{{"assets":[{asset_rows}],"pairs":[{pair_rows}]}}}}'
    ).encode()


def _pair_row(instrument: Instrument) -> str:
    base, quote = instrument.symbol.split("/")
    price_increment = _increment(instrument.price_precision)
    return (
        f'{{"symbol":"{instrument.symbol}","base":"{base}","quote":"{quote}","status":"{instrument.status}",'
        f'"qty_precision":{instrument.qty_precision},"qty_increment":{_increment(instrument.qty_precision)},'
        f'"price_precision":{instrument.price_precision},"cost_precision":5,"marginable":false,"has_index":true,'
        f'"cost_min":0.5,"tick_size":{price_increment},"price_increment":{price_increment},"qty_min":5e-05}}'
    )


def _increment(precision: int) -> str:
    fixed = f"{'0.' if precision else ''}{'0' * (precision - 1)}1"
    return fixed if precision <= 4 else f"1e-{precision:02d}"  # noqa: PLR2004 - where a float's shortest text turns


async def instrument_stream(
    instruments: Mapping[str, Instrument], *, snapshot: bool
) -> AsyncGenerator[Sequence[bytes], None]:
    """The stream of the instrument channel, where nothing ever changes."""
    if snapshot:
        yield [instrument_snapshot(instruments)]
