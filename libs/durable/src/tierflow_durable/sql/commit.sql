-- The parts of the group commit (rule R1): one statement, made of those parts that a batch needs. Every insert and update selects from `held`.
-- Columns come as arrays in text (see columns.py), but for bytes. They are unnested in a SELECT list and not in FROM, which would fill a table in memory for
-- each column first: three times the cost of the unnesting for one row, twice for 64.

-- name: held
held AS MATERIALIZED (
    SELECT id FROM fence WHERE id = :me AND NOT fenced FOR SHARE
)

-- name: requests
requested AS (
    INSERT INTO request (tenant, request_id, body_hash, entity_id, created_at)
    SELECT r.tenant, r.request_id, r.body_hash, r.entity_id, r.created_at
    FROM (
        SELECT unnest(:r_tenant::text::text[]) AS tenant, unnest(:r_request_id::text::text[]) AS request_id,
               unnest(:r_body_hash::bytea[]) AS body_hash, unnest(:r_entity_id::text::uuid[]) AS entity_id,
               unnest(:r_created_at::text::bigint[]) AS created_at
    ) AS r, held
    ON CONFLICT DO NOTHING
    RETURNING entity_id
)

-- name: creates
created AS (
    INSERT INTO entity (id, tenant, user_id, state, reason, name, version, parent_id, trace_id, correlation_id, labels, outcome, generation,
                        created_at, ended_at, seq, owner, wake_at)
    SELECT c.id, c.tenant, c.user_id, c.state, c.reason, c.name, c.version, c.parent_id, c.trace_id, c.correlation_id, c.labels::jsonb, c.outcome,
           c.generation, c.created_at, c.ended_at, c.seq, CASE WHEN c.release THEN NULL ELSE held.id END, c.wake_at
    FROM (
        SELECT unnest(:c_id::text::uuid[]) AS id, unnest(:c_tenant::text::text[]) AS tenant, unnest(:c_user_id::text::text[]) AS user_id,
               unnest(:c_state::text::text[]) AS state, unnest(:c_reason::text::text[]) AS reason, unnest(:c_name::text::text[]) AS name,
               unnest(:c_version::text::text[]) AS version, unnest(:c_parent_id::text::uuid[]) AS parent_id,
               unnest(:c_trace_id::text::text[]) AS trace_id, unnest(:c_correlation_id::text::text[]) AS correlation_id,
               unnest(:c_labels::text::text[]) AS labels, unnest(:c_outcome::text::text[]) AS outcome,
               unnest(:c_generation::text::int[]) AS generation, unnest(:c_created_at::text::bigint[]) AS created_at,
               unnest(:c_ended_at::text::bigint[]) AS ended_at, unnest(:c_seq::text::bigint[]) AS seq,
               unnest(:c_release::text::bool[]) AS release, unnest(:c_wake_at::text::bigint[]) AS wake_at,
               unnest(:c_keyed::text::bool[]) AS keyed
    ) AS c, held
    WHERE {keyed}
    ON CONFLICT DO NOTHING
    RETURNING id
)

-- name: updates
updated AS (
    UPDATE entity SET state = u.state, reason = u.reason, outcome = u.outcome, generation = u.generation, ended_at = u.ended_at, seq = u.seq,
                      owner = CASE WHEN u.release THEN NULL ELSE entity.owner END, wake_at = u.wake_at, adoptions = 0
    FROM (
        SELECT unnest(:u_id::text::uuid[]) AS id, unnest(:u_state::text::text[]) AS state, unnest(:u_reason::text::text[]) AS reason,
               unnest(:u_outcome::text::text[]) AS outcome, unnest(:u_generation::text::int[]) AS generation,
               unnest(:u_ended_at::text::bigint[]) AS ended_at, unnest(:u_seq::text::bigint[]) AS seq,
               unnest(:u_release::text::bool[]) AS release, unnest(:u_wake_at::text::bigint[]) AS wake_at
    ) AS u, held
    WHERE entity.id = u.id AND entity.owner IS NOT DISTINCT FROM held.id
    RETURNING entity.id
)

-- name: endings
ended AS (
    INSERT INTO unacknowledged (id, generation, ended_at)
    SELECT e.id, e.generation, e.ended_at
    FROM (
        SELECT unnest(:e_id::text::uuid[]) AS id, unnest(:e_generation::text::int[]) AS generation, unnest(:e_ended_at::text::bigint[]) AS ended_at,
               unnest(:e_new::text::bool[]) AS is_new
    ) AS e, held
    WHERE {born}
    ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, ended_at = excluded.ended_at
)

-- name: acknowledgements
acknowledged AS (
    DELETE FROM unacknowledged
    USING (
        SELECT unnest(:a_id::text::uuid[]) AS id, unnest(:a_generation::text::int[]) AS generation
    ) AS a, held
    WHERE unacknowledged.id = a.id AND unacknowledged.generation <= a.generation
)

-- name: journal
journaled AS (
    INSERT INTO journal (entity_id, seq, first_seq, instance, position, data, chain)
    SELECT j.entity_id, j.seq, j.first_seq, held.id, j.position, j.data, j.chain
    FROM (
        SELECT unnest(:j_entity_id::text::uuid[]) AS entity_id, unnest(:j_seq::text::bigint[]) AS seq,
               unnest(:j_first_seq::text::bigint[]) AS first_seq, unnest(:j_position::text::bigint[]) AS position,
               unnest(:j_data::bytea[]) AS data, unnest(:j_chain::bytea[]) AS chain, unnest(:j_new::text::bool[]) AS is_new
    ) AS j, held
    WHERE {won}
)

-- name: snapshots
snapped AS (
    INSERT INTO snapshot (entity_id, seq, data, chain, checksum)
    SELECT s.entity_id, s.seq, s.data, s.chain, s.checksum
    FROM (
        SELECT unnest(:s_entity_id::text::uuid[]) AS entity_id, unnest(:s_seq::text::bigint[]) AS seq, unnest(:s_data::bytea[]) AS data,
               unnest(:s_chain::bytea[]) AS chain, unnest(:s_checksum::bytea[]) AS checksum
    ) AS s, held
    ON CONFLICT (entity_id) DO UPDATE SET seq = excluded.seq, data = excluded.data, chain = excluded.chain, checksum = excluded.checksum
    WHERE snapshot.seq < excluded.seq
)

-- name: blobs
stored AS (
    INSERT INTO blob (sha256, chunk, chunks, data)
    SELECT b.sha256, b.chunk, b.chunks, b.data
    FROM (
        SELECT unnest(:b_sha256::bytea[]) AS sha256, unnest(:b_chunk::text::int[]) AS chunk, unnest(:b_chunks::text::int[]) AS chunks,
               unnest(:b_data::bytea[]) AS data
    ) AS b, held
    ON CONFLICT (sha256, chunk) DO UPDATE SET stored_at = excluded.stored_at WHERE blob.stored_at < excluded.stored_at - 86400000000
)

-- name: verdict
SELECT (SELECT count(*) FROM held) AS held, {created} AS created, {updated} AS updated
