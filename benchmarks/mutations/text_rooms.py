"""Faults in corpus, model and features."""

from __future__ import annotations

from benchmarks.mutations.fault import Fault

PAIRS, REDSM5, COPIES = (f"tests/corpus/test_{name}.py" for name in ("pairs", "redsm5", "copies"))
CSV = "tests/corpus/test_damaged_csv.py"
POOLING, CLASSIFIER, ENCODER, BUNDLE = (
    f"tests/model/test_{name}.py" for name in ("pooling", "classifier", "encoder", "bundle")
)
STORE, PREFIX, KEEPING = (f"tests/features/test_{name}.py" for name in ("store", "prefix", "verify_and_prune"))
FINETUNE = "tests/training/test_finetune.py"

FAULTS = (
    Fault(
        "sealed posts are trained on",
        "corpus/sealed.py",
        "rest = _part(whole, whole.posts.keys() - sealed.posts.keys())",
        "rest = _part(whole, whole.posts)",
        "tests/corpus/test_sealed.py",
    ),
    Fault(
        "a copy of a sealed post is left among the others",
        "corpus/sealed.py",
        "np.isin(whole.group_P, whole.group_P[at_P])",
        "at_P",
        "tests/corpus/test_sealed.py",
    ),
    Fault(
        "equal folds with other inner splits have one fingerprint",
        "corpus/pairs.py",
        "self.fold_N, self.inner_N, self.rank_N):",
        "self.fold_N, self.rank_N):",
        PAIRS,
    ),
    Fault(
        "a small ratio leaves a fold without a negative",
        "corpus/negatives.py",
        "quota_B[most] = max(1, quota_B[most])",
        "quota_B[most] = quota_B[most]",
        PAIRS,
    ),
    Fault(
        "an epoch is chosen on the training ratio's negatives",
        "corpus/pairs.py",
        "self._taken_N(self.eval_negative_ratio) & other_N & held_out_N",
        "self._taken_N(negative_ratio) & other_N & held_out_N",
        PAIRS,
    ),
    Fault(
        "a post and its copy are in two folds",
        "corpus/pairs.py",
        "data.fold_seed, num_leading, group_P[by_id_P])",
        "data.fold_seed, num_leading)",
        f"{PAIRS} {COPIES}",
    ),
    Fault(
        "a post and its copy are on two sides of the inner split",
        "corpus/pairs.py",
        "num_leading, group_P[members])",
        "num_leading)",
        f"{PAIRS} {COPIES}",
    ),
    Fault(
        "sampled negatives come before annotated ones",
        "corpus/negatives.py",
        "source_N[rows], kind_N[rows]))",
        "-source_N[rows], kind_N[rows]))",
        PAIRS,
    ),
    Fault(
        "a sentence against a criterion outweighs one for it",
        "corpus/pairs.py",
        "source_PC[place] = min(",
        "source_PC[place] = max(",
        f"{PAIRS} {REDSM5}",
    ),
    Fault(
        "a row of too many fields is cut",
        "corpus/csv_files.py",
        "if len(fields) != width:",
        "if len(fields) < width:",
        f"{CSV} {REDSM5}",
    ),
    Fault(
        "of two posts of one id the last is taken",
        "corpus/redsm5.py",
        "        if post_id in first_lines:\n",
        "        if False:\n",
        REDSM5,
    ),
    Fault(
        "posts that share three words in five are no copies",
        "corpus/copies.py",
        "Nearness(3, 10, math.inf, 0.6, 32, 4)",
        "Nearness(3, 10, math.inf, 0.9, 32, 4)",
        COPIES,
    ),
    Fault(
        "a fold is as large as chance makes it",
        "corpus/folds.py",
        "has_room_K = after_K <= self.least",
        "has_room_K = after_K <= 10**9",
        "tests/corpus/test_folds.py",
    ),
    Fault(
        "padding wins the maximum",
        "model/pooling/max.py",
        "torch.finfo(h_BTH.dtype).min).amax(-2)",
        "0).amax(-2)",
        POOLING,
    ),
    Fault(
        "first_k takes one token less",
        "model/pooling/averages.py",
        "(mask_BT.cumsum(-1) <= self.k)",
        "(mask_BT.cumsum(-1) < self.k)",
        POOLING,
    ),
    Fault(
        "post and criterion are compared with a sign",
        "model/heads/classifier_head.py",
        "(u_BH - v_BH).abs()",
        "(u_BH - v_BH)",
        "tests/model/test_heads.py",
    ),
    Fault(
        "adapters start from whatever came before",
        "model/adapters.py",
        "        torch.manual_seed(seed)\n",
        "",
        f"{CLASSIFIER} {FINETUNE}",
    ),
    Fault(
        "the first layers are trained in place of the last",
        "model/adapters.py",
        "list(layers)[highest - count : highest]",
        "list(layers)[:count]",
        f"{CLASSIFIER} {FINETUNE}",
    ),
    Fault(
        "a bundle is saved without its adapters",
        "model/adapters.py",
        "(weight.float() + deltas[name]).to(weight.dtype)",
        "weight",
        BUNDLE,
    ),
    Fault(
        "a prediction has dropout in it", "model/classifier.py", "        each.eval()\n", "        pass\n", CLASSIFIER
    ),
    Fault(
        "a bundle whose encoder was changed is loaded",
        "model/bundles/bundle.py",
        'if encoder.identity.fingerprint != was.get("fingerprint"):',
        "if False:",
        BUNDLE,
    ),
    Fault(
        "a model that stays causal is taken for one that sees both ways",
        "model/attention.py",
        "        if is_causal():\n            raise EncoderError(",
        "        if False:\n            raise EncoderError(",
        ENCODER,
    ),
    Fault(
        "a pair at the threshold is not matched",
        "model/bundles/scorer.py",
        "(probability >= at)",
        "(probability > at)",
        "tests/model/test_scorer.py",
    ),
    Fault(
        "vectors of texts cut elsewhere are taken from the store",
        "features/request.py",
        '            "max_length": self.model.max_length,\n',
        "",
        STORE,
    ),
    Fault(
        "vectors of another attention are taken from the store",
        "features/request.py",
        '            "attention": self.model.attention,\n',
        "",
        STORE,
    ),
    Fault(
        "two pairs of the same letters have one address",
        "features/request.py",
        "sha256(digest(premise) + digest(hypothesis)).digest()",
        "sha256((premise + hypothesis).encode()).digest()",
        STORE,
    ),
    Fault(
        "a damaged shard is read",
        "features/shard_file.py",
        "if not trust or seen not in _verified:",
        "if False:",
        f"{STORE} {KEEPING}",
    ),
    Fault(
        "a shard can be lost in a power cut",
        "features/shard_file.py",
        "        put_in_place(temporary, path)\n",
        "        temporary.replace(path)\n",
        f"tests/base/test_files.py {STORE}",
    ),
    Fault(
        "a token past a text's end counts as real",
        "features/feature_block.py",
        "mask_BT = steps_T[None, :] < lengths_B[:, None]",
        "mask_BT = steps_T[None, :] <= lengths_B[:, None]",
        STORE,
    ),
    Fault(
        "criteria stand at the wrong positions behind a short post",
        "features/prefix.py",
        "positions_BS = mask_BP.sum(1, keepdim=True)",
        "positions_BS = mask_BP.shape[1]",
        PREFIX,
    ),
    Fault(
        "prune removes what was used lately",
        "features/verify_and_prune.py",
        "time.time() - item.last_used > older_than_seconds",
        "time.time() - item.last_used < older_than_seconds",
        KEEPING,
    ),
    Fault(
        "repair deletes files that are not the store's",
        "features/verify_and_prune.py",
        "if repair and ours and free:",
        "if repair and free:",
        KEEPING,
    ),
)
