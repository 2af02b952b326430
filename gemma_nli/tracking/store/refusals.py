"""Why a store refuses, in a sentence that says how to fix it; a library's own words only for unknown cases."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from gemma_nli.base.masking import mask_credentials

if TYPE_CHECKING:
    from gemma_nli.tracking.store.mlflow_store import Store

ELSEWHERE = "name another store (--tracking-uri, mlflow.tracking_uri= or $MLFLOW_TRACKING_URI)"
_AWAY = f"start it, {ELSEWHERE}, or train without it: mlflow.enabled=false."
_SIGN_IN = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of an account that may."
)
_NETWORK = (  # pattern of a message, its reason; the first match counts
    (r"refused", "nothing listens there"),
    (r"resolve|translate host name|not known|nodename|getaddrinfo", "its host name cannot be resolved here"),
    (r"timed? ?out|timeout", "no answer in time"),
    (
        r"certificate|SSL|TLS|WRONG_VERSION",
        "the encrypted connection failed: check https:// or http://, and its certificate",
    ),
    (r"unreachable|no route", "there is no route to its network"),
    (r"reset|aborted|closed|broken pipe|EOF|Remote end", "it closed the connection"),
    (r"proxy", "the proxy refuses; check $HTTP_PROXY and $NO_PROXY"),
)
_ADDRESS = r"Invalid url|Failed to parse|No host|label (empty|too long)|Invalid URL|InvalidURL"
_FILE = (
    (
        r"database is locked",
        "another process is writing to it, or it is on a network disk without locks; stop that process, or wait for "
        "it, and run the same command again.",
    ),
    (
        r"readonly database|read-only",
        "the file or its folder is read-only: give this user write permission for both, or " + ELSEWHERE + ".",
    ),
    (r"disk is full|No space left", "its disk is full: free some space, then run the same command again."),
    (
        r"malformed|not a database|disk I/O error",
        "the file is damaged: restore a backup of it, or " + ELSEWHERE + ".",
    ),
    (
        r"unable to open database file",
        "the file cannot be opened: check that its folder exists and that this user may read it, or " + ELSEWHERE + ".",
    ),
    (
        r"no such table|has no column|no such column",
        "its tables are not those of this MLflow version; " + ELSEWHERE + ".",
    ),
)
_DATABASE = (
    (
        r"password authentication failed|no password supplied|Access denied|role \".*\" does not exist|pg_hba",
        "unknown user or wrong password: correct them in the address, where @ and / are written %40 and %2F.",
    ),
    (
        r"database \".*\" does not exist|Unknown database",
        "it has no database of that name: create it on the server (createdb), or correct the address.",
    ),
    (r"permission denied", "that user has no permission for MLflow's tables there; the administrator can grant it."),
    (
        r"too many (clients|connections)|remaining connection slots",
        "it accepts no more connections now; try again later.",
    ),
)


def reason_of(store: Store, error: Exception) -> str:
    """Why a call failed, and what to do about it.

    Args:
        error: what MLflow, SQLAlchemy, SQLite, a file system or the network raised.
    Returns:
        One sentence or two, without a stack, a statement, a password or an object's address.
    """
    why = " ".join(mask_credentials(str(error)).partition("[SQL:")[0].split())  # the statement holds our values
    if store.is_server:
        return _of_server(why, error) or _plain(why)
    if store.database is not None:
        return _first(_FILE, why) or _of_file_system(error) or _plain(why)
    sentence = _first(_DATABASE, why)
    if sentence is None and "OperationalError" in why and (because := _first(_NETWORK, why)):
        sentence = f"the database server does not answer ({because}): {_AWAY}"
    return sentence or _of_file_system(error) or _plain(why)


def _first(cases: tuple[tuple[str, str], ...], why: str) -> str | None:
    return next((sentence for sign, sentence in cases if re.search(sign, why, flags=re.I)), None)


def _of_server(why: str, error: Exception) -> str | None:
    if re.search(_ADDRESS, why):
        return "that is not a server's address: write http://HOST:PORT or https://HOST:PORT."
    status = re.search(r"failed with error code (\d{3})|\b(\d{3}) (?:Client|Server) Error|too many (\d{3}) error", why)
    number = int(next(filter(None, status.groups()))) if status else 0
    if number in (401, 403):
        who = "the server requires a login" if number == 401 else "this account is not allowed to do that"
        return f"{who} (HTTP {number}): {_SIGN_IN}"
    if number == 404 and ("registered-models" in why or "model-versions" in why):
        return "the server has no model registry; MLflow's own server has one if its store is a database."
    if number >= 500:
        return f"the server failed (HTTP {number}); see its log. {_AWAY[0].upper()}{_AWAY[1:]}"
    if number == 429:
        return "the server accepts no more requests now (HTTP 429); run the same command again later."
    if number and not re.search(r'"error_code"|RESOURCE_|INVALID_', why):
        return f"what answers there (HTTP {number}) is not an MLflow server; {ELSEWHERE}."
    if re.search(r"JSONDecodeError|Expecting value|not in a valid JSON|valid JSON", why):
        return f"what answers there is not an MLflow server; {ELSEWHERE}."
    if isinstance(error, OSError) and error.errno is not None:
        return _of_file_system(error)
    if not re.search(r"failed with (exception|timeout)|Max retries|Connection|timed out", why):
        return None
    because = _first(_NETWORK, why) or "no connection"
    return f"the server does not answer ({because}): {_AWAY}"


def _of_file_system(error: Exception) -> str | None:
    """An artifact's or a store's folder that cannot be used."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{place}this user has no permission there ({error.strerror}): grant it, or {ELSEWHERE}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}no space is left there: free some, then run the same command again."
    return f"{place}{error.strerror}."


def _plain(why: str) -> str:
    """All other cases: the library's first sentence, without the exception's type and internals."""
    why = re.sub(r"^\(\w+(?:\.\w+)+\) |<[\w.]+ object at 0x[0-9a-f]+>:? ?", "", why)
    why = re.sub(r"^(?:[A-Z_]+_[A-Z_]+: )+", "", why)
    return why if len(why) <= 300 else f"{why[:297]}..."
