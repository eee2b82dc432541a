-- What Tier 1 reads beside what the durable library offers.

-- name: count_ended
SELECT state, count(*) AS n FROM entity WHERE ended_at IS NOT NULL GROUP BY state
