"""The eDNA-like database as SQL: samples, sequences, taxonomic assignments, and one of each thing that PostgreSQL has.

A pure generator: the same ``scale`` gives the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

SEED = 20241122
SAMPLES, SEQUENCES, ASSIGNMENTS = 4_000, 60_000, 150_000
LETTERS = bytes(b"ACGT"[number % 4] for number in range(256))
RIVERS = ("Aare", "Inn", "Linth", "Maggia", "Reuss", "Rhône", "Ticino", "Río Grande", "Nechako", "Þjórsá")
TAXA = (
    "Salmo trutta", "Thymallus thymallus", "Cottus gobio", "Barbus barbus", "Phoxinus phoxinus", "Lota lota",
    "Esox lucius", "Astacus astacus", "Rana temporaria", "Ichthyosaura alpestris", "Castor fiber", "Lutra lutra",
)  # fmt: skip

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE TYPE preservation AS ENUM ('frozen', 'ethanol', 'dried', 'buffer');
CREATE DOMAIN confidence AS numeric(5, 4) CHECK (VALUE BETWEEN 0 AND 1);
CREATE SEQUENCE accession START 100000 INCREMENT 7;
CREATE TABLE samples (
  id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  accession bigint NOT NULL DEFAULT nextval('accession') UNIQUE,
  river text NOT NULL, note text, collected timestamptz NOT NULL, position point, depth_range numrange,
  preservation preservation NOT NULL, tags text[] NOT NULL DEFAULT '{}', measurements jsonb NOT NULL, raw bytea);
COMMENT ON TABLE samples IS 'Water samples; the note is whatever the field team wrote: "quotes", tabs, ünïcödé, 雪崩';
CREATE TABLE sequences (
  id bigserial PRIMARY KEY, sample integer NOT NULL REFERENCES samples ON DELETE CASCADE,
  marker text NOT NULL, reads integer NOT NULL CHECK (reads > 0), sequence text NOT NULL,
  length integer GENERATED ALWAYS AS (length(sequence)) STORED);
CREATE TABLE taxonomic_assignments (
  id bigserial, sequence bigint NOT NULL, taxon text NOT NULL, confidence confidence NOT NULL,
  assigned date NOT NULL, PRIMARY KEY (assigned, id)) PARTITION BY RANGE (assigned);
CREATE TABLE taxonomic_assignments_2023 PARTITION OF taxonomic_assignments FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE taxonomic_assignments_2024 PARTITION OF taxonomic_assignments FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE "Odd ""Names"" — 雪" ("Select" integer, "a b" text);
"""
CLOSING = """
CREATE INDEX sequences_by_sample ON sequences (sample, marker);
CREATE INDEX samples_measurements ON samples USING gin (measurements);
CREATE SCHEMA reports;
CREATE VIEW reports.reads_per_river AS
  SELECT river, count(*) AS sequences, sum(reads) AS reads FROM samples JOIN sequences ON sample = samples.id GROUP BY river;
CREATE VIEW reports.cold_samples AS
  SELECT id, river, (measurements ->> 'temperature')::numeric AS temperature FROM samples
  WHERE (measurements ->> 'temperature')::numeric < 4;
CREATE MATERIALIZED VIEW reports.taxa AS
  SELECT taxon, count(*) AS assignments, avg(confidence) AS confidence FROM taxonomic_assignments GROUP BY taxon;
CREATE UNIQUE INDEX taxa_by_name ON reports.taxa (taxon);
CREATE FUNCTION reports.gc_content(sequence text) RETURNS numeric LANGUAGE sql IMMUTABLE AS
  $$ SELECT round(length(translate(sequence, 'AT', ''))::numeric / nullif(length(sequence), 0), 4) $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := trim(NEW.note); RETURN NEW; END $$;
CREATE TRIGGER trimmed BEFORE UPDATE ON samples FOR EACH ROW EXECUTE FUNCTION touch();
SELECT setval('sequences_id_seq', (SELECT max(id) FROM sequences));
SELECT setval('taxonomic_assignments_id_seq', (SELECT max(id) FROM taxonomic_assignments));
"""


def statements(scale: float) -> Iterator[bytes]:
    """Give the whole database as SQL for psql, in pieces."""
    dice = random.Random(SEED)
    samples = max(20, int(SAMPLES * scale))
    sequences = max(60, int(SEQUENCES * scale))
    yield SCHEMA.encode()
    yield b"COPY samples (river, note, collected, position, depth_range, preservation, tags, measurements, raw) FROM stdin;\n"
    yield from (_sample(dice, number) for number in range(samples))
    yield b"\\.\nCOPY sequences (id, sample, marker, reads, sequence) FROM stdin;\n"
    yield from (_sequence(dice, number, samples) for number in range(1, sequences + 1))
    yield b"\\.\nCOPY taxonomic_assignments (id, sequence, taxon, confidence, assigned) FROM stdin;\n"
    yield from (
        _assignment(dice, number, sequences) for number in range(1, max(100, int(ASSIGNMENTS * scale)) + 1)
    )
    yield "\\.\nINSERT INTO \"Odd \"\"Names\"\" — 雪\" VALUES (1, 'it''s'), (NULL, NULL), (3, E'a\\tb\\nc\\\\');\n".encode()
    yield f"SELECT lo_from_bytea(424242, '\\x{dice.randbytes(max(4096, int(2_000_000 * scale))).hex()}');\n".encode()
    yield CLOSING.encode()


def _sample(dice: random.Random, number: int) -> bytes:
    measurements = {
        "temperature": round(dice.uniform(-1, 18), 2),
        "turbidity": {"value": dice.randrange(1000), "unit": "NTU"},
        "instruments": dice.sample(["probe-7", "δ-meter", 'sonde "B"'], dice.randrange(3)),
        "calibrated": dice.random() < 0.5,
    }
    fields = (
        dice.choice(RIVERS),
        None if number % 11 == 0 else f'bottle {number}\tleft bank\n"cloudy" \\ 雪崩 {dice.randrange(10**6)}',
        f"2024-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02} {dice.randrange(24):02}:{dice.randrange(60):02}:00+00",
        f"({dice.uniform(5, 11):.6f},{dice.uniform(45, 48):.6f})",
        f"[{dice.randrange(5)},{dice.randrange(5, 50)})",
        dice.choice(["frozen", "ethanol", "dried", "buffer"]),
        "{" + ",".join(f'"batch {dice.randrange(40)}"' for _ in range(dice.randrange(4))) + "}",
        json.dumps(measurements, ensure_ascii=False),
        None if number % 3 else "\\x" + dice.randbytes(dice.randrange(64)).hex(),
    )
    return _row(*fields)


def _sequence(dice: random.Random, number: int, samples: int) -> bytes:
    bases = dice.randbytes(dice.randrange(300, 2200)).translate(LETTERS).decode()
    return _row(
        number,
        dice.randrange(1, samples + 1),
        dice.choice(["12S", "16S", "COI", "ITS2"]),
        dice.randrange(1, 90_000),
        bases,
    )


def _assignment(dice: random.Random, number: int, sequences: int) -> bytes:
    day = f"{dice.choice([2023, 2024])}-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}"
    return _row(number, dice.randrange(1, sequences + 1), dice.choice(TAXA), f"{dice.random():.4f}", day)


def _row(*fields: object) -> bytes:
    return ("\t".join(_escaped(field) for field in fields) + "\n").encode()


def _escaped(field: object) -> str:
    if field is None:
        return "\\N"
    return str(field).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
