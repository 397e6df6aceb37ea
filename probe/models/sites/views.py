"""The same model in nnsight and in TransformerLens.

nnsight shares the weights and runs at about the speed of a plain hook. TransformerLens copies the weights unless asked
to share them, and takes about twice the time for each decoded token, because every site has a hook whether it is read
or not, so it suits circuits and not generation. At every site both agree with the original model up to rounding.
"""

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from probe.errors import NotApplicable, ProbeError
from probe.models.placed import devices_of, input_device, is_offloaded
from probe.models.sharing import merge_layers, twin
from probe.models.sites.sites import Site, place

if TYPE_CHECKING:
    from nnsight.modeling.transformers import TransformersModel
    from transformer_lens.model_bridge import TransformerBridge


OPEN_BLOCK = "_of_open_block"
"""Attribute of a ``forward`` that an open capture or edit has replaced; a copy of it would call the original model."""


def to_nnsight(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> "TransformersModel":
    """Make the nnsight view that `Model.nnsight` returns."""
    from nnsight import TransformersModel

    return TransformersModel(hf, task="text-generation", tokenizer=copy.deepcopy(tokenizer))


def nnsight_value(lm: "TransformersModel", site: str | Site) -> Tensor:
    """Return the value at a site of an nnsight model, inside a trace and in the order of the forward pass.

    Args:
        lm: the view that `Model.nnsight` returns.
        site: the site, or its name.

    Returns:
        The value, in the shape that ``capture`` gives. A part of a fused projection (queries in GPT-2) is a view, so
        ``value[:] = new`` writes to the model; not so where the model scales it afterwards (``attn_out`` in Granite).

    Raises:
        ProbeError: if the model lacks the site, or for a ``pattern`` while the attention is fused; call
            ``model.hf.set_attn_implementation("eager")`` first.
    """
    site = Site.parse(site)
    hf: Any = lm._module
    where = place(hf, site)
    rows = lm.get(where.block).input.shape[:2] if where.flat else ()
    envoy: Any = lm.get(where.module)
    if where.side == "pattern":
        if hf.config._attn_implementation != "eager":
            raise ProbeError(f'fused attention has no {site}; call model.hf.set_attn_implementation("eager") first')
        return envoy.output[1]
    value = envoy.input if where.side == "input" else envoy.output
    return where.read(value[where.item] if isinstance(value, tuple) else value, rows)


def to_transformer_lens(
    hf: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str, shared: bool = False
) -> "TransformerBridge":
    """Make the TransformerLens view that `Model.lens` returns."""
    from transformer_lens.model_bridge import TransformerBridge

    if hasattr(vars(hf).get("forward"), OPEN_BLOCK):
        raise ProbeError("a copy made inside a capture or edit block would keep its hooks; leave the block first")
    if len(devices_of(hf)) > 1 or is_offloaded(hf):
        raise NotApplicable(
            f"TransformerLens takes {name} on one device, but it is on several or partly offloaded; "
            "load it on one device"
        )
    if hf.config.get_text_config(decoder=True) is not hf.config:
        # TransformerLens runs `pip install torchvision` where it finds no processor, and that may replace torch.
        raise NotApplicable(
            f"{name} is also made for images, and its view in TransformerLens installs packages; "
            "use capture and edit, or nnsight"
        )
    own = twin(hf) if shared else copy.deepcopy(hf)
    merge_layers(own)  # the bridge reads weights, and knows no adapter
    own.set_attn_implementation("eager")
    # The bridge reads the architecture from here; it is unset in a model that was never saved.
    own.config.architectures = [type(hf).__name__]
    try:
        bridge = TransformerBridge.boot_transformers(
            name,
            hf_model=own,
            tokenizer=copy.deepcopy(tokenizer),
            device=str(input_device(hf)),
            dtype=hf.dtype,
        )
    except ValueError as error:
        raise NotApplicable(f"TransformerLens does not support {name}: {str(error).splitlines()[0]}") from error
    bridge.cfg.default_prepend_bos = False
    return bridge
