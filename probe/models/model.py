"""A loaded model: its weights, tokenizer and prompt, and the same model in other libraries."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from probe.errors import ProbeError
from probe.models.config import ModelConfig
from probe.models.sites import blocks, place
from probe.models.thinking import find_tags
from probe.models.views import to_nnsight, to_transformer_lens

if TYPE_CHECKING:
    from nnsight.modeling.transformers import TransformersModel
    from transformer_lens.model_bridge import TransformerBridge


class Model:
    """A decoder-only language model with its tokenizer and prompt; the weights are frozen, in evaluation mode.

    ``load_model`` loads one from disk or from the hub. ``Model(hf, tokenizer)`` wraps a model that you built yourself,
    and freezes ``hf`` in place.

    Attributes:
        name: Short name for tables.
        hf: The Hugging Face model.
        tokenizer: The fast tokenizer.
        config: Where the model comes from, and its prompt.
        eos_ids: Every token id that ends an answer.
        pad_id: The token id that pads batches; padding is always masked.
        think_tags: The tags around its thinking: those of ``config``, or else those that the tokenizer has.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        config: ModelConfig | None = None,
        name: str | None = None,
    ) -> None:
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.config = config or ModelConfig(path=hf.config.model_type)
        self.name = name or _short_name(self.config.path)
        self.think_tags = find_tags(tokenizer, self.config.think_close, self.config.think_open)
        self.eos_ids = _eos_ids(hf, tokenizer)
        pad_id = tokenizer.pad_token_id
        there = [i for i in (pad_id, *self.eos_ids) if isinstance(i, int) and 0 <= i < self.n_embeddings]
        self.pad_id: int = there[0] if there else 0  # an added pad token may have no row in the embedding

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return self.hf.dtype

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
        embedding: Any = self.hf.get_input_embeddings()
        return int(embedding.weight.shape[0])

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks, in order."""
        return blocks(self.hf)

    def prompt_text(self, question: str) -> str:
        """Return the prompt for a question: the text that precedes the answer."""
        if self.config.prompt != "chat":
            return self.config.prompt.replace("{question}", question)
        turn = [{"role": "user", "content": question}]
        return str(self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))

    def prompt_ids(self, question: str) -> list[int]:
        """Return the token ids of ``prompt_text(question)``.

        A template gets the tokenizer's start token, if there is one; a chat template already contains it.
        """
        text, start = self.prompt_text(question), self.config.prompt != "chat"
        return list(self.tokenizer(text, add_special_tokens=start).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the exact text of token ids, special tokens included."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    @torch.no_grad()
    def unembed(self, resid: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes vocab"]:
        """Apply the model's final norm and unembedding to a residual stream: the logit lens.

        At ``resid_post`` of the last block this gives the model's logits; at other layers, the logits of a model that
        ended there (nostalgebraist, *interpreting GPT: the logit lens*, 2020).

        Args:
            resid: Residual-stream vectors on the last axis.

        Returns:
            Logits over the vocabulary on the last axis.

        Raises:
            ProbeError: if the architecture is not in the table of sites, or the vectors have another width.
        """
        if not resid.ndim or resid.shape[-1] != self.d_model:
            raise ProbeError(f"{self.name} is {self.d_model} wide; these vectors have shape {list(resid.shape)}")
        norm = self.hf.get_submodule(place(self.hf, "final_norm").module)
        logits = self.hf.get_submodule(place(self.hf, "logits").module)(norm(resid))
        cap = getattr(self.hf.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def nnsight(self) -> "TransformersModel":
        """Return an nnsight ``TransformersModel`` on the same weights; it runs at about the speed of a plain hook.

        The tokenizer is copied, because nnsight sets it to pad on the left. ``nnsight_value`` reads a site in a trace::

            lm = model.nnsight()
            with lm.trace("Once upon a time"):
                resid = nnsight_value(lm, "resid_post.2").save()
        """
        return to_nnsight(self.hf, self.tokenizer)

    def lens(self) -> "TransformerBridge":
        """Return a TransformerLens ``TransformerBridge`` on a copy of the weights, which the bridge changes in place.

        ``Site("resid_post", 2).lens`` is the name of a site's hook. The bridge decodes at about half the speed of the
        model itself. It computes attention in the eager way, so activations differ from the original's by rounding, and
        a padded batch needs its ``attention_mask``. It adds no start token to a text, because prompts contain theirs.

        Raises:
            ProbeError: if TransformerLens does not know the architecture.
        """
        return to_transformer_lens(self.hf, self.tokenizer, self.name)

    def _facts(self) -> dict[str, str]:
        """Facts that both reprs show."""
        return {
            "from": self.config.path + (f"@{self.config.revision}" if self.config.revision else ""),
            "architecture": type(self.hf).__name__,
            "size": f"{self.n_layers} layers, width {self.d_model}, {self.hf.num_parameters() / 1e6:.1f} M parameters",
            "device": f"{self.device}, {str(self.dtype).removeprefix('torch.')}",
            "prompt": self.config.prompt,
        }

    def __repr__(self) -> str:
        facts = self._facts()
        return f"Model({self.name}: {facts['architecture']}, {facts['size']}, {facts['device']})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{k}</th><td><pre>{html.escape(v)}</pre></td></tr>" for k, v in self._facts().items())
        return f"<table><caption>{html.escape(self.name)}</caption>{rows}</table>"


def _eos_ids(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Token ids that end an answer, from the generation config and the tokenizer, each once."""
    said = getattr(hf.generation_config, "eos_token_id", None)
    ids = [*(said if isinstance(said, (list, tuple)) else [said]), tokenizer.eos_token_id]
    return tuple(dict.fromkeys(i for i in ids if isinstance(i, int)))


def _short_name(path: str) -> str:
    return Path(path.removeprefix("bundled:")).name.removesuffix(".gguf") or path
