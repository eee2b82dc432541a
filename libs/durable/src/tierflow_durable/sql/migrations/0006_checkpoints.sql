-- Places in histories that somebody has named (K6, K12): what an entity was then is built again from its journal, so that a checkpoint is one small row.
CREATE TABLE checkpoint (
    entity_id uuid NOT NULL,
    name text NOT NULL,
    seq bigint NOT NULL,
    chain bytea,
    actor text NOT NULL,
    reason text NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (entity_id, name)
);
CREATE INDEX checkpoint_created ON checkpoint (created_at);
