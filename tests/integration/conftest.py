"""Fixtures: one PostgreSQL and one SeaweedFS for the whole run, a database and a bucket for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from avalanche_contract.request import Credential, DirectoryStorage, PostgresqlSource, S3Storage, Storage
from tests.integration import servers
from tests.integration.servers import Postgres, Seaweed

_NUMBERS = itertools.count(1)

EDNA = """
CREATE TABLE samples (id bigserial PRIMARY KEY, site text NOT NULL, taken timestamptz NOT NULL, facts jsonb);
INSERT INTO samples (site, taken, facts) SELECT 'site ' || n % 7, timestamptz '2024-01-01' + n * interval '1 hour',
  jsonb_build_object('depth', n % 30, 'note', E'tab\\there \\\\! \\\\restrict') FROM generate_series(1, 5000) AS n;
CREATE SCHEMA taxonomy;
CREATE TABLE taxonomy.assignments (sample_id bigint REFERENCES samples (id), taxon text, score numeric(6, 3));
INSERT INTO taxonomy.assignments SELECT id, 'taxon ' || id % 40, (id % 1000) / 7.0 FROM samples;
CREATE VIEW deep AS SELECT * FROM samples WHERE (facts->>'depth')::int > 20;
CREATE MATERIALIZED VIEW per_taxon AS SELECT taxon, count(*) FROM taxonomy.assignments GROUP BY taxon;
CREATE FUNCTION doubled(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2';
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE DOMAIN depth AS int CHECK (VALUE >= 0);
SELECT lo_from_bytea(4242, decode(repeat('c0ffee', 1000), 'hex'));
"""
FINGERPRINT = """
SELECT md5(string_agg(s::text, '|' ORDER BY id)) FROM samples AS s;
SELECT md5(string_agg(a::text, '|' ORDER BY a::text)) FROM taxonomy.assignments AS a;
SELECT md5(string_agg(p::text, '|' ORDER BY p::text)) FROM per_taxon AS p;
SELECT count(*) FROM deep; SELECT doubled(21); SELECT nextval('samples_id_seq') > 5000;
SELECT md5(lo_get(4242)); SELECT enum_range(null::colour); SELECT 3::depth;
"""


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with servers.postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with servers.seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture
def database(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> PostgresqlSource:
    """Give an eDNA database of this test's own."""
    name = f"edna {next(_NUMBERS)}"
    postgres.psql("postgres", f'CREATE DATABASE "{name}"')
    postgres.psql(name, EDNA)
    monkeypatch.setenv("DATABASE_PASSWORD", servers.PASSWORD)
    return source_of(postgres, name)


def source_of(postgres: Postgres, name: str) -> PostgresqlSource:
    """Give the source of one database."""
    password = Credential(described="variable DATABASE_PASSWORD", environment="DATABASE_PASSWORD")
    return PostgresqlSource(
        name="database",
        host="127.0.0.1",
        port=postgres.port,
        database=name,
        username="avalanche",
        password=password,
    )


@pytest.fixture
def bucket(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    """Give a storage on a bucket of this test's own."""
    name = f"bucket-{next(_NUMBERS)}"
    seaweed.client().create_bucket(Bucket=name)
    monkeypatch.setenv("S3_KEY", servers.ACCESS_KEY)
    monkeypatch.setenv("S3_SECRET", servers.SECRET_KEY)
    return S3Storage(
        name="s3", bucket=name, prefix="root/", endpoint=seaweed.endpoint, force_path_style=True,
        access_key_id=Credential(described="S3_KEY", environment="S3_KEY"),
        secret_access_key=Credential(described="S3_SECRET", environment="S3_SECRET"),
    )  # fmt: skip


@pytest.fixture(params=["directory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Give each kind of storage in turn."""
    if request.param == "s3":
        found: Storage = request.getfixturevalue("bucket")
        return found
    root = tmp_path / "storage"
    root.mkdir()
    return DirectoryStorage(name="volume", root=str(root))
