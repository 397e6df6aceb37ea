"""The Jacobian lens: one matrix for each block, which carries the block's output to the output of the last block."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.config import as_type
from probe.errors import ProbeError
from probe.files import object_hash, read_json, read_tensors, write_json, write_tensors
from probe.html import html_table
from probe.models import Model, fingerprint

if TYPE_CHECKING:
    from transformer_lens.tools.analysis.jacobian_lens import JacobianLens as TransformerLensJacobianLens

MATRICES, ABOUT = "lens.safetensors", "lens.json"
_KIND = "Jacobian lens"


@dataclass(frozen=True, eq=False)
class JacobianLens:
    """The mean effect of each block's output on the output of the last block, as a matrix for each block.

    The logit lens reads a state as if it were the last block's output. The Jacobian lens first multiplies it by the
    mean derivative of the last block's output (at the same and all later tokens) with respect to that state (Gurnee et
    al., *Verbalizable Representations Form a Global Workspace in Language Models*, Transformer Circuits Thread, 2026).
    The matrices are those of TransformerLens' ``JacobianLens``.

    Attributes:
        matrices: for each block, counted from 0, a matrix ``[d_model, d_model]``; the last block needs none.
        model: the name of the model that it was fitted on.
        n_layers: the number of blocks of that model.
        fitted: how it was fitted: ``n_texts``, ``texts`` (where they are from) and other settings.
        names: other names of the model, such as its ids on the hub.
        weights: a hash of a sample of the weights that it was fitted on; None for a published lens.
    """

    matrices: Mapping[int, Tensor]
    model: str
    n_layers: int
    fitted: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    weights: str | None = None

    def __post_init__(self) -> None:
        shapes = {tuple(each.shape) for each in self.matrices.values()}
        if len(shapes) != 1 or (wide := next(iter(shapes)))[0] != wide[-1]:
            raise ProbeError(f"a Jacobian lens needs square matrices of one size; these have {sorted(shapes)}")
        if beyond := [layer for layer in self.matrices if not 0 <= layer < self.n_layers - 1]:
            raise ProbeError(
                f"the lens has a matrix for block {beyond[0]}; a model of {self.n_layers} blocks has them for blocks "
                f"0 to {self.n_layers - 2}"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks that have a matrix."""
        return tuple(sorted(self.matrices))

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return next(iter(self.matrices.values())).shape[0]

    def carry(self, states: Float[Tensor, "*axes d_model"], layer: int) -> Float[Tensor, "*axes d_model"]:
        """Carry outputs of a block to the output of the last block, in float32.

        Args:
            states: outputs of a block on the last axis.
            layer: the block, counted from 0.

        Raises:
            ProbeError: if the lens has no matrix for this block.
        """
        if layer not in self.matrices:
            raise ProbeError(f"this lens has no matrix for block {layer}; it has {_ranges(self.layers)}")
        # One matrix at a time is on the device and in float32: those of all blocks may be as large as the model.
        return states.float() @ self.matrices[layer].to(states.device, torch.float32).T

    def check(self, model: Model) -> None:
        """Refuse a model that the lens was not fitted on.

        Raises:
            ProbeError: if the width, the number of blocks, the name or (for a lens fitted by probe) the weights differ.
        """
        if (self.n_layers, self.d_model) != (model.n_layers, model.d_model):
            raise ProbeError(
                f"this lens is of {self.model} ({self.n_layers} blocks of width {self.d_model}), and {model.name} has "
                f"{model.n_layers} blocks of width {model.d_model}; use another lens"
            )
        if self.weights is None:
            known = {_plain(name) for name in (self.model, *self.names)}
            same = bool(known & {_plain(model.name), _plain(model.config.path)})
        else:
            same = self.weights == weights_of(model)
        if not same:
            raise ProbeError(
                f"this lens was fitted on {self.model}, and this model is {model.name} with other weights or another "
                "name; to use it nevertheless, call lens.lent_to(model)"
            )

    def lent_to(self, model: Model) -> "JacobianLens":
        """The same matrices for another model of the same shape, such as the thinking model for a lens of the base.

        Raises:
            ProbeError: if that model has another width or number of blocks.
        """
        lent = {**self.fitted, "lent by": self.fitted.get("lent by", self.model)}
        found = replace(self, model=model.name, names=(), weights=weights_of(model), fitted=lent)
        found.check(model)
        return found

    def save(self, folder: str | Path) -> Path:
        """Write the lens to a folder: ``lens.safetensors``, and ``lens.json`` that says whose it is; return the folder.

        Raises:
            ProbeError: if the folder cannot be written.
        """
        folder = Path(folder)
        write_tensors(folder / MATRICES, {str(layer): self.matrices[layer].contiguous() for layer in self.layers})
        about = {"kind": _KIND, "model": self.model, "n_layers": self.n_layers, "names": list(self.names)}
        write_json(folder / ABOUT, about | {"weights": self.weights, "fitted": dict(self.fitted)})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "JacobianLens":
        """Read a lens that :meth:`save` wrote. The matrices stay on disk until they are used, where the system can.

        Raises:
            ProbeError: if the folder holds no lens, or a damaged one.
        """
        folder = Path(folder)
        fix = "fit or load the lens again"
        about = as_type(dict[str, Any], read_json(folder / ABOUT, fix=fix), str(folder / ABOUT), fix=fix)
        if about.get("kind") != _KIND:
            raise ProbeError(f"{folder} holds no Jacobian lens; name a folder that JacobianLens.save has written")
        matrices = {int(layer): matrix for layer, matrix in read_tensors(folder / MATRICES).items()}
        try:
            return cls(
                dict(sorted(matrices.items())),
                about["model"],
                about["n_layers"],
                about["fitted"],
                tuple(about["names"]),
                about["weights"],
            )
        except (KeyError, TypeError) as error:
            raise ProbeError(f"{folder / ABOUT} lacks {error}; {fix}") from None

    def to_transformer_lens(self) -> "TransformerLensJacobianLens":
        """The same lens for TransformerLens, whose ``JacobianLens`` steers, swaps and decomposes with it."""
        from transformer_lens.tools.analysis.jacobian_lens import JacobianLens as Theirs

        number = int(self.fitted.get("n_texts", 0))
        about = {"target_layer": self.n_layers - 1}
        return Theirs(dict(self.matrices), n_prompts=number, d_model=self.d_model, metadata=about)

    def __repr__(self) -> str:
        number = self.fitted.get("n_texts")
        texts = "" if number is None else f", {number} texts"
        return f"JacobianLens({self.model}: blocks {_ranges(self.layers)} of {self.n_layers}, {self.d_model}{texts})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            ("model", self.model),
            ("blocks", f"{_ranges(self.layers)} of {self.n_layers}"),
            ("width", self.d_model),
            *((name.replace("_", " "), value) for name, value in self.fitted.items()),
        ]
        return html_table((), rows, "Jacobian lens")


def weights_of(model: Model) -> str:
    """A hash of a sample of a model's weights and of their shapes, by which a lens knows its model."""
    found = fingerprint(model)
    return object_hash([found["architecture"], found["shapes"], found["weights"]])


def _plain(name: str) -> str:
    """The last part of a model's name in lower case, which copies on disk keep."""
    return name.rstrip("/").rpartition("/")[2].lower()


def _ranges(layers: tuple[int, ...]) -> str:
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole and len(layers) > 1 else ", ".join(map(str, layers))
