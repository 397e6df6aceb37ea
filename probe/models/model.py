"""A loaded model: its weights, tokenizer and prompt, and the same model in other libraries."""

import html
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from probe.errors import ProbeError
from probe.models.config import ModelConfig
from probe.models.decoders import check_decoder, longest_text, mask_windows, n_attending, state_layers, state_masks
from probe.models.limits import check_id, check_length, embedding_rows, has_row
from probe.models.memory import spare_memory
from probe.models.placed import devices_of, input_device
from probe.models.prompts.chat import TODAY, chosen_prompt, is_dated, prompt_text, start_ids
from probe.models.prompts.thinking import find_tags
from probe.models.sampling import GREEDY, Sampling
from probe.models.sites.architectures import scaled_logits
from probe.models.sites.sites import blocks, place
from probe.models.sites.views import to_nnsight, to_transformer_lens

if TYPE_CHECKING:
    from nnsight.modeling.transformers import TransformersModel
    from transformer_lens.model_bridge import TransformerBridge


@runtime_checkable
class Carrier(Protocol):
    """What carries the output of a block to the output of the last block, for `Model.unembed`."""

    def carry(self, states: Float[Tensor, "*axes d_model"], layer: int) -> Float[Tensor, "*axes d_model"]:
        """Return what the last block's output would be.

        Args:
            states: outputs of a block on the last axis.
            layer: the block, counted from 0.
        """
        ...


class Model:
    """A decoder-only language model with its tokenizer and prompt; the weights are frozen, in evaluation mode.

    ``load_model`` loads one from disk or from the hub. ``Model(hf, tokenizer)`` wraps a model that you built yourself,
    and freezes ``hf`` in place.

    Attributes:
        name: Short name for tables.
        hf: The Hugging Face model.
        tokenizer: The fast tokenizer.
        config: Where the model comes from, and its prompt: the one that was chosen, if the settings gave none.
        start_ids: The token ids that the tokenizer puts before every text, such as its start token.
        eos_ids: Every token id that ends an answer, of those that the model can emit.
        pad_id: The token id that pads batches; padding is always masked, so it may be any that the model can read.
        think_tags: The tags around its thinking: those of ``config``, or else those that the tokenizer has.
        memory: The bytes that work on the model may take besides its weights; None for half of what is free.
        adapter: The folder of the adapter of PEFT that is merged into its weights or on its layers; None if there is
            none.
        commit: The commit of a checkpoint on the hub; None for others.

    Raises:
        NotApplicable: if probe cannot run this architecture.
        ProbeError: if the tokenizer cannot encode text, or the chat template cannot ask a question or ignores a
            setting.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        config: ModelConfig | None = None,
        name: str | None = None,
    ) -> None:
        check_decoder(hf)
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        config = config or ModelConfig(path=hf.config.model_type)
        self.name = name or _short_name(config.adapter or config.path)
        self.config = chosen_prompt(config, tokenizer, self.name)
        self.start_ids = start_ids(tokenizer, self.name)
        self.think_tags = find_tags(tokenizer, self.config.think_close, self.config.think_open)
        self.memory: int | None = None
        self.adapter: Path | None = None
        self.commit: str | None = None
        self.eos_ids = _eos_ids(hf, tokenizer)
        pad_id: Any = tokenizer.pad_token_id
        # A tokenizer may have been given a padding token for which the embedding has no row.
        self.pad_id: int = pad_id if has_row(hf, pad_id) else next(iter(self.eos_ids), 0)

    @property
    def device(self) -> torch.device:
        """The device that input ids go to. States that are captured, and logits, come back on it too, wherever the
        layers are."""
        return input_device(self.hf)

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Every device that the model works on, ``device`` first."""
        return devices_of(self.hf)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return self.hf.dtype

    @property
    def budget(self) -> int:
        """The bytes that work on the model may take besides its weights: ``memory``, or half of what is free now on the
        device of its own that has the least."""
        return min(map(spare_memory, self.devices)) // 2 if self.memory is None else self.memory

    @property
    def n_layers(self) -> int:
        """The number of blocks; layers are counted from 0."""
        return int(self.hf.config.get_text_config().num_hidden_layers)

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return int(self.hf.config.get_text_config().hidden_size)

    @property
    def n_embeddings(self) -> int:
        """The number of token ids that the model can read, which may differ from the size of the tokenizer."""
        return embedding_rows(self.hf)

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks, in order."""
        return blocks(self.hf)

    @cached_property
    def mask_windows(self) -> dict[str | None, int | None]:
        """The sliding window of each attention mask that the model takes, by kind of block; None: of all blocks."""
        return mask_windows(self.hf)

    @cached_property
    def state_layers(self) -> tuple[int, ...]:
        """The layers that keep a state of each row (linear attention), which no mask of keys can change."""
        return state_layers(self.hf)

    @cached_property
    def state_masks(self) -> tuple[str, ...]:
        """The names of the masks that these layers take."""
        return state_masks(self.hf)

    @cached_property
    def n_attending(self) -> int:
        """The number of layers that keep keys and values."""
        return n_attending(self.hf)

    @cached_property
    def longest_text(self) -> int | None:
        """The number of tokens above which the rotary frequencies depend on the length; None if they never do."""
        return longest_text(self.hf)

    def check_gradient(self, work: str) -> None:
        """Refuse work that needs gradients through weights that have none, before anything is computed.

        Args:
            work: what needs them, at the beginning of the message, such as ``learning vectors``.

        Raises:
            ProbeError: if the weights are quantised in a way that passes no gradient to their input.
        """
        quantizer: Any = getattr(self.hf, "hf_quantizer", None)
        if quantizer is None or getattr(quantizer.quantization_config, "dequantize", False) or quantizer.is_trainable:
            return
        kind = quantizer.quantization_config.quant_method
        raise ProbeError(
            f"{work} needs gradients, and the weights of {self.name} ({getattr(kind, 'value', kind)}) have none; "
            "use its unquantised weights, or bitsandbytes"
        )

    @property
    def own_sampling(self) -> Sampling:
        """The sampling in the model's ``generation_config.json``; greedy if the file does not give one."""
        settings = self.hf.generation_config
        return GREEDY if settings is None else Sampling.of_generation(settings.to_dict())

    @property
    def asked_otherwise(self) -> dict[str, Any]:
        """What the prompt depends on beside its template: the other settings that were given, and a date in it."""
        dated = is_dated(self.config, self.tokenizer)
        return self.config.asked_otherwise | ({"date": f"{TODAY:%Y-%m-%d}"} if dated else {})

    def prompt_text(self, question: str) -> str:
        """Return the prompt for a question: the text that precedes the answer.

        Raises:
            ProbeError: if the chat template fails, or leaves out the question.
        """
        return prompt_text(self.config, self.tokenizer, question, self.name)

    def prompt_ids(self, question: str) -> list[int]:
        """Return the token ids of ``prompt_text(question)``.

        Raises:
            ProbeError: as `prompt_text`, or if the prompt has no token.
        """
        ids = self.encode_prompt(self.prompt_text(question))
        if not ids:
            raise ProbeError(
                f"the prompt of '{self.name}' for the question {question!r} has no token; give a question with text, "
                "or a prompt with more than {question}"
            )
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Return the token ids of the text of a prompt; a chat template has already written its start token."""
        return self.encode(text, start=self.config.prompt != "chat")

    def encode(self, text: str, *, start: bool = True) -> list[int]:
        """Return the token ids of a text, without an end token.

        Args:
            text: any text.
            start: put the tokenizer's start token first, if it has one and the text does not begin with it.
        """
        ids = list(self.tokenizer(text, add_special_tokens=False).input_ids)
        return [*self.start_of(ids), *ids] if start else ids

    def start_of(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the ids that are put before a text: ``start_ids``, or none if the text begins with them."""
        return () if tuple(ids[: len(self.start_ids)]) == self.start_ids else self.start_ids

    def check_ids(self, rows: Iterable[Sequence[int]], *, max_new_tokens: int = 0) -> None:
        """Refuse token ids that the model cannot read.

        Args:
            rows: the token ids of each text.
            max_new_tokens: the number of tokens that may be added to each.

        Raises:
            ProbeError: if an id has no row in the embedding, or a text and its new tokens need more positions than the
                model has.
        """
        longest = 0
        for ids in rows:
            longest = max(longest, len(ids))
            for extreme in (min(ids), max(ids)) if len(ids) else ():
                check_id(self.hf, extreme, self.name)
        check_length(self.hf, longest, self.name, max_new_tokens)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the exact text of token ids, special tokens included.

        Raises:
            ProbeError: if neither the tokenizer nor the model knows an id.
        """
        known = max(embedding_rows(self.hf), len(self.tokenizer))
        if len(ids) and not (min(ids) >= 0 and max(ids) < known):
            wrong = next(i for i in ids if not 0 <= i < known)
            raise ProbeError(f"token id {wrong} is unknown to {self.name}, which knows {known} ids, from 0")
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    @torch.no_grad()
    def unembed(
        self, resid: Float[Tensor, "*axes d_model"], *, lens: "Carrier | None" = None, layer: int | None = None
    ) -> Float[Tensor, "*axes vocab"]:
        """Apply the model's final norm and unembedding to a residual stream: the logit lens, or another lens.

        At ``resid_post`` of the last block this gives the model's logits; at other layers, the logits of a model that
        ended there (nostalgebraist, *interpreting GPT: the logit lens*, 2020).

        Args:
            resid: Residual-stream vectors on the last axis.
            lens: Carries the vectors to the output of the last block first, such as a `JacobianLens`; None reads them
                as they are.
            layer: The block whose output the vectors are, counted from 0; needed with a lens.

        Returns:
            Logits over the vocabulary on the last axis.

        Raises:
            ProbeError: if the model has no site ``final_norm``, the vectors have another width, or a lens is given
                without the layer or does not have that layer.
        """
        if not resid.ndim or resid.shape[-1] != self.d_model:
            raise ProbeError(f"{self.name} is {self.d_model} wide; these vectors have shape {list(resid.shape)}")
        if lens is not None:
            if layer is None:
                raise ProbeError("a lens needs to know whose output the vectors are; give the layer as well")
            if layer != self.n_layers - 1:  # the last block's output is what a lens carries to
                resid = lens.carry(resid, layer).to(resid)
        norm = self.hf.get_submodule(place(self.hf, "final_norm").module)
        logits = self.hf.get_submodule(place(self.hf, "logits").module)(norm(resid))
        return scaled_logits(self.hf.config.get_text_config(decoder=True), logits).to(resid.device)

    def nnsight(self) -> "TransformersModel":
        """Return an nnsight ``TransformersModel`` on the same weights; it runs at about the speed of a plain hook.

        The tokenizer is copied, because nnsight sets it to pad on the left. ``nnsight_value`` reads a site in a trace::

            lm = model.nnsight()
            with lm.trace("Once upon a time"):
                resid = nnsight_value(lm, "resid_post.2").save()
        """
        return to_nnsight(self.hf, self.tokenizer)

    def lens(self, *, shared: bool = False) -> "TransformerBridge":
        """Return a TransformerLens ``TransformerBridge``, by default on a copy of the weights.

        ``Site("resid_post", 2).lens`` is the name of a site's hook. The bridge decodes at about half the speed of the
        model itself. It computes attention in the eager way, so activations differ from the original's by rounding, and
        a padded batch needs its ``attention_mask``. It adds no start token to a text, because prompts contain theirs.

        Args:
            shared: use the model's own weights, which takes no memory. Then do not call methods of the bridge that
                rewrite weights, such as ``enable_compatibility_mode``: they would change the model.

        Raises:
            ProbeError: if TransformerLens does not know the architecture, or the model is on several devices.
        """
        return to_transformer_lens(self.hf, self.tokenizer, self.name, shared)

    def _facts(self) -> dict[str, str]:
        """Facts that both reprs show."""
        adapter = self.config.adapter
        return {
            "from": self.config.path + (f"@{self.config.revision}" if self.config.revision else ""),
            **({"adapter": f"{adapter} ({'merged' if self.config.merge else 'switched'})"} if adapter else {}),
            "architecture": type(self.hf).__name__,
            "size": f"{self.n_layers} layers, width {self.d_model}, {self.hf.num_parameters() / 1e6:.1f} M parameters",
            "device": f"{', '.join(map(str, self.devices))}, {str(self.dtype).removeprefix('torch.')}",
            "prompt": self.config.prompt,
            **{name: str(value) for name, value in self.config.asked_otherwise.items()},
        }

    def __repr__(self) -> str:
        facts = self._facts()
        return f"Model({self.name}: {facts['architecture']}, {facts['size']}, {facts['device']})"

    def _repr_html_(self) -> str:
        # A browser drops a line end at the start of <pre>.
        rows = "".join(f"<tr><th>{k}</th><td><pre>\n{html.escape(v)}</pre></td></tr>" for k, v in self._facts().items())
        return f"<table><caption>{html.escape(self.name)}</caption>{rows}</table>"


def _eos_ids(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Token ids that end an answer, from the generation config and the tokenizer, each once."""
    said = getattr(hf.generation_config, "eos_token_id", None)
    ids = [*(said if isinstance(said, (list, tuple)) else [said]), tokenizer.eos_token_id]
    return tuple(dict.fromkeys(i for i in ids if has_row(hf, i)))


def _short_name(path: str) -> str:
    return Path(path.removeprefix("bundled:")).name.removesuffix(".gguf") or path
