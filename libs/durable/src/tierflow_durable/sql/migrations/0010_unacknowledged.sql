-- What has ended and is not yet acknowledged by the tier above (rule R28), in a narrow table of its own. As a column of the entity's row each acknowledgement made
-- a new version of the row in every index, and was looked for among all that were not acknowledged.
CREATE TABLE unacknowledged (
    id uuid PRIMARY KEY,
    generation integer NOT NULL,
    ended_at bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_insert_threshold = -1);
INSERT INTO unacknowledged (id, generation, ended_at) SELECT id, generation, ended_at FROM entity WHERE unacknowledged AND ended_at IS NOT NULL;
ALTER TABLE unacknowledged ENABLE ROW LEVEL SECURITY;

DROP VIEW seen_entity;
ALTER TABLE entity DROP COLUMN unacknowledged;
CREATE VIEW seen_entity WITH (security_barrier) AS
    SELECT * FROM entity WHERE tenant = current_setting('tierflow.tenant', true)
        AND user_id = coalesce(nullif(current_setting('tierflow.user', true), ''), user_id);
