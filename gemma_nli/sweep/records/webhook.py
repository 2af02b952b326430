"""One POST to a webhook when a sweep has ended or failed. A failed delivery is reported, and stops nothing.

The body is JSON: `text` is a sentence (what Slack, Mattermost and Teams' workflows show), `event` one of ended, failed,
interrupted, and the rest is what `gemma-nli sweep --json` prints. No post, no traceback and no credential is in it.
The address itself is a secret where it is a chat's webhook: messages of ours show its host only.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from gemma_nli.base.errors import GemmaNliError, SweepError
from gemma_nli.base.masking import mask_address, mask_tree
from gemma_nli.base.outgoing import shown
from gemma_nli.sweep.records.sweep_result import SweepResult

SECONDS = 10.0
"""The most time a notification may take, however the other side behaves."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another server must get neither the password nor the sweep's result, and a GET there would notify nobody."""

    def redirect_request(self, *_: object) -> None:
        """None leaves the redirect an HTTPError."""


_OPENER = urllib.request.build_opener(_NoRedirect)
_KEPT = "%/:?#[]@!$&'()*+,;=~-._"
"""What an address may hold; the rest is percent-encoded before it is sent."""


class Notifier:
    """Notifies a webhook how a sweep ended."""

    def __init__(self, url: str, name: str, seconds: float = SECONDS) -> None:
        """
        Args:
            url: http or https; `user:password@` in it becomes a basic authorization header.
            name: the sweep's.
        Raises:
            SweepError: not such an address, raised before the sweep costs anything.
        """
        parts = _checked(url)
        self.name, self.seconds = name, seconds
        self.shown = f"{parts.scheme}://{parts.hostname}"
        self._headers = {"Content-Type": "application/json", "User-Agent": "gemma-nli"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        asked = {"path": quote(parts.path, safe=_KEPT), "query": quote(parts.query, safe=_KEPT), "fragment": ""}
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], **asked))

    def ended(self, result: SweepResult) -> str | None:
        """Why it could not be notified, or None."""
        event = "interrupted" if result.interrupted else "ended"
        counts = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count) or "no trials"
        text = f"Sweep {self.name} {event}: {counts}"
        if result.best is not None:
            beside = f" {result.measured_at}" if result.measured_at else ""
            text += f"; best {result.metric.rsplit('/', 1)[-1]} {result.best.objective:.4f}{beside}"
        facts = result.to_json()
        del facts["failures"]  # an error may quote a post if data.log_text allows it: counts are enough here
        return self._send({"text": f"{text}.", "event": event, **facts})

    def failed(self, error: BaseException) -> str | None:
        """Why it could not be notified, or None. For an error that is not ours, only the type is sent."""
        if isinstance(error, KeyboardInterrupt):
            event, why = "interrupted", "stopped by its user"
        else:
            event, why = "failed", type(error).__name__
            if isinstance(error, GemmaNliError):
                why = shown(str(error))
        text = f"Sweep {self.name} {event}: {why}"
        return self._send({"text": text, "event": event, "name": self.name, "error": why})

    def _send(self, body: dict[str, Any]) -> str | None:
        answer: list[str | None] = []
        thread = threading.Thread(target=lambda: answer.append(self._post(body)), name="notify", daemon=True)
        thread.start()
        thread.join(self.seconds)  # a socket's timeout bounds each read, not a server that drips
        why = answer[0] if answer else f"no answer within {self.seconds:g} seconds"
        return f"{self.shown} could not be notified: {why}" if why else None

    def _post(self, body: dict[str, Any]) -> str | None:
        data = json.dumps(mask_tree(body), allow_nan=False, default=str).encode()
        request = urllib.request.Request(self._url, data, self._headers, method="POST")  # noqa: S310 - http(s), checked
        try:
            with _OPENER.open(request, timeout=self.seconds):  # nosec B310 - as above
                return None
        except urllib.error.HTTPError as error:
            if 300 <= error.code < 400:
                return f"it answered {error.code}, and redirects are not followed; give the address it redirects to"
            return f"it answered {error.code}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            return getattr(reason, "strerror", None) or type(reason).__name__


def _checked(url: str) -> SplitResult:
    """The parts of an address that can be asked; raises SweepError, without a word of the address, where it cannot."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:  # also a UnicodeError: a host that no name server could be asked for
        parts, host, port = SplitResult("", "", "", "", ""), "", None
    hidden = parts.username is None and mask_address(url.partition("?")[0].partition("#")[0]).find("***@") >= 0
    if hidden:
        raise SweepError("--notify: a user or password with / ? # or @ in it must be percent-encoded, as %2F for /.")
    if parts.scheme not in ("http", "https") or not host or port == 0 or re.search(r"[\s\x00-\x1f\x7f\\]", url):
        raise SweepError("--notify: must be an http:// or https:// address, such as https://chat.example.org/hooks/1.")
    return parts
