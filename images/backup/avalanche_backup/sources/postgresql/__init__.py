"""PostgreSQL by its own tools: pg_dump, pg_restore and psql of the right major, their exit codes and trailers checked."""

from avalanche_backup.sources.postgresql.source import PostgresqlDatabase

__all__ = ["PostgresqlDatabase"]
