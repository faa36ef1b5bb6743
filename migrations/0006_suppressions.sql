-- What people decide: who is not written to any more, the links by which they say so themselves, and what became of a send that
-- nobody could find out.

SET LOCAL search_path = public, pg_temp;

---------------------------------------------------------------------------------------------------------- suppressions

-- Who is not written to. Looked at when people are taken in and again by every claim, each time by the whole primary key. The
-- campaign and the prospect say where an entry comes from; it outlives both.
CREATE TABLE suppressions (
    workspace_id uuid        NOT NULL REFERENCES workspaces (id),
    kind         text        NOT NULL CHECK (kind IN ('address', 'domain', 'profile', 'phone')),
    -- As campaignd_suppression_value gives it.
    value        text        NOT NULL CHECK (length(value) BETWEEN 1 AND 500),
    id           uuid        NOT NULL,
    reason       text        NOT NULL CHECK (reason IN ('unsubscribed', 'hard_bounce', 'complaint', 'manual')),
    campaign_id  uuid,
    prospect_id  uuid,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, kind, value)
);
-- The list, newest first (ids are ordered by time), and one entry by its id.
CREATE UNIQUE INDEX suppressions_id ON suppressions (workspace_id, id);
ALTER TABLE suppressions ENABLE ROW LEVEL SECURITY;

-- The form in which two spellings of one value meet. Whatever is stored and whatever is looked for goes through this, so that they
-- agree in every locale. The program has brought it near before (domain::suppression).
CREATE FUNCTION campaignd_suppression_value(kind text, given text) RETURNS text
    LANGUAGE sql IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE
    RETURN CASE kind WHEN 'address' THEN lower(btrim(given))
                     WHEN 'domain' THEN lower(btrim(given))
                     WHEN 'profile' THEN campaignd_linkedin_slug(given)
                     WHEN 'phone' THEN campaignd_phone_digits(given) END;

-- Why somebody is not to be written to on a channel: one row an entry that holds for them, none as a rule. `recipient` is what a
-- claim stores in sends.recipient: `email`, `linkedin`, `phone`, and LinkedIn's own id of the person in `recipient_id`. An entry
-- holds for the person on every channel, but a mail address that bounced keeps nobody from being written to elsewhere.
--
-- A set-returning function of this shape is taken apart by the planner where it stands in FROM; OFFSET 0 keeps each look-up by the
-- whole key, also in a plan that was made while the table was empty.
CREATE FUNCTION campaignd_suppressed(workspace uuid, channel text, recipient jsonb) RETURNS SETOF text
    LANGUAGE sql STABLE CALLED ON NULL INPUT PARALLEL SAFE ROWS 1
BEGIN ATOMIC
    SELECT x.reason
    FROM (VALUES
        ('address', lower(btrim(recipient ->> 'email'))),
        ('domain', split_part(lower(btrim(recipient ->> 'email')), '@', -1)),
        ('profile', campaignd_linkedin_slug(recipient ->> 'linkedin')),
        ('profile', campaignd_linkedin_slug(recipient ->> 'recipient_id')),
        ('phone', campaignd_phone_digits(recipient ->> 'phone'))
    ) AS k (kind, value)
    CROSS JOIN LATERAL (
        SELECT s.reason FROM suppressions s
        WHERE s.workspace_id = workspace AND s.kind = k.kind AND s.value = k.value OFFSET 0) AS x
    WHERE x.reason <> 'hard_bounce' OR channel = 'email';
END;

-- Those who said so before there was this list.
INSERT INTO suppressions (workspace_id, kind, value, id, reason, campaign_id, prospect_id, created_at)
SELECT DISTINCT ON (c.workspace_id, k.kind, k.value)
    c.workspace_id, k.kind, k.value, gen_random_uuid(),
    CASE e.exit_reason WHEN 'bounced' THEN 'hard_bounce' ELSE 'unsubscribed' END, e.campaign_id, e.prospect_id,
    coalesce(e.updated_at, now())
FROM campaign_prospect_execution_state e
JOIN campaigns c ON c.id = e.campaign_id
JOIN campaign_prospects p ON p.id = e.prospect_id
CROSS JOIN LATERAL (VALUES
    ('address', campaignd_suppression_value('address', p.email)),
    ('profile', campaignd_suppression_value('profile', p.linkedin_url)),
    ('phone', campaignd_suppression_value('phone', p.phone))) AS k (kind, value)
WHERE (e.exit_reason = 'unsubscribed' OR (e.exit_reason = 'bounced' AND k.kind = 'address'))
    AND length(k.value) BETWEEN 1 AND 500 AND c.workspace_id IS NOT NULL
ORDER BY c.workspace_id, k.kind, k.value, e.exit_reason DESC;

---------------------------------------------------------------------------------------------------------- links

-- The key by which the links in mails are authenticated (domain::link). Made once, by whoever needs it first: changing it would
-- break every link that was sent. Kept as it is, not as a digest, because it signs.
CREATE TABLE link_secrets (
    name       text        PRIMARY KEY,
    secret     bytea       NOT NULL,
    created_at timestamptz NOT NULL
);
ALTER TABLE link_secrets ENABLE ROW LEVEL SECURITY;

---------------------------------------------------------------------------------------------------------- sends

-- The sends that a person has to decide about. A send's life changes neither column, so no claim and no outcome writes this index,
-- and their updates stay HOT.
CREATE INDEX sends_parked ON sends (workspace_id, created_at, id) WHERE parked_at IS NOT NULL;
