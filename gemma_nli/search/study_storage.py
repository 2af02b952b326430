"""Where an Optuna study is kept, and the sampler it is searched with."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sqlite3
from functools import partial
from typing import Any, assert_never

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import SweepError
from gemma_nli.base.random_streams import SAMPLER
from gemma_nli.config import database_uri, sqlite_address, sqlite_file
from gemma_nli.search.study_database import not_opened
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.storage import Place

SPACE = "gemma_nli.space"
"""A study's attribute: which space and objectives it is of."""


def study_url(spec: SweepSpec, folder: Place) -> str:
    """Where the sweep's study is: `search.storage`, required for a sweep in a bucket, else `optuna.db` beside it."""
    return database_uri(spec.search.storage or sqlite_address(str(folder / "optuna.db")))


class OpenTrials:
    """The trials of a study by their numbers, while they run: Optuna's `Study` can only ask for them and close them."""

    def __init__(self, study: optuna.Study, storage: optuna.storages.BaseStorage) -> None:
        """
        Args:
            storage: the study's own.
        """
        self.storage, self.study_id = storage, storage.get_study_id_from_name(study.study_name)

    def read(self, number: int) -> FrozenTrial:
        return self.storage.get_trial(self._id(number))

    def note(self, number: int, attribute: str, value: str) -> None:
        """Set a user attribute."""
        self.storage.set_trial_user_attr(self._id(number), attribute, value)

    def report(self, number: int, step: int, value: float) -> None:
        """Set an intermediate value."""
        self.storage.set_trial_intermediate_value(self._id(number), step, value)

    def _id(self, number: int) -> int:
        return int(self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number))


def open_study(spec: SweepSpec, name: str, url: str) -> tuple[optuna.Study, OpenTrials]:
    """The study of that name and the spec's space, created if it does not exist, with the requested sampler.

    A sweep's first space and objectives have the study of that name; others one with a digest of them appended.

    Raises:
        SweepError: the database cannot be opened, or a package that the sampler needs is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        file = sqlite_file(url)
        if file is not None:
            with sqlite3.connect(file, timeout=60) as database:
                database.execute("PRAGMA journal_mode=WAL")
            database.close()
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
        directions = [StudyDirection.MAXIMIZE if o.mode == "max" else StudyDirection.MINIMIZE for o in spec.objectives]
        create = partial(optuna.create_study, storage=storage, directions=directions, load_if_exists=True)
        study = create(study_name=name)
        if list(study.directions) != directions or not _is_of(study, spec):
            study = create(study_name=f"{name} {_digest(spec)}")
    except Exception as error:  # noqa: BLE001 - SQLAlchemy and each database driver have exceptions of their own
        raise not_opened(url, error) from None
    study.sampler = build_sampler(spec, len(study.get_trials(deepcopy=False)))
    return study, OpenTrials(study, storage)


def _is_of(study: optuna.Study, spec: SweepSpec) -> bool:
    """Whether a study belongs to the spec's space and objectives; a new one does from now on."""
    if SPACE not in study.user_attrs:
        wanted = spec.space.distributions()
        trials = study.get_trials(deepcopy=False)  # from a version that did not record the space
        if all(wanted.get(key) == found for trial in trials for key, found in trial.distributions.items()):
            study.set_user_attr(SPACE, _digest(spec))
    return bool(study.user_attrs.get(SPACE) == _digest(spec))


def _digest(spec: SweepSpec) -> str:
    about = [spec.space.tree(), [[objective.metric, objective.mode] for objective in spec.objectives]]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def build_sampler(spec: SweepSpec, trials_before: int = 0) -> optuna.samplers.BaseSampler:
    """The seeded sampler; on resume its random stream differs, instead of repeating its first draws.

    Raises:
        SweepError: the sampler needs a package that is not installed.
    """
    samplers = optuna.samplers
    check_sampler(spec)
    seed = SAMPLER.number(spec.search.seed, trials_before)
    name = spec.search.sampler
    if name == "tpe":
        return samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(4, spec.search.num_trials // 4)))
    if name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "cmaes":
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if name == "gp":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=20)
    assert_never(name)


def check_sampler(spec: SweepSpec) -> None:
    """Raises SweepError if the sampler needs a package that is not installed."""
    needs = {"cmaes": ["cmaes"], "gp": ["torch", "scipy"]}.get(spec.search.sampler, [])
    lacking = [package for package in needs if importlib.util.find_spec(package) is None]
    if lacking:
        wanted = "; ".join(install_line(package) for package in lacking)
        raise SweepError(f"search.sampler {spec.search.sampler} needs a package that is not installed: {wanted}")
