"""A trial of ours against the same trial as one would write it with the stock parts.

The stock side, in this file: `ray.tune.Tuner`, Ray's own MLflowLoggerCallback, and a PyTorch loop that runs the frozen
encoder (MiniLM, inference mode) in every training and evaluation step. It is a fair one: pairs are tokenised once a
trial, batches are padded to their own longest pair, evaluation uses larger batches, and only four metrics an epoch are
logged. Both sides: the same 300 pairs (150 positives, 150 negatives), folds, 3 epochs, batch size 16, linear head on
the mean of the token states, dropout 0.1, AdamW with the same rate, decay and gradient clipping; the last epoch is
measured at threshold 0.5. One CPU a trial, as many trials side by side as there are CPUs, numbers kept in SQLite.

A trial's seconds are machine seconds: from the moment when the first trial of a side begins to work until its last has
ended (ours: until MLflow has everything), over the trials. What a process costs before its first trial (imports, Ray,
loading the encoder) is left out on both sides. The ratio is that of a trial in a sweep whose texts are encoded already,
which is what all trials but the first are. Two more rows charge the encoding (loaded encoder, empty store): a 36th of
it, as in a sweep of 36, and all of it, as if a sweep had one trial.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import Workplace, small_corpus
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable, build_pairs, pair_texts
from gemma_nli.corpus.redsm5 import Corpus, load_corpus
from gemma_nli.model.demo_weights import minilm_folder

RATE, DECAY, DROPOUT, BATCH, CLIP = 1e-2, 0.01, 0.1, 16, 1.0
SWEEP = 36


def run(place: Workplace) -> Outcome:
    epochs, positives = place.size(3, 1), place.size(150, 40)
    data = small_corpus(place, positives)
    config = RunConfig().with_settings({"data.data_dir": str(data)})
    corpus = load_corpus(data)
    pairs = build_pairs(corpus, config.data)
    ours = _ours(place, data, epochs)
    encoding = place.encoder_pass(1.0, data).answer
    stock = _stock(place, corpus, pairs, epochs)
    trial = ours["warm_seconds"] / ours["trials"]
    cold = encoding["seconds"]
    mine, theirs = ours["mean_f1"], stock["mean_f1"]
    spread = statistics.stdev(mine)
    note = (
        f"mean F1: ours {statistics.fmean(mine):.4f} +- {spread:.4f} over seeds, stock {statistics.fmean(theirs):.4f}"
    )
    return Outcome(
        [
            Mark("times faster, a trial of a sweep over encoded texts", stock["seconds"] / trial, at_least=150),
            Mark("the same with a 36th of the encoding", stock["seconds"] / (trial + cold / SWEEP)),
            Mark("the same with all of the encoding", stock["seconds"] / (trial + cold)),
            Mark("stock: seconds a trial", stock["seconds"], unit="s"),
            Mark("ours: seconds a trial", trial, unit="s"),
            Mark("encoding the texts once", cold, unit="s"),
            Mark(
                "F1 ours less stock, in standard deviations over seeds",
                abs(statistics.fmean(mine) - statistics.fmean(theirs)) / spread,
                at_most=2.0,
            ),
        ],
        {
            "pairs": encoding["texts"],
            "stock": stock,
            "ours": ours,
            "encoding": encoding,
            "mean_f1_stock": theirs,
            "mean_f1_ours": statistics.fmean(mine),
            "std_f1_ours_over_seeds": spread,
        },
        [note],
    )


def _ours(place: Workplace, data: Path, epochs: int) -> dict[str, Any]:
    """A sweep of 36 trials that differ in their seed, its texts encoded by an earlier one."""
    base = {
        "data": {"data_dir": str(data)},
        "model": {"dropout": DROPOUT},
        "training": {"num_epochs": epochs, "batch_size": BATCH, "epoch_selection": "last"},
    }
    base["training"] |= {"learning_rate": RATE, "weight_decay": DECAY, "max_grad_norm": CLIP}
    warm_up = place.sweep("warm_up", {**base, "mlflow": {"enabled": False}}, {"training.seed": {"grid": [0]}})
    place.run_sweep(warm_up)
    file = place.sweep("ours", base, {"training.seed": {"grid": list(range(place.size(SWEEP, 4)))}})
    place.share_features("warm_up", "ours")
    spent = place.run_sweep(file)
    answer = dict(spent.answer)
    result = answer.pop("result")
    assert result["texts"]["encoded"] == 0
    assert result["undelivered"] == 0
    return {**answer, "command_seconds": spent.seconds}


def _stock(place: Workplace, corpus: Corpus, pairs: PairTable, epochs: int) -> dict[str, Any]:
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    cpus = os.cpu_count() or 1
    trials = cpus
    ray.init("local", include_dashboard=False, log_to_driver=False, num_cpus=cpus)
    try:
        callback = MLflowLoggerCallback(
            tracking_uri=f"sqlite:///{place.work / 'stock.db'}", experiment_name="stock", save_artifact=False
        )
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_stock_trial, corpus=corpus, pairs=pairs), {"CPU": 1}),
            param_space={"seed": tune.grid_search(list(range(trials))), "epochs": epochs},
            run_config=tune.RunConfig(storage_path=str(place.work / "stock"), callbacks=[callback], verbose=0),
        )
        results = tuner.fit()
    finally:
        ray.shutdown()
    assert not results.errors, results.errors
    last = [result.metrics for result in results]
    began, ended = min(m["began"] for m in last), max(m["ended"] for m in last)
    return {
        "seconds": (ended - began) / trials,
        "trials": trials,
        "mean_f1": [m["cv_aggregate_mean_f1"] for m in last],
        "mean_auc": [m["cv_aggregate_mean_auc"] for m in last],
    }


def _stock_trial(config: dict[str, Any], corpus: Corpus, pairs: PairTable) -> None:
    """Every fold of one configuration, the encoder run in each step."""
    from ray import tune
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    torch.manual_seed(config["seed"])
    folder = str(minilm_folder())
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    began = time.time()
    premises, hypotheses = pair_texts(corpus, pairs, np.arange(len(pairs.label_N)))
    tokens = tokenizer(premises, hypotheses, truncation="only_first", max_length=128)["input_ids"]
    types = tokenizer(premises, hypotheses, truncation="only_first", max_length=128)["token_type_ids"]

    def encode(rows: np.ndarray) -> torch.Tensor:
        batch = tokenizer.pad(
            {"input_ids": [tokens[r] for r in rows], "token_type_ids": [types[r] for r in rows]}, return_tensors="pt"
        )
        with torch.inference_mode():
            states = encoder(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(1) / mask.sum(1)
        return mean.clone()

    f1s, aucs = [], []
    for fold in range(1, pairs.num_folds + 1):
        train, valid = pairs.training_rows(fold, 1.0), pairs.evaluation_rows(fold)
        head = torch.nn.Linear(encoder.config.hidden_size, 1)
        optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
        for epoch in range(1, config["epochs"] + 1):
            order, losses = train[torch.randperm(len(train)).numpy()], []
            head.train()
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                vectors = torch.nn.functional.dropout(encode(rows), DROPOUT)
                labels = torch.from_numpy(pairs.label_N[rows].astype(np.float32))
                loss = torch.nn.functional.binary_cross_entropy_with_logits(head(vectors).squeeze(-1), labels)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
                optimizer.step()
                losses.append(loss.item())
            with torch.inference_mode():
                parts = [head(encode(valid[start : start + 64])) for start in range(0, len(valid), 64)]
            logits, truth = torch.cat(parts).squeeze(-1), pairs.label_N[valid]
            val_loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth).float())
            f1, auc = f1_score(truth, logits.numpy() >= 0), roc_auc_score(truth, logits.numpy())
            name = f"fold_{fold}"
            facts = {f"{name}/train_loss": float(np.mean(losses)), f"{name}/val_loss": float(val_loss)}
            last = fold == pairs.num_folds and epoch == config["epochs"]
            if not last:
                tune.report({**facts, f"{name}/val_f1": f1, f"{name}/val_auc": auc})
        f1s.append(f1)
        aucs.append(auc)
    summary = {"cv_aggregate_mean_f1": float(np.mean(f1s)), "cv_aggregate_mean_auc": float(np.mean(aucs))}
    tune.report({**facts, f"{name}/val_f1": f1, **summary, "began": began, "ended": time.time()})
