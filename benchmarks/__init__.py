"""What the engine costs, each figure a ratio measured in one run: `python -m benchmarks [NAME ...]`, or `make bench`.

    outcome.py      what a benchmark gives: figures, and marks with what was reached
    workplace.py    where one runs: a temporary folder, its corpus, its processes and what they spent
    sweep_run.py    a sweep in a process of its own, with its memory and times
    scheduling_run.py, sleeping_trial.py  a sweep whose trials sleep, over simulated nodes
    tiny_encoders.py, tiny_tokenizer.py  encoders of two layers with random weights, of each family of transformers
    family_check.py one family of encoders against plain transformers
    encoder_pass.py one length-sorted pass of a corpus's pairs through the encoder, in a process of its own
    outside/        other tools on a sweep's folds, for `gemma-nli report SWEEP --with` (docs/outside.md)
    mutations/      small faults planted in a copy of the package: `python -m benchmarks.mutations`, or `make mutations`

Every other file is a benchmark: a function `run(place: Workplace) -> Outcome`, its docstring saying what is compared.
"""

NAMES = {
    "stock": "a trial against stock Ray Tune, MLflow callback and an encoder run in every step",
    "limit": "a whole 36-trial sweep in encoder passes",
    "growth": "seconds a warm trial and the driver's memory at 36, 360 and 1,000 trials",
    "logging_cost": "seconds a report of 40 metrics, ours against the stock callback",
    "memory": "memory of 4 trials that share features",
    "encode": "padding and speed of encoding; causal prefix reuse",
    "layers": "what the layers of a frozen encoder cost, and what they gain",
    "head_norms": "which norm of a head's input suits frozen encoders best",
    "peers": "scikit-learn's GridSearchCV over the same vectors",
    "racing": "what racing folds finds and saves",
    "report": "seconds and memory of the report of 1,000 trials",
    "families": "130 tiny encoder families against plain transformers; what the probe of an encoder costs",
    "finetune": "training the encoder against the best frozen configuration",
    "scheduling": "64 simulated GPUs kept busy by one driver; what 5,000 trials cost it",
}
"""Each benchmark's module, and what it answers."""
