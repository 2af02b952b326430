"""The whole configuration, credentials masked."""

from __future__ import annotations

import yaml

from gemma_nli.base.masking import mask_address
from gemma_nli.config import RunConfig
from gemma_nli.tracking.write.artifact import TrialSource, trial_artifact


@trial_artifact("config.yaml")
def config_file(source: TrialSource) -> bytes:
    return config_yaml(source.record.config).encode()


def config_yaml(config: RunConfig) -> str:
    """The whole configuration, credentials masked, as `gemma-nli train --config` reads it."""
    tree = config.model_dump(mode="json")
    for name in ("tracking_uri", "artifact_location"):
        value = tree["mlflow"][name]
        if value is not None:
            masked = mask_address(value)
            tree["mlflow"][name] = value if masked == value else None
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
