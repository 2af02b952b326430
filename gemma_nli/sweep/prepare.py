"""Everything that a sweep can know and refuse before Ray starts: corpus, pairs, cells, keys, and what is done
already.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from gemma_nli.base.private_texts import without_posts
from gemma_nli.config import RunConfig
from gemma_nli.config.templates import PLACES
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.corpus.sealed import training_corpus
from gemma_nli.features import FeatureRequest
from gemma_nli.model.encoder import identify_encoder
from gemma_nli.model.loading.language_head import why_no_language_head
from gemma_nli.model.loading.longest_text import check_max_length
from gemma_nli.model.loading.sentence_modules import native_way
from gemma_nli.spec.space import Cell
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place, Prefix, place_of
from gemma_nli.sweep.check_layers import check_layers
from gemma_nli.training.frozen.head_inputs import feature_request
from gemma_nli.training.trial_texts import check_texts
from gemma_nli.training.zero_shot import zero_shot_config, zero_shot_request
from gemma_nli.trial import TrialRecord, read_trial, read_trials, trial_key

_PROBES = 64
_MAX_REQUESTS = 8


@dataclass
class Prepared:
    """A sweep ready to run.

    `cells` are the configurations of a grid or a random draw, empty with Optuna; `proposed` those that its study
    has proposed, in this run of the command and before. `records` are the trials' journals before anything runs;
    `left_out` counts the finished trials of earlier forms of the sweep that a study's present space does not hold.
    `seeds_together`: cells of a frozen encoder that differ in their training seed alone train in one computation.
    """

    spec: SweepSpec
    corpus: Corpus
    pairs: PairTable
    sweep_id: str
    folder: Place
    cells: dict[str, Cell]
    records: dict[str, TrialRecord] = field(default_factory=dict)
    proposed: dict[str, Cell] = field(default_factory=dict)
    left_out: int = 0
    seeds_together: bool = False

    @property
    def trials(self) -> dict[str, Cell]:
        """The sweep's trials as far as they are known: all of a grid or a random draw, of a study the proposed ones."""
        return self.cells or self.proposed

    @property
    def storage(self) -> Place:
        return place_of(self.spec.storage)

    @property
    def waiting(self) -> dict[str, Cell]:
        """Cells that have to run: never run, interrupted, failed, or pruned by a scheduler that is no longer set."""
        return {key: cell for key, cell in self.cells.items() if not self.is_done(key)}

    def is_done(self, key: str) -> bool:
        record = self.records.get(key)
        if record is None:
            return False
        return record.state == "finished" or (record.state == "pruned" and self.spec.scheduler.kind != "none")

    @property
    def num_done(self) -> int:
        """Trials that will not run again; of a study also those that were stopped early, which count as tried."""
        ended = ("finished", "pruned") if not self.cells else ()
        records = self.records
        return sum(self.is_done(key) or (key in records and records[key].state in ended) for key in self.trials)

    def key_of(self, config: RunConfig) -> str:
        words = self.corpus.wording_fingerprint(config.data.wording)
        return trial_key(config, self.pairs.fingerprint, identify_encoder(config.model).fingerprint, words)

    def take_up(self, noted: Mapping[str, Mapping[str, Any]]) -> None:
        """Of a study: what its folder notes and its present space holds are its trials from before."""
        if self.cells:
            return
        for key, settings in asked_for(self.spec, noted).items():
            config = self.spec.space.configure(self.spec.base, settings)
            if self.key_of(config) == key:
                self.proposed[key] = Cell(settings, config)
        self.records |= read_trials(self.storage, self.proposed)

    def as_asked(self, record: TrialRecord) -> TrialRecord:
        """The record as this sweep asks for it: names, folders and stores are no part of a trial, and another's may be
        in its journal. What another was allowed to write down of posts (`data.log_text`) is left out here."""
        spec, cell = self.spec, self.trials.get(record.key)
        own = record.config.asked_by(spec.base, spec.space.keys)
        if cell is not None and cell.config.canonical() == record.config.canonical():
            own = cell.config
        error, traceback = record.error, record.traceback
        if record.config.data.log_text and not own.data.log_text:
            error, traceback = (text and without_posts(text, self.corpus) for text in (error, traceback))
        return dataclasses.replace(record, config=own, error=error, traceback=traceback)

    def read(self, key: str, weights: bool = False) -> TrialRecord | None:
        """The trial of that key from its journal, as this sweep asks for it, or None."""
        record = read_trial(self.storage, key, weights)
        return self.as_asked(record) if record is not None else None


def prepare(spec: SweepSpec) -> Prepared:
    """Read and check everything a sweep depends on.

    Raises:
        CorpusError, EncoderError, SpecError, StorageError: what is wrong, before anything costs money.
    """
    storage = place_of(spec.storage)
    if isinstance(storage, Prefix):
        storage.bucket.check()
    corpus = training_corpus(spec.base.data)
    pairs = build_pairs(corpus, spec.base.data)
    cells = [] if spec.search.algorithm == "optuna" else spec.cells()
    check_ways(spec, corpus, [cell.config for cell in cells])
    sweep_id = identify_sweep(spec, pairs)
    ready = Prepared(spec, corpus, pairs, sweep_id, storage / "sweeps" / sweep_id, {})
    for cell in cells:
        ready.cells.setdefault(ready.key_of(cell.config), cell)
    if spec.search.algorithm == "optuna":
        _check_study(spec, ready.folder)
    ready.records = read_trials(ready.storage, ready.cells)
    return ready


def check_ways(spec: SweepSpec, corpus: Corpus, configs: list[RunConfig]) -> None:
    """Every way in which some trial's encoder reads some texts; of a study's space, the ways of its corners.

    Raises:
        CorpusError, EncoderError: of the first that is impossible.
    """
    if not configs:
        configs = [cell.config for cell in spec.space.probe(spec.base)] + _probe_configs(spec)
    ways: dict[tuple[Any, ...], RunConfig] = {}
    for config in [*configs, *([zero_shot_config(spec.base)] if _asks_zero_shot(spec) else [])]:
        model = config.model
        texts = (config.data.wording, *(getattr(model, setting) for setting in PLACES))
        ways.setdefault((model.name, model.revision, model.max_length, native_way(model), *texts), config)
    for config in ways.values():
        identify_encoder(config.model)
        check_max_length(config.model)
        check_texts(config, corpus)
    check_layers(spec, configs)


def _check_study(spec: SweepSpec, folder: Place) -> None:
    from gemma_nli.search.study_database import check_study_database
    from gemma_nli.search.study_storage import check_sampler, study_url
    from gemma_nli.tracking.store.mlflow_store import resolve_store

    check_sampler(spec)
    uri = resolve_store(spec.base.mlflow).uri if spec.base.mlflow.enabled else None
    home = None if isinstance(folder, Prefix) else folder.absolute()
    check_study_database(study_url(spec, folder), uri, home)


def asked_for(spec: SweepSpec, noted: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of the cells noted in a sweep's folder that the sweep asks for now: trial key to settings.

    For a grid these are the cells it lists, for a study those that lie in its space. Confirming trials, on other folds,
    are not among them, and neither is what only an earlier form of the sweep asked for.
    """
    own = {key: dict(settings) for key, settings in noted.items() if not is_confirming(settings)}
    if spec.search.algorithm == "optuna":
        found = {key: _held(spec, settings) for key, settings in own.items()}
        return {key: settings for key, settings in found.items() if settings is not None}
    cells = spec.cells()
    listed = {json.dumps(cell.settings, sort_keys=True) for cell in cells}
    left = {key: settings for key, settings in own.items() if json.dumps(settings, sort_keys=True) not in listed}
    if left:
        same = {json.dumps(cell.config.canonical(), sort_keys=True): cell.settings for cell in cells}
        for key, settings in left.items():
            config = _configured(spec, settings)
            found_settings = same.get(json.dumps(config.canonical(), sort_keys=True)) if config is not None else None
            if found_settings is None:
                del own[key]
            else:
                own[key] = found_settings
    return own


def is_confirming(settings: Mapping[str, Any]) -> bool:
    """Whether a cell's settings are a confirming trial's: no space may vary what it changes."""
    return "data.fold_seed" in settings


def _held(spec: SweepSpec, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The settings as the space has them now, None if they do not lie in it."""
    params = spec.space.params_of(settings)
    if params is not None and params.keys() == settings.keys():
        return settings
    config = _configured(spec, settings)
    return spec.space.settings_for(spec.base, config) if config is not None else None


def _configured(spec: SweepSpec, settings: Mapping[str, Any]) -> RunConfig | None:
    try:
        return spec.space.configure(spec.base, settings)
    except ValidationError:
        return None


def identify_sweep(spec: SweepSpec, pairs: PairTable) -> str:
    """16 hex digits naming the sweep: its name, experiment, folds, and the settings its space does not vary.

    The space's values are not in it, so a grid that gains a value stays the same sweep. A changed base is another.
    """
    varied = set(spec.space.keys)
    base = {key: value for key, value in spec.base.canonical().items() if key not in varied}
    if "model.name" not in varied:
        base["encoder"] = identify_encoder(spec.base.model).fingerprint
    parts = [spec.name, spec.base.experiment, pairs.fingerprint, base]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def feature_requests(ready: Prepared) -> list[FeatureRequest]:
    """What the waiting cells need encoded: one request per way of encoding, over all their views, texts and templates.

    With Optuna, the ways are found by sampling the space; if there are too many, the trials encode for themselves.
    """
    frozen = [config for config in configs_to_run(ready) if config.model.freeze_encoder]
    groups: dict[tuple[Any, ...], list[RunConfig]] = {}
    for config in frozen:
        model = config.model
        way = (
            model.name,
            model.revision,
            model.max_length,
            model.pair_encoding,
            model.attention,
            model.attn_implementation,
            native_way(model),
            config.data.wording,
            *(getattr(model, setting) for setting in PLACES),
        )
        groups.setdefault((*way, config.device.device, config.device.mixed_precision), []).append(config)
    ways: dict[tuple[str, bool], list[FeatureRequest]] = {}
    for request in [*(_united(ready, group) for group in groups.values()), *_of_zero_shot(ready)]:
        ways.setdefault((request.key, request.prompts is None), []).append(request)
    if len(ways) > _MAX_REQUESTS and not ready.cells:
        return []
    return [FeatureRequest.merged(requests) for requests in ways.values()]


def _asks_zero_shot(spec: SweepSpec) -> bool:
    """Whether its report has the zero-shot baseline whatever is stored."""
    asked = spec.report.enabled and spec.report.zero_shot == "always"
    return asked and not why_no_language_head(spec.base.model)


def _of_zero_shot(ready: Prepared) -> list[FeatureRequest]:
    spec = ready.spec
    return [zero_shot_request(spec.base, ready.corpus, ready.pairs)] if _asks_zero_shot(spec) else []


def configs_to_run(ready: Prepared) -> list[RunConfig]:
    """The waiting cells' configurations; with Optuna, a sample of the space."""
    return [cell.config for cell in ready.waiting.values()] if ready.cells else _probe_configs(ready.spec)


def _united(ready: Prepared, group: list[RunConfig]) -> FeatureRequest:
    """One request for all configurations that encode the same way."""
    widest = max(group, key=lambda config: config.data.negative_ratio)
    rows = ready.pairs.rows_used(widest.data.negative_ratio)
    request = feature_request(widest, ready.corpus, ready.pairs, rows)
    single = [feature_request(config, ready.corpus, ready.pairs, rows[:1]) for config in _by_pooling(group)]
    return request.united(single)


def _by_pooling(group: list[RunConfig]) -> list[RunConfig]:
    return list({(c.model.pooling_strategy, c.model.pooling_k, c.model.layers): c for c in group}.values())


def _probe_configs(spec: SweepSpec) -> list[RunConfig]:
    return [cell.config for cell in spec.space.draw(spec.base, _PROBES, seed=0)]
