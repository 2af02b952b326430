"""Credentials never leave the process in text: every log, file, run, message and error passes through here.

Masked are the `user:password@` or `token@` of a URL, secret keys of its query or fragment (`?password=`, `&sig=`), the
path of a chat's webhook, `keyword=value` strings as libpq and ODBC have them, authorization headers, tokens of a known
form, and the values of this process's secret environment variables. In doubt more than the secret is masked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
_KEY = (
    r"(?:[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|signature|credentials?|api[_-]?key)"
    r"|(?:[\w.-]*[_-])?(?:access|account|secret|private|auth|shared|subscription|master)[_-]?key(?:[_-]?id)?"
    r"|awsaccesskeyid|shared_?access_?(?:key|signature)|pwd|pass|key|sig|auth|jwt|bearer)"
)
"""A query's keys whose values are secrets; in running text, where `key=` is a folder's name, only these:"""
_WORD = (
    r"(?:(?:\w+_)?(?:password|passwd|passphrase|secret|auth_?token|access_?token|refresh_?token|session_?token"
    r"|id_?token|api_?key|access_?key(?:_?id)?|account_?key|secret_?key)|sslpassword|pgpassword|pwd|token"
    r"|api-key|x-api-key|client-secret|accesskeyid|awsaccesskeyid|sharedaccesskey|\w+_token)"
)
_START = re.compile(r"(?<![\w:/@.+-])(?:[A-Za-z][A-Za-z0-9+.\-]*:)+//")
_CLOSES = r"(?=[\s,;:.)\]}>]|$)"
_PORT = re.compile(r"(\[[^\]\s]*\]|[^/?#\s:@\[\]]*):(?:\d{1,5}(?=[/?#\s'\",;)]|[.:](?:\s|$)|$)|(?=\s|$))")
_TOKEN_ONLY = re.compile(r"[^/?#\s:@]+@(?:\[[^\]\s]*\]|[\w.-]+)(?::\d+)?(?=[/?#\s]|$)")
_MACHINE = re.compile(r"localhost|host|\d+(?:\.\d+){3}|\[.*\]", re.IGNORECASE)
"""What stands before a port and is nobody's name, so that `127.0.0.1:8080/path@version` is a path."""
_OPEN = rf"(?![\"'`>]{_CLOSES})"
_QUERY = re.compile(rf"(?i)((?:[?&#]|%3F|%26|%23){_KEY}(?:=|%3D))(?:{_OPEN}[^&\s])*(?: [^&\n\"'<>:?]*(?=&[\w.-]+=))?")
_WHOLE_QUERY = re.compile(rf"(?i)((?:[?&#]|%3F|%26|%23){_KEY}(?:=|%3D))[^&]*")
_ODBC = re.compile(rf"(?i)((?:[;?]|%3B|=|%3D){_KEY}(?:=|%3D))(?:\{{[^}}]*\}}|%7B.*?%7D|(?:(?!%3B){_OPEN}[^&;\s])+)")
_KEYWORD = re.compile(
    rf"(?i)(?<![\w.\-/?&;#=%])({_WORD}[\"']?\s*[=:]\s*)(['\"])(?:(?!\2)[^\\\n]|\\.)*\2"
    rf"|(?<![\w.\-/?&;#=%])({_WORD}=)(?![\s'\"])(?:{_OPEN}[^\s,;)&])+"
)
_PATTERNS = (
    _QUERY,
    _ODBC,
    re.compile(r"(?i)(https?://[^\s\"'<>]{1,300}?/(?:hooks?|webhooks?|webhookb2)/)[^\s\"'<>]+"),
    re.compile(r"(?i)(https?://(?:hooks\.[^\s/]+|api\.telegram\.org)/)(?!\*)[^\s\"'<>]*[^\s\"'<>:,.;)/]"),
    re.compile(r"(?i)(\bauthorization[\"']?\s*[:=]\s*[\"']?)(?:(?:bearer|basic|token|digest)\s+)?[^\s\"',;]+"),
    re.compile(r"(?i)(\bbearer\s+)(?=[\w.~+/=-]*[\d.~+/=_-])[\w.~+/=-]{8,}"),
    re.compile(r"(?i)(\bSharedAccessSignature\s+)[^\s\"']+"),
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)", re.DOTALL),
    re.compile(  # tokens of GitHub, Hugging Face, GitLab, Slack, AWS and others; JSON web tokens
        r"(?<![\w-])()(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|hf_[A-Za-z0-9]{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
        r"|(?:AKIA|ASIA)[0-9A-Z]{16}|sk-[\w-]{20,}|eyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*)"
    ),
)
_SECRET_NAME = re.compile(
    r"(?i)(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|PASS|SECRET|TOKEN|API_?KEY"
    r"|(?:ACCESS|ACCOUNT|AUTH|ENCRYPTION|MASTER|PRIVATE|SECRET|SHARED|SIGNING|STORAGE)_KEY)$|^PGPASSWORD$|\w_PWD$"
)
_ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "GEMMA_NLI_NOTIFY")
SHORTEST = 6
"""Length from which an environment variable's value is looked for; shorter ones occur in ordinary words."""


def mask_credentials(text: str) -> str:
    """`text` with every secret in it replaced by `***`; URLs may stand anywhere in it."""
    if not text:
        return text
    text = _without_environment(text)
    if "://" in text:
        text = _without_userinfo(text)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{MASK}", text)
    return _KEYWORD.sub(lambda found: f"{found[1] or found[3]}{found[2] or ''}{MASK}{found[2] or ''}", text)


def mask_address(value: str) -> str:
    """The same for a value that is one whole address (or none at all), in which a blank does not end it."""
    start = _START.match(value)
    if start is None or "\n" in value:
        return mask_credentials(value)
    value = _without_environment(value)
    return mask_credentials(value[: start.end()] + _masked(value[start.end() :]))


def _masked(rest: str) -> str:
    """What stands after the `//` of an address, and is nothing but that, without userinfo and secrets of its query."""
    at = _userinfo_end(rest, whole=True)
    if at is not None:
        rest = f"{MASK}{rest[at:]}"
    return _WHOLE_QUERY.sub(rf"\1{MASK}", rest)


def mask_tree(value: Any) -> Any:
    """The same for every text in a JSON value."""
    if isinstance(value, dict):
        return {name: mask_tree(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_tree(inner) for inner in value]
    return mask_address(value) if isinstance(value, str) else value


def _without_userinfo(text: str) -> str:
    starts = list(_START.finditer(text))
    parts, kept = [], 0
    for place, start in enumerate(starts):
        if start.end() < kept:
            continue
        end = starts[place + 1].start() if place + 1 < len(starts) else len(text)
        rest = text[start.end() : end].partition("\n")[0]
        mark = text[start.start() - 1] if start.start() else ""
        closed = _closing(rest, mark)
        if closed is not None:
            parts += [text[kept : start.end()], _masked(rest[:closed])]
            kept = start.end() + closed
            continue
        at = _userinfo_end(rest, whole=False)
        if at is not None:
            parts += [text[kept : start.end()], MASK]
            kept = start.end() + at
    return "".join(parts) + text[kept:]


def _closing(rest: str, mark: str) -> int | None:
    """Where the quote or bracket that precedes an address ends it."""
    if not mark or mark not in "\"'<`":
        return None
    found = re.search(re.escape(">" if mark == "<" else mark) + _CLOSES, rest)
    return found.start() if found else None


def _userinfo_end(rest: str, whole: bool) -> int | None:
    """Where the `@` is that ends the userinfo of an address whose text after `//` is `rest`; None without one.

    An unescaped `/`, `@` or blank in a password ends nothing, so the last `@` counts.

    Args:
        whole: `rest` is the address and nothing else; else a sentence may follow it.
    """
    if "@" not in rest:
        return None
    head = re.match(r"[^/?#]*" if whole else r"[^/?#\s]*", rest)[0]  # type: ignore[index]
    run = rest if whole else re.match(r"\S*", rest)[0]  # type: ignore[index]
    if ":" not in re.sub(r"\[[^\]]*\]", "", head):
        at = head.rfind("@")
        return at if at >= 0 else None
    token = _TOKEN_ONLY.match(rest)
    if token is not None and "@" not in run[token.end() :]:
        return head.rfind("@")
    port = _PORT.match(rest)
    if port is None:
        return rest.rfind("@")
    if _MACHINE.fullmatch(port[1]):
        return None
    if "@" not in run:  # a port, or a password that begins like one
        following = re.match(r"\S*\s\S*@", rest)
        return following.end() - 1 if following else None
    at = run.rfind("@")
    query = run[:at].partition("?")[2]
    return None if re.match(r"[\w.%-]+=", query) else at


def _without_environment(text: str) -> str:
    for secret in _secrets():
        if secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    return text


@lru_cache(1024)
def names_secret(name: str) -> bool:
    """Whether an environment variable of this name has a secret for its value."""
    return _SECRET_NAME.search(name) is not None


def _secrets() -> Iterator[str]:
    """Values that are secrets by their variable's name, as they are and as a URL or a repr() would have them."""
    for name in list(os.environ):  # other threads set and unset variables meanwhile: MLflow's telemetry does
        value = os.environ.get(name, "")
        found = [value.strip()] if names_secret(name) else []
        if name in _ADDRESSES:
            userinfo = value.partition("://")[2].rpartition("@")[0]
            found = [password for password in (userinfo.partition(":")[2],) if password]
        for secret in found:
            if len(secret) >= SHORTEST and MASK not in secret:
                yield from dict.fromkeys(
                    (secret, unquote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1])
                )
