"""What a server is asked: each question gives one JSON value. Text only; :mod:`connection` asks."""

from __future__ import annotations

MARKER = "avalanche_restore_incomplete"
"""The schema that stands in a database from the first write of a restore in parallel until it is whole."""

# Settings with a dot are the application's own, and may hold anything: they are left out.
_USER_SCHEMAS = "nspname !~ '^pg_' AND nspname <> 'information_schema'"
_HERE = "(SELECT oid FROM pg_database WHERE datname = current_database())"

SERVER = "SELECT json_build_object('number', current_setting('server_version_num')::int)"

ABOUT = r"""SELECT json_build_object('size', pg_database_size(current_database()),
 'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
 'owner', pg_get_userbyid(datdba), 'extensions', (SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension),
 'settings', (SELECT coalesce(json_agg(s), '[]') FROM pg_db_role_setting, unnest(setconfig) AS s WHERE s !~ '^[^=]*\.' AND setdatabase = d.oid AND setrole = 0))
 FROM pg_database AS d WHERE datname = current_database()"""

RELATIONS = f"""SELECT json_build_object('relations', (SELECT coalesce(json_agg(format('%s.%s', nspname, relname) ORDER BY nspname, relname), '[]')
 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {_USER_SCHEMAS}
 AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')),
 'tables', (SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'm') AND {_USER_SCHEMAS}),
 'large_objects', (SELECT count(*) FROM pg_largeobject_metadata),
 'incomplete', to_regnamespace('{MARKER}') IS NOT NULL,
 'sessions', (SELECT coalesce(json_agg(format('%s sessions of %s', count, usename)), '[]') FROM (SELECT usename, count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' GROUP BY usename ORDER BY usename) AS s))"""  # noqa: S608 - nothing but our own text is put in

# The server's first superuser is pinned: what it owns is in no pg_shdepend, and has to be looked for.
_FIRST_OWNS = " UNION ALL ".join(
    f"SELECT {owner}, '{catalog}'::regclass, oid FROM {catalog} WHERE {owner} = 10 AND oid >= 16384 AND {those}"  # noqa: S608
    for catalog, owner, those in (
        ("pg_class", "relowner", "relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND relpersistence <> 't'"),
        ("pg_proc", "proowner", "true"),
        ("pg_type", "typowner", "typtype IN ('d', 'e', 'r')"),
        ("pg_namespace", "nspowner", "nspname !~ '^pg_'"),
        ("pg_largeobject_metadata", "lomowner", "true"),
        ("pg_publication", "pubowner", "true"),
        ("pg_event_trigger", "evtowner", "true"),
        ("pg_foreign_server", "srvowner", "true"),
    )
)
ROLES = f"""SELECT json_build_object(
 'owners', (SELECT coalesce(json_agg(DISTINCT pg_get_userbyid(o.owner)), '[]') FROM (
   SELECT refobjid AS owner, classid, objid FROM pg_shdepend
   WHERE deptype = 'o' AND refclassid = 'pg_authid'::regclass AND dbid = {_HERE} AND classid <> 'pg_extension'::regclass
   UNION ALL {_FIRST_OWNS}) AS o
   WHERE NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = o.classid AND e.objid = o.objid AND e.deptype = 'e')),
 'roles', (SELECT coalesce(json_agg(DISTINCT pg_get_userbyid(s.refobjid)), '[]') FROM pg_shdepend AS s
   WHERE deptype IN ('a', 'r') AND refclassid = 'pg_authid'::regclass AND dbid = {_HERE}
   AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = s.classid AND e.objid = s.objid AND e.deptype = 'e')))"""  # noqa: S608

ABILITIES = """SELECT json_build_object('role', current_user, 'read_only', current_setting('transaction_read_only') = 'on',
 'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
 'roles', (SELECT json_agg(rolname) FROM pg_roles),
 'becomes', (SELECT json_agg(rolname) FROM pg_roles
   WHERE pg_has_role(current_user, oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)),
 'extensions', (SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions))"""
