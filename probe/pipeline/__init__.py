"""``probe run`` and ``probe discover``: their stages in order, the folder they are kept in, and runs side by side."""

from probe.pipeline.adapter import export_adapter, tune_adapter
from probe.pipeline.adapter_config import AdapterConfig
from probe.pipeline.compare import compare_runs
from probe.pipeline.config import DecodingConfig, RunConfig, SizesConfig
from probe.pipeline.discover import discover
from probe.pipeline.discover_config import DiscoverConfig, DiscoverSizesConfig, JudgeConfig
from probe.pipeline.run import prepare, run

__all__ = [
    "AdapterConfig",
    "DecodingConfig",
    "DiscoverConfig",
    "DiscoverSizesConfig",
    "JudgeConfig",
    "RunConfig",
    "SizesConfig",
    "compare_runs",
    "discover",
    "export_adapter",
    "prepare",
    "run",
    "tune_adapter",
]
