"""The commands as functions: their settings, their stages in order, and the folders that hold their results."""

from probe.pipeline.adapter.config import AdapterConfig as AdapterConfig
from probe.pipeline.adapter.export import (
    export_adapter as export_adapter,
    hub_folder as hub_folder,
    push_adapter as push_adapter,
)
from probe.pipeline.adapter.sae import (
    SAEConfig as SAEConfig,
    TrainSAEConfig as TrainSAEConfig,
    train_adapter_sae as train_adapter_sae,
)
from probe.pipeline.adapter.study import study as study
from probe.pipeline.adapter.study_config import StudyConfig as StudyConfig
from probe.pipeline.adapter.tune import (
    answers as answers,
    tune_adapter as tune_adapter,
    verify_adapter as verify_adapter,
)
from probe.pipeline.circuits.circuits import CircuitConfig as CircuitConfig, find_circuit as find_circuit
from probe.pipeline.compare import compare_runs as compare_runs
from probe.pipeline.diff.diff import DiffConfig as DiffConfig, diff as diff
from probe.pipeline.discover.config import (
    DiscoverConfig as DiscoverConfig,
    DiscoverSizesConfig as DiscoverSizesConfig,
    JudgeConfig as JudgeConfig,
)
from probe.pipeline.discover.discover import discover as discover
from probe.pipeline.run.arms import make_arm as make_arm
from probe.pipeline.run.config import (
    DecodingConfig as DecodingConfig,
    RunConfig as RunConfig,
    SizesConfig as SizesConfig,
)
from probe.pipeline.run.inputs import prepare as prepare
from probe.pipeline.run.own import (
    ask as ask,
    experiment_at as experiment_at,
    open_run as open_run,
    own_arm as own_arm,
    try_arm as try_arm,
)
from probe.pipeline.run.run import run as run
