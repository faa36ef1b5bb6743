-- Two look-ups made cheap: the sends of a time, for people who page through them, and who is not written to, for each claim.

SET LOCAL search_path = public, pg_temp;

---------------------------------------------------------------------------------------------------------- sends by time

-- GET /v1/sends reads back from now in stretches of time that grow. Rows are appended in the order of their time, so a few
-- bounds for every thousand rows find a stretch; they add a byte to what a send writes, where a B-tree entry adds a hundred.
CREATE INDEX sends_time ON sends USING brin (created_at) WITH (autosummarize = on);

---------------------------------------------------------------------------------------------------------- suppressions

-- The claim's one probe, by every value that a person may be on the list with. Not led by the workspace: the plan of a claim is made
-- once, perhaps while the table is empty, and must have no second way to choose (the key's first column) that would walk a
-- workspace's whole list. The few entries of other workspaces with the same value are left out by the look at each row.
CREATE INDEX suppressions_value ON suppressions (value);

-- What a domain is covered by: itself, and each domain that it is a part of. The top level alone is on no list.
CREATE FUNCTION campaignd_domains_of_any(domain text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg(array_to_string(p.parts [n:], '.'))
            FROM (SELECT string_to_array(domain, '.') AS parts) AS p,
                 generate_series(1, greatest(cardinality(p.parts) - 1, 1)) AS n);

-- First the usual case, up to five parts, without a row being made. A part that is not there gives a text that nothing equals.
CREATE FUNCTION campaignd_domains(domain text) RETURNS text[]
    LANGUAGE sql IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE
    RETURN CASE WHEN split_part(domain, '.', -6) = '' THEN ARRAY[
                    domain,
                    split_part(domain, '.', -2) || '.' || split_part(domain, '.', -1),
                    split_part(domain, '.', -3) || '.' || split_part(domain, '.', -2) || '.' || split_part(domain, '.', -1),
                    split_part(domain, '.', -4) || '.' || split_part(domain, '.', -3) || '.' || split_part(domain, '.', -2)
                        || '.' || split_part(domain, '.', -1)]
                ELSE campaignd_domains_of_any(domain) END;

-- As in 0006, with the domains above a domain, by one probe instead of one a value, and with nothing worked out for a workspace
-- whose list is empty.
CREATE OR REPLACE FUNCTION campaignd_suppressed(workspace uuid, channel text, recipient jsonb) RETURNS SETOF text
    LANGUAGE sql STABLE CALLED ON NULL INPUT PARALLEL SAFE ROWS 1
BEGIN ATOMIC
    SELECT s.reason
    FROM (
        SELECT v.*, ARRAY[v.address, v.profile, v.member, v.phone] || v.domains AS all_values
        FROM (SELECT lower(btrim(recipient ->> 'email')) AS address,
                     campaignd_domains(split_part(lower(btrim(recipient ->> 'email')), '@', -1)) AS domains,
                     campaignd_linkedin_slug(recipient ->> 'linkedin') AS profile,
                     campaignd_linkedin_slug(recipient ->> 'recipient_id') AS member,
                     campaignd_phone_digits(recipient ->> 'phone') AS phone
              WHERE EXISTS (SELECT FROM suppressions a WHERE a.workspace_id = workspace) OFFSET 0) AS v OFFSET 0) AS k
    CROSS JOIN LATERAL (
        SELECT e.kind, e.value, e.reason FROM suppressions e
        WHERE e.value = ANY (k.all_values)
          -- An equality that no index takes up.
          AND e.workspace_id IS NOT DISTINCT FROM workspace OFFSET 0) AS s
    WHERE CASE s.kind WHEN 'address' THEN s.value = k.address
                      WHEN 'domain' THEN s.value = ANY (k.domains)
                      WHEN 'profile' THEN s.value = k.profile OR s.value = k.member
                      WHEN 'phone' THEN s.value = k.phone END
      AND (s.reason <> 'hard_bounce' OR channel = 'email');
END;
