-- Event streams that this tier has met, by the moment of their creation: whether the journal is on it (rule R20). Kept here and not in processes: those who
-- knew the old stream may have died with it.
CREATE TABLE event_stream (
    created text PRIMARY KEY,
    filled_at bigint NOT NULL
);
