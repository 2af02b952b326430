"""No number stands in a report that is not counted here a second time: section by section, and then by its absence."""

from __future__ import annotations

import dataclasses
import html
import importlib.metadata
import itertools
import platform
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats
from sklearn import metrics

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.report.figures_settings import interaction_figure
from gemma_nli.analysis.report.write import Report
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.trial import read_trial
from tests.analysis.recount import Recount, interval, p_among, p_text, three

AT = "at 1 matched negative per positive"
POOLING, RATE, DROPOUT = "model.pooling_strategy", "training.learning_rate", "model.dropout"


@pytest.fixture(scope="module")
def reported(simulated_report: Report) -> Report:
    return simulated_report


@pytest.fixture(scope="module")
def parts(reported: Report) -> dict[str, str]:
    """The markdown's sections by title, what users wrote unescaped; `top` before the first."""
    text = re.sub(r"\\([\\`*_\[\]<>|#])", r"\1", reported.markdown.read_text(encoding="utf-8"))
    top, *sections = text.split("\n## ")
    return {"top": top, **dict(section.split("\n", 1) for section in sections)}


@pytest.fixture(scope="module")
def recount(reported: Report, simulated: tuple[SweepSpec, Evidence]) -> Recount:
    evidence = simulated[1]
    records = {trial.key: read_trial(evidence.storage, trial.key) for trial in evidence.trials}
    return Recount(evidence, reported.findings.draws, {k: found for k, found in records.items() if found is not None})


def table(text: str) -> list[list[str]]:
    """The first table's lines, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in rows[2:] if not set("".join(row)) <= set("-:|")]


def under(text: str, heading: str) -> str:
    return text.split(f"### {heading}\n")[1].split("\n### ")[0]


def without_empty(rows: list[list[str]]) -> list[list[str]]:
    """Without the columns in which no row says anything."""
    kept = [i for i in range(len(rows[0])) if any(row[i] not in ("", "-") for row in rows)]
    return [[row[i] for i in kept] for row in rows]


def variants(recount: Recount) -> list[tuple[str, list[str]]]:
    """Poolings by their honest score."""
    return sorted(recount.values(POOLING).items(), key=lambda item: -recount.tuned(item[1]).mean())


def contrasts(recount: Recount) -> list[tuple[str, float, tuple[float, float], float, float]]:
    """(name, the leader's lead, its interval, its p, what is found in 80%) of every other pooling.

    By the largest standardized difference of any two poolings in each draw.
    """
    draws = [recount.tuned(keys) for _, keys in variants(recount)]
    largest_S = np.max(
        [np.abs((a - b) - (a - b).mean()) / (a - b).std() for a, b in itertools.combinations(draws, 2)], 0
    )
    critical, found = np.quantile(largest_S, 0.95), []
    for (name, _), other_S in list(zip(variants(recount), draws, strict=True))[1:]:
        lead_S = draws[0] - other_S
        lead, error = lead_S.mean(), lead_S.std()
        ends = (lead - critical * error, lead + critical * error)
        found.append((name, lead, ends, p_among(lead, error, largest_S, 3), (critical + stats.norm.ppf(0.8)) * error))
    return found


def between(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def overall(recount: Recount) -> np.ndarray:
    return recount.tuned_overall([keys for _, keys in variants(recount)])


def around(recount: Recount, draws: np.ndarray, keys: list[str]) -> np.ndarray:
    """The estimate, moved as other posts would move the best trial's own score: what its interval is of."""
    return np.asarray(draws.mean() + recount.noise[recount.best_of(keys)])


def test_the_top_of_the_page(parts: dict[str, str], recount: Recount) -> None:
    (name, lead, ends, p, _), honest_S = contrasts(recount)[0], overall(recount)
    honest, raw = honest_S.mean(), recount.score[recount.winner]
    (_, leader), *_ = variants(recount)
    better = recount.over_folds(recount.best_of(leader), recount.best_of(recount.values(POOLING)[name]))[3][0]
    low, high = interval(around(recount, honest_S, [recount.winner])).split(" to ")
    settings = recount.records[recount.winner].config.flat()
    winner = f"pooling_strategy {settings[POOLING]}, learning_rate {settings[RATE]}, dropout {settings[DROPOUT]}"
    for expected in (
        f"mean beats every other pooling_strategy: the nearest, {name}, by {lead:.3f} F1 {AT} (95% interval "
        f"{between(ends)}), each tuned over 6 trials, one training per trial.",
        "How sure: over posts, adjusted p "
        f"{p_text(p)}; over trainings, the chance that it is better by more than 0.01 F1 is {better:.0%}. The best "
        f"trial ({winner}) scores {honest:.3f} F1 {AT} with the luck of being chosen taken off "
        f"(95% interval {low} to {high}); its cross-validated score is {raw:.3f}.",
        f"Honest F1 of the winner {AT}: **{honest:.3f}** ({low} to {high}); its cross-validated score, the best of 18 "
        f"trials: {raw:.3f}.",
        f"has AUC {recount.macro_auc(recount.probabilities(recount.winner)):.3f} (macro AUC: mean over "
        f"{len(recount.averaged)} of {len(recount.pairs.criterion_ids)} criteria, those with at least 5 positive and 5 "
        "other evaluation pairs).",
        f"- **Use:** the best trial ({winner}). A model registered from it is a refit on all pairs, which nobody has "
        "measured: its scores are those of the trial's cross-validation.\n",
        f"- **Try next:** learning_rate above {settings[RATE]}; finalize.confirm, which ",
        "- **Not settled:** whether dropout matters; what other training seeds would give.\n",
    ):
        assert expected in parts["top"]
    _, _, ends, _, _ = effects(recount)[DROPOUT]
    assert f"No effect of model.dropout shown: up to {max(ends[1], -ends[0]):.3f} F1 is possible." in parts["top"]


def test_the_compared_values(parts: dict[str, str], recount: Recount) -> None:
    (_, leader), *others = variants(recount)
    rows, tests = [], []
    for (name, lead, ends, p, smallest), (_, keys) in zip(contrasts(recount), others, strict=True):
        a, b = recount.best_of(leader), recount.best_of(keys)
        gap = recount.score[a] - recount.score[b]
        fixed = recount.widened(recount.drawn[a] - recount.drawn[b], gap)
        mean, low, high, chances = recount.over_folds(a, b)
        (more, p_more), (area, p_area) = recount.accuracy(a, b), recount.auc(a, b)
        rows.append([name, three(lead), between(ends), p_text(p), three(smallest)])
        expected = [name, f"{gap:.3f} ({interval(fixed)})"]
        expected += [f"{mean:.3f} ({low:.3f} to {high:.3f})", *(f"{chance:.0%}" for chance in chances)]
        tests.append([*expected, f"{more:.3f}, p {p_text(p_more)}", f"{area:.3f}, p {p_text(p_area)}"])
    others = "The best trials by other tests"
    assert table(parts["Compared"].split(f"### {others}")[0]) == rows
    assert table(under(parts["Compared"], others)) == tests
    estimates = [(name, around(recount, recount.tuned(keys), keys)) for name, keys in variants(recount)]
    expected = "; ".join(f"{name} {draws.mean():.3f} ({interval(draws)})" for name, draws in estimates)
    assert f"Honest F1 of each pooling_strategy: {expected}" in parts["Compared"]
    scores = [(name, [recount.score[key] for key in keys]) for name, keys in variants(recount)]
    bought = "; ".join(f"{name} from {np.mean(of):.3f} to {max(of):.3f}" for name, of in scores)
    assert f"Expected best F1 by number of trials, for each pooling_strategy: {bought}." in parts["Compared"]


def test_the_baselines(parts: dict[str, str], recount: Recount) -> None:
    """Leads over all of them are judged at once, by the largest standardized difference in each draw."""
    own_S = overall(recount)
    everything = [np.ones(len(y), dtype=bool) for y in recount.labels]
    tfidf, scored = recount.tfidf()
    known, shares = recount.criterion_only()
    baselines = (
        ("criterion only", "the criterion's share of positives; never reads the post", known, shares),
        ("always positive", "calls every pair matched", everything, everything),
        ("TF-IDF", "words of the post, a logistic regression per criterion", tfidf, scored),
    )
    drawn = [recount.f1_draws(decided) for _, _, decided, _ in baselines]
    noises = [own_S - own_S.mean() - recount.widened(other_S - other_S.mean(), 0.0) for other_S in drawn]
    errors = [noise_S.std() for noise_S in noises]
    largest_S = np.max([np.abs(noise_S) / error for noise_S, error in zip(noises, errors, strict=True)], axis=0)
    critical = np.quantile(largest_S, 0.95)
    rows, tests = [], []
    for (name, about, decided, scores), error in zip(baselines, errors, strict=True):
        f1_K = [metrics.f1_score(y, z) for y, z in zip(recount.labels, decided, strict=True)]
        auc = np.mean([metrics.roc_auc_score(y, s) for y, s in zip(recount.labels, scores, strict=True)])
        lead = own_S.mean() - np.mean(f1_K)
        low, high = lead - critical * error, lead + critical * error
        outcome = "beats" if low > 0 else "loses" if high < 0 else "not told apart"
        judged = [three(lead), f"{low:.3f} to {high:.3f}", p_text(p_among(lead, error, largest_S, 3)), outcome]
        rows.append([name, about, three(np.mean(f1_K)), three(auc), three(recount.macro_auc(scores)), *judged])
        mean, least, most, chances = recount.over_folds(recount.winner, f1_K)
        (more, p_more), (area, p_area) = (
            recount.accuracy(recount.winner, decided),
            recount.auc(recount.winner, scores),
        )
        beside = [f"{mean:.3f} ({least:.3f} to {most:.3f})", *(f"{chance:.0%}" for chance in chances)]
        beside += [f"{more:.3f}, p {p_text(p_more)}", f"{area:.3f}, p {p_text(p_area)}"]
        tests.append([name, three((critical + stats.norm.ppf(0.8)) * error), *beside])
    judged_table, by_every_test = parts["Baselines"].split("### By every test")
    assert table(judged_table) == rows
    assert table(by_every_test) == tests


def test_the_leaderboard(parts: dict[str, str], recount: Recount) -> None:
    ranked = sorted(recount.records, key=lambda key: (key != recount.winner, -recount.score[key]))
    behind = {key: recount.score[recount.winner] - recount.score[key] for key in ranked}
    draws = {k: recount.widened(recount.drawn[recount.winner] - recount.drawn[k], behind[k]) for k in ranked}
    spread = {key: draws[key].std() for key in ranked}
    others = ranked[1:]
    largest_S = np.max([np.abs(draws[key] - behind[key]) / spread[key] for key in others], axis=0)
    critical = np.quantile(largest_S, 0.95)
    rows, level = [], 0
    for rank, key in enumerate(ranked, start=1):
        flat, folds, reach = recount.records[key].config.flat(), recount.fold_f1(key), critical * spread[key]
        at_once = f"{behind[key] - reach:.3f} to {behind[key] + reach:.3f}" if rank > 1 else ""
        is_level = rank > 1 and behind[key] - reach <= 0
        level += is_level
        expected = [
            f"{rank} *" if is_level else str(rank),
            str(flat[POOLING]),
            str(flat[RATE]),
            str(flat[DROPOUT]),
            three(np.mean(folds)),
        ]
        expected += [three(np.std(folds, ddof=1)), three(np.mean(recount.fold_auc(key)))]
        expected += [three(recount.macro_auc(recount.probabilities(key))), three(behind[key])]
        rows.append([*expected, at_once])
    assert table(parts["Leaderboard"]) == rows
    inside_ST = np.stack([recount.drawn[key] for key in recount.records], axis=1)
    won = (inside_ST.argmax(1) == list(recount.records).index(recount.winner)).mean()
    assert f"Marked: the {level} other trials not shown to be worse than the winner" in parts["Leaderboard"]
    assert f"The same trial won in {won:.0%} of the resamples." in parts["Leaderboard"]


def of_the_heaviest(recount: Recount, chosen_on: np.ndarray, size: int) -> list[str]:
    """Members, each the trial that brings the most F1 on these pairs."""
    members: list[str] = []
    while len(members) < size:
        ranked = sorted(recount.records, key=lambda key: -mean_f1(recount, [key], chosen_on))
        members.append(max(ranked, key=lambda key: mean_f1(recount, [*members, key], chosen_on)))
    return members


def mean_f1(recount: Recount, members: list[str], at: np.ndarray) -> float:
    """Of averaged probabilities against averaged thresholds, on some folds."""
    found = []
    for place in np.flatnonzero(at):
        above = [
            np.asarray(recount.probabilities(key)[place], dtype=np.float64)
            - recount.records[key].folds[recount.folds[place]].threshold
            for key in members
        ]
        found.append(metrics.f1_score(recount.labels[place], np.mean(above, axis=0) >= 0))
    return float(np.mean(found))


def test_the_ensembles(parts: dict[str, str], recount: Recount) -> None:
    alone, together, _ = table(parts["Ensembles"])
    every = np.ones(len(recount.folds), dtype=bool)
    values = []
    for row, size in ((alone, 1), (together, 5)):
        held = [
            mean_f1(recount, of_the_heaviest(recount, ~only, size), only) for only in np.eye(len(every), dtype=bool)
        ]
        values.append(np.mean(held))
        assert row[1:3] == [three(values[-1]), three(mean_f1(recount, of_the_heaviest(recount, every, size), every))]
    assert together[3] == three(values[1] - values[0])
    assert f"{abs(values[1] - values[0]):.3f} F1" in parts["Ensembles"] or "one per criterion" in parts["Ensembles"]


def effects(recount: Recount) -> dict[str, tuple[list[str], float, tuple[float, float], float, float]]:
    """By setting: (best and worst value, what lies between, its interval, its p, what is found in 80%).

    By the largest standardized difference of any two values of any setting in each draw.
    """
    keys = (POOLING, RATE, DROPOUT)
    drawn = {key: recount.effect_draws(key, [other for other in keys if other != key]) for key in keys}
    largest_S = np.max([largest for _, largest in drawn.values()], axis=0)
    critical, count = np.quantile(largest_S, 0.95), sum(len(errors) // 2 for errors, _ in drawn.values())
    found = {}
    for key, (errors, _) in drawn.items():
        means = {name: np.mean([recount.score[k] for k in of]) for name, of in recount.values(key).items()}
        best, worst = max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])
        between, error = float(means[best] - means[worst]), errors[best, worst]
        ends = (between - critical * error, between + critical * error)
        smallest = (critical + stats.norm.ppf(0.8)) * error
        found[key] = ([best, worst], between, ends, p_among(between, error, largest_S, count), smallest)
    return found


def test_the_settings(parts: dict[str, str], recount: Recount) -> None:
    importance = {"fANOVA": recount.importance("fANOVA")}
    settings = sorted((POOLING, RATE, DROPOUT), key=lambda key: -importance["fANOVA"][key])
    found = effects(recount)
    rows = []
    for key in settings:
        named, spread, ends, p, smallest = found[key]
        told = [key, *named, three(spread), between(ends), p_text(p), three(smallest), "balanced"]
        rows.append([*told, *(f"{importance[method][key]:.2f}" for method in importance)])
    assert table(parts["Settings"]) == rows
    short = {key: key.split(".")[1] for key in settings}
    spreads = "; ".join(f"{short[k]}: {found[k][1]:.3f} between best and worst value" for k in settings)
    assert spreads in parts["Settings"]
    shares = "; ".join(f"{short[key]} {importance['fANOVA'][key]:.0%}" for key in settings)
    assert f"Importance of the settings: {shares}" in parts["Settings"]
    pairs = ((POOLING, RATE), (POOLING, DROPOUT), (RATE, DROPOUT))
    sizes = {pair: recount.interaction(*pair) for pair in pairs}
    assert max(sizes.values()) < 0.01
    assert "for each combination of" not in parts["Settings"]  # there is nothing to see
    scores = recount.score.values()
    assert f"their F1 goes from {min(scores):.3f} to {max(scores):.3f}." in parts["Settings"]


def test_the_learning_curves(parts: dict[str, str], recount: Recount) -> None:
    expected = []
    for name, keys in variants(recount):
        folds = recount.records[recount.best_of(keys)].folds.values()
        curve_E = np.mean([fold.history["val_f1"] for fold in folds], axis=0)
        expected.append(
            f"{name}: mean validation F1 from {curve_E[0]:.3f} to {curve_E[-1]:.3f} in {len(curve_E)} epochs"
        )
    assert f"Learning curves: {'; '.join(expected)}" in parts["Training"]


def test_the_errors_of_the_winner(parts: dict[str, str], recount: Recount) -> None:
    text, winner = parts["Errors of the winner"], recount.records[recount.winner]
    thresholds = ", ".join(f"{winner.folds[fold].threshold:.2f}" for fold in recount.folds)
    halves = [
        metrics.f1_score(y, p >= 0.5)
        for y, p in zip(recount.labels, recount.probabilities(recount.winner), strict=True)
    ]
    temperatures = recount.temperatures()
    (error, brier), (scaled, scaled_brier) = recount.calibration(None), recount.calibration(temperatures)
    for line in (
        f"thresholds, chosen on training posts: {thresholds}",
        f"mean F1 at these thresholds: {recount.score[recount.winner]:.3f}",
        f"mean F1 at threshold 0.5: {np.mean(halves):.3f}",
        f"calibration error: {error:.3f}, temperature scaled {scaled:.3f}",
        f"Brier score: {brier:.3f}, temperature scaled {scaled_brier:.3f}",
        f"temperatures, from the other folds: {', '.join(f'{t:.2f}' for t in temperatures)}",
        f"Calibration: expected error {error:.3f} as trained, {scaled:.3f} after a temperature from the other folds.",
    ):
        assert line in text
    y, z = np.concatenate(recount.labels), np.concatenate(recount.decisions(recount.winner))
    (true_no, false_yes), (false_no, true_yes) = metrics.confusion_matrix(y, z)
    assert table(under(text, "Decisions")) == [
        ["matched", str(true_yes), str(false_no)],
        ["not matched", str(false_yes), str(true_no)],
    ]


def test_the_slices_of_the_winner(parts: dict[str, str], recount: Recount) -> None:
    text, pairs, rows = parts["Errors of the winner"], recount.pairs, np.concatenate(recount.rows)
    of_criterion = [pairs.criterion_N[rows] == c for c in range(len(pairs.criterion_ids))]
    named = [(n, h) for n, h in zip(pairs.criterion_ids, of_criterion, strict=True) if h.any()]
    criteria = [recount.slice(name, here) for name, here in named]
    for row in criteria:
        within = recount.auc_within(pairs.criterion_ids.index(row[0]), recount.probabilities(recount.winner))
        row[-1] = "-" if np.isnan(within) else three(within)
    assert table(under(text, "By criterion")) == criteria
    expected = "; ".join(f"{row[0]} {row[3]} with {row[2]} positive pairs" for row in criteria)
    assert f"F1 by criterion: {expected}" in text
    cut = recount.truncated()
    lengths = (("whole in 24 tokens", ~cut), ("cut at 24 tokens", cut))
    wanted = without_empty([recount.slice(name, here) for name, here in lengths if here.any()])
    assert len(wanted) == 1
    assert "### By post length" not in text  # one line says nothing that the others do not
    annotated = {(a.post_id, a.criterion_id) for a in recount.evidence.corpus.annotations}
    y = np.concatenate(recount.labels)
    listed = np.array([tuple(pair_id.split("::")) in annotated for pair_id in pairs.pair_ids(rows)])
    sources = (("annotated negatives", (y == 0) & listed), ("sampled negatives", (y == 0) & ~listed))
    assert table(under(text, "By negatives")) == without_empty([recount.slice(*source) for source in sources])
    shows = np.array([pairs.label_N[pairs.post_N == post].sum() for post in pairs.post_N[rows]])
    groups = (("none", shows == 0), ("one", shows == 1), ("two", shows == 2), ("three or more", shows >= 3))
    wanted = without_empty([recount.slice(name, here) for name, here in groups if here.any()])
    assert table(under(text, "By criteria a post shows")) == wanted


def test_the_most_certain_mistakes(parts: dict[str, str], recount: Recount) -> None:
    wrong: dict[int, list[tuple[float, list[str]]]] = {0: [], 1: []}
    sources = ("positive", "annotated", "sampled")
    for fold in recount.folds:
        of = recount.records[recount.winner].folds[fold]
        names = recount.pairs.pair_ids(of.rows)
        for name, row, y, p in zip(names, of.rows, of.labels, of.probabilities, strict=True):
            if (p >= np.float64(of.threshold)) != y:
                expected = [name, "matched" if y else "not matched", f"{p:.4f}", three(of.threshold)]
                wrong[int(y)].append((float(p if y else -p), [*expected, sources[recount.pairs.source_N[row]]]))
    wanted = [line for side in (0, 1) for _, line in sorted(wrong[side], key=lambda item: item[0])[:10]]
    assert table(under(parts["Errors of the winner"], "Most confident mistakes")) == wanted


def test_how_to_reproduce(parts: dict[str, str], recount: Recount) -> None:
    text, winner = parts["How to reproduce"], recount.records[recount.winner]
    posts = {post for rows in recount.rows for post in recount.pairs.post_N[rows]}
    assert f"winning trial: {recount.winner}" in text
    size = f"{sum(map(len, recount.rows))} pairs of {len(posts)} posts in 4 folds, negatives per positive: 1.0"
    assert f"evaluation: {size}\n" in text
    assert f"- python: {platform.python_version()}\n" in text
    for package in ("gemma-nli", "torch", "transformers", "ray", "optuna", "mlflow", "scikit-learn", "numpy"):
        assert f"- {package}: {importlib.metadata.version(package)}\n" in text
    config = yaml.safe_load(text.split("````")[3])
    assert config == winner.config.model_dump(mode="json")


@pytest.fixture(scope="module")
def figures(reported: Report) -> dict[str, list[list[str]]]:
    """The tables under the page's figures, by figure."""
    page, found = reported.html.read_text(encoding="utf-8"), {}
    for name, body in re.findall(r'(?s)<figure>.*?id="plot-(\w+)"(.*?)</figure>', page):
        lines = re.findall(r"(?s)<tr>(.*?)</tr>", body)
        found[name] = [[html.unescape(c) for c in re.findall(r"(?s)<t[dh][^>]*>(.*?)</t[dh]>", line)] for line in lines]
    return found


def test_the_tables_under_the_figures_of_the_answer(figures: dict[str, list[list[str]]], recount: Recount) -> None:
    estimates, bought = [], []
    for name, keys in variants(recount):
        draws, scores = around(recount, recount.tuned(keys), keys), sorted(recount.score[key] for key in keys)
        low, high = np.quantile(draws, [0.025, 0.975])
        estimates.append([name, "6", three(draws.mean()), three(low), three(high), three(scores[-1])])
        for n in (1, 3, 6):
            best = sorted(max(chosen) for chosen in itertools.combinations(scores, n))
            ends = (best[int(np.ceil(share * len(best) - 1e-9)) - 1] for share in (0.1, 0.9))
            bought.append([name, str(n), three(np.mean(best)), *map(three, ends)])
    assert figures["answer"][1:] == estimates
    assert figures["budget"][1:] == bought
    curves = []
    for name, keys in variants(recount):
        folds = [fold for _, fold in sorted(recount.records[recount.best_of(keys)].folds.items())]
        curve_E = np.mean([fold.history["val_f1"] for fold in folds], axis=0)
        chosen = ", ".join(str(fold.selected_epoch) for fold in folds)
        curves.append([name, str(len(curve_E)), three(curve_E[0]), three(curve_E[-1]), chosen])
    assert figures["curves"][1:] == curves


def test_the_tables_under_the_figures_of_the_settings(
    figures: dict[str, list[list[str]]], recount: Recount, reported: Report
) -> None:
    importance = {"fANOVA": recount.importance("fANOVA")}
    order = sorted((POOLING, RATE, DROPOUT), key=lambda key: -importance["fANOVA"][key])
    assert figures["importance"][1:] == [[k, *(f"{of[k]:.2f}" for of in importance.values())] for k in order]
    levels = []
    for key in order:
        domain = recount.evidence.spec.space.domain(key)
        for name in map(str, domain.corners):
            keys = recount.values(key)[name]
            drawn_S = np.mean([recount.score[k] + recount.noise[k] for k in keys], axis=0)
            low, high = np.quantile(drawn_S, [0.025, 0.975])
            scores = [recount.score[k] for k in keys]
            expected = [np.mean(scores), low, high, max(scores)]
            levels.append([key, name, str(len(keys)), *map(three, expected)])
    assert figures["effects"][1:] == levels
    interactions = tuple(dataclasses.replace(found, size=0.02) for found in reported.findings.interactions)
    figure = interaction_figure(dataclasses.replace(reported.findings, interactions=interactions))
    assert figure is not None
    head, *cells = map(list, figure.rows)
    of_values = [recount.values(key) for key in (POOLING, RATE, DROPOUT)]
    (across,) = [values for values in of_values if list(values) == head[1:]]
    (down,) = [values for values in of_values if sorted(values) == sorted(row[0] for row in cells)]
    for name, *expected in cells:
        both = [set(down[name]) & set(across[value]) for value in head[1:]]
        assert expected == [three(np.mean([recount.score[key] for key in keys])) for keys in both]


def test_the_table_under_the_calibration(figures: dict[str, list[list[str]]], recount: Recount) -> None:
    y, wanted = np.concatenate(recount.labels), []
    for name, temperatures in (("as trained", None), ("temperature scaled", recount.temperatures())):
        stated = np.concatenate(recount.stated(temperatures))
        for low in range(15):
            here = np.minimum((stated * 15).astype(int), 14) == low
            if here.any():
                ends = stats.binomtest(int(y[here].sum()), int(here.sum())).proportion_ci(method="wilson")
                expected = (stated[here].mean(), y[here].mean(), ends.low, ends.high)
                wanted.append([name, *(f"{value:.2f}" for value in expected), str(here.sum())])
    assert figures["calibration"][1:] == wanted


def test_no_section_holds_a_number_that_these_tests_do_not_count(parts: dict[str, str]) -> None:
    """Each test above compares whole tables and sentences; this holds that there are no others."""
    counted = {
        "top": 7, "Compared": 3, "Baselines": 0, "Leaderboard": 1, "Ensembles": 1, "Settings": 3, "Training": 1,
        "Errors of the winner": 8, "How to reproduce": 10,
    }  # fmt: skip
    assert parts.keys() == counted.keys()
    for title, wanted in counted.items():
        text = re.sub(r"(?s)````.*?````", "", parts[title])
        prose = [line for line in text.splitlines() if not line.startswith("|")]
        with_numbers = [line for line in prose if re.search(r"\d\.\d|\d%", line)]
        assert len(with_numbers) == wanted, (title, with_numbers)


def test_a_changed_prediction_changes_the_count(recount: Recount, tmp_path: Path) -> None:
    """The recount is of the journals: one flipped decision is seen in every score."""
    before = recount.fold_f1(recount.winner)
    fold = recount.records[recount.winner].folds[1]
    kept = fold.probabilities.copy()
    try:
        fold.probabilities[:20] = 1 - fold.probabilities[:20]
        assert recount.fold_f1(recount.winner)[0] != before[0]
    finally:
        fold.probabilities[:] = kept
