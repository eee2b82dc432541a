-- Each journal row holds a hash over the row before it and its own data, so that a change of history shows (S12). Rows of before have none.
ALTER TABLE journal ADD COLUMN chain bytea;

-- A snapshot holds the hash of the history that it stands for, and one over itself: one that does not match is not used (K6).
ALTER TABLE snapshot ADD COLUMN chain bytea;
ALTER TABLE snapshot ADD COLUMN checksum bytea;
