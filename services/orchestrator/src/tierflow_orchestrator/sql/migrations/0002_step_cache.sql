-- Results of steps by their keys, for steps of the same key to take over. Whatever is here may be lost. Large results are named, not kept.
CREATE TABLE step_cache (
    tenant text NOT NULL,
    key_hash text NOT NULL,
    output text,
    sha256 text,
    size bigint NOT NULL,
    run_id text NOT NULL,
    step_id text NOT NULL,
    stored_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (tenant, key_hash)
);
CREATE INDEX step_cache_expiry ON step_cache (expires_at);
