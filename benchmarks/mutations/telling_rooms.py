"""Faults in analysis and tracking."""

from __future__ import annotations

from benchmarks.mutations.fault import Fault

EVIDENCE, REPORT, NUMBERS = (f"tests/analysis/test_{name}.py" for name in ("evidence", "report", "every_number"))
BASELINES, CALIBRATION = "tests/analysis/test_baselines.py", "tests/analysis/test_calibration.py"
OUTBOX, QUERIES, PROJECTION, PROMOTION = (
    f"tests/tracking/test_{name}.py" for name in ("outbox", "queries", "projection", "promotion")
)
TRACKER, REGISTRY, HOUSEKEEPING, ARCHIVES = (
    f"tests/tracking/test_{name}.py" for name in ("tracker", "registry", "housekeeping", "archives")
)

EDGES = "tests/analysis/test_edges.py"
CONCLUSION = "tests/analysis/test_conclusion.py"
PAGE = "tests/analysis/test_page.py"

FAULTS = (
    Fault(
        "decisions are at 0.5",
        "analysis/evidence.py",
        "self.threshold_TK[:, fold - 1, None]",
        "0.5",
        f"{EVIDENCE} {NUMBERS}",
    ),
    Fault(
        "a confirming trial is a candidate",
        "analysis/from_journals.py",
        "if record.fold_fingerprint != pairs.fingerprint:",
        "if False:",
        "tests/analysis/test_confirmation.py",
    ),
    Fault(
        "of equal trials the one that came first wins",
        "analysis/evidence.py",
        "(-scores_T[t], self.complete[t].key)",
        "(-scores_T[t], t)",
        EVIDENCE,
    ),
    Fault(
        "sweeps on other folds are compared",
        "analysis/from_journals.py",
        "if other.pairs.fingerprint != first.pairs.fingerprint:",
        "if False:",
        EVIDENCE,
    ),
    Fault(
        "a trial whose fold diverged is ranked",
        "analysis/from_journals.py",
        "return None if np.isnan(found_N).any() else found_N",
        "return found_N",
        EDGES,
    ),
    Fault(
        "contrasts are not adjusted for their number",
        "analysis/inference/simultaneous.py",
        "np.maximum(self._largest_S, np.abs",
        "np.maximum(0 * self._largest_S, np.abs",
        f"{EVIDENCE} {NUMBERS}",
    ),
    Fault(
        "a temperature is learned on the fold it scales",
        "analysis/calibration.py",
        "fit_temperature(exact_N[~here], label_N[~here])",
        "fit_temperature(exact_N[here], label_N[here])",
        f"{CALIBRATION} {NUMBERS}",
    ),
    Fault(
        "a probability of 1 falls out of the last bin",
        "analysis/calibration.py",
        "* bins).astype(int), bins - 1)",
        "* bins).astype(int), bins)",
        EDGES,
    ),
    Fault(
        "TF-IDF has read the posts it is measured on",
        "analysis/baselines.py",
        "[texts[post] for post in np.unique(pairs.post_N[plan.fit])]",
        "texts",
        f"{BASELINES} {NUMBERS}",
    ),
    Fault(
        "a baseline's threshold is chosen on the pairs that measure it",
        "training/criterion_only.py",
        "tuned_on = plan.selection if len(plan.selection) else plan.fit",
        "tuned_on = plan.evaluation",
        f"{BASELINES} {NUMBERS}",
    ),
    Fault(
        "the surest false negatives are those nearest to the threshold",
        "analysis/mistakes.py",
        "np.where(label_N == 1, 1 - probability_N, probability_N)",
        "probability_N",
        f"{EVIDENCE} {NUMBERS}",
    ),
    Fault(
        "a post is in the report without data.log_text",
        "analysis/mistakes.py",
        "if config.data.log_text and picked:",
        "if picked:",
        f"{REPORT} {EVIDENCE}",
    ),
    Fault(
        "a claim counts trainings where a value has none",
        "analysis/confirmation.py",
        "len(self.values) > 1 and not self.missing and self.luck.counted",
        "len(self.values) > 1 and self.luck.counted",
        "tests/analysis/test_confirmation.py",
    ),
    Fault(
        "the luck of seeds is in no error",
        "analysis/inference/training_variance.py",
        "np.sqrt(self.posts(contrast_A) + self.luck(contrast_A))",
        "np.sqrt(self.posts(contrast_A))",
        "tests/analysis/test_confirmation.py",
    ),
    Fault(
        "what the posts owe to the choice stays in the confirmed score",
        "analysis/confirmation.py",
        "values[arm] -= _carried(",
        "values[arm] -= 0.0 * _carried(",
        "tests/analysis/test_confirmation.py",
    ),
    Fault(
        "warnings stand as they were found",
        "analysis/cautions.py",
        "return sorted(found, key=lambda caution: caution.weight)",
        "return found",
        CONCLUSION,
    ),
    Fault(
        "trials that a baseline beats are recommended",
        "analysis/conclusion.py",
        "    if lost:\n",
        "    if False:\n",
        CONCLUSION,
    ),
    Fault(
        "a table of scores does not say what they were measured on",
        "analysis/report/html.py",
        "{esc(title)}, {esc(measured_at)}</caption>",
        "{esc(title)}</caption>",
        PAGE,
    ),
    Fault(
        "importance is drawn from few trials",
        "analysis/importance.py",
        "if len(scores_T) < LEAST[name]:",
        "if len(scores_T) < 4:",
        PAGE,
    ),
    Fault(
        "a table's cells are markup",
        "analysis/report/html.py",
        'f">{esc(cell.text)}</td>"',
        'f">{cell.text}</td>"',
        REPORT,
    ),
    Fault(
        "the cells of a figure's numbers are markup",
        "analysis/report/html.py",
        'f"<td>{esc(cell)}</td>"',
        'f"<td>{cell}</td>"',
        REPORT,
    ),
    Fault(
        "a name ends the script element",
        "analysis/report/html.py",
        '.replace("<", "\\\\u003c")',
        "",
        REPORT,
    ),
    Fault(
        "a cell of the markdown breaks its row",
        "analysis/report/markdown.py",
        "(esc(cell.text) for cell in row)",
        "(cell.text for cell in row)",
        REPORT,
    ),
    Fault(
        "what came in during a delivery is lost",
        "tracking/write/outbox.py",
        "if self._jobs.get(key) is deliver:",
        "if key in self._jobs:",
        OUTBOX,
    ),
    Fault(
        "what waited in an earlier process is forgotten",
        "tracking/write/outbox.py",
        "            self._on_disk = set(keys)\n",
        "            keys = []\n",
        OUTBOX,
    ),
    Fault(
        "the password of a store that is away is shown",
        "tracking/write/outbox.py",
        "shown(str(error)) or type(error).__name__",
        "str(error) or type(error).__name__",
        OUTBOX,
    ),
    Fault(
        "the worst is the best where less is better",
        "tracking/read/queries.py",
        'way = "DESC" if mode == "max" else "ASC"',
        'way = "DESC"',
        QUERIES,
    ),
    Fault(
        "trials on other folds are ranked together",
        "tracking/read/queries.py",
        "            query += f\" and tags.`{FOLD_FINGERPRINT}` = '{safe_name(chosen)}'\"\n",
        "",
        QUERIES,
    ),
    Fault(
        "an infinity is shown as 1.8e308",
        "tracking/write/projection.py",
        "if math.isinf(value):",
        "if False:",
        f"{PROJECTION} {TRACKER}",
    ),
    Fault(
        "a trial that was stopped early is finished",
        "tracking/write/projection.py",
        '"pruned": "KILLED"}',
        '"pruned": "FINISHED"}',
        f"{PROJECTION} {TRACKER}",
    ),
    Fault(
        "two names that MLflow spells alike are one metric",
        "tracking/write/projection.py",
        "owners[name] = legal if legal not in owners.values() else",
        "owners[name] = legal if True else",
        PROJECTION,
    ),
    Fault(
        "the first epoch is step 0",
        "tracking/write/from_journal.py",
        "for e, v in enumerate(values, start=1)]",
        "for e, v in enumerate(values)]",
        f"{PROJECTION} {TRACKER} tests/local/test_train.py",
    ),
    Fault(
        "posts go to MLflow unasked",
        "tracking/write/artifacts/nli_pairs.py",
        "        if with_text:\n",
        "        if True:\n",
        f"{PROJECTION} tests/local/test_train.py",
    ),
    Fault(
        "of two runs of one trial the later stays",
        "tracking/write/runs.py",
        "sorted(runs, key=_age)",
        "sorted(runs, key=_age, reverse=True)",
        TRACKER,
    ),
    Fault(
        "an alias that its user moved is taken back",
        "tracking/registry/register.py",
        "if version.tags.get(ALIASED) != alias:",
        "if True:",
        REGISTRY,
    ),
    Fault(
        "another bundle of the same trial is taken for the registered one",
        "tracking/registry/register.py",
        '        if name == "bundle.json":\n',
        '        if name.endswith(".safetensors"):\n            continue\n        if name == "bundle.json":\n',
        REGISTRY,
    ),
    Fault(
        "a version is promoted without its p",
        "tracking/registry/promotion.py",
        "difference.value > 0 and difference.p_value < level",
        "difference.value > 0",
        PROMOTION,
    ),
    Fault(
        "a version that is shown to be worse is promoted",
        "tracking/registry/promotion.py",
        "difference.value > 0 and difference.p_value < level",
        "difference.p_value < level",
        PROMOTION,
    ),
    Fault(
        "versions measured at two ratios are compared",
        "tracking/registry/promotion.py",
        ', RATIO: "evaluation ratio"',
        "",
        PROMOTION,
    ),
    Fault(
        "a decision is made anew each time it is asked for",
        "tracking/registry/promotion.py",
        "        if decided is not None:\n",
        "        if False:\n",
        PROMOTION,
    ),
    Fault(
        "clean deletes what a registered model rests on",
        "tracking/store/clean_and_export.py",
        "if run.info.run_id in used:",
        "if False:",
        HOUSEKEEPING,
    ),
    Fault(
        "an archive with a changed file is restored",
        "tracking/archives/archive.py",
        "        if manifest.sha256[name] != digest:\n",
        "        if False:\n",
        ARCHIVES,
    ),
    Fault(
        "an archive may fill the disk",
        "tracking/archives/archive.py",
        "    if total > most:\n",
        "    if False:\n",
        ARCHIVES,
    ),
    Fault(
        "restore writes over a store that is there",
        "tracking/archives/restore.py",
        "    if taken and not replace:\n",
        "    if False:\n",
        ARCHIVES,
    ),
)
