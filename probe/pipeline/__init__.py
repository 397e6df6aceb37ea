"""``probe run`` and ``probe discover``: their stages in order, the folder they are kept in, and runs side by side."""

from probe.pipeline.adapter import tune_adapter, verify_adapter
from probe.pipeline.adapter_config import AdapterConfig
from probe.pipeline.adapter_export import export_adapter, hub_folder, push_adapter
from probe.pipeline.adapter_sae import SAEConfig, TrainSAEConfig, train_adapter_sae
from probe.pipeline.circuits import CircuitConfig, find_circuit
from probe.pipeline.compare import compare_runs
from probe.pipeline.config import DecodingConfig, RunConfig, SizesConfig
from probe.pipeline.diff import DiffConfig, diff
from probe.pipeline.discover import discover
from probe.pipeline.discover_config import DiscoverConfig, DiscoverSizesConfig, JudgeConfig
from probe.pipeline.run import prepare, run
from probe.pipeline.study import study
from probe.pipeline.study_config import StudyConfig

__all__ = [
    "AdapterConfig",
    "CircuitConfig",
    "DecodingConfig",
    "DiffConfig",
    "DiscoverConfig",
    "DiscoverSizesConfig",
    "JudgeConfig",
    "RunConfig",
    "SAEConfig",
    "SizesConfig",
    "StudyConfig",
    "TrainSAEConfig",
    "compare_runs",
    "diff",
    "discover",
    "export_adapter",
    "find_circuit",
    "hub_folder",
    "prepare",
    "push_adapter",
    "run",
    "study",
    "train_adapter_sae",
    "tune_adapter",
    "verify_adapter",
]
