-- The two functions by which people are recognised, made cheap: each is called for every row of an upload, once to look for
-- duplicates and once for its index. What they answer is the same for every argument, so their indexes stay valid.
--
-- A function that is not STRICT and holds no sub-select is taken apart by the planner and costs no call of its own; of the
-- old forms the slug took 20 us a call and the digits 3.

SET LOCAL search_path = public, pg_temp;

-- The profile of an address in any spelling: what campaignd_linkedin_slug said before, see 0001.
CREATE FUNCTION campaignd_linkedin_slug_of_any(url text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT CASE WHEN slug ~ '^AC[ow][A-Za-z0-9_-]{10,}$' THEN slug
                        WHEN slug !~ '[/:]' THEN nullif(lower(slug), '') END
            FROM (SELECT regexp_replace(rtrim(regexp_replace(btrim(url), '[?#].*$', ''), '/'),
                                        '^.*/in/+([^/]*).*$', '\1', 'i') AS slug) AS s);

-- First the spelling in which uploads store an address: nothing of it has to be changed. Then all others.
CREATE OR REPLACE FUNCTION campaignd_linkedin_slug(url text) RETURNS text
    LANGUAGE sql IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE
    RETURN CASE WHEN starts_with(url, 'https://www.linkedin.com/in/') AND substr(url, 29) ~ '^[a-z0-9_-]+$'
                THEN substr(url, 29)
                ELSE campaignd_linkedin_slug_of_any(url) END;

-- The body is 0001's; NULL gives NULL without STRICT.
CREATE OR REPLACE FUNCTION campaignd_phone_digits(phone text) RETURNS text
    LANGUAGE sql IMMUTABLE CALLED ON NULL INPUT PARALLEL SAFE
    RETURN nullif(regexp_replace(regexp_replace(phone, '[^0-9]', '', 'g'), '^00', ''), '');

-- Connections that are open keep an index's expression as they took it apart before, and would not find the index for a
-- query that is planned from now on. Touching the index makes them look again. The value is the one it has.
ALTER INDEX IF EXISTS campaign_prospects_linkedin SET (fillfactor = 90);
ALTER INDEX IF EXISTS campaign_prospects_phone SET (fillfactor = 90);
