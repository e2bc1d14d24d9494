# ruff: noqa: S608 - nothing but our own text and quoted names are put in
"""Which part of a database a backup holds, and what a restore of it makes of every object there: SQL, and no answers.

Every object is one of three. A restore *drops* it, because the dump brings it back. It is *kept*, because the backup
never held it: another schema's, or a table that was left out with what belongs to it. Or it is an extension's or the
server's own, which neither pg_dump nor a restore touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FIRST_OWN_OID = 16384
"""PostgreSQL gives lower numbers to what it brings along (``FirstNormalObjectId``)."""
MARKER = "avalanche_restore_incomplete"
"""The schema that stands in a database from the first write of a restore in parallel until it is whole."""
USER_SCHEMA = f"nspname !~ '^pg_' AND nspname NOT IN ('information_schema', '{MARKER}')"
TABLES, RELATIONS = "'r', 'p', 'm'", "'r', 'p', 'v', 'm', 'S', 'f'"
_OUTSIDE = (
    "publication",
    "event_trigger",
    "foreign_server",
    "foreign_data_wrapper",
    "cast",
    "transform",
    "language",
    "am",
)
"""Catalogs of what pg_dump writes and no schema holds. Subscriptions are neither dumped nor dropped."""
_IN_SCHEMAS = (("pg_proc", "pro"), ("pg_operator", "opr"), ("pg_opclass", "opc"), ("pg_opfamily", "opf"), ("pg_collation", "coll"),
               ("pg_conversion", "con"), ("pg_ts_config", "cfg"), ("pg_ts_dict", "dict"), ("pg_ts_parser", "prs"),
               ("pg_ts_template", "tmpl"))  # fmt: skip
"""Catalogs of what a schema holds, with the prefix of their columns."""
_OF_RELATIONS = (("pg_constraint", "conrelid", "true"), ("pg_attrdef", "adrelid", "true"), ("pg_rewrite", "ev_class", "true"),
                 ("pg_trigger", "tgrelid", "NOT tgisinternal"), ("pg_policy", "polrelid", "true"))  # fmt: skip
"""Catalogs of what belongs to a relation. Internal triggers are their constraint's, which may be another table's."""

FAMILY = """SELECT inhparent AS parent, inhrelid AS child FROM pg_inherits UNION ALL
  SELECT refobjid, objid FROM pg_depend JOIN pg_class AS s ON s.oid = objid AND relkind = 'S'
  WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')"""
"""What goes with a table wherever it goes: its partitions and heirs, and the sequences that it owns."""


@dataclass(frozen=True)
class Scope:
    """What a backup holds: some schemas (none named: all) but for some relations."""

    schemas: tuple[str, ...] = ()
    """By their exact names."""
    excluded: tuple[str, ...] = ()
    """As ``format('%I.%I')`` writes them."""

    @classmethod
    def of(cls, artifact: Mapping[str, Any]) -> Scope:
        """Read it from an artifact's part of the metadata."""
        recreate = artifact.get("recreate") or {}
        return cls(tuple(recreate.get("schemas") or ()), tuple(recreate.get("excluded_tables") or ()))

    def judged(self) -> str:
        """Give the WITH clause of ``judged``: one row for each object, with what a restore makes of it.

        ``classid, oid`` name it as in pg_depend; ``nsp`` is its schema (0: in none), ``rel`` the relation that it belongs
        to (0: to none), ``top`` whether it stands for itself, ``dropped`` and ``kept`` what becomes of it.
        """
        return f"""WITH RECURSIVE {_EXTENSIONS},
 chosen AS (SELECT oid, nspname FROM pg_namespace WHERE {USER_SCHEMA} AND {self._chosen()}),
 family AS ({FAMILY}),
 left_out AS (SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
   WHERE format('%I.%I', nspname, relname) IN ({literals(self.excluded)})
   UNION SELECT child FROM left_out JOIN family ON parent = left_out.oid),
 whole AS (SELECT oid, nspname FROM chosen AS s WHERE nspname <> 'public'
   AND NOT EXISTS (SELECT FROM extensions AS e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = s.oid)
   AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
     AND (d.classid, d.objid) IN (SELECT classid, objid FROM extensions))
   AND NOT EXISTS (SELECT FROM left_out JOIN pg_class AS c ON c.oid = left_out.oid WHERE relnamespace = s.oid)),
 objects (classid, oid, nsp, rel, top) AS ({_OBJECTS}),
 known AS (SELECT o.*, (o.classid, o.oid) IN (SELECT classid, objid FROM extensions) AS foreign_one,
   CASE WHEN nsp = 0 THEN {"false" if self.schemas else "true"} ELSE nsp IN (SELECT oid FROM chosen) END
   AND rel NOT IN (SELECT oid FROM left_out) AS held FROM objects AS o
   WHERE nsp = 0 OR nsp IN (SELECT oid FROM pg_namespace WHERE {USER_SCHEMA})),
 judged AS (SELECT classid, oid, nsp, rel, top, held AND NOT foreign_one AS dropped, NOT held AND NOT foreign_one AS kept FROM known)
"""

    def _chosen(self) -> str:
        return f"nspname IN ({literals(self.schemas)})" if self.schemas else "true"


def literal(text: str) -> str:
    """Quote a value, for every setting of the server, inside dollar quotes too."""
    escaped = text.replace("\\", "\\\\").replace("'", "''").replace("$", "\\x24")
    return f"E'{escaped}'"


def literals(texts: Iterable[str]) -> str:
    """Quote a list of values, which may be empty."""
    return ", ".join(map(literal, texts)) or "NULL"


def identifier(name: str) -> str:
    """Quote a name so that SQL and pg_dump's patterns take it as it is."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def depending(dependent: str, on: str) -> str:
    """Give a SELECT (after :meth:`Scope.judged`) of up to five dependencies, as sentences in ``text``.

    ``dependent`` and ``on`` are ``dropped`` or ``kept``.
    """
    return f"""SELECT DISTINCT format('%s %s depends on %s %s', l.type, l.identity, r.type, r.identity) AS text
 FROM pg_depend AS d JOIN judged AS a ON a.classid = d.classid AND a.oid = d.objid AND a.{dependent}
 JOIN judged AS b ON b.classid = d.refclassid AND b.oid = d.refobjid AND b.{on},
 LATERAL (SELECT * FROM pg_identify_object(CASE WHEN d.classid = 'pg_rewrite'::regclass THEN 'pg_class'::regclass ELSE d.classid END,
   CASE WHEN d.classid = 'pg_rewrite'::regclass THEN a.rel ELSE d.objid END, d.objsubid)) AS l,
 LATERAL (SELECT * FROM pg_identify_object(d.refclassid, d.refobjid, 0)) AS r ORDER BY 1 LIMIT 5"""


# What belongs to an extension, and what belongs to that in turn: array types, indexes.
_EXTENSIONS = """extensions AS (SELECT 'pg_extension'::regclass::oid AS classid, oid AS objid FROM pg_extension
   UNION SELECT d.classid, d.objid FROM pg_depend AS d JOIN extensions AS e ON d.refclassid = e.classid AND d.refobjid = e.objid
   WHERE d.deptype = 'e' OR (d.deptype IN ('a', 'i') AND e.classid <> 'pg_extension'::regclass))"""

_OBJECTS = f"""SELECT 'pg_class'::regclass::oid, c.oid, relnamespace, coalesce(indrelid, c.oid), relkind IN ({RELATIONS})
   FROM pg_class AS c LEFT JOIN pg_index ON indexrelid = c.oid
 UNION ALL SELECT 'pg_type'::regclass, t.oid, t.typnamespace, coalesce(nullif(t.typrelid, 0), e.typrelid, 0),
   coalesce(c.relkind = 'c', e.oid IS NULL) FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
   LEFT JOIN pg_type AS e ON e.oid = t.typelem AND e.typarray = t.oid
 UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxnamespace, stxrelid, true FROM pg_statistic_ext
 UNION ALL SELECT 'pg_constraint'::regclass, oid, connamespace, 0, false FROM pg_constraint WHERE conrelid = 0
 UNION ALL SELECT 'pg_namespace'::regclass, oid, oid, 0, true FROM whole
 UNION ALL SELECT 'pg_publication_rel'::regclass, oid, 0, prrelid, false FROM pg_publication_rel
 UNION ALL SELECT classid, objid, 0, 0, false FROM pg_depend WHERE classid = to_regclass('pg_catalog.pg_publication_namespace')
""" + "".join([
    *(f" UNION ALL SELECT '{catalog}'::regclass, oid, {prefix}namespace, 0, true FROM {catalog}" for catalog, prefix in _IN_SCHEMAS),
    *(f" UNION ALL SELECT '{catalog}'::regclass, p.oid, relnamespace, {column}, false FROM {catalog} AS p JOIN pg_class AS c ON c.oid = {column} WHERE {which}"
      for catalog, column, which in _OF_RELATIONS),
    *(f" UNION ALL SELECT 'pg_{name}'::regclass, oid, 0, 0, true FROM pg_{name} WHERE oid >= {FIRST_OWN_OID}" for name in _OUTSIDE),
])  # fmt: skip
