-- Candles from trades. Buckets count from 1970-01-01, as date_bin does, which PostgreSQL 13 has not; months and years
-- have no fixed length and are counted by the calendar. The bucket is worked out in whole microseconds.
CREATE OR REPLACE FUNCTION kraken_candles(pair TEXT, width INTERVAL, since TIMESTAMP, until TIMESTAMP)
RETURNS TABLE (
    bucket TIMESTAMP, open NUMERIC, high NUMERIC, low NUMERIC, close NUMERIC, volume NUMERIC, trades BIGINT
)
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
AS $$
#variable_conflict use_column
DECLARE
    months BIGINT := extract(year FROM width) * 12 + extract(month FROM width);
    microseconds BIGINT := round(extract(epoch FROM width - months * INTERVAL '1 month') * 1000000);
BEGIN
    IF least(months, microseconds) < 0 OR (months > 0) = (microseconds > 0) THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the width of a candle must be positive, and not months beside days or time: %s', width);
    END IF;
    RETURN QUERY
    WITH numbered AS (
        SELECT CASE WHEN months > 0
                   THEN floor((extract(year FROM event_time) * 12 + extract(month FROM event_time) - 1970 * 12 - 1)
                              / months)::BIGINT
                   ELSE floor(round(extract(epoch FROM event_time) * 1000000)::NUMERIC / microseconds)::BIGINT
               END AS number,
               event_time, trade_id, price, volume
        FROM kraken_trades
        WHERE pair = kraken_candles.pair
              AND event_time >= kraken_candles.since AND event_time < kraken_candles.until
    )
    SELECT TIMESTAMP '1970-01-01' + number * months * INTERVAL '1 month'
               + number * microseconds * INTERVAL '1 microsecond',
           (array_agg(price ORDER BY event_time, trade_id))[1],
           max(price),
           min(price),
           (array_agg(price ORDER BY event_time DESC, trade_id DESC))[1],
           sum(volume),
           count(*)
    FROM numbered
    GROUP BY number
    ORDER BY number;
END
$$;

COMMENT ON FUNCTION kraken_candles(TEXT, INTERVAL, TIMESTAMP, TIMESTAMP) IS 'Open, high, low, close, volume and number of a pair''s trades with since <= event_time < until, in buckets of the width, counted from 1970-01-01. bucket is the start, in UTC; buckets without trades are left out; trades of one time go by trade_id.';
