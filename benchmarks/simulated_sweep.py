"""A sweep whose trials were never trained: real files, folds and journals, probabilities drawn around a known skill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.sealed import training_corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.prepare import identify_sweep
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.training.fold import epoch_curves, measure, plan_fold
from gemma_nli.training.results import summarize
from gemma_nli.trial import TrialJournal, trial_key

Skill = Callable[[Mapping[str, Any]], float]


def simulate_sweep(spec: SweepSpec, skill: Skill, epochs: int = 4, seed: int = 0) -> str:
    """Write every cell of a grid or random sweep as a finished trial; the sweep's id.

    Args:
        skill: of a cell's settings, how far the logits of matched pairs lie above the others, in standard deviations.
    """
    corpus = training_corpus(spec.base.data)
    pairs = build_pairs(corpus, spec.base.data)
    storage, sweep_id = Path(spec.storage), identify_sweep(spec, pairs)
    rng = np.random.default_rng(seed)
    hard_N = rng.normal(size=len(pairs))  # some pairs are hard for every trial
    cells = {
        _write(storage, cell.config, pairs, hard_N, skill(cell.settings), epochs, rng): cell.settings
        for cell in spec.cells()
    }
    folder = SweepFolder(storage / "sweeps" / sweep_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.begin(sweep_id, spec.name, spec.to_yaml(), storage)
    folder.keep_pairs(pairs)
    folder.add_cells(cells)
    return sweep_id


def simulate_confirmation(
    spec: SweepSpec,
    sweep_id: str,
    leaders: Iterable[Mapping[str, Any]],
    skill: Skill,
    seeds: int = 3,
    fold_drawings: int = 2,
    luck: float = 0.0,
    seed: int = 1,
) -> None:
    """Write the confirming trials of the cells with these settings.

    Args:
        luck: standard deviation of a training's skill over training seeds.
    """
    corpus, rng = training_corpus(spec.base.data), np.random.default_rng(seed)
    hard_N = rng.normal(size=len(build_pairs(corpus, spec.base.data)))
    cells: dict[str, dict[str, Any]] = {}
    for drawing in range(1, fold_drawings + 1):
        fold_seed = spec.base.data.fold_seed + 1000 * drawing
        pairs = build_pairs(corpus, spec.base.with_settings({"data.fold_seed": fold_seed}).data)
        for settings in leaders:
            own = spec.space.configure(spec.base, settings)
            for number in range(seeds):
                fresh = {"data.fold_seed": fold_seed, "training.seed": own.training.seed + drawing + 50 * number}
                able = skill(settings) + luck * rng.normal()
                key = _write(Path(spec.storage), own.with_settings(fresh), pairs, hard_N, able, 4, rng)
                cells[key] = {**settings, **fresh}
    SweepFolder(Path(spec.storage) / "sweeps" / sweep_id).add_cells(cells)


def _write(
    storage: Path,
    config: RunConfig,
    pairs: PairTable,
    hard_N: np.ndarray,
    skill: float,
    epochs: int,
    rng: np.random.Generator,
) -> str:
    """A finished trial's journal; its key."""
    encoder = f"simulated {config.model.name}"
    key = trial_key(config, pairs.fingerprint, encoder)
    folds = []
    for fold in range(1, pairs.num_folds + 1):
        plan = plan_fold(config, pairs, fold)
        logits = [
            _logits(pairs.label_N[rows], hard_N[rows], skill, epochs, rng) for rows in (plan.evaluation, plan.selection)
        ]
        history = {"train_loss": list(np.linspace(0.7, 0.3, epochs))}
        inner = logits[1] if plan.choice.inner else None
        history |= epoch_curves(pairs, plan, logits[0], inner)
        folds.append(measure(pairs, plan, history, logits[0], inner, epochs, "finished"))
    journal = TrialJournal(storage, key)
    journal.start(config, pairs.fingerprint, encoder, pairs.num_folds)
    journal.add_folds(folds)
    journal.finish(summarize(folds, pairs))
    return key


def _logits(label_R: np.ndarray, hard_R: np.ndarray, skill: float, epochs: int, rng: np.random.Generator) -> np.ndarray:
    """(E, R) growing better over the epochs."""
    own_ER = rng.normal(size=(epochs, len(label_R)))
    gain_E1 = np.linspace(0.4, 1.0, epochs)[:, None] * skill
    return np.asarray(gain_E1 * (2 * label_R - 1.0) + 0.8 * hard_R + 0.8 * own_ER, dtype=np.float32)
