-- name: find_results
SELECT key_hash, output, sha256, size, run_id, step_id, stored_at FROM step_cache
WHERE tenant = :tenant AND key_hash = ANY(:keys::text[]) AND expires_at > :now

-- name: put_result
INSERT INTO step_cache (tenant, key_hash, output, sha256, size, run_id, step_id, stored_at, expires_at)
VALUES (:tenant, :key_hash, :output, :sha256, :size, :run_id, :step_id, :now, :expires_at)
ON CONFLICT (tenant, key_hash) DO UPDATE SET
    output = excluded.output, sha256 = excluded.sha256, size = excluded.size, run_id = excluded.run_id,
    step_id = excluded.step_id, stored_at = excluded.stored_at, expires_at = excluded.expires_at
RETURNING key_hash

-- name: drop_expired_results
DELETE FROM step_cache WHERE (tenant, key_hash) IN (
    SELECT tenant, key_hash FROM step_cache WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit
) RETURNING key_hash

-- name: drop_results
DELETE FROM step_cache WHERE (tenant, key_hash) IN (SELECT tenant, key_hash FROM step_cache LIMIT :limit) RETURNING key_hash

-- name: drop_results_of_tenant
DELETE FROM step_cache WHERE (tenant, key_hash) IN (
    SELECT tenant, key_hash FROM step_cache WHERE tenant = :tenant ORDER BY key_hash LIMIT :limit
) RETURNING key_hash
