"""Faults in training and trial."""

from __future__ import annotations

from benchmarks.mutations.fault import Fault

FOLD, FROZEN, METRICS, FINETUNE, STEPS = (
    f"tests/training/test_{name}.py" for name in ("fold", "frozen", "metrics", "finetune", "steps")
)
CROSS, ADAMW, BATCHES = (f"tests/training/test_{name}.py" for name in ("cross_validation", "stacked_adamw", "batches"))
JOURNAL, RUN = "tests/trial/test_journal.py", "tests/trial/test_run.py"

FAULTS = (
    Fault("the threshold is the last epoch's", "training/fold.py", "tuning_EV[selected - 1]", "tuning_EV[-1]", FOLD),
    Fault(
        "the probabilities are the last epoch's",
        "training/fold.py",
        "sigmoid(logits_EV[selected - 1]).astype",
        "sigmoid(logits_EV[-1]).astype",
        f"{FOLD} {FROZEN}",
    ),
    Fault(
        "positives are weighed by their own share",
        "training/fold.py",
        "return (len(rows) - positives) / max(positives, 1)",
        "return positives / max(len(rows) - positives, 1)",
        f"{FOLD} {STEPS} {FROZEN}",
    ),
    Fault(
        "a criterion's decisions are at 0.5",
        "training/results.py",
        "score >= fold.threshold for score, fold",
        "score >= 0.5 for score, fold",
        f"{METRICS} {CROSS}",
    ),
    Fault(
        "the spread of folds is a population's",
        "training/results.py",
        "real.std(ddof=1)",
        "real.std()",
        f"{METRICS} {CROSS}",
    ),
    Fault(
        "a fold that diverged is averaged",
        "training/results.py",
        "finished = [fold for fold in folds if fold.status == FINISHED]",
        "finished = list(folds)",
        f"{METRICS} {CROSS} {FROZEN}",
    ),
    Fault(
        "a threshold splits equal scores",
        "training/metrics.py",
        "    f1_N[:-1][scores_N[:-1] == scores_N[1:]] = -1.0\n",
        "",
        METRICS,
    ),
    Fault(
        "a decision at the threshold is no",
        "training/metrics.py",
        "N >= threshold",
        "N > threshold",
        f"{FOLD} {METRICS}",
    ),
    Fault(
        "smoothed labels move towards no",
        "training/losses/pair_loss.py",
        " + 0.5 * training.label_smoothing",
        "",
        "tests/training/test_losses.py",
    ),
    Fault(
        "focal loss mutes the hard pairs",
        "training/losses/focal.py",
        "F.logsigmoid(-towards_KB)",
        "F.logsigmoid(towards_KB)",
        "tests/training/test_losses.py",
    ),
    Fault(
        "a fold that is done is trained again",
        "training/cross_validation.py",
        "for fold in range(1, pairs.num_folds + 1) if fold not in done]",
        "for fold in range(1, pairs.num_folds + 1)]",
        f"{CROSS} {RUN}",
    ),
    Fault(
        "attention over long texts overflows",
        "training/frozen/ragged_attention.py",
        "(score_N - top_R[texts.row_N]).exp()",
        "score_N.exp()",
        "tests/training/test_ragged.py",
    ),
    Fault(
        "biases decay",
        "training/frozen/stacked_adamw.py",
        '0.0 if "bias" in name else weight_decay',
        "weight_decay",
        ADAMW,
    ),
    Fault(
        "the first step of the warmup does nothing",
        "training/rate_schedules.py",
        "(step + 1) / (warmup + 1)",
        "step / (warmup + 1)",
        f"{ADAMW} {STEPS}",
    ),
    Fault(
        "a fold trains an epoch past its patience",
        "training/frozen/train_folds.py",
        "epoch - self.best_epoch < self.patience",
        "epoch - self.best_epoch <= self.patience",
        FROZEN,
    ),
    Fault(
        "an equal score later takes the place of the best epoch",
        "training/frozen/train_folds.py",
        "(score_K > self.best_score)",
        "(score_K >= self.best_score)",
        FROZEN,
    ),
    Fault(
        "pairs come in the same order each epoch",
        "training/frozen/fold_batches.py",
        "self.orders[fold].permutation(fold_rows)",
        "fold_rows",
        f"{BATCHES} {FROZEN}",
    ),
    Fault(
        "a short last batch weighs as a full one",
        "training/frozen/fold_batches.py",
        "real / np.maximum(real.sum(1, keepdims=True), 1)",
        "real / self.batch_size",
        f"{BATCHES} {FROZEN}",
    ),
    Fault(
        "micro-batches of unlike size weigh alike",
        "training/finetuning/optimizer_step.py",
        "loss = losses_1B.sum() / batch",
        "loss = losses_1B.mean()",
        f"{STEPS} {FINETUNE}",
    ),
    Fault(
        "a fold begins with the weights of the fold before",
        "training/finetuning/encoder_cache.py",
        "load_trainable_state(self.encoder, self.first_weights)",
        "pass",
        FINETUNE,
    ),
    Fault(
        "the encoder learns at the head's rate",
        "training/finetuning/adamw_groups.py",
        'encoder_rate if name.startswith("encoder.") else head_rate',
        "head_rate",
        f"{STEPS} {FINETUNE}",
    ),
    Fault(
        "a damaged line of a journal is read",
        "base/checked_lines.py",
        "    if check == _checksum(text):\n",
        "    if check:\n",
        f"{JOURNAL} tests/base/test_checked_lines.py",
    ),
    Fault(
        "weights past the limit are kept for each fold",
        "trial/journal.py",
        "each, ahead = len(data) <= limit_bytes,",
        "each, ahead = True,",
        JOURNAL,
    ),
    Fault(
        "a trial that lost a fold's file is finished",
        "trial/journal.py",
        'record.state == "finished" and len(record.folds) < record.num_folds',
        "False",
        JOURNAL,
    ),
    Fault("a second attempt is not counted", "trial/journal.py", "            before.attempts += 1\n", "", JOURNAL),
    Fault(
        "a journal holds the store's password",
        "trial/journal.py",
        '"config": without_credentials(config).model_dump(mode="json")',
        '"config": config.model_dump(mode="json")',
        JOURNAL,
    ),
    Fault(
        "trials of two encoders have one key",
        "trial/record.py",
        "config.canonical(), fold_fingerprint, encoder_fingerprint]",
        "config.canonical(), fold_fingerprint]",
        f"{JOURNAL} {RUN}",
    ),
    Fault(
        "a trial asked for again is not trained again",
        "trial/trial_run.py",
        "if record is not None and not again:",
        "if record is not None:",
        f"{RUN} tests/local/test_train.py",
    ),
    Fault(
        "a trial that diverged is finished",
        "trial/trial_run.py",
        "        if result.diverged:\n            worst",
        "        if False:\n            worst",
        RUN,
    ),
    Fault(
        "why a trial failed quotes a post",
        "trial/trial_run.py",
        "if self.config.data.log_text else self._private.left_out(",
        "if True else self._private.left_out(",
        f"{RUN} tests/base/test_privacy.py",
    ),
)
