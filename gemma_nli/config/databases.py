"""A database's address: from a file and back, with our driver; and whether two addresses name the same database.

A file's address is read by SQLAlchemy (which decodes percent forms and ends the path at `?`), by Optuna (which fills
braces) and by MLflow (which makes the folder of what stands behind `sqlite:///`, undecoded). So it is written and read
only here.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from gemma_nli.base.errors import ConfigError
from gemma_nli.base.paths import expanded

_MEANT = re.compile(r"[%?#{}'\"\\\x00-\x1f\x7f]")  # characters that one of the readers would interpret
_SQLITE_OPTIONS = ("uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_KINDS = {"postgres": "postgresql", "mariadb": "mysql"}


def quoted_path(path: Path | str) -> str:
    """A path as part of an address: characters with a meaning in addresses are percent-encoded."""
    return _MEANT.sub(lambda found: quote(found.group(), safe=""), str(path))


def sqlite_address(path: Path | str, query: str = "") -> str:
    """The address of a SQLite file, whatever its folders' names.

    MLflow would create an empty folder for a quoted name; with the driver named it does not.
    """
    quoted = quoted_path(path)
    return f"sqlite{'' if quoted == str(path) else '+pysqlite'}:///{quoted}{f'?{query}' if query else ''}"


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of the file that a SQLite address names; None for another database, or one in memory."""
    scheme, separator, rest = uri.partition(":///")
    if not separator or scheme.lower().partition("+")[0] != "sqlite":
        return None
    path, _, query = rest.partition("?")
    path, options = unquote(path), dict(parse_qsl(query))
    if options.get("uri", "").lower() in ("1", "true", "yes", "on", "y", "t") and path.startswith("file:"):
        path = re.sub(r"^(file:)(//(localhost)?(?=/))?", "", path)
        path = unquote(path.partition("?")[0].partition("#")[0])
        if options.get("mode") == "memory":
            return None
    if not path or path == ":memory:":
        return None
    return expanded(path).absolute()


def read_sqlite(file: Path, seconds: float = 60.0) -> sqlite3.Connection:
    """A SQLite file to be read: nothing is written to it, unless a killed writer left a journal.

    That writer's unfinished transaction is then rolled back, as it must be before anything can be read.

    Raises:
        sqlite3.Error: it cannot be read; `seconds` is how long to wait for another's lock.
    """
    for mode in ("ro", "rw"):
        database = sqlite3.connect(f"{file.as_uri()}?mode={mode}", uri=True, timeout=seconds)
        try:
            database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            return database
        except sqlite3.Error as error:
            database.close()
            if mode == "rw" or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                raise
    raise AssertionError("the second attempt returns or raises")


def database_uri(uri: str) -> str:
    """A database's address as every reader takes it: a file's absolute and quoted, PostgreSQL's with our driver.

    SQLAlchemy 2.1 would take psycopg 3 for a plain `postgresql://`, and the extra `postgres` has psycopg2.

    Raises:
        ConfigError: a SQLite address whose path ends at a `?` that is part of the folder's name.
    """
    file = sqlite_file(uri)
    if file is None:
        plain = "postgresql://"
        return f"postgresql+psycopg2://{uri.removeprefix(plain)}" if uri.startswith(plain) else uri
    query = uri.partition("?")[2]
    options = parse_qsl(query, keep_blank_values=True)
    if dict(options).get("uri"):
        return sqlite_address(file)
    if query and (not options or any(name not in _SQLITE_OPTIONS for name, _ in options)):
        raise ConfigError(
            f"{uri.partition('?')[0]}?...: the path of a SQLite address ends at '?'; where that is part of a folder's "
            f"name write %3F: {sqlite_address(uri.partition(':///')[2])}"
        )
    return sqlite_address(file, query)


@dataclass(frozen=True)
class _Server:
    """Where a database on a server is, the same for all spellings of it."""

    kind: str
    hosts: frozenset[str]  # "" is this machine
    port: int
    name: str
    options: str  # PostgreSQL's, where a search_path separates two


def same_database(one: str, other: str) -> bool:
    """Whether two SQLAlchemy addresses name the same database, however each is spelled."""
    files = sqlite_file(one), sqlite_file(other)
    if files[0] is not None and files[1] is not None:
        return _same_file(files[0], files[1])
    first, second = _server(one), _server(other)
    if first is None or second is None:
        return False
    if (first.kind, first.port, first.name, first.options) != (second.kind, second.port, second.name, second.options):
        return False
    return bool(first.hosts & second.hosts) or bool(_addresses(first.hosts) & _addresses(second.hosts))


def _same_file(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def _server(uri: str) -> _Server | None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return None
    kind = url.drivername.lower().partition("+")[0]
    kind = _KINDS.get(kind, kind)
    if kind not in _PORTS:
        return None
    query = {name: [value] if isinstance(value, str) else list(value) for name, value in url.query.items()}
    libpq = os.environ if kind == "postgresql" else {}
    hosts, port = [url.host or ""], url.port
    for given in query.get("host", []) + query.get("hostaddr", []) if kind == "postgresql" else []:
        for host in given.split(","):
            name, _, number = host.partition(":") if host.count(":") == 1 else (host, "", "")
            hosts, port = [*hosts, name], port or (int(number) if number.isdigit() else None)
    hosts = [host for host in hosts if host] or [libpq.get("PGHOST", "")]
    number = next((n for n in [*query.get("port", []), libpq.get("PGPORT", "")] if n.isdigit()), "")
    user = url.username or _first(query, "user") or libpq.get("PGUSER") or _login()
    return _Server(
        kind,
        frozenset(_place(host) for host in hosts),
        port or int(number or _PORTS[kind]),
        url.database or _first(query, "dbname") or libpq.get("PGDATABASE") or (user if kind == "postgresql" else ""),
        " ".join(_first(query, "options").split()),
    )


def _first(query: dict[str, list[str]], name: str) -> str:
    return query.get(name, [""])[0]


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return ""


def _place(host: str) -> str:
    """A host as two spellings of it agree: this machine, by loopback or by a socket's folder, is the empty one."""
    host = host.lower().strip("[]").rstrip(".")
    mine = host in ("localhost", "localhost.localdomain", "::1", "0.0.0.0", socket.gethostname().lower())  # noqa: S104
    return "" if mine or host.startswith(("/", "@", "127.")) else host


def _addresses(hosts: frozenset[str]) -> set[str]:
    found: set[str] = set()
    for host in hosts:
        try:
            found |= {_place(str(entry[4][0])) for entry in socket.getaddrinfo(host or "localhost", None)}
        except (OSError, UnicodeError):
            continue
    return found
