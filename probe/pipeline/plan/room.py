"""Refuses a run that cannot fit, before it loads a model."""

from pathlib import Path

from probe.errors import ProbeError
from probe.models import PairConfig, config_of, is_quantised, shares_weights
from probe.pipeline.plan.devices import devices_of
from probe.pipeline.plan.fit import advice_of, planned_stages, weights_lack
from probe.pipeline.plan.plan import pair_of
from probe.pipeline.plan.shapes import shape_of
from probe.pipeline.plan.speeds import speed_of
from probe.pipeline.plan.stages import Setup
from probe.pipeline.plan.work import ROLES, Stage, Texts
from probe.pipeline.run.config import RunConfig


def check_room(config: RunConfig, out: Path, pair: PairConfig | None = None) -> None:
    """Refuse a run that cannot fit on its devices, before it loads a model; stages that are finished do not count.

    Args:
        config: the settings.
        out: the folder of the run.
        pair: the pair, if it is not the one that the settings name.

    Raises:
        ProbeError: if the weights, or the smallest part of a stage, are larger than the memory that is free now.
    """
    pair = pair or pair_of(config)
    members = (pair.base, pair.thinking)
    if any(member.quantization is not None or is_quantised(config_of(member)) for member in members):
        return  # what their kernels hold is not known
    base, thinking = (shape_of(member, config.dtype) for member in members)
    texts = Texts(config.decoding.max_new_tokens or pair.max_new_tokens)
    setup = Setup(config, base, thinking, texts, shares_weights(pair))
    devices = devices_of(config, None)
    speeds = {role: speed_of(setup.shape(role), devices[role].kind) for role in ROLES}
    lacking = [each for each in planned_stages(setup, devices, speeds) if each.lack and not _finished(each.stage, out)]
    lack = weights_lack(setup, devices) or next((each.lack for each in lacking), None)
    if lack is not None:
        raise ProbeError(f"this run does not fit: {lack}. {advice_of(setup, devices, speeds)}")


def _finished(stage: Stage, out: Path) -> bool:
    if stage.name == "models":
        return False
    return bool(stage.folders) and all((out / folder / "manifest.json").is_file() for folder in stage.folders)
