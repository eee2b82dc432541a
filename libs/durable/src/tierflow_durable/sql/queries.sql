-- name: now
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now, (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS server_start

-- name: register
WITH old AS (
    UPDATE fence SET fenced = true, fenced_by = :id, fenced_at = (extract(epoch FROM now()) * 1000000)::bigint
    WHERE name = :name AND NOT fenced AND id <> :id
    RETURNING id
), beaten AS (
    INSERT INTO instance (id, name, address, started_at, lease_until, backend_pid)
    VALUES (:id, :name, :address, (extract(epoch FROM now()) * 1000000)::bigint, (extract(epoch FROM now()) * 1000000)::bigint + :lease, :pid)
), fenced AS (
    INSERT INTO fence (id, name) VALUES (:id, :name)
), marked AS (
    INSERT INTO watermark (id, position) VALUES (:id, :position)
)
SELECT id FROM old

-- name: old_backends
SELECT backend_pid FROM instance WHERE id = ANY(:ids::uuid[])

-- name: heartbeat
UPDATE instance SET lease_until = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + :lease, backend_pid = :pid, address = :address
FROM fence
WHERE instance.id = :id AND fence.id = instance.id AND NOT fence.fenced
RETURNING (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now, (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS server_start

-- name: expired
SELECT instance.id, instance.name, instance.backend_pid
FROM instance JOIN fence USING (id)
WHERE NOT fence.fenced AND instance.lease_until < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AND instance.id <> :me

-- name: fence
UPDATE fence SET fenced = true, fenced_by = :me, fenced_at = (extract(epoch FROM now()) * 1000000)::bigint
FROM instance
WHERE fence.id = :id AND instance.id = fence.id AND NOT fence.fenced
  AND instance.lease_until < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
RETURNING fence.id

-- name: terminate
SELECT pg_terminate_backend(:pid::int) FROM pg_stat_activity WHERE pid = :pid::int AND application_name = :application

-- name: this_session
SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()

-- name: end_session
SELECT pg_terminate_backend(pid, 100) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :backend_start

-- name: fenced_owners
SELECT fence.id FROM fence WHERE fence.fenced AND EXISTS (SELECT 1 FROM entity WHERE entity.owner = fence.id)

-- name: fenced_of
SELECT id FROM fence WHERE fenced AND id = ANY(:ids::uuid[])

-- name: living
SELECT count(*) FROM instance JOIN fence USING (id) WHERE NOT fence.fenced

-- name: adopt
WITH held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
), chosen AS (
    SELECT id FROM entity WHERE owner = :from AND EXISTS (SELECT 1 FROM held) LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE entity SET owner = held.id, adoptions = least(entity.adoptions + 1, 1000)
FROM chosen, held WHERE entity.id = chosen.id
RETURNING entity.id, entity.adoptions

-- name: due
WITH held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
), chosen AS (
    SELECT id FROM entity WHERE owner IS NULL AND wake_at <= :now AND EXISTS (SELECT 1 FROM held)
    ORDER BY wake_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE entity SET owner = held.id
FROM chosen, held WHERE entity.id = chosen.id
RETURNING entity.id, entity.adoptions

-- name: claim
WITH held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
)
UPDATE entity SET owner = held.id, adoptions = CASE WHEN entity.owner IS NULL THEN entity.adoptions ELSE least(entity.adoptions + 1, 1000) END
FROM held WHERE entity.id = :id AND entity.owner IS NOT DISTINCT FROM :from
RETURNING entity.id, entity.adoptions

-- name: owned
SELECT id, adoptions FROM entity WHERE owner = :me

-- name: put_off
WITH held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
)
UPDATE entity SET owner = NULL, wake_at = late.moment
FROM unnest(:ids::uuid[], :moments::bigint[]) AS late(id, moment), held
WHERE entity.id = late.id AND entity.owner = held.id

-- name: release
WITH held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
)
UPDATE entity SET owner = NULL, wake_at = :now
FROM held WHERE entity.owner = held.id AND entity.id = ANY(:ids::uuid[])

-- name: quarantine
WITH held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
)
UPDATE entity SET owner = NULL, wake_at = NULL, reason = 'QUARANTINED', state = :state, adoptions = 1000
FROM held WHERE entity.id = :id AND entity.owner = held.id

-- name: owner
SELECT entity.owner, entity.ended_at, entity.adoptions, instance.address, coalesce(fence.fenced, true) AS fenced
FROM entity LEFT JOIN instance ON instance.id = entity.owner LEFT JOIN fence ON fence.id = entity.owner
WHERE entity.id = :id

-- name: snapshots_of
SELECT entity_id, seq, data, chain, checksum FROM snapshot WHERE entity_id = ANY(:ids::uuid[])

-- name: journal_of
SELECT seq, first_seq, data, chain FROM journal WHERE entity_id = :id AND seq > :after ORDER BY seq LIMIT :limit

-- name: journal_written
SELECT entity_id, seq FROM journal
WHERE instance = :me AND (entity_id, seq) IN (SELECT * FROM unnest(:ids::uuid[], :seqs::bigint[]))

-- name: entity_end
SELECT ended_at, seq FROM entity WHERE id = :id

-- name: journal_after
SELECT j.entity_id, j.seq, j.first_seq, j.position, j.data, e.tenant, e.user_id, e.parent_id, e.trace_id, e.correlation_id
FROM journal j JOIN entity e ON e.id = j.entity_id
WHERE j.instance = :instance AND j.position > :after
ORDER BY j.position LIMIT :limit

-- name: save_watermark
UPDATE watermark SET position = :position WHERE id = :id AND position < :position

-- name: orphaned_watermarks
UPDATE watermark SET relayer = :me
WHERE (id IN (SELECT id FROM fence WHERE fenced) OR NOT EXISTS (SELECT 1 FROM fence WHERE fence.id = watermark.id))
  AND (relayer IS NULL OR relayer = :me OR relayer IN (SELECT id FROM fence WHERE fenced)
       OR NOT EXISTS (SELECT 1 FROM fence WHERE fence.id = watermark.relayer))
RETURNING id, position

-- name: drop_watermark
DELETE FROM watermark WHERE id = :id
    AND NOT EXISTS (SELECT 1 FROM journal WHERE journal.instance = watermark.id AND journal.position > watermark.position)

-- name: waive_watermark
DELETE FROM watermark WHERE id = :id

-- name: rewind_watermark
UPDATE watermark SET position = 0 WHERE id = :id

-- name: leave
WITH beaten AS (DELETE FROM instance WHERE id = :id)
UPDATE fence SET fenced = true, fenced_by = :id, fenced_at = (extract(epoch FROM now()) * 1000000)::bigint WHERE id = :id

-- name: forget_instances
WITH gone AS (
    SELECT fence.id FROM fence
    WHERE fence.fenced AND fence.fenced_at < :before
      AND NOT EXISTS (SELECT 1 FROM entity WHERE entity.owner = fence.id) AND NOT EXISTS (SELECT 1 FROM watermark WHERE watermark.id = fence.id)
), beaten AS (
    DELETE FROM instance USING gone WHERE instance.id = gone.id
)
DELETE FROM fence USING gone WHERE fence.id = gone.id

-- name: request_winner
SELECT entity_id, body_hash FROM request WHERE tenant = :tenant AND request_id = :request_id

-- name: forget_requests
WITH gone AS (
    DELETE FROM request WHERE ctid IN (SELECT ctid FROM request WHERE created_at < :before LIMIT :limit) RETURNING 1
)
SELECT count(*) AS n FROM gone

-- name: count_states
SELECT state, count(*) AS n FROM entity WHERE ended_at IS NULL GROUP BY state

-- name: unacknowledged
WITH noted AS ( -- by a process of a version that kept it in the entity's row, and has not heard of an acknowledgement since
    UPDATE entity SET unacknowledged = false WHERE unacknowledged AND ended_at < :before RETURNING id, generation, ended_at
), taken AS (
    INSERT INTO unacknowledged (id, generation, ended_at) SELECT id, generation, ended_at FROM noted ON CONFLICT DO NOTHING
)
SELECT id FROM unacknowledged WHERE ended_at < :before AND id > :after ORDER BY id LIMIT :limit

-- name: unacknowledged_children
SELECT unacknowledged.id FROM unacknowledged JOIN entity USING (id)
WHERE unacknowledged.ended_at < :before AND entity.labels ? 'tierflow.parent' ORDER BY unacknowledged.id LIMIT :limit

-- name: blob_chunks
SELECT data FROM blob WHERE sha256 = :sha256 ORDER BY chunk

-- name: touch_blob
WITH today AS (
    SELECT (extract(epoch FROM now()) * 1000000)::bigint AS now, (extract(epoch FROM now() - interval '1 day') * 1000000)::bigint AS before
), touched AS (
    UPDATE blob SET stored_at = today.now FROM today WHERE sha256 = :sha256 AND chunk = 0 AND stored_at < today.before RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM touched) OR EXISTS (SELECT 1 FROM blob, today WHERE sha256 = :sha256 AND chunk = 0 AND stored_at >= today.before) AS exists

-- name: row
SELECT id, tenant, user_id, state, reason, name, version, parent_id, trace_id, correlation_id, labels::text AS labels, outcome, generation, created_at,
       ended_at, seq, owner, wake_at, adoptions
FROM entity WHERE id = :id

-- name: list
SELECT id, tenant, user_id, state, reason, name, version, parent_id, trace_id, correlation_id, labels::text AS labels, outcome, generation, created_at,
       ended_at, seq, owner, wake_at, adoptions
FROM (SELECT id AS found FROM entity WHERE {conditions} ORDER BY id DESC LIMIT :limit) page
CROSS JOIN LATERAL (SELECT * FROM seen_entity WHERE seen_entity.id = page.found OFFSET 0) seen
ORDER BY found DESC

-- name: partitions
SELECT child.relname AS name, pg_get_expr(child.relpartbound, child.oid) AS bound
FROM pg_inherits JOIN pg_class child ON child.oid = pg_inherits.inhrelid JOIN pg_class parent ON parent.oid = pg_inherits.inhparent
WHERE parent.relname = 'journal' AND parent.relnamespace = current_schema()::regnamespace

-- name: range_busy
SELECT EXISTS (SELECT 1 FROM entity WHERE id >= :low AND id < :high AND (ended_at IS NULL OR ended_at >= :horizon OR unacknowledged OR owner IS NOT NULL))
    OR EXISTS (SELECT 1 FROM unacknowledged WHERE id >= :low AND id < :high)
    OR EXISTS (
        SELECT 1 FROM watermark w JOIN journal j ON j.instance = w.id AND j.position > w.position
        WHERE j.entity_id >= :low::uuid AND j.entity_id < :high::uuid
    )

-- name: forget_blobs
WITH old AS MATERIALIZED (
    SELECT sha256 FROM blob WHERE chunk = 0 AND stored_at < :before AND sha256 > :after ORDER BY sha256 LIMIT :limit
), unused AS (
    SELECT sha256 FROM old WHERE NOT EXISTS (
        SELECT 1 FROM journal WHERE entity_id < :floor AND position(convert_to(encode(old.sha256, 'hex'), 'UTF8') IN data) > 0
    )
), gone AS (
    DELETE FROM blob USING unused WHERE blob.sha256 = unused.sha256 AND blob.chunk = 0 AND blob.stored_at < :before RETURNING blob.sha256
), rest AS (
    DELETE FROM blob USING gone WHERE blob.sha256 = gone.sha256 AND blob.chunk > 0
)
SELECT (SELECT sha256 FROM old ORDER BY sha256 DESC LIMIT 1) AS last, (SELECT count(*) FROM gone) AS n

-- name: range_unpublished
SELECT EXISTS (
    SELECT 1 FROM watermark w JOIN journal j ON j.instance = w.id AND j.position > w.position
    WHERE j.entity_id >= :low::uuid AND j.entity_id < :high::uuid
)

-- name: forget_entities
WITH gone AS (
    DELETE FROM entity WHERE id IN (SELECT id FROM entity WHERE id >= :low AND id < :high ORDER BY id LIMIT :limit)
        AND ended_at < :horizon AND owner IS NULL AND NOT unacknowledged AND NOT EXISTS (SELECT 1 FROM unacknowledged WHERE unacknowledged.id = entity.id)
    RETURNING id
), snaps AS (
    DELETE FROM snapshot USING gone WHERE snapshot.entity_id = gone.id
), marks AS (
    DELETE FROM checkpoint USING gone WHERE checkpoint.entity_id = gone.id
)
SELECT count(*) AS n FROM gone

-- name: range_inhabited
SELECT EXISTS (SELECT 1 FROM entity WHERE id >= :low AND id < :high)

-- name: forget_strays
WITH gone AS (
    DELETE FROM journal_default
    WHERE (entity_id, seq) IN (SELECT entity_id, seq FROM journal_default WHERE entity_id < :below ORDER BY entity_id, seq LIMIT :limit)
    RETURNING 1
)
SELECT count(*) AS n FROM gone

-- name: put_blob
WITH held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
)
INSERT INTO blob (sha256, chunk, chunks, data)
SELECT b.sha256, b.chunk, b.chunks, b.data
FROM unnest(:b_sha256::bytea[], :b_chunk::int[], :b_chunks::int[], :b_data::bytea[]) AS b(sha256, chunk, chunks, data), held
ON CONFLICT DO NOTHING

-- name: journal_page
SELECT j.entity_id, j.seq, j.first_seq, j.instance, j.position, j.data, e.tenant, e.user_id, e.parent_id, e.trace_id, e.correlation_id
FROM journal j JOIN entity e ON e.id = j.entity_id
WHERE (j.entity_id, j.seq) > (:after_id, :after_seq)
ORDER BY j.entity_id, j.seq LIMIT :limit

-- name: try_lock
SELECT pg_try_advisory_lock(:key::int, hashtext(current_schema())) AS locked

-- name: lock
SELECT pg_advisory_lock(:key::int, hashtext(current_schema()))

-- name: stream_filled
SELECT filled_at FROM event_stream WHERE created = :created

-- name: note_stream_filled
INSERT INTO event_stream (created, filled_at) VALUES (:created, :now) ON CONFLICT DO NOTHING

-- name: mark_checkpoint
INSERT INTO checkpoint (entity_id, name, seq, chain, actor, reason, created_at)
SELECT j.entity_id, :name, j.seq, j.chain, :actor, :reason, :now
FROM journal j WHERE j.entity_id = :id ORDER BY j.seq DESC LIMIT 1
ON CONFLICT (entity_id, name) DO NOTHING
RETURNING entity_id, name, seq, chain, actor, reason, created_at

-- name: checkpoint_of
SELECT entity_id, name, seq, chain, actor, reason, created_at FROM checkpoint WHERE entity_id = :id AND name = :name

-- name: checkpoints_of
SELECT entity_id, name, seq, chain, actor, reason, created_at FROM checkpoint WHERE entity_id = :id ORDER BY created_at DESC, name LIMIT :limit

-- name: bound_checkpoints
DELETE FROM checkpoint WHERE (entity_id, name) IN (
    SELECT entity_id, name FROM checkpoint WHERE entity_id = :id ORDER BY created_at DESC, name OFFSET :most
)

-- name: forget_checkpoints
WITH gone AS (
    DELETE FROM checkpoint WHERE (entity_id, name) IN (
        SELECT entity_id, name FROM checkpoint WHERE created_at < :before ORDER BY created_at LIMIT :limit
    ) RETURNING 1
)
SELECT count(*) AS n FROM gone
