-- What failed beyond automatic help, until somebody has dealt with it (K4): a run whose compensation failed, one that its flow wants to be looked at, events that
-- JetStream will never take.
CREATE TABLE dead_letter (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    tenant text NOT NULL,
    user_id text NOT NULL,
    entity_id uuid NOT NULL,
    generation integer NOT NULL,
    swarm_id uuid,
    name text NOT NULL,
    version text NOT NULL,
    trace_id text NOT NULL,
    failure bytea NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    state text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    retried_as uuid,
    created_at bigint NOT NULL,
    resolved_at bigint,
    UNIQUE (entity_id, generation, kind, first_seq)
);
CREATE INDEX dead_letter_tenant ON dead_letter (tenant, id);
CREATE INDEX dead_letter_open ON dead_letter (tenant, id) WHERE state = 'OPEN';
CREATE INDEX dead_letter_created ON dead_letter (created_at);
