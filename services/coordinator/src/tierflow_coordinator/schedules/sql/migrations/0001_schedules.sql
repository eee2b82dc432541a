-- A tenant has one schedule of a name at a time: whoever comes second loses, like the loser of any race to create (rule R3).
CREATE UNIQUE INDEX entity_schedule ON entity (tenant, name) WHERE ended_at IS NULL;
