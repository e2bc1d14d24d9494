"""The statement that makes room for a dump, inside the restore's own transaction."""

from __future__ import annotations

from avalanche_backup.sources.postgresql.scope import MARKER, Scope, depending

CLEAR = """\
SET client_min_messages = warning;
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET lock_timeout = '60s';
DO $avalanche$
DECLARE
  found record;
  lost text;
BEGIN
  {judged} SELECT string_agg(text, '; ') INTO lost FROM ({losses}) AS l;
  IF lost IS NOT NULL THEN
    RAISE EXCEPTION 'what is not in the backup would be lost: %', lost;
  END IF;
  -- Rows of extensions' own tables that their dump brings back (pg_extension_config_dump).
  FOR found IN
    {judged} SELECT x.oid::regclass AS relation, x.condition FROM pg_extension, unnest(extconfig, extcondition) AS x (oid, condition)
    JOIN pg_class AS c ON c.oid = x.oid AND relkind IN ('r', 'p') WHERE {everything} OR relnamespace IN (SELECT oid FROM chosen)
  LOOP EXECUTE format('DELETE FROM %s %s', found.relation, found.condition); END LOOP;
  FOR found IN {judged} {outside} LOOP {drop} END LOOP;
  FOR found IN {judged} SELECT nspname FROM whole
  LOOP EXECUTE format('DROP SCHEMA %I CASCADE', found.nspname); END LOOP;
  -- Schemas that stay: public, those of extensions, those of tables that the backup leaves out.
  FOR found IN {judged} {inside} LOOP {drop} END LOOP;
  DROP SCHEMA IF EXISTS {marker} CASCADE;
  IF {everything} THEN PERFORM lo_unlink(oid) FROM pg_largeobject_metadata; END IF;
END
$avalanche$;
RESET lock_timeout;
"""
_DROP = "EXECUTE format('DROP %s IF EXISTS %s CASCADE', found.type, found.identity);"
# What a CASCADE took along has no identity any more.
# A partitioned table depends internally on its own columns (objsubid): that must not hide it.
_SELECT = """SELECT CASE o.type WHEN 'statistics object' THEN 'statistics' ELSE replace(o.type, '-', ' ') END AS type, o.identity
    FROM judged AS j, LATERAL pg_identify_object(j.classid, j.oid, 0) AS o
    WHERE j.dropped AND j.top AND j.nsp {where} AND j.classid <> 'pg_namespace'::regclass AND o.identity IS NOT NULL AND NOT EXISTS (
      SELECT FROM pg_depend AS i WHERE i.classid = j.classid AND i.objid = j.oid AND i.objsubid = 0 AND i.deptype = 'i')"""


def clearing(scope: Scope) -> str:
    """Give the statement that removes what the dump brings back, and nothing else; what extensions own stays.

    It raises where a CASCADE would take along what the backup does not hold.
    """
    return CLEAR.format(
        judged=scope.judged(),
        losses=depending("kept", "dropped"),
        everything="false" if scope.schemas else "true",
        outside=_SELECT.format(where="= 0"),
        inside=_SELECT.format(where="<> 0 AND j.nsp NOT IN (SELECT oid FROM whole)"),
        drop=_DROP,
        marker=MARKER,
    )
