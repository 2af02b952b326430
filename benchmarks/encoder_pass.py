"""One pass of a corpus's distinct pairs through MiniLM (joint, 128 tokens), length-sorted: the least a sweep must pay.

    python -m benchmarks.encoder_pass DATA RATIO

It runs the store's own encoding, the fastest pass we know: nothing compared with it looks good for its slowness.
The clock starts when the encoder is loaded and the texts are in memory; tokenising is inside. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.features.encode_texts import encode, load_for
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.training.frozen.head_inputs import feature_request


def main(data: str, ratio: float) -> None:
    config = RunConfig().with_settings(
        {"data.data_dir": data, "model.name": str(minilm_folder()), "model.max_length": 128}
    )
    corpus = load_corpus(data)
    pairs = build_pairs(corpus, config.data)
    request = feature_request(config, corpus, pairs, pairs.rows_used(ratio))
    encoder = load_for(request)
    _ = request.digests
    began, cpu_began = time.perf_counter(), time.process_time()
    encoded = encode(request, encoder, config.features)
    facts = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "texts": len(encoded.digests),
        "tokens": int(encoded.lengths.sum()),
        "padding_share": encoded.padding_share,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
