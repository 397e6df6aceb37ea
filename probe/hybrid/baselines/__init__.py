"""Rivals of the hybrid that do without the thinking model when they answer."""

from probe.hybrid.baselines.distil import DistilConfig, distil_lora, run_lora
from probe.hybrid.baselines.prompting import few_shot_prompt, handbook_prompt, run_prompted
from probe.hybrid.baselines.sampling import run_majority

__all__ = [
    "DistilConfig",
    "distil_lora",
    "few_shot_prompt",
    "handbook_prompt",
    "run_lora",
    "run_majority",
    "run_prompted",
]
