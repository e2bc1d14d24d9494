"""Fixtures: one server of each kind for the whole run, a database and a bucket for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from avalanche_contract.base import Credential
from avalanche_contract.source import PostgresqlSource
from avalanche_contract.storage import AzureStorage, DirectoryStorage, GcsStorage, S3Storage, Storage
from tests.integration import servers
from tests.integration.runs import Runner
from tests.integration.servers import Azurite, FakeGcs, Postgres, Seaweed

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
CREATE TABLE readings (taken date NOT NULL, value int, PRIMARY KEY (taken)) PARTITION BY RANGE (taken);
CREATE TABLE readings_2024 PARTITION OF readings FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE readings_rest PARTITION OF readings DEFAULT;
INSERT INTO readings SELECT date '2024-12-01' + n, n FROM generate_series(1, 60) AS n;
CREATE TABLE sheep (id int GENERATED ALWAYS AS IDENTITY, wool int, twice int GENERATED ALWAYS AS (wool * 2) STORED, coat colour);
INSERT INTO sheep (wool, coat) SELECT n, 'green' FROM generate_series(1, 9) AS n;
CREATE TABLE lambs (age int) INHERITS (sheep);
INSERT INTO lambs (id, wool, age) VALUES (100, 1, 1);
CREATE TABLE egg (id int PRIMARY KEY, hen int); CREATE TABLE hen (id int PRIMARY KEY, egg int REFERENCES egg);
ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen DEFERRABLE INITIALLY DEFERRED;
BEGIN; INSERT INTO egg VALUES (1, 1); INSERT INTO hen VALUES (1, 1); COMMIT;
CREATE TYPE pair AS (first int, second text);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE AGGREGATE product (int) (sfunc = int4mul, stype = int, initcond = '1');
CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq);
CREATE OPERATOR CLASS backwards FOR TYPE int USING btree AS FUNCTION 1 btint4cmp (int, int);
CREATE COLLATION german (provider = icu, locale = 'de-DE');
CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);
CREATE STATISTICS sheep_stats ON wool, coat FROM sheep;
CREATE PROCEDURE shear(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; END $$;
CREATE FUNCTION shorn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER shorn BEFORE UPDATE ON sheep FOR EACH ROW EXECUTE FUNCTION shorn();
CREATE RULE nothing AS ON DELETE TO sheep DO INSTEAD NOTHING;
ALTER TABLE sheep ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON sheep USING (wool < 100);
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;
CREATE CAST (span AS text) WITH INOUT AS ASSIGNMENT;
COMMENT ON TABLE sheep IS 'counted';
CREATE PUBLICATION flock FOR TABLE sheep;
CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far; CREATE FOREIGN TABLE distant (n int) SERVER away;
CREATE FUNCTION noticed() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER noticed ON ddl_command_end EXECUTE FUNCTION noticed();
CREATE EXTENSION pgcrypto;
"""
FINGERPRINT = """
SELECT md5(string_agg(s::text, '|' ORDER BY id)) FROM samples AS s;
SELECT md5(string_agg(a::text, '|' ORDER BY a::text)) FROM taxonomy.assignments AS a;
SELECT md5(string_agg(p::text, '|' ORDER BY p::text)) FROM per_taxon AS p;
SELECT count(*) FROM deep; SELECT doubled(21); SELECT nextval('samples_id_seq') > 5000;
SELECT md5(lo_get(4242)); SELECT enum_range(null::colour); SELECT 3::depth;
SELECT tableoid::regclass, count(*), sum(value) FROM readings GROUP BY 1 ORDER BY 1;
SELECT md5(string_agg(s::text, '|' ORDER BY id)) FROM sheep AS s; SELECT product(wool) FROM sheep WHERE id < 9;
SELECT pubname FROM pg_publication UNION SELECT evtname FROM pg_event_trigger UNION SELECT srvname FROM pg_foreign_server ORDER BY 1;
SELECT casttarget::regtype FROM pg_cast WHERE oid >= 16384; SELECT extname FROM pg_extension ORDER BY 1;
SELECT * FROM hen JOIN egg ON hen.egg = egg.id; SELECT obj_description('sheep'::regclass);
SELECT type, identity FROM pg_depend AS d, LATERAL pg_identify_object(d.classid, d.objid, 0) AS o
  WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e') ORDER BY 1, 2;
"""
"""What a database is. What is inside an extension is left out: its newer releases bring more."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with servers.server_folder() as folder, servers.postgres(folder) as running:
        yield running


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with servers.seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGcs]:
    with servers.fake_gcs(tmp_path_factory.mktemp("fake-gcs")) as running:
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


@pytest.fixture
def corner(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    """Give a storage in a folder of this test's own of one bucket: SeaweedFS has volumes for some dozens of buckets."""
    with suppress(ClientError):  # it is there
        seaweed.client().create_bucket(Bucket="corners")
    monkeypatch.setenv("S3_KEY", servers.ACCESS_KEY)
    monkeypatch.setenv("S3_SECRET", servers.SECRET_KEY)
    return S3Storage(
        name="s3", bucket="corners", prefix=f"corner-{next(_NUMBERS)}/", endpoint=seaweed.endpoint, force_path_style=True,
        access_key_id=Credential(described="S3_KEY", environment="S3_KEY"),
        secret_access_key=Credential(described="S3_SECRET", environment="S3_SECRET"),
    )  # fmt: skip


@pytest.fixture
def container(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> AzureStorage:
    """Give a storage on a container of this test's own."""
    name = f"container-{next(_NUMBERS)}"
    azurite.container(name).create_container()
    monkeypatch.setenv("AZURE_KEY", servers.ACCOUNT_KEY)
    return AzureStorage(
        name="azure", container=name, prefix="root/", account_name=servers.ACCOUNT, endpoint=azurite.endpoint,
        account_key=Credential(described="AZURE_KEY", environment="AZURE_KEY"),
    )  # fmt: skip


@pytest.fixture
def gcs_bucket(fake_gcs: FakeGcs) -> GcsStorage:
    """Give a storage on a bucket of this test's own."""
    name = f"bucket-{next(_NUMBERS)}"
    fake_gcs.bucket(name).create()
    return GcsStorage(name="gcs", bucket=name, prefix="root/", endpoint=fake_gcs.endpoint)


@pytest.fixture
def folder(tmp_path: Path) -> DirectoryStorage:
    """Give a storage on a folder of this test's own."""
    root = tmp_path / "storage"
    root.mkdir()
    return DirectoryStorage(name="volume", root=str(root))


STORAGES = {"directory": "folder", "s3": "bucket", "azure": "container", "gcs": "gcs_bucket"}


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> Storage:
    """Give each kind of storage in turn."""
    found: Storage = request.getfixturevalue(STORAGES[request.param])
    return found


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Give what runs verbs on a folder of this test's own; tests that want another place have a runner of theirs."""
    (tmp_path / "volume").mkdir()
    return Runner(DirectoryStorage(name="volume", root=str(tmp_path / "volume")), tmp_path / "scratch")
