"""Behaviour vectors: one vector a behaviour, and a small network that says how strongly each is added."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe._files import read_json, write_json


class BehaviourVectors(nn.Module):
    """``shift = strength(h)[k] * vectors[k]``, added to ``resid_post.layer`` of the base model.

    The strength network reads the base model's own residual stream at the same site: one hidden layer shared by all
    behaviours, one softplus head a behaviour (Venhoff et al., 2510.07364v4). Vectors are stored in units of ``unit``,
    the typical size of a residual coordinate, so that one learning rate serves models of any scale.

    Args:
        n_behaviours: K. With K = 1 this is the single-vector arm.
        d_model: width of the base model.
        layer: the steering layer, 0-based.
        hidden: width of the strength network.
        unit: the size of a typical coordinate of the residual stream at the site.
        persistent: whether later tokens see the shifted states. The vectors are learned for one convention, and
            decoding follows it.
    """

    def __init__(
        self,
        n_behaviours: int,
        d_model: int,
        layer: int,
        *,
        hidden: int = 32,
        unit: float = 1.0,
        persistent: bool = False,
    ) -> None:
        super().__init__()
        self.persistent = persistent
        self.n_behaviours, self.d_model, self.layer, self.hidden, self.unit = n_behaviours, d_model, layer, hidden, unit
        self.directions = nn.Parameter(torch.zeros(n_behaviours, d_model))
        self.strength_in = nn.Linear(d_model, hidden)
        self.strength_out = nn.Linear(hidden, n_behaviours)
        nn.init.zeros_(self.strength_out.weight)
        nn.init.constant_(self.strength_out.bias, 0.54)  # softplus(0.54) = 1: every behaviour starts at strength one

    @property
    def vectors(self) -> Float[Tensor, "behaviours d_model"]:
        """The vectors in the units of the residual stream."""
        return self.directions * self.unit

    @property
    def n_parameters(self) -> int:
        """All fitted numbers: vectors and strength network."""
        return sum(parameter.numel() for parameter in self.parameters())

    def strength(self, resid: Float[Tensor, "rows d_model"], behaviour: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """How strongly each row's behaviour is added; positive."""
        hidden = nn.functional.gelu(self.strength_in(resid.to(self.directions.dtype) / self.unit))
        return nn.functional.softplus(self.strength_out(hidden)).gather(-1, behaviour[:, None])[:, 0]

    def shift(self, strength: Float[Tensor, " rows"], behaviour: Int[Tensor, " rows"]) -> Float[Tensor, "rows d_model"]:
        """What is added to the residual stream of each row."""
        return strength[:, None] * self.vectors[behaviour]

    def save(self, folder: Path) -> None:
        """Write ``vectors.safetensors`` and ``vectors.json``."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "vectors.safetensors"
        )
        fields = ("n_behaviours", "d_model", "layer", "hidden", "unit", "persistent")
        write_json(
            folder / "vectors.json",
            {name: getattr(self, name) for name in fields} | {"site": f"resid_post.{self.layer}"},
        )

    @classmethod
    def load(cls, folder: Path) -> "BehaviourVectors":
        """Read what :meth:`save` wrote."""
        from safetensors.torch import load_file

        fields = read_json(folder / "vectors.json")
        fields.pop("site")
        made = cls(**fields)
        made.load_state_dict(load_file(folder / "vectors.safetensors"))
        return made.eval().requires_grad_(False)


def random_like(vectors: BehaviourVectors, seed: int) -> BehaviourVectors:
    """The norm-matched control: each vector replaced by a random direction of the same norm, the strengths kept."""
    import copy

    control = copy.deepcopy(vectors)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(vectors.directions.shape, generator=generator).to(vectors.directions)
    norms = vectors.directions.detach().norm(dim=1, keepdim=True)
    control.directions.data = drawn / drawn.norm(dim=1, keepdim=True) * norms
    return control
