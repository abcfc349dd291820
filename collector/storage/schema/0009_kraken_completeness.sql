-- How much of a time was seen. Each run counts with what it adds to those that began before it, so that overlapping
-- runs count once. A book run that an audit found wrong below its ten best levels counts all the same:
-- kraken_coverage.suspect_since tells since when it may be wrong, kraken_audits what differed. PL/pgSQL, since Citus
-- does not plan parameterised SQL functions over distributed tables.
CREATE OR REPLACE FUNCTION kraken_completeness(pair TEXT, since TIMESTAMP, until TIMESTAMP)
RETURNS TABLE (channel TEXT, share NUMERIC)
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE ROWS 2
AS $$
#variable_conflict use_column
BEGIN
    IF kraken_completeness.until <= kraken_completeness.since THEN
        RAISE invalid_parameter_value USING MESSAGE = format('until (%s) must be after since (%s)', until, since);
    END IF;
    RETURN QUERY
    WITH runs AS (
        SELECT channel, chain, greatest(started_at, dropped_before, kraken_completeness.since) AS started_at,
               least(last_at, kraken_completeness.until) AS ended_at
        FROM kraken_coverage
        WHERE pair = kraken_completeness.pair
              AND started_at < kraken_completeness.until AND last_at > kraken_completeness.since
    ), ordered AS (
        SELECT channel, ended_at, greatest(started_at, max(ended_at) OVER (
                   PARTITION BY channel ORDER BY started_at, chain ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
               )) AS started_at
        FROM runs
        WHERE started_at < ended_at
    ), watched AS (
        SELECT channel, sum(ended_at - started_at) AS time
        FROM ordered
        WHERE started_at < ended_at
        GROUP BY channel
    )
    -- A cast of seconds to NUMERIC keeps 15 digits where they are a double (PostgreSQL 13): microseconds for 30 years.
    SELECT channels.channel, coalesce(extract(epoch FROM watched.time)::NUMERIC, 0)
           / extract(epoch FROM kraken_completeness.until - kraken_completeness.since)::NUMERIC
    FROM unnest(ARRAY['book', 'trade']) AS channels (channel) LEFT JOIN watched USING (channel)
    ORDER BY channel;
END
$$;

COMMENT ON FUNCTION kraken_completeness(TEXT, TIMESTAMP, TIMESTAMP) IS 'The share of a time, from 0 to 1, of which there is verified data of a pair, for each channel (book and trade). Of books, times from kraken_coverage.suspect_since on count as seen: an audit (kraken_audits) found them wrong below their ten best levels. Times are UTC.';
