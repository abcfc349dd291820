-- The book of a pair at a time. The book is every row of a run up to its largest seq with event_time <= at: of several
-- runs that cover the time, the one that has the latest checkpoint before it. A run that failed an audit has, from
-- its suspect_since on, no more than the ten best levels, which each row's checksum has proved. Rows apply in the order of seq, entries in
-- the order of their array, and what a row evicted goes after its entries.
--
-- Times need not rise with seq, while it is by time that rows are found (BRIN, partitions). So rows are read with some
-- time to spare on both ends, and counted, since seq has no holes: where one is missing, they are read once more with a
-- day to spare, the most that a time can be ahead of the clock; where it is still missing, there is no book.
--
-- Planned for the given values each time, so that only the days that are concerned are locked and looked at. Without
-- JIT, since the planner takes an array of levels for a hundred entries, and would compile for longer than it runs.
CREATE OR REPLACE FUNCTION kraken_book_at(pair TEXT, at TIMESTAMP, levels INTEGER DEFAULT NULL)
RETURNS TABLE (side TEXT, price NUMERIC, size NUMERIC)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 2000
SET plan_cache_mode = force_custom_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    runs BIGINT[];
    since TIMESTAMP;
    suspect_since TIMESTAMP;
    base RECORD;
    spare INTERVAL;
    missing BIGINT;
BEGIN
    IF pair IS NULL OR at IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'kraken_book_at needs a pair and a time';
    ELSIF levels < 1 THEN
        RAISE invalid_parameter_value USING MESSAGE = format('levels must be 1 or more: %s', levels);
    END IF;

    SELECT array_agg(chain) FILTER (WHERE is_suspect IS NOT TRUE),
           min(greatest(started_at, dropped_before)) FILTER (WHERE is_suspect IS NOT TRUE),
           min(run.suspect_since) FILTER (WHERE is_suspect)
    INTO runs, since, suspect_since
    FROM kraken_coverage AS run,
         LATERAL (SELECT kraken_book_at.at >= run.suspect_since AND (levels <= 10) IS NOT TRUE) AS audit (is_suspect)
    WHERE pair = kraken_book_at.pair AND channel = 'book'
          AND kraken_book_at.at BETWEEN greatest(started_at, dropped_before) AND last_at;

    IF runs IS NULL AND suspect_since IS NOT NULL THEN
        RAISE no_data_found USING MESSAGE = format(
            'no verified book of %s at %s: an audit found it wrong below its ten best levels since %s;'
            ' up to 10 levels are verified', pair, at, suspect_since
        );
    END IF;

    SELECT chain, seq, event_time INTO base
    FROM kraken_orderbook
    WHERE pair = kraken_book_at.pair AND type = 'snapshot' AND chain = ANY (runs)
          AND event_time BETWEEN since AND kraken_book_at.at
    ORDER BY event_time DESC, chain DESC, seq DESC
    LIMIT 1;

    IF NOT FOUND THEN
        RAISE no_data_found USING MESSAGE = format(
            'no verified book of %s at %s: %s', pair, at, kraken_no_book_reason(pair, at)
        );
    END IF;

    FOREACH spare IN ARRAY ARRAY[INTERVAL '5 seconds', INTERVAL '1 day'] LOOP
        RETURN QUERY
        WITH near AS MATERIALIZED (
            SELECT event_time, seq, bids, asks, evicted
            FROM kraken_orderbook
            WHERE pair = kraken_book_at.pair AND chain = base.chain AND seq >= base.seq
                  AND event_time BETWEEN base.event_time - spare AND kraken_book_at.at + spare
        ), last AS MATERIALIZED (
            SELECT max(seq) FILTER (WHERE event_time <= kraken_book_at.at) AS seq FROM near
        ), applied AS NOT MATERIALIZED (
            SELECT near.seq, bids, asks, evicted FROM near JOIN last ON near.seq <= last.seq
        ), entries AS (
            -- Bids by negative prices: both sides rise from their best level, and no price is on both. Most rows
            -- have one side, and to say so beforehand saves a fifth of the time: calling a set function costs most.
            SELECT seq, place, -(entry -> 0)::NUMERIC AS rank, entry -> 1 AS size
            FROM applied, jsonb_array_elements(bids) WITH ORDINALITY AS bid (entry, place)
            WHERE bids <> '[]'
            UNION ALL
            SELECT seq, place, (entry -> 0)::NUMERIC, entry -> 1
            FROM applied, jsonb_array_elements(asks) WITH ORDINALITY AS ask (entry, place)
            WHERE asks <> '[]'
            UNION ALL
            SELECT seq, NULL, -price::NUMERIC, NULL
            FROM applied, jsonb_array_elements(evicted -> 'bids') AS bid (price)
            WHERE evicted -> 'bids' <> '[]'
            UNION ALL
            SELECT seq, NULL, price::NUMERIC, NULL
            FROM applied, jsonb_array_elements(evicted -> 'asks') AS ask (price)
            WHERE evicted -> 'asks' <> '[]'
        ), latest AS (
            SELECT DISTINCT ON (rank) rank, size::NUMERIC AS size
            FROM entries
            ORDER BY rank, seq DESC, place DESC NULLS FIRST
        ), held AS (
            SELECT rank, size, row_number() OVER (PARTITION BY rank < 0 ORDER BY rank) AS level
            FROM latest
            WHERE size > 0
        )
        SELECT CASE WHEN rank < 0 THEN 'bid' ELSE 'ask' END, abs(rank), size
        FROM held
        WHERE (level <= levels) IS NOT FALSE
              AND (SELECT count(*) = max(seq) - base.seq + 1 FROM applied)
        ORDER BY rank;
        IF FOUND THEN
            RETURN;
        END IF;
    END LOOP;

    -- No levels: the book was empty, or a row is missing.
    SELECT last - base.seq + 1 - count(*) INTO missing
    FROM (
        SELECT seq, max(seq) FILTER (WHERE event_time <= kraken_book_at.at) OVER () AS last
        FROM kraken_orderbook
        WHERE pair = kraken_book_at.pair AND chain = base.chain AND seq >= base.seq
              AND event_time BETWEEN base.event_time - spare AND kraken_book_at.at + spare
    ) AS near
    WHERE seq <= last
    GROUP BY last;
    IF missing <> 0 THEN
        RAISE no_data_found USING MESSAGE = format(
            'no verified book of %s at %s: %s of its run %s %s', pair, at,
            CASE WHEN abs(missing) = 1 THEN '1 row' ELSE abs(missing) || ' rows' END, base.chain,
            CASE
                WHEN missing < 0 THEN 'too many in kraken_orderbook'
                WHEN missing = 1 THEN 'is missing from kraken_orderbook'
                ELSE 'are missing from kraken_orderbook'
            END
        );
    END IF;
END
$$;

COMMENT ON FUNCTION kraken_book_at(TEXT, TIMESTAMP, INTEGER) IS 'The verified order book of a pair at a time in UTC: side (bid or ask), price and size of each level, bids from the best down, then asks from the best up; levels limits each side. Where nobody was watching, or where an audit failed and more than 10 levels are asked for, it raises no_data_found (P0002) and says why.';
