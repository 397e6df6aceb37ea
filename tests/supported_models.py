"""The table of supported models: every decoder of transformers, tried at tiny size.

``python -m tests.supported_models`` writes ``docs/supported-models.md``. Each model type is built from its config class
with random weights (``tests/tiny_models.py``). It is *supported* if greedy decoding gives the tokens of
``transformers.generate``, and a forced pass the logits of the model itself, alone and in a padded batch, with prompts
shorter and longer than the sliding window; *refused* if probe says so in one line; *not tried* if transformers cannot
build or run it at this size.
"""

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, models as token_models
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as hf_logging

from probe.errors import NotApplicable, ProbeError
from probe.hooks import UpperLayers, capture, causal_masks, force, forced_pass
from probe.models import ARCHITECTURES, KINDS, Model, Site, all_sites
from probe.traces.generate import decode_greedy
from tests.tiny_models import VOCAB, tiny_config, tiny_model

TABLE = Path(__file__).parent.parent / "docs" / "supported-models.md"
_LENGTHS = (5, 20, 11)
_NEW = 6
"""The shortest prompt grows beyond the window too."""


@dataclass(frozen=True)
class Verdict:
    """What became of a model type: a line of the table."""

    kind: str
    result: Literal["supported", "refused", "not tried", "WRONG"]
    note: str = ""
    sites: Literal["all", "residual", "none", ""] = ""
    """Which named sites it has."""

    @property
    def line(self) -> str:
        """The line of the table."""
        return f"| {self.kind} | {self.result} | {self.sites} | {self.note} |"


def verdict(kind: str) -> Verdict:
    """Try a model type."""
    try:
        hf = tiny_model(tiny_config(kind))
    except Exception as error:
        return Verdict(kind, "not tried", f"cannot be built at tiny size: {_said(error)}")
    return try_model(kind, hf)


def try_model(kind: str, hf: PreTrainedModel) -> Verdict:
    """Compare a model's decoding and forced passes with the model itself."""
    prompts = some_prompts()
    try:
        model = Model(hf, tokenizer())
    except ProbeError as error:
        return Verdict(kind, "refused", str(error).split(" models are not supported: ")[-1].split("; use a decoder")[0])
    try:
        wanted, logits = zip(*(generated(hf, prompt) for prompt in prompts), strict=True)
    except Exception as error:
        return Verdict(kind, "not tried", f"transformers cannot run it at tiny size: {_said(error)}")
    try:
        batch = [list(row.tokens) for row in decode_greedy(model, prompts, _NEW)]
        alone = [list(decode_greedy(model, [prompt], _NEW)[0].tokens) for prompt in prompts]
        forced = forced_pass(model, force(model, prompts, wanted)).logits
    except ProbeError as error:
        return Verdict(kind, "refused", str(error))
    except Exception as error:
        return Verdict(kind, "WRONG", f"{type(error).__name__}: {_said(error)}")
    if batch != list(wanted) or alone != list(wanted):
        return Verdict(kind, "WRONG", "other tokens than generate")
    if not all(torch.allclose(got, want, rtol=1e-3, atol=1e-3) for got, want in zip(forced, logits, strict=True)):
        return Verdict(kind, "WRONG", "other logits than the model")
    try:
        sites = all_sites(hf)
    except NotApplicable as error:
        return Verdict(kind, "supported", _found(error), "none")
    try:
        steered = all(
            torch.allclose(steered_by_nothing(model, prompt), _logits(hf, prompt), 1e-3, 1e-3) for prompt in prompts
        )
    except NotApplicable as error:
        return Verdict(kind, "supported", f"no steering: {_why(error, model)}", _named(hf))
    if not steered:
        return Verdict(kind, "WRONG", "the layers above a site give other logits than the model")
    return Verdict(kind, "supported", lacking(hf, sites), _named(hf))


def steered_by_nothing(model: Model, prompt: list[int]) -> torch.Tensor:
    """The logits that the layers above a site give for the model's own state there."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        with capture(model, "resid_post.0") as acts:
            model.hf(input_ids=ids, use_cache=False)
        masks = causal_masks(model, torch.ones_like(ids).bool(), ids.shape[1])
        positions = torch.arange(ids.shape[1])[None]
        return UpperLayers(model, 0)(acts["resid_post.0"], attention_mask=masks, position_ids=positions)


def lacking(hf: PreTrainedModel, sites: list[Site]) -> str:
    """The kinds of site that only some layers have."""
    n_layers = hf.config.get_text_config(decoder=True).num_hidden_layers
    layers = {kind: sum(site.kind == kind for site in sites) for kind in KINDS}
    some = [kind for kind, n in layers.items() if KINDS[kind].layered and 0 < n < n_layers]
    return f"some layers have no {', '.join(some)}" if some else ""


def _logits(hf: PreTrainedModel, prompt: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return hf(input_ids=torch.tensor([prompt]), use_cache=False).logits


def _named(hf: PreTrainedModel) -> Literal["all", "residual"]:
    return "all" if hf.config.get_text_config(decoder=True).model_type in ARCHITECTURES else "residual"


def _found(error: ProbeError) -> str:
    """What a trial found, or why there was none."""
    return str(error).split("found that ")[-1].split("; name a module")[0]


def _why(error: ProbeError, model: Model) -> str:
    return str(error).split(", so those above")[0].replace(f"blocks of {model.name}", "its blocks")


def some_prompts() -> list[list[int]]:
    """Prompts shorter and longer than the window of tiny models."""
    numbers = torch.Generator().manual_seed(0)
    return [torch.randint(3, VOCAB, (length,), generator=numbers).tolist() for length in _LENGTHS]


def generated(hf: PreTrainedModel, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """The tokens of ``generate``, and the logits that the model alone gives for them."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out: Any = hf.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=_NEW, do_sample=False, pad_token_id=0
        )
        logits = hf(input_ids=out[:, :-1], use_cache=False).logits
    return out[0, len(prompt) :].tolist(), logits[0, len(prompt) - 1 :]


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer without an end token, whose ids alone are used."""
    words = {f"w{i}": i for i in range(VOCAB)}
    backend = Tokenizer(token_models.WordLevel(words, unk_token="w3"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="w0")


def verdicts() -> list[Verdict]:
    """Try all decoders of transformers."""
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [verdict(kind) for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    finally:
        hf_logging.set_verbosity(before)


def page(found: list[Verdict]) -> str:
    """The page with the table."""
    count = Counter(each.result for each in found)
    return _PAGE.format(
        version=transformers.__version__,
        supported=count["supported"],
        all=len(found),
        named=sum(each.sites == "all" for each in found),
        residual=sum(each.sites == "residual" for each in found),
        rows="\n".join(each.line for each in found),
    )


_PAGE = """# Supported models

This page lists which decoders in transformers are supported, which sites they have, and why the others are refused.
Generated by `python -m tests.supported_models`, with transformers {version}. Do not edit.

{supported} of the {all} decoders that transformers can load are supported. Each model type was built at tiny size
with random weights. *Supported* means that greedy decoding gives the tokens of `transformers.generate` and a forced
pass gives the logits of the model itself, alone and in a padded batch, with prompts shorter and longer than the sliding
window. *Refused* means that `load_model` raises one line with this reason. *Not tried* means that transformers cannot
build or run it at this size.

The column *sites* says which named sites a model has: {named} have *all* (`probe sites MODEL` lists them; layers may
differ), and {residual} the *residual* stream: `embed`, `resid_pre`, `resid_post`, `final_norm` and `logits`, which are
found by a trial when the model is loaded, and which steering, SAEs and the hybrid need. In models with *none*, and for
everything else in a model, name a module by its path, such as `model.layers.2.mlp.act_fn`, or
`model.layers.2.mlp.act_fn:input` for its input. Circuits need all sites, and an architecture that TransformerLens
knows.

Only the text decoder of an image-text model is run, never its vision part. An architecture that transformers
does not know (`trust_remote_code`) is checked in the same way when it is loaded.

Where rotary frequencies change beyond some length (longrope, dynamic NTK), only texts up to that length are supported.

| model type | result | sites | note |
|---|---|---|---|
{rows}
"""


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


if __name__ == "__main__":
    torch.set_num_threads(1)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(page(verdicts()), encoding="utf-8")
