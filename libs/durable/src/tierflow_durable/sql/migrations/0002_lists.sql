-- What lists ask for beside users, flows, parents and traces. Neither index costs a successful execution without labels anything.

-- What did not go well, by its outcome: the state's name is in no index, so that changing it moves none (lesson 39).
CREATE INDEX entity_unsuccessful ON entity (tenant, id) WHERE outcome IN ('FAILURE', 'CANCELLED');

CREATE INDEX entity_labels ON entity USING gin (labels jsonb_path_ops) WITH (fastupdate = off) WHERE labels <> '{}';
