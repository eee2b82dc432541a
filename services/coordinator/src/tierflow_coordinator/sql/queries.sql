-- What Tier 1 reads beside what the durable library offers.

-- name: count_swarms
SELECT state, count(*) AS n FROM entity WHERE ended_at IS NULL GROUP BY state
UNION ALL
SELECT state, count(*) AS n FROM entity WHERE ended_at IS NOT NULL GROUP BY state
