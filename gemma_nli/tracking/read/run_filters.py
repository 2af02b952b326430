"""Which runs are asked for, in the words of MLflow's search."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from gemma_nli.base.errors import TrackingError
from gemma_nli.tracking.write.projection import KIND

_UNITS = {"h": 3600, "d": 86400, "w": 604800, "m": 60}
_NAMED = re.compile(r"\b(params?|metrics?|tags?|attributes?)\.([A-Za-z_][\w./:-]*)")


def filter_of(kind: str | None, where: str | None, since: str | None) -> str:
    """All conditions together; the arguments are those of `list_runs`.

    Raises:
        TrackingError: `since` is neither a time nor an age.
    """
    return " and ".join(part for part in (_kind(kind), _quote(where), _since(since)) if part)


def _kind(kind: str | None) -> str:
    if kind == "trial":
        return f"tags.`{KIND}` != 'sweep'"  # of those that have the tag
    return f"tags.`{KIND}` = '{kind}'" if kind else ""


def _quote(where: str | None) -> str:
    """Backticks around names with dots or slashes, which MLflow's parser needs; quoted text is left alone."""
    if not where:
        return ""
    parts = re.split(r"('[^']*'|\"[^\"]*\"|`[^`]*`)", where)
    return "".join(_NAMED.sub(r"\1.`\2`", part) if index % 2 == 0 else part for index, part in enumerate(parts))


def _since(text: str | None) -> str:
    if not text:
        return ""
    age = re.fullmatch(r"(\d+)\s*([mhdw])", text.strip())
    if age:
        start = time.time() - int(age[1]) * _UNITS[age[2]]
    else:
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise TrackingError(
                f"--since: invalid time '{text}'; write 2026-11-01, or an age such as 12h, 7d, 2w."
            ) from None
        start = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return f"attributes.start_time >= {int(start * 1000)}"
