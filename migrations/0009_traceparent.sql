-- The trace that a fact came in with, as the W3C header `traceparent` writes it, so that what follows from the fact joins
-- its trace, also after a restart. Only the few that are sampled have one: a null takes no room in the row. No statement
-- looks a row up by it, so nothing is indexed.
SET LOCAL search_path = public, pg_temp;

ALTER TABLE inbox ADD COLUMN traceparent text;
