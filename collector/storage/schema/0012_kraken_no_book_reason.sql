-- Why there is no verified book at a time: what kraken_book_at tells instead of a stale one.
CREATE OR REPLACE FUNCTION kraken_no_book_reason(pair TEXT, at TIMESTAMP)
RETURNS TEXT
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
#variable_conflict use_column
DECLARE
    watched RECORD;
    gap RECORD;
BEGIN
    SELECT min(started_at) AS since, max(last_at) AS until, max(dropped_before) AS dropped_before,
           (array_agg(end_reason ORDER BY last_at DESC, chain DESC))[1] AS end_reason
    INTO watched
    FROM kraken_coverage
    WHERE pair = kraken_no_book_reason.pair AND channel = 'book';

    SELECT started_at, ended_at, reason INTO gap
    FROM kraken_gaps
    WHERE pair = kraken_no_book_reason.pair AND channel = 'book'
          AND kraken_no_book_reason.at BETWEEN started_at AND ended_at
    ORDER BY started_at DESC
    LIMIT 1;

    RETURN CASE
        WHEN watched.since IS NULL THEN format(
            'nobody has ever watched it; %s', coalesce(
                (
                    SELECT 'books were collected of ' || string_agg(DISTINCT pair, ', ' ORDER BY pair)
                    FROM kraken_coverage WHERE channel = 'book'
                ),
                'no book of any pair has been collected yet'
            )
        )
        WHEN at < watched.since THEN format('nobody was watching before %s', watched.since)
        WHEN at > watched.until AND watched.end_reason IS NULL THEN format('it is known up to %s', watched.until)
        WHEN at > watched.until THEN
            format('nobody has been watching since %s (%s)', watched.until, watched.end_reason)
        WHEN gap.reason = 'dropped_by_retention' THEN
            format('what was seen from %s to %s was dropped by retention', gap.started_at, gap.ended_at)
        WHEN gap.started_at IS NOT NULL THEN format(
            'nobody was watching from %s to %s (%s)',
            gap.started_at, gap.ended_at, coalesce(gap.reason, 'nobody told why')
        )
        WHEN watched.dropped_before IS NOT NULL THEN
            format('the rows before %s that it builds on were dropped by retention', watched.dropped_before)
        ELSE 'the snapshot that it builds on is missing from kraken_orderbook'
    END;
END
$$;

COMMENT ON FUNCTION kraken_no_book_reason(TEXT, TIMESTAMP) IS 'Why kraken_book_at has no verified book of a pair at a time, in words; meaningless where it has one, be it of the ten best levels alone.';
