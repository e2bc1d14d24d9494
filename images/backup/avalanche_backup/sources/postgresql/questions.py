"""What a server is asked: each question gives one JSON value. Text only; :mod:`connection` asks."""

from __future__ import annotations

from avalanche_backup.sources.postgresql.patterns import Pattern
from avalanche_backup.sources.postgresql.scope import (
    FAMILY,
    MARKER,
    RELATIONS,
    TABLES,
    USER_SCHEMA,
    Scope,
    depending,
    literal,
    literals,
)

_HERE = "(SELECT oid FROM pg_database WHERE datname = current_database())"

SERVER = "SELECT json_build_object('number', current_setting('server_version_num')::int)"

# Settings with a dot are the application's own, and may hold anything: they are left out. Columns that not every
# release has are read by way of JSON.
ABOUT = r"""SELECT json_build_object('size', pg_database_size(d.oid),
 'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
 'locale_provider', CASE j ->> 'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
 'locale', coalesce(j ->> 'datlocale', j ->> 'daticulocale'), 'icu_rules', j ->> 'daticurules',
 'collation_version', j ->> 'datcollversion',
 'owner', pg_get_userbyid(datdba), 'extensions', (SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension),
 'extension_schemas', (SELECT coalesce(json_agg(json_build_object('name', extname, 'schema', nspname) ORDER BY e.oid), '[]')
   FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = extnamespace),
 'settings', (SELECT coalesce(json_agg(s), '[]') FROM pg_db_role_setting, unnest(setconfig) AS s WHERE s !~ '^[^=]*\.' AND setdatabase = d.oid AND setrole = 0),
 'grants', (SELECT coalesce(json_agg(json_build_object('grantee', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END,
   'privilege', privilege_type, 'grantable', is_grantable) ORDER BY grantee, privilege_type), '[]') FROM aclexplode(datacl)))
 FROM pg_database AS d, LATERAL to_json(d) AS j WHERE datname = current_database()"""
"""What the database needs to be made anew; the schemas of extensions in the order in which these were made. No ``grants`` are PostgreSQL's own: CONNECT and TEMPORARY for PUBLIC."""


def contents(scope: Scope) -> str:
    """Ask what of a scope is in the database, and what a restore of it would do there.

    ``names`` is everything that it would drop, ``relations`` the tables, views and sequences among it; ``kept`` are
    left out tables that are there; ``lost`` says why something that the backup does not hold would go; ``needs`` why
    the dump alone is not enough. ``dropped_locks`` and ``created_locks`` are what the server keeps in its lock table.
    """
    large = "0" if scope.schemas else "(SELECT count(*) FROM pg_largeobject_metadata)"
    relation = f"FROM judged AS j JOIN pg_class AS c USING (oid) JOIN pg_namespace AS n ON n.oid = nsp WHERE classid = 'pg_class'::regclass AND relkind IN ({RELATIONS})"
    return f"""{scope.judged()} SELECT json_build_object(
 'names', (SELECT coalesce(json_agg(o.type || ' ' || o.identity ORDER BY o.type, o.identity), '[]') FROM judged AS j,
   LATERAL pg_identify_object(j.classid, j.oid, 0) AS o WHERE j.dropped AND j.top),
 'relations', (SELECT coalesce(json_agg(format('%s.%s', nspname, relname) ORDER BY nspname, relname), '[]') {relation} AND dropped),
 'kept', (SELECT coalesce(json_agg(format('%I.%I', nspname, relname) ORDER BY nspname, relname), '[]') {relation}
   AND c.oid IN (SELECT oid FROM left_out)),
 'tables', (SELECT count(*) {relation} AND dropped AND relkind IN ({TABLES})),
 'large_objects', {large},
 'lost', (SELECT coalesce(json_agg(text), '[]') FROM ({depending("kept", "dropped")}) AS l),
 'needs', (SELECT coalesce(json_agg(text), '[]') FROM ({depending("dropped", "kept")}) AS l),
 'incomplete', to_regnamespace('{MARKER}') IS NOT NULL,
 'missing', (SELECT coalesce(json_agg(s), '[]') FROM unnest(ARRAY[{literals(scope.schemas)}]::text[]) AS s
   WHERE s NOT IN (SELECT nspname FROM pg_namespace)),
 'dropped_locks', {large} + (SELECT count(*) + 2 * count(*) FILTER (WHERE reltoastrelid <> 0) FROM judged AS j
   LEFT JOIN pg_class AS c ON c.oid = j.oid AND classid = 'pg_class'::regclass WHERE dropped),
 'created_locks', {large} + (SELECT count(*) + 2 * count(*) FILTER (WHERE reltoastrelid <> 0)
   FROM judged AS j JOIN pg_class AS c USING (oid) WHERE dropped AND classid = 'pg_class'::regclass),
 'sessions', (SELECT coalesce(json_agg(format('%s sessions of %s', count, usename)), '[]') FROM (SELECT usename, count(*) FROM pg_stat_activity
   WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' GROUP BY usename ORDER BY usename) AS s))"""  # noqa: S608 - values are quoted


STAYS = f"""SELECT json_build_object('superuser', current_setting('is_superuser') = 'on',
 'schemas', (SELECT coalesce(json_agg(nspname), '[]') FROM pg_namespace WHERE {USER_SCHEMA}))"""  # noqa: S608
"""What a cleared database still has of schemas, and whether the user may write all."""

LOCKS = """SELECT json_build_object('setting', max(setting::int) FILTER (WHERE name = 'max_locks_per_transaction'),
 'sessions', sum(setting::int) FILTER (WHERE name IN ('max_connections', 'max_prepared_transactions')),
 'backends', sum(setting::int) FILTER (WHERE name <> 'max_locks_per_transaction'))
 FROM pg_settings WHERE name IN ('max_locks_per_transaction', 'max_connections', 'max_prepared_transactions',
   'autovacuum_max_workers', 'max_worker_processes', 'max_wal_senders')"""
"""How large the server's lock table is: the setting, times the sessions as documented, or times all backends at most."""


def matching(patterns: tuple[Pattern, ...]) -> str:
    """Ask which relations patterns name, as ``format('%I.%I')`` writes them, and which patterns name none.

    With a table go its partitions and heirs, and the sequences that it owns: a dump with those alone cannot be restored.
    """
    rows = ", ".join(
        f"({literal(each.text)}, {literal(each.schema) if each.schema else 'NULL'}, {literal(each.name)})"
        for each in patterns
    )
    return f"""WITH RECURSIVE patterns (text, schema, name) AS (VALUES {rows}),
 matched AS (SELECT text, c.oid FROM patterns AS p, pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
   WHERE relkind IN ({RELATIONS}) AND {USER_SCHEMA} AND relname ~ p.name
   AND CASE WHEN p.schema IS NULL THEN pg_table_is_visible(c.oid) ELSE nspname ~ p.schema END),
 family AS ({FAMILY}),
 left_out AS (SELECT oid FROM matched UNION SELECT child FROM left_out JOIN family ON parent = left_out.oid)
 SELECT json_build_object(
 'tables', (SELECT coalesce(json_agg(format('%I.%I', nspname, relname) ORDER BY nspname, relname), '[]')
   FROM left_out JOIN pg_class AS c USING (oid) JOIN pg_namespace AS n ON n.oid = relnamespace WHERE relkind IN ({RELATIONS})),
 'unmatched', (SELECT coalesce(json_agg(text ORDER BY text), '[]') FROM patterns WHERE text NOT IN (SELECT text FROM matched)))"""  # noqa: S608


# The server's first superuser is pinned: what it owns is in no pg_shdepend, and has to be looked for.
_FIRST_OWNS = " UNION ALL ".join(
    f"SELECT {owner}, '{catalog}'::regclass, oid FROM {catalog} WHERE {owner} = 10 AND oid >= 16384 AND {those}"  # noqa: S608
    for catalog, owner, those in (
        ("pg_class", "relowner", "relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relpersistence <> 't'"),
        ("pg_proc", "proowner", "true"),
        (
            "pg_type",
            "typowner",
            "(typtype IN ('d', 'e', 'r') OR typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c'))",
        ),
        ("pg_namespace", "nspowner", "nspname !~ '^pg_'"),
        ("pg_largeobject_metadata", "lomowner", "true"),
        ("pg_publication", "pubowner", "true"),
        ("pg_event_trigger", "evtowner", "true"),
        ("pg_foreign_server", "srvowner", "true"),
    )
)


def roles(scope: Scope) -> str:
    """Ask which roles own what a scope holds (``owners``), and which others its grants and policies name (``roles``)."""
    part = bool(scope.schemas or scope.excluded)
    return f"""{scope.judged() if part else ""}SELECT json_build_object(
 'owners', (SELECT coalesce(json_agg(DISTINCT pg_get_userbyid(o.owner)), '[]') FROM (
   SELECT refobjid AS owner, classid, objid FROM pg_shdepend
   WHERE deptype = 'o' AND refclassid = 'pg_authid'::regclass AND dbid = {_HERE} AND classid <> 'pg_extension'::regclass
   UNION ALL {_FIRST_OWNS}) AS o
   WHERE NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = o.classid AND e.objid = o.objid AND e.deptype = 'e') AND {_of_the_part("o", scope) if part else "true"}),
 'roles', (SELECT coalesce(json_agg(DISTINCT pg_get_userbyid(s.refobjid)), '[]') FROM pg_shdepend AS s
   WHERE deptype IN ('a', 'r') AND refclassid = 'pg_authid'::regclass AND dbid = {_HERE}
   AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = s.classid AND e.objid = s.objid AND e.deptype = 'e')
   AND {_of_the_part("s", scope) if part else "true"}))"""  # noqa: S608


def _of_the_part(row: str, scope: Scope) -> str:
    """Give the condition that a dump of a part holds what a row names; what stands for nothing else pg_dump leaves out."""
    without_schema = "false" if scope.schemas else "true"
    return f"""CASE {row}.classid WHEN 'pg_namespace'::regclass THEN {row}.objid IN (SELECT oid FROM chosen)
   WHEN 'pg_default_acl'::regclass THEN {row}.objid IN (SELECT oid FROM pg_default_acl
     WHERE defaclnamespace IN (SELECT oid FROM chosen) OR (defaclnamespace = 0 AND {without_schema}))
   WHEN 'pg_largeobject'::regclass THEN {without_schema} WHEN 'pg_largeobject_metadata'::regclass THEN {without_schema}
   ELSE ({row}.classid, {row}.objid) IN (SELECT classid, oid FROM judged WHERE dropped) END"""  # noqa: S608


ABILITIES = """SELECT json_build_object('role', current_user, 'read_only', current_setting('transaction_read_only') = 'on',
 'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
 'roles', (SELECT json_agg(rolname) FROM pg_roles),
 'becomes', (SELECT json_agg(rolname) FROM pg_roles
   WHERE pg_has_role(current_user, oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)),
 'beyond', (SELECT coalesce(json_agg(rolname ORDER BY rolname), '[]') FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')
   AND rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')),
 'extensions', (SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions))"""
