-- A second wall between tenants (I12): whoever lists goes through these views, which show nothing but the tenant (and the user, where one is said) of the session.
-- A list whose own condition was forgotten shows nothing of others. The writer and what finds rows by id stay outside: the wall costs them nothing.
-- The tables' owner is not bound by policies, and is not to be: forced policies would keep `labels @>`, which is not leakproof, from its index.
CREATE VIEW seen_entity WITH (security_barrier) AS
    SELECT * FROM entity WHERE tenant = current_setting('tierflow.tenant', true)
        AND user_id = coalesce(nullif(current_setting('tierflow.user', true), ''), user_id);
CREATE VIEW seen_dead_letter WITH (security_barrier) AS
    SELECT * FROM dead_letter WHERE tenant = current_setting('tierflow.tenant', true)
        AND user_id = coalesce(nullif(current_setting('tierflow.user', true), ''), user_id);
CREATE VIEW seen_audit WITH (security_barrier) AS
    SELECT * FROM audit WHERE tenant = current_setting('tierflow.tenant', true)
        AND user_id = coalesce(nullif(current_setting('tierflow.user', true), ''), user_id);

-- Any other role that is let in to read, a report for instance, sees the rows of the tenant (and user) that its session says, and nothing where it says none;
-- of what names no tenant it sees nothing at all.
ALTER TABLE entity ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON entity FOR SELECT USING (
    tenant = current_setting('tierflow.tenant', true) AND user_id = coalesce(nullif(current_setting('tierflow.user', true), ''), user_id));
ALTER TABLE dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON dead_letter FOR SELECT USING (
    tenant = current_setting('tierflow.tenant', true) AND user_id = coalesce(nullif(current_setting('tierflow.user', true), ''), user_id));
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON audit FOR SELECT USING (
    tenant = current_setting('tierflow.tenant', true) AND user_id = coalesce(nullif(current_setting('tierflow.user', true), ''), user_id));
ALTER TABLE request ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON request FOR SELECT USING (tenant = current_setting('tierflow.tenant', true));
ALTER TABLE journal ENABLE ROW LEVEL SECURITY;
ALTER TABLE journal_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE snapshot ENABLE ROW LEVEL SECURITY;
ALTER TABLE checkpoint ENABLE ROW LEVEL SECURITY;
ALTER TABLE blob ENABLE ROW LEVEL SECURITY;
