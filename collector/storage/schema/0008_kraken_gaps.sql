-- What was not seen. Runs that overlap or touch (several collectors, a takeover) are one stretch, whose end is told by
-- the run that ended last. Retention marks every run that began before the day it keeps first, so that what is left of
-- a stretch begins there. A book run that an audit found wrong below its ten best levels counts as watched all the same:
-- kraken_coverage.suspect_since tells since when it may be wrong, kraken_audits what differed. Each common table
-- expression is kept in line, so that a condition on the pair reaches them.
CREATE OR REPLACE VIEW kraken_gaps AS
WITH ordered AS NOT MATERIALIZED (
    SELECT pair, channel, chain, started_at, last_at, end_reason, dropped_before,
           max(last_at) OVER (
               PARTITION BY pair, channel ORDER BY started_at, chain ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ) AS watched_until
    FROM kraken_coverage
), numbered AS NOT MATERIALIZED (
    SELECT *, count(*) FILTER (WHERE started_at > watched_until) OVER (
               PARTITION BY pair, channel ORDER BY started_at, chain
           ) AS stretch
    FROM ordered
), stretches AS NOT MATERIALIZED (
    SELECT pair, channel, min(started_at) AS started_at, max(last_at) AS last_at, max(dropped_before) AS dropped_before,
           (array_agg(end_reason ORDER BY last_at DESC, chain DESC))[1] AS end_reason
    FROM numbered
    GROUP BY pair, channel, stretch
), unwatched AS NOT MATERIALIZED (
    SELECT pair, channel, last_at AS started_at,
           lead(started_at) OVER (PARTITION BY pair, channel ORDER BY started_at) AS ended_at, end_reason AS reason
    FROM stretches
)
SELECT pair, channel, started_at, ended_at, reason FROM unwatched WHERE ended_at IS NOT NULL
UNION ALL
SELECT pair, channel, started_at, least(last_at, dropped_before), 'dropped_by_retention'
FROM stretches WHERE dropped_before > started_at AND last_at > started_at;

COMMENT ON VIEW kraken_gaps IS 'Each time, between the first and the last run of a pair''s channel in kraken_coverage, of which there is no verified data. Of books, times from kraken_coverage.suspect_since on count as seen: an audit (kraken_audits) found them wrong below their ten best levels.';
COMMENT ON COLUMN kraken_gaps.pair IS 'Kraken''s symbol of the market, such as BTC/USD.';
COMMENT ON COLUMN kraken_gaps.channel IS 'What was not seen: book or trade. Trades of a gap may have been fetched since, by their ids.';
COMMENT ON COLUMN kraken_gaps.started_at IS 'Until when the run before the gap is known to be complete, in UTC.';
COMMENT ON COLUMN kraken_gaps.ended_at IS 'When the run after the gap began, in UTC.';
COMMENT ON COLUMN kraken_gaps.reason IS 'Why the run before the gap ended, as in kraken_coverage, NULL while nobody has told; dropped_by_retention where the data is gone.';
