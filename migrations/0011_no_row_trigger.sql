-- A row trigger before an update makes Postgres lock each row before it writes it: another record of WAL and another visit of the
-- page, whether or not the trigger has anything to do. campaignd sets updated_at itself, so a table that 0001 has just made goes
-- without. The function stays, for whoever writes to the table by hand and wants it:
--     CREATE TRIGGER updated_at BEFORE UPDATE ON campaign_prospect_execution_state
--         FOR EACH ROW WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at)
--         EXECUTE FUNCTION update_execution_state_updated_at();
-- An adopted table keeps the one that it has.

SET LOCAL search_path = public, pg_temp;

DO $$
BEGIN
    IF NOT 'campaign_prospect_execution_state'
        = ANY (string_to_array(coalesce(current_setting('campaignd.found_tables', true), ''), ',')) THEN
        DROP TRIGGER IF EXISTS campaignd_updated_at ON campaign_prospect_execution_state;
    END IF;
END
$$;
