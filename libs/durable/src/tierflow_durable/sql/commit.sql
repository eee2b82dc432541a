-- The parts of the group commit (rule R1): one statement, made of those parts that a batch needs. Every insert and update selects from `held`.
-- Columns come as arrays in text (see columns.py), but for bytes.

-- name: held
held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
)

-- name: requests
requested AS (
    INSERT INTO request (tenant, request_id, body_hash, entity_id, created_at)
    SELECT r.tenant, r.request_id, r.body_hash, r.entity_id, r.created_at
    FROM unnest(:r_tenant::text::text[], :r_request_id::text::text[], :r_body_hash::bytea[], :r_entity_id::text::uuid[], :r_created_at::text::bigint[])
        AS r(tenant, request_id, body_hash, entity_id, created_at), held
    ON CONFLICT DO NOTHING
    RETURNING entity_id
)

-- name: creates
created AS (
    INSERT INTO entity (id, tenant, user_id, state, reason, name, version, parent_id, trace_id, correlation_id, labels, outcome, generation,
                        created_at, ended_at, seq, owner, wake_at, unacknowledged)
    SELECT c.id, c.tenant, c.user_id, c.state, c.reason, c.name, c.version, c.parent_id, c.trace_id, c.correlation_id, c.labels::jsonb, c.outcome,
           c.generation, c.created_at, c.ended_at, c.seq, CASE WHEN c.release THEN NULL ELSE held.id END, c.wake_at, c.unacknowledged
    FROM unnest(:c_id::text::uuid[], :c_tenant::text::text[], :c_user_id::text::text[], :c_state::text::text[], :c_reason::text::text[],
                :c_name::text::text[], :c_version::text::text[], :c_parent_id::text::uuid[], :c_trace_id::text::text[],
                :c_correlation_id::text::text[], :c_labels::text::text[], :c_outcome::text::text[], :c_generation::text::int[],
                :c_created_at::text::bigint[], :c_ended_at::text::bigint[], :c_seq::text::bigint[], :c_release::text::bool[],
                :c_wake_at::text::bigint[], :c_unacknowledged::text::bool[], :c_keyed::text::bool[])
        AS c(id, tenant, user_id, state, reason, name, version, parent_id, trace_id, correlation_id, labels, outcome, generation, created_at,
             ended_at, seq, release, wake_at, unacknowledged, keyed), held
    WHERE {keyed}
    ON CONFLICT DO NOTHING
    RETURNING id
)

-- name: updates
updated AS (
    UPDATE entity SET state = u.state, reason = u.reason, outcome = u.outcome, generation = u.generation, ended_at = u.ended_at, seq = u.seq,
                      owner = CASE WHEN u.release THEN NULL ELSE entity.owner END, wake_at = u.wake_at, unacknowledged = u.unacknowledged,
                      adoptions = 0
    FROM unnest(:u_id::text::uuid[], :u_state::text::text[], :u_reason::text::text[], :u_outcome::text::text[], :u_generation::text::int[],
                :u_ended_at::text::bigint[], :u_seq::text::bigint[], :u_release::text::bool[], :u_wake_at::text::bigint[], :u_unacknowledged::text::bool[])
        AS u(id, state, reason, outcome, generation, ended_at, seq, release, wake_at, unacknowledged), held
    WHERE entity.id = u.id AND entity.owner IS NOT DISTINCT FROM held.id
    RETURNING entity.id
)

-- name: acknowledgements
acknowledged AS (
    UPDATE entity SET unacknowledged = false
    FROM unnest(:a_id::text::uuid[], :a_generation::text::int[]) AS a(id, generation), held
    WHERE entity.id = a.id AND entity.generation = a.generation AND entity.unacknowledged
    RETURNING entity.id
)

-- name: journal
journaled AS (
    INSERT INTO journal (entity_id, seq, first_seq, instance, position, data, chain)
    SELECT j.entity_id, j.seq, j.first_seq, held.id, j.position, j.data, j.chain
    FROM unnest(:j_entity_id::text::uuid[], :j_seq::text::bigint[], :j_first_seq::text::bigint[], :j_position::text::bigint[],
                :j_data::bytea[], :j_chain::bytea[], :j_new::text::bool[])
        AS j(entity_id, seq, first_seq, position, data, chain, is_new), held
    WHERE {won}
    RETURNING 1
)

-- name: snapshots
snapped AS (
    INSERT INTO snapshot (entity_id, seq, data, chain, checksum)
    SELECT s.entity_id, s.seq, s.data, s.chain, s.checksum
    FROM unnest(:s_entity_id::text::uuid[], :s_seq::text::bigint[], :s_data::bytea[], :s_chain::bytea[], :s_checksum::bytea[])
        AS s(entity_id, seq, data, chain, checksum), held
    ON CONFLICT (entity_id) DO UPDATE SET seq = excluded.seq, data = excluded.data, chain = excluded.chain, checksum = excluded.checksum
    WHERE snapshot.seq < excluded.seq
    RETURNING 1
)

-- name: blobs
stored AS (
    INSERT INTO blob (sha256, chunk, chunks, data)
    SELECT b.sha256, b.chunk, b.chunks, b.data
    FROM unnest(:b_sha256::bytea[], :b_chunk::text::int[], :b_chunks::text::int[], :b_data::bytea[]) AS b(sha256, chunk, chunks, data), held
    ON CONFLICT (sha256, chunk) DO UPDATE SET stored_at = excluded.stored_at WHERE blob.stored_at < excluded.stored_at - 86400000000
    RETURNING 1
)

-- name: verdict
SELECT (SELECT count(*) FROM held) AS held, {created} AS created, {updated} AS updated
