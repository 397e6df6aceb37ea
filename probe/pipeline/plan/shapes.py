"""The sizes of a model, counted from its config without reading or allocating a weight."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.initialization import no_init_weights

from probe.errors import ProbeError
from probe.models import ModelConfig, Sizes, config_of, dtype_of

_BLOCK = re.compile(r"\.\d+\.")
_KINDS: tuple[str, ...] = ("embedding", "attention", "mlp", "experts", "unembedding", "other")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class Shape:
    """The sizes of one model.

    Attributes:
        name: the path or hub id of the model.
        architecture: its type, as its config names it.
        dtype: the number format of the weights.
        size: the bytes of one number in that format.
        layers, d_model, heads, kv_heads, d_head, d_mlp, vocab: as in the config.
        cached: numbers that a layer keeps of a token: its keys and values.
        parameters: the number of weights of each kind: ``embedding``, ``attention``, ``mlp``, ``experts``,
            ``unembedding`` (0 if it is the embedding) and ``other``.
        chosen: the share of the experts' weights that one token runs through; 1 without experts.
        values: how many numbers go into and come out of the linear layers of one block, for each token.
        windows: the number of different attention masks, one for each kind of block.
        eager: whether attention forms the weights of every pair of tokens.
    """

    name: str
    architecture: str
    dtype: str
    size: int
    layers: int
    d_model: int
    heads: int
    kv_heads: int
    d_head: int
    cached: int
    d_mlp: int
    vocab: int
    parameters: dict[str, int]
    chosen: float
    values: int
    windows: int = 1
    eager: bool = False

    @property
    def weights(self) -> int:
        """The bytes of all weights."""
        return sum(self.parameters.values()) * self.size

    @property
    def active(self) -> float:
        """The number of weights that one token is multiplied with: no look-up, and only the chosen experts."""
        kinds = self.parameters
        head = kinds["unembedding"] or kinds["embedding"]
        return kinds["attention"] + kinds["mlp"] + kinds["experts"] * self.chosen + head

    @property
    def kv_bytes(self) -> int:
        """The bytes of one token's keys and values in all layers."""
        return self.layers * self.cached * self.size


def shape_of(model: ModelConfig, dtype: str) -> Shape:
    """Read the sizes of a model.

    Args:
        model: where it is; of a folder only ``config.json`` is needed.
        dtype: the number format of its weights.

    Raises:
        ProbeError: if there is no such model or config, or transformers can build no model from it.
    """
    return shape_from(config_of(model), dtype, model.path)


def shape_from(config: PretrainedConfig, dtype: str, name: str) -> Shape:
    """Read the sizes of a model from its config; see :func:`shape_of`."""
    number = dtype_of(config, dtype)
    try:
        with torch.device("meta"), no_init_weights():  # shapes alone: nothing is allocated
            built: Any = AutoModelForCausalLM.from_config(config)
            built.tie_weights()
    except (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ProbeError(
            f"the config of model '{name}' describes no model: {' '.join(str(error).split())}; give another model"
        ) from error
    tables = {"embedding": built.get_input_embeddings(), "unembedding": built.get_output_embeddings()}
    parameters: dict[str, int] = dict.fromkeys(_KINDS, 0)
    first: dict[str, int] = {}
    text: Any = config.get_text_config()
    chosen, experts = _number(text, _CHOSEN), _number(text, _EXPERTS)
    for path, tensor in built.named_parameters():  # a tied weight comes once
        kind = next((kind for kind, table in tables.items() if table is not None and tensor is table.weight), None)
        kind = kind or _kind(path)
        parameters[kind] += tensor.numel()
        parts = _BLOCK.split(path, maxsplit=1)
        if len(parts) == 2 and tensor.ndim >= 2:
            times = max(1, chosen) if kind == "experts" else 1
            first.setdefault(parts[1], times * sum(tensor.shape[-2:]))
    sizes = Sizes.of(config)
    share = chosen / experts if parameters["experts"] and chosen and experts else 1.0
    kinds = set(getattr(text, "layer_types", None) or ())
    return Shape(
        name=name,
        architecture=config.model_type,
        dtype=str(number).removeprefix("torch."),
        size=number.itemsize,
        layers=int(text.num_hidden_layers),
        d_model=int(text.hidden_size),
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        d_head=sizes.d_head,
        cached=sizes.cached,
        d_mlp=max(sizes.d_mlp, chosen * _number(text, ("moe_intermediate_size",))),
        vocab=int(text.vocab_size),
        parameters=parameters,
        chosen=share,
        values=sum(first.values()),
        windows=max(1, len(kinds)),
        eager=getattr(config, "_attn_implementation", None) == "eager",
    )


def _kind(path: str) -> str:
    parts = _BLOCK.split(path, maxsplit=1)
    if len(parts) < 2:
        return "other"
    inside = parts[1]
    if "expert" in inside and "shared" not in inside:
        return "experts"
    if "norm" in inside or inside.startswith("ln"):
        return "other"
    return "attention" if "attn" in inside or "attention" in inside else "mlp"


def _number(config: Any, names: tuple[str, ...]) -> int:
    found = (getattr(config, name, None) for name in names)
    return next((each for each in found if isinstance(each, int) and each > 0), 0)
