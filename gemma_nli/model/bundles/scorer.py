"""Scoring with a bundle: pairs in, probability and label out; or posts in, a probability and a label per criterion
out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gemma_nli.base.errors import ConfigError, did_you_mean
from gemma_nli.base.private_texts import remember_texts
from gemma_nli.config import DeviceConfig
from gemma_nli.model.bundles.bundle import LoadedBundle
from gemma_nli.model.bundles.ensemble import LoadedEnsemble, load_any
from gemma_nli.model.encoder import resolve_precision

log = logging.getLogger(__name__)
COLUMNS = ("premise", "hypothesis")
ADDED = ("probability", "label")


class PairScorer:
    """Scores pairs with a loaded bundle, of one model or of an ensemble."""

    def __init__(self, bundle: LoadedBundle | LoadedEnsemble) -> None:
        self.bundle, self.strangers = bundle, 0
        encoder = bundle.encoder
        precision = resolve_precision(bundle.config.device, encoder.device) if encoder.device.type != "cpu" else None
        self._autocast = precision if encoder.dtype == torch.float32 and precision != torch.float32 else None

    @classmethod
    def from_bundle(cls, folder: str | Path, device: DeviceConfig | None = None) -> PairScorer:
        return cls(load_any(folder, device))

    def score(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """One row per pair, in the given order and under the given index.

        Args:
            pairs: columns `premise` (post) and `hypothesis` (criterion), text in each; other columns are ignored.
        Returns:
            `probability` (float64) of matched, and `label` (int64): 1 at or above the bundle's threshold. Where
            criteria have thresholds of their own there is `threshold` (float64) too, the one that decided the pair: a
            criterion is known by its text, all others have the shared one, which is logged (`strangers` counts these
            pairs).
        Raises:
            ConfigError: a column is missing, or a value is not text. The message contains no post's text.
        """
        premises, hypotheses = _texts(pairs)
        remember_texts("scored pairs", premises)
        device = self.bundle.encoder.device.type
        with torch.autocast(device, dtype=self._autocast, enabled=self._autocast is not None):
            probability = self.bundle.probability(premises, hypotheses)
        at = self._thresholds_of(hypotheses)
        label = (probability >= at).astype(np.int64)
        columns = {"probability": probability, "label": label, **({"threshold": at} if self.bundle.thresholds else {})}
        return pd.DataFrame(columns, index=pairs.index)

    def _thresholds_of(self, hypotheses: Sequence[str]) -> np.ndarray:
        """(N,) of each criterion, known by its text; the shared one of all others, which are counted."""
        own, shared = self.bundle.thresholds, self.bundle.threshold
        if not own:
            return np.full(len(hypotheses), shared)
        known = self.bundle.known
        names = [known.get(text.strip()) for text in hypotheses]
        strange = names.count(None)
        if strange:
            self.strangers += strange
            log.warning("%s", strangers_note(strange, shared))
        return np.array([shared if name is None else own.get(name, shared) for name in names], dtype=np.float64)

    @property
    def criteria(self) -> dict[str, str]:
        """Criterion id to its text, as the model was trained on them; raises ConfigError if it does not have them."""
        return _criteria(self.bundle.metadata.get("criteria"))

    def score_posts(self, posts: pd.DataFrame) -> pd.DataFrame:
        """Every criterion for each post: a row per post.

        Args:
            posts: column `premise`, text; other columns are ignored.
        Returns:
            Per criterion a float64 column of its id, the probability, and an int64 column `ID_label`, 1 at or above the
            bundle's threshold; where criteria have thresholds of their own, `ID_threshold` too. Then the shared
            threshold, once (`post_columns` names them).
        Raises:
            ConfigError: no such column, a value is not text, or the model was saved without its criteria.
        """
        criteria = self.criteria
        if "premise" not in posts.columns:
            raise ConfigError(f"posts: column 'premise' is missing{did_you_mean('premise', map(str, posts.columns))}")
        crossed = pd.DataFrame(
            {
                "premise": [text for text in posts["premise"] for _ in criteria],
                "hypothesis": [text for _ in range(len(posts)) for text in criteria.values()],
            }
        )
        scores = self.score(crossed)
        columns: list[Any] = []
        for place in range(len(criteria)):
            columns += [scores[name].to_numpy()[place :: len(criteria)] for name in self._added]
        columns.append(np.full(len(posts), self.bundle.threshold))
        return pd.DataFrame(dict(zip(self.post_columns, columns, strict=True)), index=posts.index)

    @property
    def post_columns(self) -> list[str]:
        """The columns of `score_posts`; a name that is already a criterion's gets underscores."""
        taken, names = set(self.criteria), list[str]()
        for criterion in self.criteria:
            names += [criterion, *(_free(f"{criterion}_{kind}", taken) for kind in self._added[1:])]
        return [*names, _free("threshold", taken)]

    def answer(self, table: pd.DataFrame) -> pd.DataFrame:
        """`score` if there is a column `hypothesis`, else `score_posts`; an empty text is refused, not scored."""
        for column in set(COLUMNS) & set(table.columns):
            empty = [row for row, value in enumerate(table[column]) if isinstance(value, str) and not value.strip()]
            if empty:
                raise ConfigError(
                    f"column '{column}' is empty in {len(empty)} of {len(table)} rows, first in row {empty[0]}; "
                    "fill or drop them."
                )
        return self.score(table) if "hypothesis" in table.columns else self.score_posts(table)

    def answer_columns(self, columns: Iterable[str]) -> list[str]:
        """What `answer` gives for a table of these columns."""
        return list(self._added) if "hypothesis" in columns else self.post_columns

    @property
    def _added(self) -> tuple[str, ...]:
        return (*ADDED, "threshold") if self.bundle.thresholds else ADDED


def strangers_note(pairs: int, threshold: float) -> str:
    """What a user should know of pairs whose hypothesis is none of the model's criteria."""
    which = "pair has a hypothesis that is" if pairs == 1 else "pairs have hypotheses that are"
    return (
        f"{pairs} {which} none of the model's criteria (by its exact text): decided at the shared threshold "
        f"{threshold:.3f}, not at one chosen for it"
    )


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _criteria(known: Any) -> dict[str, str]:
    if not isinstance(known, dict) or not known:
        raise ConfigError("this model was saved without its criteria; add a column `hypothesis`.")
    return {str(name): str(text) for name, text in known.items()}


def _texts(pairs: pd.DataFrame) -> tuple[list[str], list[str]]:
    for column in COLUMNS:
        if column not in pairs.columns:
            raise ConfigError(f"pairs: column '{column}' is missing{did_you_mean(column, map(str, pairs.columns))}")
        if list(pairs.columns).count(column) > 1:
            raise ConfigError(f"pairs: column '{column}' occurs more than once; keep one.")
    for column in COLUMNS:
        odd = [row for row, value in enumerate(pairs[column]) if not isinstance(value, str)]
        if odd:
            kind = type(pairs[column].iloc[odd[0]]).__name__
            raise ConfigError(
                f"pairs: column '{column}' must hold text, but {len(odd)} of {len(pairs)} values do not; "
                f"the first is row {odd[0]} ({kind}). Fill or drop them."
            )
    return pairs["premise"].tolist(), pairs["hypothesis"].tolist()
