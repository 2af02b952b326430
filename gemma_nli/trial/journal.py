"""A trial's append-only record on disk: the truth that MLflow's runs and Ray's trials are projections of.

    storage/trials/<2>/<key>/journal.jsonl      one checksummed JSON line per event: started, folds, ended
                             folds_1-5.safetensors   out-of-fold probabilities and head weights of those folds
                             weights_3.safetensors   adapters or encoder of a fold, if those were trained

In a bucket the same files are objects, the arrays with their checksums in their names (`storage/record.py`).

A line counts if its checksum holds; a fold counts if its line does and the file it names has
the stated checksum. Everything else is ignored and computed again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from gemma_nli.base.checked_lines import checked_line, read_line
from gemma_nli.base.masking import mask_address
from gemma_nli.base.metrics.earlier_names import CURVE, INNER_CURVE, todays_aggregates, todays_curves
from gemma_nli.base.outgoing import shown
from gemma_nli.config import SEMANTICS_VERSION, RunConfig, build_stored_config
from gemma_nli.model.scaling import UNSCALED, Scaling
from gemma_nli.storage import Place, folder_of, record_of
from gemma_nli.training.results import CvResult, FoldResult
from gemma_nli.trial.record import UNKNOWN_ENCODER, TrialRecord

log = logging.getLogger(__name__)
_READERS = 16
_FOLD_FIELDS = (
    "fold",
    "status",
    "history",
    "selected_epoch",
    "best_epoch",
    "threshold",
    "metrics",
    "seconds",
    "detail",
    "trained_parameters",
    "thresholds",
    "scaling",
)


class TrialJournal:
    """One trial's folder. Several processes may read it; `claim` is for the one that writes."""

    def __init__(self, storage: Place, key: str) -> None:
        self.key = key
        place = storage / "trials" / key[:2] / key
        self.record = record_of(place)
        self.folder = folder_of(place)  # in a bucket's case the mirror, which contains no journal
        self.path = place / "journal.jsonl"

    @contextmanager
    def claim(self, wait_seconds: float = -1) -> Iterator[None]:
        """Hold the trial. A folder is released when the holder dies, a bucket when the holder has been silent for too
        long.

        Raises:
            JournalError: another process holds it for longer than `wait_seconds` (-1: wait as long as it takes).
        """
        with self.record.claim(wait_seconds):
            yield

    def start(
        self,
        config: RunConfig,
        fold_fingerprint: str,
        encoder_fingerprint: str,
        num_folds: int,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """A new attempt; `tags` describe the machine it runs on."""
        self._append(
            {
                "event": "started",
                "config": without_credentials(config).model_dump(mode="json"),
                "fold_fingerprint": fold_fingerprint,
                "encoder_fingerprint": encoder_fingerprint,
                "num_folds": num_folds,
                "semantics": SEMANTICS_VERSION,
                "tags": dict(tags or {}),
            }
        )

    def add_folds(self, folds: list[FoldResult], keep_weights: bool = True) -> None:
        """Folds as they end: their arrays in one file, then the line that makes them count."""
        numbers = [fold.fold for fold in folds]
        arrays: dict[str, torch.Tensor] = {}
        for fold in folds:
            name = f"fold_{fold.fold}"
            arrays[f"{name}/rows"] = torch.from_numpy(fold.rows)
            arrays[f"{name}/probabilities"] = torch.from_numpy(fold.probabilities)
            arrays[f"{name}/labels"] = torch.from_numpy(fold.labels)
            if fold.row_thresholds is not None:
                arrays[f"{name}/thresholds"] = torch.from_numpy(fold.row_thresholds)
            if keep_weights:
                arrays.update({f"{name}/state/{k}": v.contiguous() for k, v in fold.state.items()})
        file = self._write(f"folds_{numbers[0]}-{numbers[-1]}.safetensors", save_tensors(arrays))
        facts = [{name: getattr(fold, name) for name in _FOLD_FIELDS} for fold in folds]
        self._append({"event": "folds", "folds": facts, **file})

    def keep_weights(self, folds: Sequence[FoldResult], done: Iterable[FoldResult], limit_bytes: float) -> None:
        """Adapters or encoder of folds that were added: each fold's up to the limit, beyond it only the best fold's.

        Args:
            done: the folds before them.
            limit_bytes: of one fold's weights. Kept or not, `state` is released.
        """
        best = max((fold.metrics.get("f1", -1.0) for fold in done), default=-1.0)
        for fold in folds:
            data = save_tensors({k: v.contiguous() for k, v in fold.state.items()}) if fold.state else b""
            each, ahead = len(data) <= limit_bytes, fold.metrics.get("f1", -1.0) > best
            if data and (each or ahead):
                file = self._write(f"weights_{fold.fold}.safetensors", data)
                self._append({"event": "weights", "fold": fold.fold, **file})
                if not each:
                    self.record.drop_others("weights_*.safetensors", file["file"], file["sha256"])
            best = max(best, fold.metrics.get("f1", -1.0))
            fold.state = {}

    def add_system(self, samples: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """What the machine was doing meanwhile: (milliseconds, metric to value)."""
        if samples:
            self._append({"event": "system", "samples": [[at, dict(values)] for at, values in samples]})

    def finish(self, result: CvResult) -> None:
        self._append(
            {"event": "ended", "state": "finished", "aggregates": result.aggregates, "criteria": result.criteria}
        )

    def stop(
        self,
        state: Literal["failed", "pruned"],
        result: CvResult | None = None,
        error: str | None = None,
        traceback: str | None = None,
        reason: str | None = None,
    ) -> None:
        """An end before the last fold: `failed` with its error, or `pruned` with the reason.

        MLflow and the terminal show it later, so it passes the gate here.
        """
        facts: dict[str, Any] = {
            "event": "ended",
            "state": state,
            "error": shown(error) if error else error,
            "traceback": shown(traceback) if traceback else traceback,
            "reason": shown(reason) if reason else reason,
        }
        if result is not None:
            facts |= {"aggregates": result.aggregates, "criteria": result.criteria}
        self._append(facts)

    def read(self, weights: bool = False) -> TrialRecord | None:
        """The trial as far as it is recorded, or None if nothing valid is.

        Args:
            weights: find the folds' trained weights too; files of a bucket are downloaded, and each file's checksum is
            checked.
        """
        record: TrialRecord | None = None
        for event in self.events():
            kind = event["event"]
            if kind == "started":
                record = self._started(event, record)
            elif record is not None and kind == "folds":
                self._read_folds(event, record)
            elif record is not None and kind == "system":
                record.system += [(int(at), values) for at, values in event["samples"]]
            elif record is not None and kind == "weights" and weights:
                self._find_weights(event, record)
            elif record is not None and kind == "ended":
                record.state, record.ended_ms = event["state"], event["at_ms"]
                record.aggregates, record.criteria = event.get("aggregates") or {}, event.get("criteria") or {}
                record.error, record.traceback, record.reason = (event.get(k) for k in ("error", "traceback", "reason"))
        if record is not None:
            chose_threshold = any(INNER_CURVE in fold.history for fold in record.folds.values())
            record.aggregates = todays_aggregates(record.aggregates, chose_threshold)
        if record is not None and record.state == "finished" and len(record.folds) < record.num_folds:
            record.state, record.ended_ms, record.aggregates, record.criteria = "running", None, {}, {}
        return record

    def events(self) -> Iterator[dict[str, Any]]:
        """Valid lines in order; a line with a wrong checksum is skipped with a warning."""
        for number, line in enumerate(self.record.lines(), start=1):
            if not line:
                continue
            event = read_line(line)
            if event is None:
                log.warning("%s line %d is damaged or truncated; what it recorded is computed again", self.path, number)
                continue
            yield event

    def _started(self, event: dict[str, Any], before: TrialRecord | None) -> TrialRecord:
        if before is not None:
            before.attempts += 1
            before.state, before.ended_ms = "running", None
            before.error = before.traceback = before.reason = None
            before.aggregates, before.criteria = {}, {}
            before.config, before.tags = build_stored_config(event["config"], str(self.path)), event["tags"]
            if before.encoder_fingerprint == UNKNOWN_ENCODER:
                before.encoder_fingerprint = event["encoder_fingerprint"]
            return before
        return TrialRecord(
            key=self.key,
            config=build_stored_config(event["config"], str(self.path)),
            state="running",
            fold_fingerprint=event["fold_fingerprint"],
            encoder_fingerprint=event["encoder_fingerprint"],
            num_folds=event["num_folds"],
            semantics=int(event.get("semantics", 1)),
            attempts=1,
            started_ms=event["at_ms"],
            tags=event["tags"],
        )

    def _read_folds(self, event: dict[str, Any], record: TrialRecord) -> None:
        arrays = self._read(event)
        if arrays is None:
            return
        for facts in event["folds"]:
            name = f"fold_{facts['fold']}/"
            mine = {k.removeprefix(name): v for k, v in arrays.items() if k.startswith(name)}
            curves = todays_curves(facts["history"])
            best = facts["best_epoch"] if CURVE in curves else 0
            record.folds[facts["fold"]] = FoldResult(
                **{**facts, "history": curves, "best_epoch": best, "scaling": Scaling(*facts.get("scaling", UNSCALED))},
                rows=mine["rows"].numpy(),
                probabilities=mine["probabilities"].numpy(),
                labels=mine["labels"].numpy(),
                row_thresholds=mine["thresholds"].numpy() if "thresholds" in mine else None,
                state={k.removeprefix("state/"): v for k, v in mine.items() if k.startswith("state/")},
            )
            record.fold_ms[facts["fold"]] = event["at_ms"]

    def _find_weights(self, event: dict[str, Any], record: TrialRecord) -> None:
        path = self.record.file(Path(event["file"]).name, event["sha256"])
        if event["fold"] in record.folds and path is not None:
            record.weights[event["fold"]] = path

    def _write(self, name: str, data: bytes) -> dict[str, str]:
        self.record.write(name, data)
        return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}

    def _read(self, event: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
        name = Path(event["file"]).name
        data = self.record.read(name, event["sha256"])
        if not data:
            log.warning("%s is missing or damaged; its folds are computed again", self.folder / name)
            return None
        tensors: dict[str, torch.Tensor] = load_tensors(data)
        return tensors

    def _append(self, event: dict[str, Any]) -> None:
        self.record.append(checked_line({**event, "at_ms": time.time_ns() // 1_000_000}))


def without_credentials(config: RunConfig) -> RunConfig:
    """A store's address that contains a password is left out: it is not part of a trial."""
    stores = {
        "mlflow.tracking_uri": config.mlflow.tracking_uri,
        "mlflow.artifact_location": config.mlflow.artifact_location,
    }
    hidden = {name: None for name, uri in stores.items() if uri is not None and mask_address(uri) != uri}
    return config.with_settings(hidden) if hidden else config


def read_trial(storage: Place, key: str, weights: bool = False) -> TrialRecord | None:
    """The trial of that key from its journal, or None; `weights` as in `TrialJournal.read`."""
    return TrialJournal(storage, key).read(weights)


def read_trials(storage: Place, keys: Iterable[str]) -> dict[str, TrialRecord]:
    """The trials of those keys that have a journal; a bucket is asked for several at a time."""
    wanted = list(keys)
    if isinstance(storage, Path):
        found = [read_trial(storage, key) for key in wanted]
    else:
        with ThreadPoolExecutor(_READERS, thread_name_prefix="journals") as threads:
            found = list(threads.map(partial(read_trial, storage), wanted))
    return {key: record for key, record in zip(wanted, found, strict=True) if record is not None}
