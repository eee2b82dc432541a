-- name: begin
INSERT INTO audit (id, tenant, user_id, action, subject, command_id, reason, code, result)
VALUES (:id, :tenant, :user_id, :action, :subject, :command_id, :reason, '', '')
ON CONFLICT (id) DO NOTHING

-- name: done
UPDATE audit SET code = :code, subject = CASE WHEN subject = '' THEN :subject ELSE subject END, result = :result WHERE id = :id

-- name: page
SELECT * FROM (
    (SELECT id, user_id, action, subject, command_id, reason, code, result FROM seen_audit WHERE {audited} ORDER BY id DESC LIMIT :limit)
    UNION ALL
    (SELECT id, user_id, 'SubmitSwarm', id::text AS subject, '', '', 'OK', name || '@' || version FROM seen_entity WHERE {submitted} ORDER BY id DESC LIMIT :limit)
) found ORDER BY id DESC LIMIT :limit

-- name: forget
WITH gone AS (
    DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id < :before ORDER BY id LIMIT :limit) RETURNING 1
)
SELECT count(*) AS n FROM gone
