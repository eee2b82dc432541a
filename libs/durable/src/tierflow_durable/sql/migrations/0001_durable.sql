-- The tables of one stateful tier. {schema} is the tier's schema. Moments are microseconds since the epoch, by the database's clock.
-- No foreign keys and no triggers: the writer's statement is the only one that writes on the hot path, and it keeps them consistent.

-- One row per process, beaten every few seconds (rule R9). Apart from the fence row, so that a heartbeat never waits for a group commit.
CREATE TABLE instance (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    address text NOT NULL,
    started_at bigint NOT NULL,
    lease_until bigint NOT NULL,
    backend_pid integer NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- Whether a process may still write (rules R1, R11). No row means fenced.
CREATE TABLE fence (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    fenced boolean NOT NULL DEFAULT false,
    fenced_by uuid,
    fenced_at bigint
);
CREATE INDEX fence_name ON fence (name) WHERE NOT fenced;

-- How far each process's journal rows are acknowledged by JetStream (rule R19).
CREATE TABLE watermark (
    id uuid PRIMARY KEY,
    position bigint NOT NULL,
    relayer uuid
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- One row per swarm or run: what listing, waking and ownership need, touched only when that changes (rule R6).
CREATE TABLE entity (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    user_id text NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    parent_id uuid,
    trace_id text NOT NULL,
    correlation_id text NOT NULL,
    labels jsonb NOT NULL,
    outcome text NOT NULL,
    generation integer NOT NULL,
    created_at bigint NOT NULL,
    ended_at bigint,
    seq bigint NOT NULL,
    owner uuid,
    wake_at bigint,
    unacknowledged boolean NOT NULL,
    adoptions smallint NOT NULL DEFAULT 0
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX entity_user ON entity (tenant, user_id, id);
CREATE INDEX entity_name ON entity (tenant, name, id);
CREATE INDEX entity_parent ON entity (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX entity_trace ON entity (trace_id) WHERE trace_id <> '';
CREATE INDEX entity_owner ON entity (owner) WHERE owner IS NOT NULL;
CREATE INDEX entity_wake ON entity (wake_at) WHERE owner IS NULL AND wake_at IS NOT NULL;
CREATE INDEX entity_active ON entity (tenant, id) WHERE ended_at IS NULL;
CREATE INDEX entity_unacknowledged ON entity (id) WHERE unacknowledged;

-- The truth. A row holds the events of one entity that one commit added: seq is the last of them.
CREATE TABLE journal (
    entity_id uuid NOT NULL,
    seq bigint NOT NULL,
    first_seq bigint NOT NULL,
    instance uuid NOT NULL,
    position bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    data bytea NOT NULL,
    PRIMARY KEY (entity_id, seq)
) PARTITION BY RANGE (entity_id);
CREATE INDEX journal_position ON journal USING brin (position) WITH (pages_per_range = 16, autosummarize = on);
CREATE TABLE journal_default PARTITION OF journal DEFAULT
    WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_freeze_min_age = 0);

-- States of long-lived entities, so that loading need not read the whole journal.
CREATE TABLE snapshot (
    entity_id uuid PRIMARY KEY,
    seq bigint NOT NULL,
    data bytea NOT NULL
);

-- Request ids of clients (rule R8), kept for at least seven days.
CREATE TABLE request (
    tenant text NOT NULL,
    request_id text NOT NULL,
    body_hash bytea NOT NULL,
    entity_id uuid NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (tenant, request_id)
);
CREATE INDEX request_created ON request USING brin (created_at);

-- Large values by their content (rule R33), in chunks.
CREATE TABLE blob (
    sha256 bytea NOT NULL,
    chunk integer NOT NULL,
    chunks integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (sha256, chunk)
);

-- lz4 where the server was built with it (the embedded one was not); else Postgres's own compression.
DO $$
BEGIN
    ALTER TABLE journal ALTER COLUMN data SET COMPRESSION lz4;
    ALTER TABLE snapshot ALTER COLUMN data SET COMPRESSION lz4;
    ALTER TABLE blob ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$;
