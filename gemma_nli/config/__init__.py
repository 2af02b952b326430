"""Settings: what a run can be configured with (sections.py), fitted together (run.py), read from files and words
(reading.py).
"""

from gemma_nli.base.paths import expanded, home
from gemma_nli.config.checked_settings import SealedConfig, Settings
from gemma_nli.config.databases import (
    database_uri,
    quoted_path,
    read_sqlite,
    same_database,
    sqlite_address,
    sqlite_file,
)
from gemma_nli.config.reading import load_config, parse_overrides, parse_yaml, read_yaml
from gemma_nli.config.run import (
    RunConfig,
    build_config,
    check_key,
    check_value,
    flatten,
    set_dotted,
    setting_names,
    validation_lines,
)
from gemma_nli.config.sections import (
    DataConfig,
    DeviceConfig,
    FeaturesConfig,
    LoraConfig,
    MlflowConfig,
    ModelConfig,
    OutputConfig,
    TrainingConfig,
)
from gemma_nli.config.semantics import SEMANTICS_VERSION, build_stored_config

__all__ = [
    "SEMANTICS_VERSION",
    "DataConfig",
    "DeviceConfig",
    "FeaturesConfig",
    "LoraConfig",
    "MlflowConfig",
    "ModelConfig",
    "OutputConfig",
    "RunConfig",
    "SealedConfig",
    "Settings",
    "TrainingConfig",
    "build_config",
    "build_stored_config",
    "check_key",
    "check_value",
    "database_uri",
    "expanded",
    "flatten",
    "home",
    "load_config",
    "parse_overrides",
    "parse_yaml",
    "quoted_path",
    "read_sqlite",
    "read_yaml",
    "same_database",
    "set_dotted",
    "setting_names",
    "sqlite_address",
    "sqlite_file",
    "validation_lines",
]
