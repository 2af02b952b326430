"""The first Ctrl-C asks for a quiet end, the second stops at once; afterwards signals are whose they were."""

from __future__ import annotations

import contextlib
import signal

import pytest

from gemma_nli.sweep.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_acts_once_and_the_second_stops(number, capsys):
    acted: list[str] = []
    interrupts = Interrupts()
    interrupts.on_first(lambda: acted.append("first"))
    with interrupts:
        signal.raise_signal(number)
        assert (interrupts.count, acted) == (1, ["first"])
        assert "finishing the running trials" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert acted == ["first"]


def test_what_is_to_be_done_at_the_first_signal_is_done_at_once_where_that_has_come():
    acted: list[str] = []
    interrupts = Interrupts()
    with interrupts:
        signal.raise_signal(signal.SIGINT)
        interrupts.on_first(lambda: acted.append("late"))
    assert acted == ["late"]


def test_signals_are_given_back_as_they_were_found():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(RuntimeError), Interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
        raise RuntimeError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
