-- name: put_flow
INSERT INTO flow (hash, name, version, description, definition, handlers, steps, created_at)
VALUES (:hash, :name, :version, :description, :definition, :handlers::text[], :steps, :created_at)
ON CONFLICT DO NOTHING
RETURNING hash

-- name: put_version
INSERT INTO flow_version (tenant, name, version, hash, created_at)
VALUES (:tenant, :name, :version, :hash, :created_at)
ON CONFLICT DO NOTHING
RETURNING hash

-- name: get_flow
SELECT definition FROM flow WHERE hash = :hash

-- name: get_version
SELECT hash FROM flow_version WHERE tenant = :tenant AND name = :name AND version = :version

-- name: get_newest
SELECT hash FROM flow_version WHERE tenant = :tenant AND name = :name ORDER BY created_at DESC, version DESC LIMIT 1

-- name: list_flows
SELECT v.name, v.version, v.hash, f.description, f.handlers, f.steps
FROM seen_flow_version v JOIN flow f USING (hash)
WHERE v.tenant = :tenant AND (:only::text = '' OR v.name = :only::text) AND (v.name, v.version) > (:after_name, :after_version)
ORDER BY v.name, v.version LIMIT :limit
