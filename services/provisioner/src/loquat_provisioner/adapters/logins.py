"""A project's logins on its cluster: what they shall be (`loquat_operations.logins`), and the roles that are made so.

Every function takes the connection of loquat_provisioner to database `postgres`, in a transaction.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING, Final

from loquat_common.sql import Ident, compose

from loquat_provisioner.domain.life import CONNECTIONS, Login, Names

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

_ROUNDS: Final = 4096  # PostgreSQL's own default of scram_iterations

SETTINGS: Final = """
(l.settings || CASE WHEN coalesce(o.closed_for_size, false) AND l.rolname ~ '_editor$' THEN ARRAY['default_transaction_read_only=on'] ELSE '{}' END)"""
"""SQL of the settings that login `l` of project `o` shall have: over its size a project's editor reads, unless a session says that it deletes."""

# purpose: what a login shall be, with the databases in which it has settings. Of two who put it right one waits for the other.
_WANTED: Final = f"""
SELECT l.rolname, l.database, l.verifier, {SETTINGS} AS settings, l.connection_limit,
    NOT (l.closed OR coalesce(o.closed_for_size, false) AND l.rolname !~ '_editor$') AS enters,
    ARRAY(SELECT d.datname FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase WHERE s.setrole = r.oid) AS places
FROM loquat_operations.logins AS l JOIN pg_roles AS r USING (rolname) LEFT JOIN loquat_operations.projects AS o USING (database)
WHERE l.rolname = $1 FOR UPDATE OF l"""  # noqa: S608  (constants)


def password() -> str:
    """A new one, of letters that need no quoting in a URL."""
    return secrets.token_urlsafe(32)


def verifier(secret: str) -> str:
    """The SCRAM verifier, made here: no password travels in SQL text, and the reaper can put it back without knowing the password."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, _ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ROUNDS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


async def make(admin: Connection, names: Names, kind: Login, secret: str | None) -> None:
    """The role, as it shall be from now on; without a `secret` it is closed, under a password that nobody knows. Harmless when repeated."""
    role, settings = names.login(kind), [f"role={names.owner}", "search_path=public"]
    if await admin.fetchval("SELECT true FROM loquat_operations.logins WHERE rolname = $1", role):
        return
    await admin.execute(
        "INSERT INTO loquat_operations.logins (rolname, database, verifier, connection_limit, settings, closed) VALUES ($1, $2, $3, $4, $5, $6)",
        role,
        names.database,
        verifier(secret or password()),
        CONNECTIONS[kind],
        settings,
        secret is None,
    )
    places = {"role": Ident(role), "owner": Ident(names.owner), "database": Ident(names.database)}
    await admin.execute(compose("CREATE ROLE {role} NOLOGIN NOINHERIT", **places))
    await admin.execute(compose("GRANT {owner} TO {role} WITH INHERIT FALSE, SET TRUE", **places))
    await admin.execute(compose("GRANT CONNECT ON DATABASE {database} TO {role}", **places))  # no TEMPORARY, no CREATE
    await put_right(admin, role)


async def put_right(admin: Connection, role: str) -> None:
    """Makes the role what it shall be: password, right to enter, number of connections, settings."""
    wanted = await admin.fetchrow(_WANTED, role)
    if wanted is None:
        return
    login, database = Ident(role), Ident(wanted["database"])
    await admin.execute(
        await admin.fetchval(
            "SELECT format('ALTER ROLE %I %s CONNECTION LIMIT %s PASSWORD %L', $1::text, $2::text, $3::int, $4::text)",
            role,
            "LOGIN" if wanted["enters"] else "NOLOGIN",
            wanted["connection_limit"],
            wanted["verifier"],
        )
    )
    await admin.execute(compose("ALTER ROLE {role} RESET ALL", role=login))
    for place in wanted["places"]:
        await admin.execute(compose("ALTER ROLE {role} IN DATABASE {database} RESET ALL", role=login, database=Ident(place)))
    for setting in wanted["settings"]:
        key, _, value = setting.partition("=")
        names = {"role": login, "database": database, "key": Ident(key), "value": Ident(value)}
        await admin.execute(compose("ALTER ROLE {role} IN DATABASE {database} SET {key} = {value}", **names))
