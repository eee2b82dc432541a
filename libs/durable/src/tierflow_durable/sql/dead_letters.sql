-- name: note
INSERT INTO dead_letter (id, kind, tenant, user_id, entity_id, generation, swarm_id, name, version, trace_id, failure, first_seq, last_seq, state, actor, reason,
                         created_at)
SELECT :id, :kind, :tenant, :user_id, :entity_id, :generation, :swarm_id, :name, :version, :trace_id, :failure, :first_seq, :last_seq, 'OPEN', '', '', :created_at
ON CONFLICT DO NOTHING

-- name: page
SELECT id, kind, tenant, user_id, entity_id, generation, swarm_id, name, version, trace_id, failure, first_seq, last_seq, state, actor, reason, retried_as,
       created_at, resolved_at
FROM seen_dead_letter
WHERE {conditions}
ORDER BY id DESC LIMIT :limit

-- name: resolve
UPDATE dead_letter SET state = :state, actor = :actor, reason = :reason, retried_as = :retried_as, resolved_at = :now
WHERE id = :id AND tenant = :tenant AND state = 'OPEN'
RETURNING id

-- name: resolve_of
UPDATE dead_letter SET state = 'RETRIED', actor = :actor, reason = :reason, resolved_at = :now
WHERE entity_id = :entity_id AND generation < :generation AND state = 'OPEN' AND kind <> 'EVENTS'

-- name: count_open
SELECT kind, count(*) AS n FROM dead_letter WHERE state = 'OPEN' GROUP BY kind

-- name: unnoted
SELECT id FROM entity
WHERE outcome = 'FAILURE' AND outcome IN ('FAILURE', 'CANCELLED') AND reason = 'DEAD_LETTER' AND id > :after
  AND NOT EXISTS (SELECT 1 FROM dead_letter d WHERE d.entity_id = entity.id AND d.generation = entity.generation)
ORDER BY id LIMIT :limit

-- name: forget
WITH gone AS (
    DELETE FROM dead_letter WHERE id IN (
        SELECT id FROM dead_letter WHERE created_at < :before AND (resolved_at IS NOT NULL OR created_at < :long_before) ORDER BY created_at LIMIT :limit
    ) RETURNING 1
)
SELECT count(*) AS n FROM gone

-- name: source
SELECT tenant, user_id, parent_id, name, version, trace_id, generation FROM entity WHERE id = :id

-- name: rows_of
SELECT j.entity_id, j.seq, j.first_seq, j.instance, j.position, j.data, e.tenant, e.user_id, e.parent_id, e.trace_id, e.correlation_id
FROM journal j JOIN entity e ON e.id = j.entity_id
WHERE j.entity_id = :id AND j.seq >= :first_seq AND j.first_seq <= :last_seq ORDER BY j.seq
