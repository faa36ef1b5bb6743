-- The tables that are campaignd's own. Each leads its keys with workspace_id, so that rows of two tenants can never refer
-- to one another and the tables can be distributed by workspace later. Ids are made by the program (UUIDv7). That none of these
-- names is taken by another program's table, `store::migrate` has made sure.

SET LOCAL search_path = public, pg_temp;

-- A sending identity: a LinkedIn seat, a mailbox, a WhatsApp number.
CREATE TABLE accounts (
    workspace_id        uuid        NOT NULL REFERENCES workspaces (id),
    id                  uuid        NOT NULL,
    shard               smallint    NOT NULL,
    channel             text        NOT NULL CHECK (channel IN ('linkedin', 'email', 'whatsapp')),
    provider            text        NOT NULL,
    provider_account_id text        NOT NULL,
    name                text        NOT NULL,
    status              text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'halted', 'disabled')),
    status_reason       text,
    min_gap_ms          integer     NOT NULL DEFAULT 0 CHECK (min_gap_ms >= 0),
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, provider, provider_account_id)
);

-- The gate of an account: no committed claim here, no provider call. One row an account, changed in the same statement that
-- claims a send, so that one send at a time holds even if two processes believed they own the account.
CREATE TABLE account_gate (
    workspace_id    uuid        NOT NULL,
    account_id      uuid        NOT NULL,
    shard           smallint    NOT NULL,
    in_flight       uuid,
    in_flight_since timestamptz,
    next_send_at    timestamptz,
    used            integer     NOT NULL DEFAULT 0,
    used_since      timestamptz,
    cap             integer,
    lease_epoch     bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (workspace_id, account_id),
    FOREIGN KEY (workspace_id, account_id) REFERENCES accounts (workspace_id, id)
) WITH (fillfactor = 50);

-- Immutable, numbered versions of a campaign's flow; executions are pinned to one.
CREATE TABLE flow_versions (
    workspace_id uuid        NOT NULL,
    campaign_id  uuid        NOT NULL,
    version      integer     NOT NULL CHECK (version >= 1),
    flow         jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, campaign_id, version),
    FOREIGN KEY (workspace_id, campaign_id) REFERENCES campaigns (workspace_id, id)
);

-- One row a durable change of an execution. Append-only; partitioned by month, so that old history is dropped, not deleted.
-- `detail` holds the trigger's arguments: replaying the rows of an execution gives its stored state.
CREATE TABLE transitions (
    workspace_id uuid        NOT NULL,
    execution_id uuid        NOT NULL,
    version      bigint      NOT NULL,
    at           timestamptz NOT NULL,
    flow_version integer     NOT NULL,
    trigger      text        NOT NULL,
    detail       jsonb,
    from_status  text        NOT NULL,
    to_status    text        NOT NULL,
    from_step    integer     NOT NULL,
    to_step      integer     NOT NULL,
    shard        smallint    NOT NULL,
    lease_epoch  bigint      NOT NULL,
    PRIMARY KEY (workspace_id, execution_id, version, at)
) PARTITION BY RANGE (at);
CREATE TABLE transitions_default PARTITION OF transitions DEFAULT;

-- The intent to contact somebody once. Its row is the truth about whether it happened. The id is derived from (execution,
-- step, attempt); `created_at` is in the key because the table is partitioned by it.
CREATE TABLE sends (
    workspace_id   uuid        NOT NULL,
    id             uuid        NOT NULL,
    created_at     timestamptz NOT NULL,
    execution_id   uuid        NOT NULL,
    shard          smallint    NOT NULL,
    prospect_id    uuid        NOT NULL,
    campaign_id    uuid        NOT NULL,
    flow_version   integer     NOT NULL,
    step           integer     NOT NULL,
    step_id        text        NOT NULL,
    action         text        NOT NULL,
    channel        text        NOT NULL,
    attempt        integer     NOT NULL,
    account_id     uuid        NOT NULL,
    account_shard  smallint    NOT NULL,
    status         text        NOT NULL
        CHECK (status IN ('pending', 'dispatching', 'sent', 'failed', 'unknown', 'cancelled')),
    -- Claims so far; and the lease epoch of the last one: a row in `dispatching` of an older epoch is a crash's.
    dispatch_count integer     NOT NULL DEFAULT 0,
    lease_epoch    bigint      NOT NULL DEFAULT 0,
    claimed_at     timestamptz,
    finished_at    timestamptz,
    -- Reads back so far, and when reading back was given up (then a person decides).
    settle_count   integer     NOT NULL DEFAULT 0,
    parked_at      timestamptz,
    failure_class  text,
    error          text,
    -- What was handed to the provider, written by the claim, before the call.
    recipient      jsonb,
    subject        text,
    body           text,
    -- What the provider handed back.
    receipt        jsonb,
    PRIMARY KEY (workspace_id, id, created_at),
    FOREIGN KEY (workspace_id, account_id) REFERENCES accounts (workspace_id, id)
) PARTITION BY RANGE (created_at);
CREATE TABLE sends_default PARTITION OF sends DEFAULT;

-- A channel actor's start: what is open for its account. Small, because finished sends leave it.
CREATE INDEX sends_open ON sends (account_id) WHERE status IN ('pending', 'dispatching', 'unknown');
-- The timeline of a prospect.
CREATE INDEX sends_execution ON sends (execution_id);

-- What the provider calls a person, a chat or a mail: finds the execution that a webhook is about.
CREATE TABLE identities (
    workspace_id uuid        NOT NULL,
    kind         text        NOT NULL
        CHECK (kind IN ('recipient', 'chat', 'message', 'tracking', 'rfc_message', 'thread', 'lid')),
    value        text        NOT NULL,
    account_id   uuid        NOT NULL,
    execution_id uuid        NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, kind, value, account_id, execution_id)
);
CREATE INDEX identities_execution ON identities (execution_id);

-- Incoming facts: stored before they are acknowledged, deduplicated by key, applied afterwards.
CREATE TABLE inbox (
    workspace_id uuid        NOT NULL REFERENCES workspaces (id),
    id           uuid        NOT NULL,
    shard        smallint,
    source       text        NOT NULL,
    dedupe_key   text        NOT NULL,
    headers      jsonb,
    body         bytea       NOT NULL,
    received_at  timestamptz NOT NULL,
    status       text        NOT NULL DEFAULT 'received' CHECK (status IN ('received', 'applied', 'ignored', 'failed')),
    outcome      text,
    processed_at timestamptz,
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, dedupe_key)
);
CREATE INDEX inbox_open ON inbox (received_at) WHERE status = 'received';

-- Keys of the HTTP API. Only a digest is stored: the secret is 256 random bits, so a fast hash is enough.
CREATE TABLE api_keys (
    workspace_id  uuid        NOT NULL REFERENCES workspaces (id),
    id            text        NOT NULL,
    name          text        NOT NULL,
    secret_sha256 bytea       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz,
    PRIMARY KEY (workspace_id, id),
    UNIQUE (id)
);

-- Where a provider delivers webhooks: an unguessable path segment, and a digest of the secret header. No digest: refused.
CREATE TABLE webhook_endpoints (
    workspace_id  uuid        NOT NULL REFERENCES workspaces (id),
    id            text        NOT NULL,
    provider      text        NOT NULL,
    secret_sha256 bytea,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    UNIQUE (id)
);

-- A process that serves. The identity is new at every boot, so that an older one can never be mistaken for it.
CREATE TABLE node (
    id          uuid        PRIMARY KEY,
    incarnation bigint      NOT NULL,
    lease_until timestamptz NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    draining    boolean     NOT NULL DEFAULT false,
    address     text,
    build       text        NOT NULL
) WITH (fillfactor = 50);

-- Who owns a shard. Every write of an execution is fenced by FOR SHARE on its row; a claim bumps the epoch.
CREATE TABLE shard_lease (
    shard       smallint PRIMARY KEY CHECK (shard >= 0 AND shard < 1024),
    owner       uuid,
    incarnation bigint,
    epoch       bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 25);
INSERT INTO shard_lease (shard) SELECT generate_series(0, 1023);

-- Executions that another program made and nobody has taken over yet. A statement trigger with a transition table: an upload of a
-- thousand rows is one insert here and one notification. With the owner's rights, because whoever inserts an execution need not
-- be able to see this table.
CREATE TABLE execution_arrivals (
    execution_id uuid        PRIMARY KEY,
    arrived_at   timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION campaignd_note_arrivals() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO execution_arrivals (execution_id)
    SELECT id FROM arrived WHERE version = 0
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM pg_notify('campaignd_arrivals', '');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER campaignd_arrivals AFTER INSERT ON campaign_prospect_execution_state
    REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION campaignd_note_arrivals();

-- Makes the missing month partitions (UTC months) of transitions and sends, from the month of `first`, and gives their names.
-- The default partitions are the net: a month that already has rows in one stays there.
CREATE FUNCTION campaignd_ensure_partitions(first timestamptz, months integer) RETURNS SETOF text
    LANGUAGE plpgsql SET search_path = public, pg_temp SET TimeZone = 'UTC' SET lock_timeout = '10s' AS $$
DECLARE
    parent text;
    starts timestamptz;
    made text;
BEGIN
    -- Two processes that start together take turns.
    PERFORM pg_advisory_xact_lock(hashtextextended('campaignd_ensure_partitions', 0));
    FOR starts IN
        SELECT date_trunc('month', first) + make_interval(months => n) FROM generate_series(0, months - 1) AS n
    LOOP
        FOREACH parent IN ARRAY ARRAY['transitions', 'sends'] LOOP
            made := parent || to_char(starts, '_YYYY_MM');
            CONTINUE WHEN to_regclass('public.' || made) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                               made, parent, starts, starts + interval '1 month');
                EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', made);
                RETURN NEXT made;
            EXCEPTION WHEN check_violation THEN NULL;
            END;
        END LOOP;
    END LOOP;
END
$$;

-- None of these tables is for the roles of an API gateway in front of the database: no policy, so nothing is visible.
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE account_gate ENABLE ROW LEVEL SECURITY;
ALTER TABLE flow_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE transitions ENABLE ROW LEVEL SECURITY;
ALTER TABLE sends ENABLE ROW LEVEL SECURITY;
ALTER TABLE identities ENABLE ROW LEVEL SECURITY;
ALTER TABLE inbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_endpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE node ENABLE ROW LEVEL SECURITY;
ALTER TABLE shard_lease ENABLE ROW LEVEL SECURITY;
ALTER TABLE transitions_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE sends_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE execution_arrivals ENABLE ROW LEVEL SECURITY;
-- The list of migrations, which whoever runs this has made already.
ALTER TABLE IF EXISTS campaignd_migrations ENABLE ROW LEVEL SECURITY;
