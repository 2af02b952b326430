"""The gate through which every text leaves the process: to a terminal, a log, one of Ray's files, MLflow.

Credentials are masked, lines that quote a post are left out, and control characters are written as
escapes. `guard_process` sends through it what Python and libraries print on their own: tracebacks, warnings, log
records.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from gemma_nli.base.errors import GemmaNliError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.base.private_texts import without_private

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Controls and escapes, marks that turn the direction of writing, characters of no width, halves of characters."""


class Crashed(Exception):
    """An exception that was not the user's mistake, with private text removed: its traceback is in its text."""


def shown(text: str) -> str:
    """The text with secrets, post text and control characters removed; line breaks and tabs stay."""
    return visible(without_private(mask_credentials(text)))


def one_line(value: object) -> str:
    """The same for a value on one line: a name with a line break in it must not look like two rows."""
    return visible(mask_credentials(str(value))).replace("\n", "\\n").replace("\t", "\\t")


def visible(text: str) -> str:
    """`text` with every control character written as its escape."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape", "backslashreplace").decode(), text)


def shown_error(error: BaseException) -> str:
    """`ValueError: what`, with private text removed."""
    return shown(f"{type(error).__name__}: {error}")


def shown_traceback(error: BaseException) -> str:
    """The traceback with causes and notes, private text removed; it contains no values of variables."""
    return shown("".join(traceback.format_exception(error)))


@contextmanager
def leaving() -> Iterator[None]:
    """Exceptions raised inside are passed on with private text removed: Ray, a server or a notebook print what they
    get.

    Raises:
        GemmaNliError: of the same class as the one raised inside.
        Crashed: for any other exception, without its cause.
    """
    try:
        yield
    except GemmaNliError as error:
        raise type(error)(shown(str(error))) from None
    except Crashed:
        raise
    except Exception as error:  # noqa: BLE001 - raised again, as far as it may be shown
        raise Crashed(shown_traceback(error)) from None


def guard_process() -> None:
    """Send through the gate what is printed without our doing: uncaught exceptions, warnings and every log record."""
    if getattr(logging.getLogRecordFactory(), "passes_gate", False):
        return
    sys.excepthook = _print_uncaught
    threading.excepthook = lambda args: _print_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _print_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    warn = warnings.formatwarning
    warnings.formatwarning = lambda *args, **named: shown(warn(*args, **named))
    make = logging.getLogRecordFactory()

    def record(*args: Any, **named: Any) -> logging.LogRecord:
        return _passed(make(*args, **named))

    record.passes_gate = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)


def _print_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or issubclass(kind, SystemExit):
        return
    sys.stderr.write(shown("".join(traceback.format_exception(kind, error, trace))))


def _passed(record: logging.LogRecord) -> logging.LogRecord:
    """The record with private text removed from message and traceback; a harmless one keeps its arguments."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError):  # a library's own mistake, for which logging would print the arguments as they are
        message = ""
        record.msg, record.args = shown(f"{record.msg} {record.args}"), None
    allowed = shown(message)
    if allowed != message:
        record.msg, record.args = allowed, None
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text, record.exc_info = shown_traceback(record.exc_info[1]).rstrip(), None
    return record
