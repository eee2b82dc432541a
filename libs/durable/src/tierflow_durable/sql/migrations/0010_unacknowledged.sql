-- What has ended and is not yet acknowledged by the tier above (rule R28), in a narrow table of its own. As a column of the entity's row each acknowledgement made
-- a new version of the row in every index, and was looked for among all that were not acknowledged.
CREATE TABLE unacknowledged (
    id uuid PRIMARY KEY,
    generation integer NOT NULL,
    ended_at bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_insert_threshold = -1);
ALTER TABLE unacknowledged ENABLE ROW LEVEL SECURITY;
INSERT INTO unacknowledged (id, generation, ended_at) SELECT id, generation, ended_at FROM entity WHERE unacknowledged AND ended_at IS NOT NULL;

-- The column stays for processes of the version before. What they write there is taken into the table by whoever looks for what is not acknowledged.
ALTER TABLE entity ALTER COLUMN unacknowledged SET DEFAULT false;
