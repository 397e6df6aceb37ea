"""The places of the named sites in one model: its text decoder, and what each layer has."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from probe.errors import NotApplicable, ProbeError
from probe.models.sites.architectures import ARCHITECTURES, HEAD, Places, is_parallel
from probe.models.sites.kinds import ATTENTION, KINDS, MIXTURE, NEURONS
from probe.models.sites.places import Heads, Place
from probe.models.sites.trial import residual_places


@dataclass(frozen=True)
class Resolved:
    """The named sites of one model."""

    hf: PreTrainedModel
    """The model; its weights are not read."""

    decoder: str
    """Path of the module that holds the blocks."""

    blocks: nn.ModuleList
    """The blocks, in order."""

    places: dict[str, Places]
    """The places that each kind of site may have, with paths from the text decoder."""

    @classmethod
    def of(cls, hf: PreTrainedModel) -> "Resolved":
        """Find the sites of a model.

        Raises:
            NotApplicable: if its blocks cannot be found, or its architecture is not in the table and a trial finds no
                residual stream.
        """
        decoder, name, blocks = _decoder(hf)
        known = ARCHITECTURES.get(_text_config(hf).model_type)
        if known is not None:
            return cls(hf, decoder, blocks, known)
        # The trial names modules from the model, because some are outside the text decoder.
        return cls(hf, "", blocks, dict(residual_places(hf, ".".join(filter(None, (decoder, name))))))

    @property
    def config(self) -> Any:
        """The config of the text model."""
        return _text_config(self.hf)

    @property
    def model_type(self) -> str:
        """The Hugging Face name of the text model's architecture."""
        return str(self.config.model_type)

    def place(self, kind: str, layer: int | None) -> Place:
        """Return the place of a site.

        Raises:
            ProbeError: if there is no such layer, or the architecture or the layer lacks the site.
        """
        site = kind if layer is None else f"{kind}.{layer}"
        if layer is not None and layer >= len(self.blocks):
            raise ProbeError(f"this model has no site {site}; it has layers 0 to {len(self.blocks) - 1}")
        if why := self.lacks(kind, layer):
            raise NotApplicable(f"this {self.model_type} model has no site '{site}': {why}")
        if kind not in self.places:
            raise NotApplicable(f"{self.model_type} models have no site '{kind}'; they have {', '.join(self.places)}")
        found = next(each for each in _all(self.places[kind]) if self._has(each, layer))
        return replace(
            found,
            module=self._path(found, layer),
            block=self._path(_all(self.places["resid_post"])[0], layer) if found.flat else "",
            heads=Heads.of(self.config, layer) if found.view is not None else None,
            times=float(getattr(self.config, found.scale)) if found.scale else 1.0,
        )

    def lacks(self, kind: str, layer: int | None) -> str | None:
        """Return why a layer lacks a site that the architecture knows; None if it has the site."""
        if kind == "resid_mid" and is_parallel(self.config):
            return "attention and MLP read the same residual stream, so there is none between them"
        if kind in ("k", "v") and kind not in self.places and "z" in self.places:
            return "keys and values of all heads are made of one latent vector (kv_b_proj makes them)"
        if kind not in self.places or any(self._has(each, layer) for each in _all(self.places[kind])):
            return None
        if kind in ATTENTION and not self._has_any("q", layer):
            return f"layer {layer} has {self._kind_of(layer)}, which has no query and key scores"
        if kind in MIXTURE and kind != "shared_out":
            return f"the MLP of layer {layer} is not a mixture of experts"
        if kind in NEURONS and self._has_any("router_logits", layer):
            return f"the MLP of layer {layer} is a mixture of experts, which has no neurons that every token uses"
        return f"layer {layer} has no module {self._path(_all(self.places[kind])[0], layer)}"

    def kinds(self) -> Iterator[str]:
        """The kinds of site that some layer has, in the order of a forward pass."""
        for kind, about in KINDS.items():
            if kind in self.places and (self.layers(kind) or not about.layered):
                yield kind

    def layers(self, kind: str) -> list[int]:
        """The layers that have a kind of site."""
        if kind not in self.places or not KINDS[kind].layered:
            return []
        return [layer for layer in range(len(self.blocks)) if self.lacks(kind, layer) is None]

    def _has_any(self, kind: str, layer: int | None) -> bool:
        return kind in self.places and any(self._has(each, layer) for each in _all(self.places[kind]))

    def _has(self, place: Place, layer: int | None) -> bool:
        if place.module == HEAD:
            return self.hf.get_output_embeddings() is not None
        module: Any = self.hf
        for name in self._path(place, layer).split("."):
            module = module._modules.get(name) if isinstance(module, nn.Module) else None
        return module is not None

    def _path(self, place: Place, layer: int | None) -> str:
        """The path of a place's module, from the model."""
        if place.module == HEAD:
            return _path(self.hf, self.hf.get_output_embeddings())
        path = place.module.replace("{i}", str(layer))
        return f"{self.decoder}.{path}" if self.decoder else path

    def _kind_of(self, layer: int | None) -> str:
        kinds = getattr(self.config, "layer_types", None) or ()
        return str(kinds[layer]).replace("_", " ") if layer is not None and layer < len(kinds) else "a block"


def on_meta(config: PretrainedConfig) -> PreTrainedModel:
    """Make a model of a config without weights, to look at its modules.

    Raises:
        NotApplicable: if transformers cannot make one.
    """
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (ImportError, RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotApplicable(f"transformers cannot make a '{config.model_type}' model of this config: {said}") from error


def is_known(config: Any) -> bool:
    """Whether the architecture of a config is in the table of sites."""
    return config.get_text_config(decoder=True).model_type in ARCHITECTURES


def _text_config(hf: PreTrainedModel) -> Any:
    return hf.config.get_text_config(decoder=True)


def _decoder(hf: PreTrainedModel) -> tuple[str, str, nn.ModuleList]:
    """The path of the module that holds the blocks, the name of the blocks in it, and the blocks."""
    text: Any = hf.get_decoder()
    if text is hf.get_output_embeddings():  # some call their unembedding "decoder"
        text = hf.base_model
    n_layers = getattr(_text_config(hf), "num_hidden_layers", None)
    for path, module in text.named_modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == n_layers:
                return ".".join(filter(None, (_path(hf, text), path))), name, child
    raise NotApplicable(
        f"the blocks of this '{_text_config(hf).model_type}' model cannot be found, because it has no list of "
        f"{n_layers} modules; name a module by its path instead, as `for name, _ in hf.named_modules()` gives it"
    )


def _path(hf: PreTrainedModel, wanted: nn.Module | None) -> str:
    return next((name for name, module in hf.named_modules() if module is wanted), "")


def _all(places: Places) -> tuple[Place, ...]:
    return places if isinstance(places, tuple) else (places,)
