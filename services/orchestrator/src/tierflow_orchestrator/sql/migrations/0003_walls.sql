-- As in the durable library's 0009: lists of flows go through the view, other roles through the policy.
CREATE VIEW seen_flow_version WITH (security_barrier) AS
    SELECT * FROM flow_version WHERE tenant = current_setting('tierflow.tenant', true);
ALTER TABLE flow_version ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON flow_version FOR SELECT USING (tenant = current_setting('tierflow.tenant', true));
ALTER TABLE flow ENABLE ROW LEVEL SECURITY;
ALTER TABLE step_cache ENABLE ROW LEVEL SECURITY;
