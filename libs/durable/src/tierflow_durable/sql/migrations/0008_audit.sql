-- Who asked for which change, before it is made, and what came of it (I14). New executions are not in it: their own rows say who submitted them.
CREATE TABLE audit (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    user_id text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    command_id text NOT NULL,
    reason text NOT NULL,
    code text NOT NULL,
    result text NOT NULL
);
CREATE INDEX audit_tenant ON audit (tenant, id);
CREATE INDEX audit_user ON audit (tenant, user_id, id);
CREATE INDEX audit_subject ON audit (tenant, subject, id);
