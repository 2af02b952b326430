"""A trial on disk and while it runs: its append-only journal, what that records, and the runner that writes it."""

from gemma_nli.trial.journal import TrialJournal, read_trial, read_trials, without_credentials
from gemma_nli.trial.record import State, TrialRecord, trial_key

__all__ = ["State", "TrialJournal", "TrialRecord", "read_trial", "read_trials", "trial_key", "without_credentials"]
