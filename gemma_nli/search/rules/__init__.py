"""Rules that stop trials early: a file each, found by `scheduler.kind`. Another one is another file."""

from gemma_nli.base.part_registry import import_parts
from gemma_nli.search.rules.stopping_rule import RULES, Decision, EndedFold, Folds, StoppingRule, build_rule, rule

import_parts(__name__)

__all__ = ["RULES", "Decision", "EndedFold", "Folds", "StoppingRule", "build_rule", "rule"]
