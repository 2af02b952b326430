"""Tokenizers of a few hundred tokens, for encoders with random weights."""

from __future__ import annotations

from pathlib import Path

WORDS = (
    "i feel so tired and sad every day nothing is fun anymore my sleep is broken work was fine but the nights are long "
    "she cannot eat we walked home again alone depressed mood loss of interest in all activities worthlessness guilt "
    "fatigue energy appetite change suicidal thoughts cognitive issues psychomotor"
)


def write_tokenizer(folder: Path, kind: str) -> int:
    """A byte-level BPE of a few hundred tokens, saved as transformers reads it; gives its size.

    `gemma`: pads on the left, `<bos>` before each text, no `<eos>`. `bert`: [CLS] A [SEP] B [SEP] with token types.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = "<pad> <eos> <bos> <unk>" if kind == "gemma" else "[PAD] [UNK] [CLS] [SEP] [MASK]"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if kind == "gemma" else "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special.split(), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 3, trainer)
    if kind == "gemma":
        bos = ("<bos>", tokenizer.token_to_id("<bos>"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[bos]
        )
        names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    else:
        ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
        names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    side = "left" if kind == "gemma" else "right"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=side, **names)
    fast.save_pretrained(str(folder))
    return len(fast)
