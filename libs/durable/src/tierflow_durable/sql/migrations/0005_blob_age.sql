-- When each large value was stored, or last taken up again; noted in its first chunk, at most once a day. What nobody has taken up for longer than entities are
-- kept, and no older entity refers to, is deleted. For what was stored before, the time of this migration stands.
ALTER TABLE blob ADD COLUMN stored_at bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000000)::bigint;
CREATE INDEX blob_stored ON blob (stored_at) WHERE chunk = 0;
