"""Explicit schema migrations: a command makes them, a service only checks them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources

import asyncpg
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError

from tierflow_durable.pooling import check_direct

_LOCK = 0x7F10_57A7
"""Key of the advisory lock that keeps two migrations of one database apart."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of SQL; its name orders it."""

    name: str
    text: str


def migrations_of(*packages: str) -> list[Migration]:
    """All migrations in the packages' sql/migrations folders: package by package, by name within each."""
    found: list[Migration] = []
    for package in packages:
        folder = resources.files(package) / "sql" / "migrations"
        files = sorted(
            (entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name
        )
        found += [
            Migration(name=f"{package}/{entry.name.removesuffix('.sql')}", text=entry.read_text()) for entry in files
        ]
    return found


async def migrate(database_url: str, schema: str, *packages: str) -> list[str]:
    """Creates the schema and applies what is missing, each migration in a transaction of its own. Returns the names of those applied.

    Needs the right to create a schema in the database, nothing more. Raises what asyncpg raises.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", schema):
        raise ValueError(f"not a schema name: {schema!r}")
    connection = await asyncpg.connect(database_url, timeout=10)
    applied: list[str] = []
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute(f'SET search_path = "{schema}"')
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row["name"] for row in await connection.fetch("SELECT name FROM migration")}
        for migration in migrations_of("tierflow_durable", *packages):
            if migration.name in done:
                continue
            # One implicit transaction: if it fails, the server undoes it; there is no rollback of ours that could fail.
            await connection.execute(f"{migration.text};\nINSERT INTO migration (name) VALUES ('{migration.name}')")
            applied.append(migration.name)
    finally:
        await connection.close()
    return applied


async def check_version(database_url: str, schema: str, *packages: str) -> None:
    """Looks whether a service may start on a database.

    Raises:
        FailureError: SCHEMA_VERSION unless exactly the migrations that this build knows are applied; CONFIGURATION where a pooler shares sessions.
        Exception: What asyncpg raises when it cannot look.
    """
    await check_direct(database_url, schema)
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        exists = await connection.fetchval("SELECT to_regclass($1)", f"{schema}.migration")
        done = (
            {row["name"] for row in await connection.fetch(f'SELECT name FROM "{schema}".migration')}
            if exists
            else set()
        )
    finally:
        await connection.close()
    known = {migration.name for migration in migrations_of("tierflow_durable", *packages)}
    if missing := sorted(known - done):
        raise _wrong(schema, f"lacks {', '.join(missing)}", "run the service's `migrate` command")
    if unknown := sorted(done - known):
        raise _wrong(
            schema, f"has {', '.join(unknown)}, which this build does not know", "start a build that is at least as new"
        )


def _wrong(schema: str, what: str, hint: str) -> FailureError:
    return FailureError(
        failure(
            "SCHEMA_VERSION",
            f"the database schema {schema!r} {what}: {hint}",
            component="migrations",
            operation="check_version",
        )
    )
