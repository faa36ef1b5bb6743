-- The tables of the system that campaignd replaces, made where they are missing and adopted where they are there.
--
-- Runs on an empty database and on one in production, with rows in mid-flow. Nothing is dropped or renamed: missing columns are
-- added, time columns without a zone are taken as UTC, rows keep their values. `store::migrate` has looked at the database
-- before (types, views, privileges), so that what cannot be adopted is refused before anything is changed.

SET LOCAL search_path = public, pg_temp;
-- With this zone, timestamp -> timestamptz means "it was UTC", and Postgres need not rewrite the table for it.
SET LOCAL TimeZone = 'UTC';
SET LOCAL client_min_messages = warning;

-- Which tables are ours to protect further down: those that were not there.
SELECT set_config('campaignd.made_' || name, (to_regclass('public.' || name) IS NULL)::text, true)
FROM unnest(ARRAY['workspaces', 'workspace_members', 'campaigns', 'campaign_prospects',
                  'campaign_prospect_execution_state']) AS name;

-- The virtual shard of an id: its low ten bits. The same as `domain::id::shard_of`.
CREATE OR REPLACE FUNCTION campaignd_shard(id uuid) RETURNS smallint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (((get_byte(uuid_send(id), 14) & 3) << 8) | get_byte(uuid_send(id), 15))::smallint;

-- Makes time columns without a zone timestamptz, taking what they hold as UTC. A default that reads the clock stays one.
CREATE FUNCTION pg_temp.to_timestamptz(target regclass, columns text[]) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT a.attname, pg_get_expr(d.adbin, d.adrelid) AS preset
        FROM pg_attribute a
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = target AND a.attname = ANY (columns) AND a.attnum > 0 AND NOT a.attisdropped
          AND a.atttypid = 'timestamp'::regtype
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT, ALTER COLUMN %I TYPE timestamptz',
                       target, c.attname, c.attname);
        IF c.preset ~* '(now\(\)|_timestamp|localtimestamp)' THEN
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT now()', target, c.attname);
        ELSIF c.preset IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT ((%s)::timestamp AT TIME ZONE ''UTC'')',
                           target, c.attname, c.preset);
        END IF;
    END LOOP;
END
$$;

-- Sets a default where a column has none.
CREATE FUNCTION pg_temp.preset(target regclass, wanted text, expression text) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute
               WHERE attrelid = target AND attname = wanted AND NOT atthasdef AND attidentity = '') THEN
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', target, wanted, expression);
    END IF;
END
$$;

---------------------------------------------------------------------------------------------------------- tenants

CREATE TABLE IF NOT EXISTS workspaces (
    id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE workspaces ADD COLUMN IF NOT EXISTS name text;

CREATE TABLE IF NOT EXISTS workspace_members (
    workspace_id uuid NOT NULL REFERENCES workspaces (id),
    user_id      uuid NOT NULL,
    PRIMARY KEY (workspace_id, user_id)
);
ALTER TABLE workspace_members
    ADD COLUMN IF NOT EXISTS workspace_id uuid,
    ADD COLUMN IF NOT EXISTS user_id uuid;

-- The default workspace. An adopted `workspaces` may demand columns that we know nothing of: then it has to be made by hand, but
-- only if something below belongs to it.
DO $$
BEGIN
    INSERT INTO workspaces (id, name) VALUES ('00000000-0000-7000-8000-000000000001', 'default')
    ON CONFLICT (id) DO NOTHING;
EXCEPTION WHEN not_null_violation OR check_violation OR foreign_key_violation OR unique_violation THEN
    RAISE WARNING 'workspaces takes no default workspace: %', SQLERRM;
END
$$;

---------------------------------------------------------------------------------------------------------- campaigns

CREATE TABLE IF NOT EXISTS campaigns (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id  uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES workspaces (id),
    name          text        NOT NULL DEFAULT '',
    status        text        NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'active', 'paused', 'completed')),
    flow_settings jsonb       NOT NULL DEFAULT '{}',
    -- The version that new executions are pinned to; NULL until the flow was first given a number.
    flow_version  integer,
    -- The accounts it may use; NULL: every account of the workspace.
    accounts      uuid[],
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- Adopted campaigns were running: they stay active, while those made from now on begin as drafts.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = 'campaigns'::regclass AND attname = 'status' AND NOT attisdropped) THEN
        ALTER TABLE campaigns ADD COLUMN status text NOT NULL DEFAULT 'active'
            CHECK (status IN ('draft', 'active', 'paused', 'completed'));
        ALTER TABLE campaigns ALTER COLUMN status SET DEFAULT 'draft';
    END IF;
END
$$;
ALTER TABLE campaigns
    ADD COLUMN IF NOT EXISTS workspace_id  uuid DEFAULT '00000000-0000-7000-8000-000000000001',
    ADD COLUMN IF NOT EXISTS name          text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS flow_settings jsonb DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS flow_version  integer,
    ADD COLUMN IF NOT EXISTS accounts      uuid[],
    ADD COLUMN IF NOT EXISTS created_at    timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS updated_at    timestamptz NOT NULL DEFAULT now();
SELECT pg_temp.to_timestamptz('campaigns', ARRAY['created_at', 'updated_at']);
SELECT pg_temp.preset('campaigns', 'id', 'gen_random_uuid()');

DO $$
BEGIN
    -- A program that names no workspace means the default one.
    IF EXISTS (SELECT FROM pg_attribute
               WHERE attrelid = 'campaigns'::regclass AND attname = 'workspace_id' AND NOT attnotnull) THEN
        PERFORM pg_temp.preset('campaigns', 'workspace_id', quote_literal('00000000-0000-7000-8000-000000000001'));
        UPDATE campaigns SET workspace_id = '00000000-0000-7000-8000-000000000001' WHERE workspace_id IS NULL;
    END IF;
    -- Campaigns that name workspaces of a table that did not exist until now.
    IF current_setting('campaignd.made_workspaces')::boolean THEN
        INSERT INTO workspaces (id, name)
        SELECT DISTINCT workspace_id, workspace_id::text FROM campaigns WHERE workspace_id IS NOT NULL
        ON CONFLICT (id) DO NOTHING;
    END IF;
    IF EXISTS (SELECT FROM campaigns c
               WHERE c.workspace_id IS NOT NULL AND NOT EXISTS (SELECT FROM workspaces w WHERE w.id = c.workspace_id)) THEN
        RAISE EXCEPTION 'campaigns refer to workspaces that do not exist'
            USING HINT = 'insert the missing rows into workspaces (the default one has the id '
                         '00000000-0000-7000-8000-000000000001), then migrate again';
    END IF;
END
$$;
-- What our tables refer to, so that a flow can never hang on another tenant's campaign.
CREATE UNIQUE INDEX IF NOT EXISTS campaigns_workspace_id_id_key ON campaigns (workspace_id, id);

---------------------------------------------------------------------------------------------------------- prospects

CREATE TABLE IF NOT EXISTS campaign_prospects (
    id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id  uuid        NOT NULL REFERENCES campaigns (id),
    workspace_id uuid        REFERENCES workspaces (id),
    first_name   text,
    last_name    text,
    email        text,
    phone        text,
    linkedin_url text,
    company_name text,
    title        text,
    data         jsonb       NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE campaign_prospects
    ADD COLUMN IF NOT EXISTS workspace_id uuid,
    ADD COLUMN IF NOT EXISTS first_name   text,
    ADD COLUMN IF NOT EXISTS last_name    text,
    ADD COLUMN IF NOT EXISTS email        text,
    ADD COLUMN IF NOT EXISTS phone        text,
    ADD COLUMN IF NOT EXISTS linkedin_url text,
    ADD COLUMN IF NOT EXISTS company_name text,
    ADD COLUMN IF NOT EXISTS title        text,
    ADD COLUMN IF NOT EXISTS data         jsonb DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS created_at   timestamptz NOT NULL DEFAULT now();
SELECT pg_temp.to_timestamptz('campaign_prospects', ARRAY['created_at']);
SELECT pg_temp.preset('campaign_prospects', 'id', 'gen_random_uuid()');

-- Webhooks name a person by address, profile or number; these make two spellings of one meet, in SQL and in indexes.

-- The profile a LinkedIn URL is about: the path segment after `/in/`, lower-cased, without query and slash. A bare slug maps
-- to itself; the page of a company, or anything else with a slash or a colon, to NULL. Member ids (`ACoAA..`) keep their case,
-- because it carries meaning.
CREATE OR REPLACE FUNCTION campaignd_linkedin_slug(url text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT CASE WHEN slug ~ '^AC[ow][A-Za-z0-9_-]{10,}$' THEN slug
                        WHEN slug !~ '[/:]' THEN nullif(lower(slug), '') END
            FROM (SELECT regexp_replace(rtrim(regexp_replace(btrim(url), '[?#].*$', ''), '/'),
                                        '^.*/in/+([^/]*).*$', '\1', 'i') AS slug) AS s);

-- The digits of a phone number, without punctuation, leading plus or double zero.
CREATE OR REPLACE FUNCTION campaignd_phone_digits(phone text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN nullif(regexp_replace(regexp_replace(phone, '[^0-9]', '', 'g'), '^00', ''), '');

CREATE INDEX IF NOT EXISTS campaign_prospects_campaign ON campaign_prospects (campaign_id);
CREATE INDEX IF NOT EXISTS campaign_prospects_email ON campaign_prospects (lower(email));
CREATE INDEX IF NOT EXISTS campaign_prospects_linkedin ON campaign_prospects (campaignd_linkedin_slug(linkedin_url));
CREATE INDEX IF NOT EXISTS campaign_prospects_phone ON campaign_prospects (campaignd_phone_digits(phone));

---------------------------------------------------------------------------------------------------------- executions

-- The seed's columns, in the seed's order, with the seed's defaults; then ours.
CREATE TABLE IF NOT EXISTS campaign_prospect_execution_state (
    id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id         uuid NOT NULL REFERENCES campaigns (id),
    prospect_id         uuid NOT NULL REFERENCES campaign_prospects (id),
    current_step        integer DEFAULT 1,
    status              text DEFAULT 'pending'
        CHECK (status IN ('pending', 'executing', 'waiting_trigger', 'completed', 'failed', 'paused')),
    completed_steps     integer[],
    failed_steps        integer[],
    skipped_steps       integer[],
    linkedin_state      jsonb,
    email_state         jsonb,
    whatsapp_state      jsonb,
    waiting_for_trigger text,
    trigger_check_count integer,
    trigger_max_checks  integer DEFAULT 168,
    next_check_at       timestamptz,
    n8n_execution_id    text,
    last_executed_at    timestamptz,
    next_execution_at   timestamptz,
    last_error          text,
    error_count         integer,
    UNIQUE (campaign_id, prospect_id)
);
SELECT pg_temp.to_timestamptz('campaign_prospect_execution_state',
    ARRAY['next_check_at', 'last_executed_at', 'next_execution_at', 'created_at', 'updated_at']);
ALTER TABLE campaign_prospect_execution_state
    ADD COLUMN IF NOT EXISTS current_step        integer DEFAULT 1,
    ADD COLUMN IF NOT EXISTS status              text DEFAULT 'pending',
    ADD COLUMN IF NOT EXISTS completed_steps     integer[],
    ADD COLUMN IF NOT EXISTS failed_steps        integer[],
    ADD COLUMN IF NOT EXISTS skipped_steps       integer[],
    ADD COLUMN IF NOT EXISTS linkedin_state      jsonb,
    ADD COLUMN IF NOT EXISTS email_state         jsonb,
    ADD COLUMN IF NOT EXISTS whatsapp_state      jsonb,
    ADD COLUMN IF NOT EXISTS waiting_for_trigger text,
    ADD COLUMN IF NOT EXISTS trigger_check_count integer,
    ADD COLUMN IF NOT EXISTS trigger_max_checks  integer DEFAULT 168,
    ADD COLUMN IF NOT EXISTS next_check_at       timestamptz,
    ADD COLUMN IF NOT EXISTS n8n_execution_id    text,
    ADD COLUMN IF NOT EXISTS last_executed_at    timestamptz,
    ADD COLUMN IF NOT EXISTS next_execution_at   timestamptz,
    ADD COLUMN IF NOT EXISTS last_error          text,
    ADD COLUMN IF NOT EXISTS error_count         integer,
    ADD COLUMN IF NOT EXISTS workspace_id        uuid,
    ADD COLUMN IF NOT EXISTS flow_version        integer,
    ADD COLUMN IF NOT EXISTS step_id             text,
    -- +1 per transition. 0: made by another program and not taken over yet.
    ADD COLUMN IF NOT EXISTS version             bigint NOT NULL DEFAULT 0,
    -- Spelled out instead of calling campaignd_shard, so that restoring a dump needs no function first.
    ADD COLUMN IF NOT EXISTS shard               smallint GENERATED ALWAYS AS
        ((((get_byte(uuid_send(id), 14) & 3) << 8) | get_byte(uuid_send(id), 15))::smallint) STORED,
    ADD COLUMN IF NOT EXISTS lease_epoch         bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS exit_reason         text,
    ADD COLUMN IF NOT EXISTS paused_status       text,
    ADD COLUMN IF NOT EXISTS attempt             integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS send_sequence       integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS open_send           uuid,
    ADD COLUMN IF NOT EXISTS channel_accounts    jsonb,
    ADD COLUMN IF NOT EXISTS created_at          timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS updated_at          timestamptz NOT NULL DEFAULT now(),
    -- Room for HOT updates: most transitions change no indexed column.
    SET (fillfactor = 80);
SELECT pg_temp.preset('campaign_prospect_execution_state', name, expression)
FROM (VALUES ('id', 'gen_random_uuid()'), ('current_step', '1'), ('status', quote_literal('pending')),
             ('trigger_max_checks', '168'), ('created_at', 'now()'), ('updated_at', 'now()')) AS p (name, expression);

-- An index or key that says the same under another name is as good.
DO $$
DECLARE
    state constant regclass := 'campaign_prospect_execution_state';
    wanted record;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = state AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 2
          AND i.indexprs IS NULL
          AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
               WHERE a.attrelid = state AND a.attnum = ANY (i.indkey)) = ARRAY['campaign_id', 'prospect_id']) THEN
        ALTER TABLE campaign_prospect_execution_state ADD UNIQUE (campaign_id, prospect_id);
    END IF;
    FOR wanted IN
        SELECT * FROM (VALUES
            ('execution_state_campaign', 'campaign_id', NULL, NULL),
            ('execution_state_prospect', 'prospect_id', NULL, NULL),
            ('execution_state_due', 'next_execution_at', 'status IN (''pending'', ''waiting_trigger'')',
             '(status = ANY (ARRAY[''pending''::text, ''waiting_trigger''::text]))'),
            ('execution_state_check', 'next_check_at', 'status = ''waiting_trigger''',
             '(status = ''waiting_trigger''::text)')
        ) AS w (name, col, predicate, stored)
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
            WHERE i.indrelid = state AND i.indisvalid AND m.amname = 'btree' AND i.indnatts = 1
              AND pg_get_indexdef(i.indexrelid, 1, true) = wanted.col
              AND pg_get_expr(i.indpred, i.indrelid) IS NOT DISTINCT FROM wanted.stored) THEN
            EXECUTE format('CREATE INDEX %I ON %s (%I) %s', wanted.name, state, wanted.col,
                           'WHERE ' || wanted.predicate);
        END IF;
    END LOOP;
END
$$;

---------------------------------------------------------------------------------------------------------- functions

-- Creates a function, or replaces one that is there. Where another program has made it, callers may pass arguments by name: the
-- names stay. A return type cannot be replaced: then the old function gives way.
CREATE FUNCTION pg_temp.define(wanted text, types text, names text[], template text) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    old record;
    statement text;
BEGIN
    SELECT p.oid::regprocedure AS signature, p.proargnames[1:p.pronargs] AS names INTO old
    FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.proname = wanted AND oidvectortypes(p.proargtypes) = types;
    IF FOUND AND cardinality(old.names) = cardinality(names) AND NOT '' = ANY (old.names) THEN
        names := old.names;
    END IF;
    statement := format(template, VARIADIC names);
    BEGIN
        EXECUTE statement;
    EXCEPTION WHEN invalid_function_definition OR datatype_mismatch THEN
        EXECUTE 'DROP FUNCTION ' || old.signature;
        EXECUTE statement;
    END;
END
$$;

-- Starts the execution of a prospect, due at once, and gives its id. Called again, it gives the same id and changes nothing.
SELECT pg_temp.define('initialize_execution_state', 'uuid, uuid', ARRAY['campaign_id', 'prospect_id'], $define$
CREATE OR REPLACE FUNCTION initialize_execution_state(%I uuid, %I uuid) RETURNS uuid
    LANGUAGE plpgsql SET search_path = public, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    v_campaign uuid;
    v_workspace uuid;
    v_id uuid;
BEGIN
    SELECT p.campaign_id INTO v_campaign FROM campaign_prospects p WHERE p.id = $2;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'prospect %% does not exist', $2 USING ERRCODE = 'foreign_key_violation',
            HINT = 'insert it into campaign_prospects first';
    END IF;
    IF v_campaign IS DISTINCT FROM $1 THEN
        RAISE EXCEPTION 'prospect %% is not in campaign %%', $2, $1 USING ERRCODE = 'foreign_key_violation',
            HINT = 'pass the campaign_id of its row in campaign_prospects';
    END IF;
    SELECT coalesce(c.workspace_id, '00000000-0000-7000-8000-000000000001') INTO v_workspace
    FROM campaigns c WHERE c.id = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'campaign %% does not exist', $1 USING ERRCODE = 'foreign_key_violation';
    END IF;
    INSERT INTO campaign_prospect_execution_state
        (campaign_id, prospect_id, workspace_id, current_step, status, completed_steps, failed_steps, skipped_steps,
         trigger_check_count, error_count, next_execution_at)
    VALUES ($1, $2, v_workspace, 1, 'pending', '{}', '{}', '{}', 0, 0, now())
    ON CONFLICT (campaign_id, prospect_id) DO NOTHING
    RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        SELECT s.id INTO v_id FROM campaign_prospect_execution_state s WHERE s.campaign_id = $1 AND s.prospect_id = $2;
    END IF;
    RETURN v_id;
END
$body$
$define$);

-- What is due, oldest first. For readers: campaignd itself does not poll it.
SELECT pg_temp.define('get_next_pending_executions', 'integer', ARRAY['limit'], $define$
CREATE OR REPLACE FUNCTION get_next_pending_executions(%I integer DEFAULT 10)
    RETURNS SETOF campaign_prospect_execution_state
    LANGUAGE sql STABLE SET search_path = public, pg_temp AS $body$
    SELECT s.* FROM campaign_prospect_execution_state s
    WHERE s.status IN ('pending', 'waiting_trigger') AND s.next_execution_at <= now()
    ORDER BY s.next_execution_at
    LIMIT $1
$body$
$define$);

-- Keeps updated_at true for writers that do not set it. campaignd sets it, from its own clock, and then this does not run.
DO $do$
BEGIN
    IF EXISTS (
        SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = 'campaign_prospect_execution_state'::regclass AND NOT t.tgisinternal
          AND t.tgtype & 19 = 19 -- a row trigger before update
          AND p.proname LIKE '%execution%' AND p.prosrc ILIKE '%updated_at%') THEN
        RETURN; -- the adopted table has its own
    END IF;
    CREATE OR REPLACE FUNCTION update_execution_state_updated_at() RETURNS trigger
        LANGUAGE plpgsql SET search_path = public, pg_temp AS $body$
    BEGIN
        NEW.updated_at := now();
        RETURN NEW;
    END
    $body$;
    CREATE TRIGGER campaignd_updated_at BEFORE UPDATE ON campaign_prospect_execution_state
        FOR EACH ROW WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at)
        EXECUTE FUNCTION update_execution_state_updated_at();
END
$do$;

---------------------------------------------------------------------------------------------------------- who sees what

-- The roles that an API gateway in front of the database (Supabase's PostgREST) takes on. Where we may not make them, the
-- policies below are for everybody, under the condition that the same gateway's claims name the user or the role.
DO $$
BEGIN
    BEGIN
        CREATE ROLE authenticated NOLOGIN NOINHERIT;
    EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
    END;
    BEGIN
        CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN
            BEGIN
                CREATE ROLE service_role NOLOGIN NOINHERIT;
            EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
            END;
    END;
END
$$;

-- The user of this request, NULL without one. On Supabase its own function answers; elsewhere the claims, or app.user_id.
DO $do$
BEGIN
    IF to_regprocedure('auth.uid()') IS NOT NULL THEN
        CREATE OR REPLACE FUNCTION campaignd_current_user_id() RETURNS uuid
            LANGUAGE sql STABLE SET search_path = public, pg_temp AS 'SELECT auth.uid()';
    ELSE
        CREATE OR REPLACE FUNCTION campaignd_current_user_id() RETURNS uuid
            LANGUAGE sql STABLE SET search_path = public, pg_temp AS $body$
            SELECT coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                            nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub',
                            nullif(current_setting('app.user_id', true), ''))::uuid
        $body$;
    END IF;
END
$do$;

CREATE OR REPLACE FUNCTION campaignd_current_role() RETURNS text
    LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
                    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
$$;

-- The workspaces of the current user, and their campaigns. With the owner's rights, because members need not be able to read the
-- tables that say so; a caller learns about itself only.
DO $do$
BEGIN
    EXECUTE format($f$
        CREATE OR REPLACE FUNCTION campaignd_my_workspaces() RETURNS SETOF uuid
            LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $body$
            SELECT m.workspace_id FROM workspace_members m WHERE m.user_id = campaignd_current_user_id()%s
        $body$ $f$,
        CASE WHEN (SELECT atttypid FROM pg_attribute
                   WHERE attrelid = 'workspace_members'::regclass AND attname = 'user_id') = 'uuid'::regtype
             THEN '' ELSE '::text' END);
END
$do$;
CREATE OR REPLACE FUNCTION campaignd_my_campaigns() RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT c.id FROM campaigns c WHERE c.workspace_id IN (SELECT campaignd_my_workspaces())
$$;

-- Two policies a table: members of the workspace see it, the service role does everything. On the execution table always; on the
-- others only if we made them: an adopted table's owner has decided.
DO $$
DECLARE
    t record;
    members text := CASE WHEN to_regrole('authenticated') IS NULL THEN 'public' ELSE 'authenticated' END;
    service text := CASE WHEN to_regrole('service_role') IS NULL THEN 'public' ELSE 'service_role' END;
    served text := CASE WHEN to_regrole('service_role') IS NULL
                        THEN '(SELECT campaignd_current_role()) = ''service_role''' ELSE 'true' END;
BEGIN
    FOR t IN
        SELECT * FROM (VALUES
            ('campaign_prospect_execution_state', 'execution_state', true,
             'workspace_id IN (SELECT campaignd_my_workspaces())'
             ' OR (workspace_id IS NULL AND campaign_id IN (SELECT campaignd_my_campaigns()))'),
            ('campaigns', 'campaigns', false, 'workspace_id IN (SELECT campaignd_my_workspaces())'),
            ('campaign_prospects', 'campaign_prospects', false, 'campaign_id IN (SELECT campaignd_my_campaigns())'),
            ('workspaces', 'workspaces', false, 'id IN (SELECT campaignd_my_workspaces())'),
            ('workspace_members', 'workspace_members', false, 'workspace_id IN (SELECT campaignd_my_workspaces())')
        ) AS v (name, prefix, always, visible)
    LOOP
        IF NOT (t.always OR current_setting('campaignd.made_' || t.name)::boolean) THEN
            CONTINUE;
        END IF;
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t.name);
        EXECUTE format('DROP POLICY IF EXISTS %I ON %I', t.prefix || '_members', t.name);
        EXECUTE format('CREATE POLICY %I ON %I FOR SELECT TO %s USING (%s)',
                       t.prefix || '_members', t.name, members, t.visible);
        EXECUTE format('DROP POLICY IF EXISTS %I ON %I', t.prefix || '_service', t.name);
        EXECUTE format('CREATE POLICY %I ON %I FOR ALL TO %s USING (%s) WITH CHECK (%s)',
                       t.prefix || '_service', t.name, service, served, served);
        IF members <> 'public' THEN
            EXECUTE format('GRANT SELECT ON %I TO %s', t.name, members);
        END IF;
        IF service <> 'public' THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO %s', t.name, service);
        END IF;
    END LOOP;
    -- The schema may be somebody else's: then its owner has granted or not, and this is a warning at most.
    BEGIN
        IF members <> 'public' THEN EXECUTE 'GRANT USAGE ON SCHEMA public TO ' || members; END IF;
        IF service <> 'public' THEN EXECUTE 'GRANT USAGE ON SCHEMA public TO ' || service; END IF;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
END
$$;
