"""Encoders of two layers with random weights: one of each text family of transformers that can be made that small.

Used by `python -m benchmarks families` and by the tests. A family's entry says what it needs beside `SHAPE`; None takes
a setting of SHAPE away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.tiny_tokenizer import write_tokenizer

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "initializer_range": 0.2,
}
_WINDOW: dict[str, Any] = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
_EXPERTS |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
_MAMBA2: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
_DELTA: dict[str, Any] = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
_DELTA |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
_ZAMBA: dict[str, Any] = {"n_mamba_heads": 4, "mamba_d_state": 8, "mamba_headdim": 16, "mamba_ngroups": 1}
_ZAMBA |= {"adapter_rank": 4, "head_dim": None}

BOTH_WAYS: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "bert-generation": {},
    "big_bird": {"block_size": 2, "num_random_blocks": 1},
    "bros": {},
    "camembert": {},
    "canine": {},
    "convbert": {"embedding_size": 32, "head_ratio": 1, "conv_kernel_size": 3},
    "data2vec-text": {},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 2},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "share_att_key": True,
    },
    "distilbert": {"hidden_dim": 64},
    "dpr": {},
    "electra": {"embedding_size": 16},
    "ernie": {"task_type_vocab_size": 3},
    "esm": {"position_embedding_type": "rotary"},
    "eurobert": {},
    "flaubert": {},
    "fnet": {},
    "funnel": {
        "num_hidden_layers": None,
        "block_sizes": [1, 1],
        "block_repeats": [1, 1],
        "d_head": 16,
        "d_inner": 64,
        "architectures": ["FunnelModel"],
    },
    "gte": {},
    "ibert": {},
    "jina_embeddings_v3": {},
    "layoutlm": {"max_2d_position_embeddings": 64},
    "lilt": {"channel_shrink_ratio": 2, "head_dim": None},
    "longformer": {"attention_window": 8},
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 16},
    "markuplm": {"head_dim": None},
    "megatron-bert": {},
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "mpnet": {},
    "mra": {"block_per_row": 2},
    "nomic_bert": {},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4, "conv_kernel_size": 3},
    "rembert": {"input_embedding_size": 16},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roc_bert": {
        "pronunciation_vocab_size": 420,
        "shape_vocab_size": 420,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "roformer": {"embedding_size": 32},
    "splinter": {},
    "squeezebert": {
        "embedding_size": 32,
        "q_groups": 1,
        "k_groups": 1,
        "v_groups": 1,
        "intermediate_groups": 1,
        "output_groups": 1,
    },
    "t5": {"d_kv": 16, "d_ff": 64, "d_model": 32, "num_layers": 2, "num_heads": 2},
    "tapas": {},
    "umt5": {"d_kv": 16, "d_ff": 64, "d_model": 32, "num_layers": 2, "num_heads": 2},
    "visual_bert": {"visual_embedding_dim": 16},
    "xlm": {},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xlnet": {"max_position_embeddings": None, "d_inner": 64, "d_head": 16},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "yoso": {},
}
"""Families that see both ways as they are made, with a tokenizer of two segments."""

BACKWARDS: dict[str, dict[str, Any]] = {
    "afmoe": {**_EXPERTS, "sliding_window": 8},
    "apertus": {},
    "arcee": {},
    "bamba": {**_MAMBA2, "attn_layer_indices": [1]},
    "biogpt": {},
    "bitnet": {},
    "bloom": {},
    "codegen": {"rotary_dim": 8, "num_attention_heads": 4},
    "cohere": {},
    "cohere2": _WINDOW,
    "ctrl": {"dff": 64},
    "doge": {},
    "ernie4_5": {},
    "exaone4": _WINDOW,
    "falcon": {"head_dim": None, "num_key_value_heads": None},
    "falcon_h1": {**_MAMBA2, "mamba_d_ssm": 64},
    "falcon_mamba": {"state_size": 8},
    "flex_olmo": _EXPERTS,
    "gemma": {},
    "gemma2": {**_WINDOW, "query_pre_attn_scalar": 16},
    "gemma3_text": {**_WINDOW, "query_pre_attn_scalar": 16},
    "glm": {},
    "glm4": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8, "num_layers": 2},
    "gpt_neox": {},
    "gpt_neox_japanese": {},
    "gpt_oss": {**_EXPERTS, **_WINDOW},
    "gptj": {"rotary_dim": 8},
    "granite": {},
    "granitemoe": _EXPERTS,
    "granitemoehybrid": {**_EXPERTS, **_MAMBA2, "layer_types": ["mamba", "attention"]},
    "helium": {},
    "internlm3": {},
    "jamba": {
        **_EXPERTS,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "use_mamba_kernels": False,
    },
    "jetmoe": {**_EXPERTS, "kv_channels": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "llama": {},
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 4, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "minimax": {**_EXPERTS, "layer_types": ["linear_attention", "full_attention"]},
    "ministral": _WINDOW,
    "mistral": {"sliding_window": 8},
    "mixtral": {**_EXPERTS, "sliding_window": 8},
    "modernbert-decoder": {"local_attention": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 2},
    "nanochat": {},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": _WINDOW,
    "olmo_hybrid": {**_DELTA},
    "olmoe": _EXPERTS,
    "openai-gpt": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "persimmon": {},
    "phi": {},
    "phi3": {"sliding_window": 8},
    "phimoe": _EXPERTS,
    "qwen2": {**_WINDOW, "use_sliding_window": True},
    "qwen2_moe": _EXPERTS,
    "qwen3": {},
    "qwen3_moe": _EXPERTS,
    "qwen3_next": {**_EXPERTS, **_DELTA},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "attention_window_size": 8, "lru_width": 32},
    "rwkv": {"attention_hidden_size": 32},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": 8},
    "vaultgemma": {**_WINDOW, "query_pre_attn_scalar": 16},
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 2},
    "zamba2": {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_hidden_layers": 4, **_ZAMBA},
}
"""Families that see backwards as they are made, with a tokenizer that pads on the left."""

_ROPE: dict[str, Any] = {"rope_theta": 1e4, "factor": 4.0}
_LONG: dict[str, Any] = {"original_max_position_embeddings": 24, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
_CHUNKS: dict[str, Any] = {"lsh_attn_chunk_length": 8, "local_attn_chunk_length": 8}
_CHUNKS |= {"axial_pos_embds_dim": (8, 24), "axial_pos_shape": (8, 32), "attention_head_size": 16, "is_decoder": False}

_PART: dict[str, Any] = {**SHAPE, **_WINDOW, "vocab_size": 420}
_SEES: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_SEES |= {"model_type": "siglip_vision_model", "image_size": 8, "patch_size": 4}
_WIDER: dict[str, Any] = {**_PART, "embedding_dim": 48, "hidden_size_per_layer_input": 8}
PARTS: dict[str, dict[str, Any]] = {
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
    "embedding_gemma2": {
        "text_config": {**_WIDER, "model_type": "embedding_gemma2_text"},
        "vision_config": None,
        "audio_config": None,
    },
    "embedding_gemma2_text": _WIDER,
    "mt5": BOTH_WAYS["t5"],
    "t5gemma": {"encoder": _PART, "decoder": _PART},
    "t5gemma2": {
        "encoder": {"text_config": _PART, "vision_config": _SEES, "mm_tokens_per_image": 4},
        "decoder": _PART,
    },
}
"""Models of which a part encodes text, walked through in tests/local/test_families.py; the states of EmbeddingGemma 2
are wider than its layers."""

OTHERS: dict[str, dict[str, Any]] = {
    "llama, dynamic rope": {"max_position_embeddings": 24, "rope_scaling": {**_ROPE, "rope_type": "dynamic"}},
    "llama, longrope": {"rope_scaling": {**_ROPE, **_LONG, "rope_type": "longrope"}},
    "reformer": {**_CHUNKS, "attn_layers": ["local", "lsh"], "feed_forward_size": 64},
    "reformer, local": {**_CHUNKS, "attn_layers": ["local", "local"], "feed_forward_size": 64},
}
"""Settings that change how a family takes its texts; the name begins with the family's."""

FAMILIES = {**BOTH_WAYS, **BACKWARDS, **OTHERS}


def write_encoder(folder: Path, family: str, **settings: Any) -> Path:
    """Make `folder` with a family's random encoder and its tokenizer, as save_pretrained writes them.

    What a new model has at 0 or 1 (padding's embedding, biases, norms) is drawn too: trained weights differ there.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder, "bert" if family in BOTH_WAYS or family.startswith("reformer") else "gemma")
    asked = {"vocab_size": size, **SHAPE, **FAMILIES.get(family, {}), **settings}
    asked = {name: value for name, value in asked.items() if value is not None}
    if family in PARTS:
        asked = {"vocab_size": size, **PARTS[family], **settings}
    config = AutoConfig.for_model(family.split(",")[0], **asked)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModel.from_config(config).eval()
        words = model.get_input_embeddings().weight if family != "canine" else None
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim < 2 or weight is words:
                    rows = weight if weight is words else weight.view(1, -1)
                    constant = (rows == rows[:, :1]).all(1, keepdim=True)
                    weight.add_((torch.randn(rows.shape) * 0.1 * constant).view(weight.shape))
        model.save_pretrained(str(folder))
    return folder
