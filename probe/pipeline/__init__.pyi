# The public names of `probe.pipeline`, read by editors and, at run time, by `__init__.py`.
from .adapter.config import AdapterConfig as AdapterConfig
from .adapter.export import (
    export_adapter as export_adapter,
    hub_folder as hub_folder,
    push_adapter as push_adapter,
)
from .adapter.finished import check_formats as check_formats, finished_adapter as finished_adapter
from .adapter.sae import train_adapter_sae as train_adapter_sae
from .adapter.sae_config import SAEConfig as SAEConfig, TrainSAEConfig as TrainSAEConfig
from .adapter.study import study as study
from .adapter.study_config import StudyConfig as StudyConfig
from .adapter.tune import (
    answers as answers,
    tune_adapter as tune_adapter,
    verify_adapter as verify_adapter,
)
from .anchors.anchors import find_anchors as find_anchors
from .anchors.config import AnchorsConfig as AnchorsConfig
from .check.checks import Check as Check, Checks as Checks
from .check.config import CheckConfig as CheckConfig
from .check.run import run_checks as run_checks
from .checks import check_model as check_model, check_run as check_run, check_traces as check_traces
from .circuits.circuits import find_circuit as find_circuit
from .circuits.config import CircuitConfig as CircuitConfig
from .compare import compare_runs as compare_runs
from .demonstration import run_demo as run_demo
from .diff.config import DiffConfig as DiffConfig
from .diff.diff import diff as diff
from .discover.config import (
    DiscoverConfig as DiscoverConfig,
    DiscoverSizesConfig as DiscoverSizesConfig,
    JudgeConfig as JudgeConfig,
)
from .discover.discover import discover as discover
from .doctor.diagnosis import Diagnosis as Diagnosis, Fact as Fact
from .doctor.doctor import doctor as doctor
from .exported import check_export as check_export, export_traces as export_traces
from .look.causes import RULES as RULES, Verdict as Verdict
from .look.look import look as look, stopped as stopped
from .plan.plan import Plan as Plan, plan as plan
from .run.arms import make_arm as make_arm
from .run.config import (
    DecodingConfig as DecodingConfig,
    RunConfig as RunConfig,
    SizesConfig as SizesConfig,
)
from .run.demo import demo as demo
from .run.experiment import Experiment as Experiment
from .run.inputs import prepare as prepare
from .run.kept import recalled as recalled, with_arms as with_arms
from .run.opened import Arms as Arms, KeptTraces as KeptTraces, Run as Run, open_run as open_run
from .run.own import (
    ask as ask,
    own_arm as own_arm,
    try_arm as try_arm,
)
from .run.parts import check_arm as check_arm, check_parts as check_parts
from .run.run import add_arms as add_arms, run as run
