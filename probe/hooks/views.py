"""The same model as nnsight and TransformerLens know it, for people who know those libraries.

What it costs: nnsight shares the weights and runs at about the speed of a plain hook. TransformerLens takes a copy of
the weights and about twice the time per decoded token, because every place has a hook whether it is read or not; it
is for circuits, not for generation. All three agree at every site to rounding; the tests hold them to it.
"""

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor

from probe._errors import ProbeError
from probe.models import Model, Site, place

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from transformer_lens.model_bridge import TransformerBridge


def to_nnsight(model: Model) -> "TransformersModel":
    """An nnsight ``TransformersModel`` on the same weights.

    Its tokenizer is a copy, because nnsight sets it to pad on the left. ``nnsight_value`` reads a site in a trace::

        lm = to_nnsight(model)
        with lm.trace("Once upon a time"):
            resid = nnsight_value(lm, "resid_post.2").save()
    """
    from nnsight import TransformersModel

    return TransformersModel(model.hf, task="text-generation", tokenizer=copy.deepcopy(model.tokenizer))


def nnsight_value(lm: "TransformersModel", site: str | Site) -> Tensor:
    """What an nnsight model has at a site, ``[batch, pos, d_model]``; only inside a trace, sites in order of depth."""
    where = place(lm._module, Site.parse(site))
    value: Any = lm.get(where.module)
    value = value.input if where.side == "input" else value.output
    return value[0] if isinstance(value, tuple) else value


def to_transformer_lens(model: Model) -> "TransformerBridge":
    """A TransformerLens ``TransformerBridge`` on a copy of the weights (the bridge rewires its model in place).

    ``Site("resid_post", 2).lens`` is the name of a site's hook. Two things to know: the attention is computed the plain
    ("eager") way, so states differ from the original's in the last digits; and a padded batch needs its
    ``attention_mask`` passed. No start token is put before text, because prompts have theirs.

    Raises:
        ProbeError: if TransformerLens does not know the architecture.
    """
    from transformer_lens.model_bridge import TransformerBridge

    twin = copy.deepcopy(model.hf)
    twin.set_attn_implementation("eager")
    # How the bridge knows what it has; unset in a model that was never saved.
    twin.config.architectures = [type(model.hf).__name__]
    try:
        bridge = TransformerBridge.boot_transformers(
            model.name,
            hf_model=twin,
            tokenizer=copy.deepcopy(model.tokenizer),
            device=str(model.device),
            dtype=model.dtype,
        )
    except ValueError as error:
        raise ProbeError(f"TransformerLens cannot show {model.name}: {str(error).splitlines()[0]}") from error
    bridge.cfg.default_prepend_bos = False
    return bridge
