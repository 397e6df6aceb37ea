"""The same model as nnsight and TransformerLens know it, for people who know those libraries.

What it costs: nnsight shares the weights and runs at about the speed of a plain hook. TransformerLens takes a copy of
the weights and about twice the time per decoded token, because every place has a hook whether it is read or not; it
is for circuits, not for generation. All three agree at every site to rounding; the tests hold them to it.
"""

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from probe.errors import ProbeError
from probe.models.sites import Site, place

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from transformer_lens.model_bridge import TransformerBridge


OPEN_BLOCK = "_of_open_block"
"""The mark of a ``forward`` that a capture or edit has put in a model's place; a copy of it would call the original."""


def to_nnsight(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> "TransformersModel":
    """See `Model.nnsight`."""
    from nnsight import TransformersModel

    return TransformersModel(hf, task="text-generation", tokenizer=copy.deepcopy(tokenizer))


def nnsight_value(lm: "TransformersModel", site: str | Site) -> Tensor:
    """What an nnsight model has at a site, in the shape that ``capture`` gives; only inside a trace, sites in order.

    The part of a fused projection (queries in GPT-2) is a view, so that ``value[:] = new`` writes to the model.

    Raises:
        ProbeError: if the model lacks the site, or for a ``pattern``, unless its attention is computed step by step
            (``model.hf.set_attn_implementation("eager")``).
    """
    where = place(lm._module, Site.parse(site))
    envoy: Any = lm.get(where.module)
    if where.side == "pattern":
        if lm._module.config._attn_implementation != "eager":
            raise ProbeError(f'fused attention forms no {site}; call model.hf.set_attn_implementation("eager") first')
        return envoy.output[1]
    value = envoy.input if where.side == "input" else envoy.output
    return where.read(value[0] if isinstance(value, tuple) else value)


def to_transformer_lens(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str) -> "TransformerBridge":
    """See `Model.lens`."""
    from transformer_lens.model_bridge import TransformerBridge

    if hasattr(vars(hf).get("forward"), OPEN_BLOCK):
        raise ProbeError("close the capture or edit block first: a copy made inside it would keep its hooks")
    twin = copy.deepcopy(hf)
    twin.set_attn_implementation("eager")
    # How the bridge knows what it has; unset in a model that was never saved.
    twin.config.architectures = [type(hf).__name__]
    try:
        bridge = TransformerBridge.boot_transformers(
            name,
            hf_model=twin,
            tokenizer=copy.deepcopy(tokenizer),
            device=str(hf.device),
            dtype=hf.dtype,
        )
    except ValueError as error:
        raise ProbeError(f"TransformerLens cannot show {name}: {str(error).splitlines()[0]}") from error
    bridge.cfg.default_prepend_bos = False
    return bridge
