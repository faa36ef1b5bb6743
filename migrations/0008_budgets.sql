-- How much an account may do (domain::budget).

SET LOCAL search_path = public, pg_temp;

-- As domain::budget reads it; NULL: nobody has said, and only min_gap_ms holds.
ALTER TABLE accounts ADD COLUMN limits jsonb;

-- What the account has done in the last seven days, written by each claim of an account that has limits; and what the provider has
-- said about its quotas: kind of action -> microseconds since 1970, written by outcomes, so that they need not know the history.
ALTER TABLE account_gate
    ADD COLUMN history jsonb,
    ADD COLUMN rests jsonb;

-- Gates are small and written all the time.
ALTER TABLE account_gate SET (fillfactor = 50);

-- Of two campaigns that want the same account's next slot, the one with the higher number goes first.
ALTER TABLE campaigns ADD COLUMN IF NOT EXISTS send_priority integer NOT NULL DEFAULT 0;
