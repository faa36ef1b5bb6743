-- Until when each account's lists have been read back from its provider, so that what webhooks did not tell is found once and a
-- restart goes on from there.

SET LOCAL search_path = public, pg_temp;

-- One row an account whose provider has lists. Read whole at a start and by key afterwards; changed a few times an hour.
CREATE TABLE account_catch_up (
    workspace_id      uuid        NOT NULL,
    account_id        uuid        NOT NULL,
    -- Everything before these has been read. The first is set when the account is seen first: what was before is not ours.
    messages_read_at  timestamptz NOT NULL,
    relations_read_at timestamptz,
    -- What the provider said was wrong with the account when it was asked last.
    broken            text,
    -- The account was reconnected then, and sends again when its gap has been read.
    back_at           timestamptz,
    PRIMARY KEY (workspace_id, account_id),
    FOREIGN KEY (workspace_id, account_id) REFERENCES accounts (workspace_id, id)
) WITH (fillfactor = 50);

ALTER TABLE account_catch_up ENABLE ROW LEVEL SECURITY;
