-- Flows by their content: immutable. The definition is canonical JSON.
CREATE TABLE flow (
    hash text PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    description text NOT NULL,
    definition text NOT NULL,
    handlers text[] NOT NULL,
    steps integer NOT NULL,
    created_at bigint NOT NULL
);

-- Registered names and versions.
CREATE TABLE flow_version (
    tenant text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    hash text NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (tenant, name, version)
);
CREATE INDEX flow_version_newest ON flow_version (tenant, name, created_at DESC);
