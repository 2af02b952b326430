"""How fast texts become vectors: against a naive batch order, and with a causal model's posts encoded once.

Batch order: the store's length-sorted batches of 4,096 token slots against batches of 32 pairs in corpus order, each
padded to its longest: the same 1,024 random pairs, the same loaded MiniLM, tokenising included on both sides, in turns
(best of three). Prefix reuse: a random causal Gemma2 (5 layers, hidden 256, grouped heads, sliding windows) on pairs of
the longest posts with all criteria: the store's encoding with `features.prefix_reuse` against without; and how far the
vectors differ.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import Workplace
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import Corpus, load_corpus
from gemma_nli.features import FeatureRequest
from gemma_nli.features.encode_texts import encode, load_for
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.model.encoder import Encoder, identify_encoder
from gemma_nli.training.frozen.head_inputs import feature_request

NAIVE_BATCH = 32
ROUNDS = 3


def run(place: Workplace) -> Outcome:
    torch.set_num_threads(2)
    corpus = load_corpus(place.data)
    order = _batch_order(place, corpus)
    prefix = _prefix_reuse(place, corpus)
    return Outcome(
        [
            Mark("padding, length-sorted token batches", order["ours"]["padding_share"], at_most=0.05),
            Mark("padding, naive order in batches of 32", order["naive"]["padding_share"]),
            Mark("times faster than the naive order", order["naive"]["seconds"] / order["ours"]["seconds"]),
            Mark("texts a second, length-sorted", order["texts"] / order["ours"]["seconds"]),
            Mark("texts a second, naive", order["texts"] / order["naive"]["seconds"]),
            Mark("times faster with prefix reuse", prefix["without_seconds"] / prefix["with_seconds"]),
            Mark("largest difference of a vector's value with it", prefix["largest_difference"], at_most=1e-4),
        ],
        {"batch_order": order, "prefix_reuse": prefix},
    )


def _batch_order(place: Workplace, corpus: Corpus) -> dict[str, Any]:
    config = RunConfig().with_settings(
        {"data.data_dir": str(place.data), "model.name": str(minilm_folder()), "model.max_length": 128}
    )
    pairs = build_pairs(corpus, config.data)
    rows = np.random.default_rng(0).permutation(pairs.rows_used(3.0))[: place.size(1024, 64)]
    request = feature_request(config, corpus, pairs, rows)
    encoder = load_for(request)
    ours: list[float] = []
    naive: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        encoded = encode(request, encoder, config.features)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        vectors, padding = _naively(request, encoder)
        naive.append(time.perf_counter() - began)
    np.testing.assert_allclose(encoded.views["mean"], vectors, atol=1e-4)
    return {
        "texts": len(encoded.digests),
        "ours": {"seconds": min(ours), "all_seconds": ours, "padding_share": encoded.padding_share},
        "naive": {"seconds": min(naive), "all_seconds": naive, "padding_share": padding},
    }


def _naively(request: FeatureRequest, encoder: Encoder) -> tuple[np.ndarray, float]:
    """Mean-pooled vectors in the order of the corpus, and the padding's share."""
    assert request.hypotheses is not None
    vectors, slots, real = [], 0, 0
    for start in range(0, len(request), NAIVE_BATCH):
        part = slice(start, start + NAIVE_BATCH)
        tokens = encoder.tokenize(request.premises[part], request.hypotheses[part])
        batch = encoder.collate(tokens, list(range(len(tokens))))
        with torch.inference_mode():
            mask = batch["attention_mask"].unsqueeze(-1)
            vectors.append(((encoder(batch) * mask).sum(1) / mask.sum(1)).numpy())
        slots, real = slots + mask.numel(), real + int(mask.sum())
    return np.concatenate(vectors), 1 - real / slots


def _prefix_reuse(place: Workplace, corpus: Corpus) -> dict[str, Any]:
    folder = _random_gemma(place.work / "gemma", list(corpus.posts.values()) + list(corpus.criteria.values()))
    config = RunConfig().with_settings({"model.name": str(folder), "model.max_length": 256})
    texts = sorted(corpus.posts.values(), key=len)[-place.size(60, 6) :]
    posts = [text for text in texts for _ in corpus.criteria]
    criteria = [criterion for _ in texts for criterion in corpus.criteria.values()]
    identity = identify_encoder(config.model)
    request = FeatureRequest(config.model, config.device, identity, tuple(posts), tuple(criteria))
    encoder = load_for(request)
    plain = config.features.model_copy(update={"prefix_reuse": False})
    with_seconds, without_seconds = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        reused = encode(request, encoder, config.features)
        with_seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        alone = encode(request, encoder, plain)
        without_seconds.append(time.perf_counter() - began)
    assert reused.slots < alone.slots, "prefixes have to be reused"
    return {
        "pairs": len(reused.digests),
        "with_seconds": min(with_seconds),
        "without_seconds": min(without_seconds),
        "slots_with": reused.slots,
        "slots_without": alone.slots,
        "largest_difference": max(float(np.abs(reused.views[v] - alone.views[v]).max()) for v in reused.views),
    }


def _random_gemma(folder: Path, texts: list[str]) -> Path:
    """A causal Gemma2 with random weights and a byte-level BPE learned from the texts, as transformers reads them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import Gemma2Config, Gemma2Model, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **names)
    fast.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(fast),
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        query_pre_attn_scalar=64,
        sliding_window=64,
        max_position_embeddings=1024,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    Gemma2Model(config).eval().save_pretrained(str(folder))
    return folder
