# ruff: noqa: S608 - nothing but our own text and quoted names are put in
"""What a database is besides its content, and the statements that make another one the same: SQL, and no answers.

pg_dump without ``--create`` leaves out what hangs on the database itself; PostgreSQL ties it to the number of the
database and not to its name, so a database that takes another's name has to be given all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from avalanche_backup.sources.postgresql.scope import identifier, literal

NAME_BYTES = 63
_LISTS = {"local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries",
          "temp_tablespaces", "unix_socket_directories", "oauth_validator_libraries"}  # fmt: skip
"""Settings whose value is a list of quoted names (``GUC_LIST_QUOTE``): as one text it would be one name."""
_ITEM = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')
FRESH_LIMIT = 0
"""The connection limit with which a database is made: with its name, and closed, it tells ours before it has a comment."""

PROPERTIES = r"""SELECT json_build_object('oid', d.oid::bigint, 'owner', pg_get_userbyid(datdba), 'size', pg_database_size(d.oid),
 'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
 'provider', coalesce(j ->> 'datlocprovider', 'c'), 'knows_providers', (j ->> 'datlocprovider') IS NOT NULL, 'locale', coalesce(j ->> 'datlocale', j ->> 'daticulocale'),
 'icu_rules', j ->> 'daticurules', 'connection_limit', datconnlimit, 'is_template', datistemplate,
 'tablespace', (SELECT spcname FROM pg_tablespace AS t WHERE t.oid = dattablespace),
 'into_tablespace', has_tablespace_privilege(dattablespace, 'CREATE'),
 'comment', shobj_description(d.oid, 'pg_database'), 'has_grants', datacl IS NOT NULL,
 'grants', (SELECT coalesce(json_agg(json_build_object('grantee', CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END,
   'privilege', privilege_type, 'grantable', is_grantable) ORDER BY grantee, privilege_type), '[]') FROM aclexplode(datacl)),
 'settings', (SELECT coalesce(json_agg(json_build_object('role', CASE setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(setrole) END, 'setting', s)
   ORDER BY setrole, s), '[]') FROM pg_db_role_setting, unnest(setconfig) AS s WHERE setdatabase = d.oid),
 'extensions', (SELECT coalesce(json_agg(json_build_object('name', extname, 'schema', nspname, 'version', extversion,
   'known', v.name IS NOT NULL, 'creatable', coalesce(me.rolsuper OR NOT v.superuser OR coalesce((to_json(v) ->> 'trusted')::bool, false), false))
   ORDER BY e.oid), '[]') FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = extnamespace
   LEFT JOIN pg_available_extension_versions AS v ON v.name = extname AND v.version = extversion WHERE extname <> 'plpgsql'),
 'extension_rows', (SELECT coalesce(json_agg(DISTINCT extname), '[]') FROM pg_depend AS p JOIN pg_extension AS e ON e.oid = refobjid
   JOIN pg_class AS c ON c.oid = objid WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
   AND relkind IN ('r', 'm') AND NOT (c.oid = ANY (coalesce(extconfig, '{}'))) AND pg_relation_size(c.oid) > 0),
 'labels', (SELECT count(*) FROM pg_shseclabel WHERE objoid = d.oid AND classoid = 'pg_database'::regclass),
 'slots', (SELECT coalesce(json_agg(slot_name), '[]') FROM pg_replication_slots WHERE database = datname),
 'subscriptions', (SELECT coalesce(json_agg(subname), '[]') FROM pg_subscription WHERE subdbid = d.oid),
 'prepared', (SELECT count(*) FROM pg_prepared_xacts WHERE database = datname),
 'role', me.rolname, 'superuser', me.rolsuper, 'createdb', me.rolsuper OR me.rolcreatedb,
 'owns', pg_has_role(datdba, 'USAGE'),
 'gives', pg_has_role(datdba, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END),
 'unending', (SELECT coalesce(json_agg(DISTINCT coalesce(usename, 'the server itself')), '[]') FROM pg_stat_activity AS a
   LEFT JOIN pg_roles AS r ON r.oid = usesysid WHERE a.datname = d.datname AND pid <> pg_backend_pid() AND NOT me.rolsuper
   AND coalesce(r.rolsuper OR NOT (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')), false)))
 FROM pg_database AS d, LATERAL to_json(d) AS j, pg_roles AS me WHERE datname = current_database() AND me.rolname = current_user"""
"""What hangs on a database, and what the user may do with it. Columns that not every release has are read by way of JSON."""

NEIGHBOURS = """SELECT coalesce(json_agg(json_build_object('name', datname, 'oid', oid::bigint, 'comment', shobj_description(oid, 'pg_database'),
 'fresh', NOT datallowconn AND datconnlimit = 0 AND shobj_description(oid, 'pg_database') IS NULL) ORDER BY oid), '[]') FROM pg_database"""


def size_of(name: str) -> str:
    """Ask how large another database is; 0 where the role may not know."""
    return (
        "SELECT to_json(coalesce(sum(CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE') "
        f"THEN pg_database_size(oid) END), 0)) FROM pg_database WHERE datname = {literal(name)}"
    )


def name_beside(database: str, word: str, switch: str) -> str:
    """Name a database beside another one: ``<database>_<word>_<eight hex digits>``, shortened to what a name may have."""
    own = hashlib.sha256(f"{switch}/{database}".encode()).hexdigest()[:8]
    ending = f"_{word}_{own}"
    return database.encode()[: NAME_BYTES - len(ending)].decode(errors="ignore") + ending


def comment_of_beside(database: str) -> str:
    """Give the comment by which a database is known that no restore or undo needs any more, or not yet."""
    return (
        f"Avalanche Backup made this database to restore {json.dumps(database)}. Where no restore of it runs, it is left from "
        "one that was killed; the next one drops it."
    )


def comment_of_kept(database: str, switch: str, before: str | None) -> str:
    """Give the comment of a database that was kept; the one that it had follows."""
    told = f"{_kept(database)} {switch}. Undo that restore, or drop this database."
    return told + (f"\n\n{before}" if before is not None else "")


def switch_of_kept(database: str, comment: str | None) -> str | None:
    """Give the mark of the restore that kept a database, from its comment; ``None`` where it is none of ours."""
    beginning = f"{_kept(database)} "
    return comment[len(beginning) :][:8] if comment and comment.startswith(beginning) else None


def comment_before(comment: str) -> str | None:
    """Give the comment that a kept database had."""
    _, found, before = comment.partition("\n\n")
    return before if found else None


def _kept(database: str) -> str:
    return f"Avalanche Backup kept this database: what {json.dumps(database)} was before restore"


def creation(name: str, properties: Mapping[str, Any]) -> str:
    """Give the statement that makes an empty database like another: closed, and known as ours by its connection limit."""
    provider, locale = properties["provider"], properties["locale"]
    words = [f"ENCODING {literal(properties['encoding'])}", f"LC_COLLATE {literal(properties['collate'])}",
             f"LC_CTYPE {literal(properties['ctype'])}"]  # fmt: skip
    if provider == "i":
        words += ["LOCALE_PROVIDER icu", f"ICU_LOCALE {literal(locale)}"]
        words += [f"ICU_RULES {literal(properties['icu_rules'])}"] if properties["icu_rules"] else []
    elif provider == "b":
        words += ["LOCALE_PROVIDER builtin", f"BUILTIN_LOCALE {literal(locale)}"]
    elif properties["knows_providers"]:  # unsaid, it is that of template0, which may be another one
        words.append("LOCALE_PROVIDER libc")
    if properties["tablespace"] != "pg_default":
        words.append(f"TABLESPACE {identifier(properties['tablespace'])}")
    return (
        f"CREATE DATABASE {identifier(name)} WITH TEMPLATE template0 OWNER {identifier(properties['owner'])} "
        f"{' '.join(words)} ALLOW_CONNECTIONS false CONNECTION LIMIT {FRESH_LIMIT}"
    )


def opening(name: str, database: str) -> str:
    """Give the transaction that opens a database just made, and says what it is for."""
    return (
        f"BEGIN; COMMENT ON DATABASE {identifier(name)} IS {literal(comment_of_beside(database))}; "
        f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS true; "
        f"ALTER DATABASE {identifier(name)} CONNECTION LIMIT -1; COMMIT"
    )


def extensions(properties: Mapping[str, Any]) -> str:
    """Give the statements that bring along the extensions, each in its release and schema."""
    return "".join(
        f"CREATE SCHEMA IF NOT EXISTS {identifier(each['schema'])};\n"
        * (each["schema"] != "pg_catalog")
        + f"CREATE EXTENSION IF NOT EXISTS {identifier(each['name'])} WITH SCHEMA {identifier(each['schema'])} "
        f"VERSION {literal(each['version'])} CASCADE;\n"
        for each in properties["extensions"]
    )


def carried(name: str, properties: Mapping[str, Any]) -> str:
    """Give the statements that give a database the grants, settings and limit of another one.

    On that other one itself, in a transaction that is rolled back, they tell whether the user may do all of it.
    """
    return "".join(f"{each};\n" for each in (*_grants(name, properties), *_settings(name, properties),
                   f"ALTER DATABASE {identifier(name)} CONNECTION LIMIT {int(properties['connection_limit'])}"))  # fmt: skip


def _grants(name: str, properties: Mapping[str, Any]) -> Iterator[str]:
    if not properties["has_grants"]:
        return
    quoted = identifier(name)
    yield f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC"
    yield f"REVOKE ALL ON DATABASE {quoted} FROM {identifier(properties['owner'])}"
    for each in properties["grants"]:
        grantee = identifier(each["grantee"]) if each["grantee"] is not None else "PUBLIC"
        option = " WITH GRANT OPTION" if each["grantable"] and each["grantee"] != properties["owner"] else ""
        yield f"GRANT {each['privilege']} ON DATABASE {quoted} TO {grantee}{option}"


def _settings(name: str, properties: Mapping[str, Any]) -> Iterator[str]:
    for each in properties["settings"]:
        setting, _, value = each["setting"].partition("=")
        whom = (
            f"ALTER DATABASE {identifier(name)}"
            if each["role"] is None
            else f"ALTER ROLE {identifier(each['role'])} IN DATABASE {identifier(name)}"
        )
        yield f"{whom} SET {identifier(setting)} TO {_value(setting, value)}"


def _value(setting: str, value: str) -> str:
    if setting.lower() not in _LISTS:
        return literal(value)
    items = [quoted.replace('""', '"') or plain for quoted, plain in _ITEM.findall(value)]
    return ", ".join(map(literal, items)) or "''"


def switching(database: str, beside: str, aside: str, comments: tuple[str | None, str]) -> str:
    """Give the one transaction in which a database gives its name to another, and is closed.

    ``comments``: of the one that takes the name, and of the one that is left aside.
    """
    taking, leaving = comments
    said = "NULL" if taking is None else literal(taking)
    return (
        "SET lock_timeout = '30s'; BEGIN; "
        f"ALTER DATABASE {identifier(database)} RENAME TO {identifier(aside)};\n"
        f"ALTER DATABASE {identifier(aside)} ALLOW_CONNECTIONS false;\n"
        f"COMMENT ON DATABASE {identifier(aside)} IS {literal(leaving)};\n"
        f"ALTER DATABASE {identifier(beside)} RENAME TO {identifier(database)};\n"
        f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS true;\n"
        f"COMMENT ON DATABASE {identifier(database)} IS {said};\n"
        "COMMIT;"
    )


def ending(database: str) -> str:
    """Give the statement that ends every session of a database but our own."""
    return f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = {literal(database)} AND pid <> pg_backend_pid()"
