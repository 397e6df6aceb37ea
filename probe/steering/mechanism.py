"""What is added to the base model's residual stream: the contract of every mechanism, and vectors as they are."""

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.errors import ProbeError
from probe.files import read_json, write_json


class Mechanism(nn.Module):
    """``shift(resid, strength(resid, k), k)`` is added to ``resid_post.layer`` of the base model for behaviour ``k``.

    Args:
        n_behaviours: K; its shift points along one of K vectors.
        d_model: width of the base model.
        layer: the steering layer, 0-based.
        unit: the size of a typical coordinate of the residual stream at the site. Vectors are learned in units of it
            (``directions``), so that one learning rate serves models of any scale.
        persistent: whether later tokens see the shifted states, or only the logits of the steered token do. A mechanism
            is learned for one convention, and decoding follows it.
    """

    kinds: ClassVar[dict[str, type["Mechanism"]]] = {}
    #: What :meth:`save` writes beside the tensors: the arguments that make the same mechanism again.
    fields: ClassVar[tuple[str, ...]] = ("n_behaviours", "d_model", "layer", "unit", "persistent")

    drawn = False
    """Whether its directions were drawn, for a control, and not fitted."""

    def __init__(
        self, n_behaviours: int, d_model: int, layer: int, *, unit: float = 1.0, persistent: bool = False
    ) -> None:
        super().__init__()
        self.n_behaviours, self.d_model, self.layer = n_behaviours, d_model, layer
        self.unit, self.persistent = unit, persistent
        self.directions: nn.Parameter = nn.Parameter(torch.zeros(n_behaviours, d_model))

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Mechanism.kinds[cls.__name__] = cls

    @property
    def vectors(self) -> Float[Tensor, "behaviours d_model"]:
        """The direction that each behaviour is pushed in, in the units of the residual stream."""
        return self.directions * self.unit

    def turned(self, vectors: Float[Tensor, "behaviours d_model"]) -> "Mechanism":
        """A copy that pushes in other directions; everything else stays."""
        other = copy.deepcopy(self)
        other.directions.data = vectors.detach().to(self.directions) / self.unit
        return other

    @property
    def n_parameters(self) -> int:
        """How many fitted numbers it has."""
        return sum(parameter.numel() for parameter in self.parameters())

    def strength(self, resid: Float[Tensor, "rows d_model"], behaviour: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """How strongly each row's behaviour is added."""
        return torch.ones(behaviour.shape, device=resid.device)

    def shift(
        self, resid: Float[Tensor, "rows d_model"], strength: Float[Tensor, " rows"], behaviour: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows d_model"]:
        """What is added to the residual stream of each row, whose state before it is ``resid``."""
        del resid
        return strength[:, None] * self.vectors[behaviour]

    def save(self, folder: Path) -> None:
        """Write ``mechanism.safetensors`` and, last, ``mechanism.json``."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "mechanism.safetensors")
        said: dict[str, Any] = {name: getattr(self, name) for name in self.fields}
        write_json(folder / "mechanism.json", {"kind": type(self).__name__, **said, "site": f"resid_post.{self.layer}"})


def load_mechanism(folder: Path) -> Mechanism:
    """Read what :meth:`Mechanism.save` wrote, of whatever kind, frozen.

    Raises:
        ProbeError: if it is not there, or of a kind that is not known.
    """
    from safetensors.torch import load_file

    said = read_json(folder / "mechanism.json")
    kind = said.pop("kind", None)
    said.pop("site", None)
    if kind not in Mechanism.kinds:
        raise ProbeError(f"{folder / 'mechanism.json'} is of the kind {kind!r}, which is not known; learn it again")
    made = Mechanism.kinds[kind](**said)
    made.load_state_dict(load_file(folder / "mechanism.safetensors"))
    return made.eval().requires_grad_(False)


class FixedVectors(Mechanism):
    """One vector a behaviour, added as it is: strength one."""

    @classmethod
    def of(
        cls, vectors: Float[Tensor, "behaviours d_model"], layer: int, *, persistent: bool = False
    ) -> "FixedVectors":
        """With these vectors."""
        n_behaviours, d_model = vectors.shape
        made = cls(n_behaviours, d_model, layer, persistent=persistent).to(vectors.device)
        made.directions.data = vectors.detach().float().clone()
        return made.eval().requires_grad_(False)


def random_like(mechanism: Mechanism, seed: int) -> Mechanism:
    """The norm-matched control: each vector replaced by a random direction of the same norm, the strengths kept."""
    vectors = mechanism.vectors.detach()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(vectors.shape, generator=generator).to(vectors)
    made = mechanism.turned(nn.functional.normalize(drawn, dim=1) * vectors.norm(dim=1, keepdim=True))
    made.drawn = True
    return made
