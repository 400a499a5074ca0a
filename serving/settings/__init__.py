"""Settings: reads ``settings.toml`` and the environment, which no other package reads.

Precedence, highest first, field by field: command-line flags, environment ``SERVING_<GROUP>__<FIELD>``,
``settings.toml`` (``SERVING_SETTINGS`` names another path), the defaults. Every module receives its own group, never
the whole. Relative paths are relative to the working directory, wherever the file is.

In the environment an empty variable counts as not set, and a list is JSON or separated by commas
(``SERVING_STORE__IGNORE='*.bak, old-*'``). What is set for one model is in ``[models.<name>.rollout]``, or in
``SERVING_MODELS__<NAME>__ROLLOUT__<FIELD>``; the rest of it is as in ``[rollout]``.
"""

from serving.settings.groups import (
    CandidateSettings,
    EngineSettings,
    EnvironmentSettings,
    GateSettings,
    LogSettings,
    ModelSettings,
    NamedEnvironment,
    RecordSettings,
    ReplaySettings,
    RolloutSettings,
    SecuritySettings,
    ServerSettings,
    Settings,
    StateSettings,
    StoreSettings,
    TracesSettings,
)
from serving.settings.merging import forget_tokens, load_settings, load_token
from serving.settings.setting_problems import SettingsError
from serving.settings.shared_settings import describe_differences, dump_shared, make_shared
from serving.settings.token_files import TokenScope, read_digests, read_token_file

__all__ = [
    "CandidateSettings",
    "EngineSettings",
    "EnvironmentSettings",
    "GateSettings",
    "LogSettings",
    "ModelSettings",
    "NamedEnvironment",
    "RecordSettings",
    "ReplaySettings",
    "RolloutSettings",
    "SecuritySettings",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "StateSettings",
    "StoreSettings",
    "TokenScope",
    "TracesSettings",
    "describe_differences",
    "dump_shared",
    "forget_tokens",
    "load_settings",
    "load_token",
    "make_shared",
    "read_digests",
    "read_token_file",
]
