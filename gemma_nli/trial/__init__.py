"""Trials on disk: append-only journals, and what they tell."""

from gemma_nli.trial.journal import TrialJournal, read_trial, read_trials
from gemma_nli.trial.record import State, TrialRecord, trial_key

__all__ = ["State", "TrialJournal", "TrialRecord", "read_trial", "read_trials", "trial_key"]
