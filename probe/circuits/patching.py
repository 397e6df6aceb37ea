"""Activation patching: what a state of the clean run brings back when it alone is put into the corrupt run.

By block and token, by block as a whole, or by head: where what tells the texts apart is held, and where it is moved.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from probe.circuits.lens import Ids, Metric
from probe.circuits.pairs import Pairs, divergence, logit_difference
from probe.config import nearest
from probe.errors import ProbeError
from probe.hooks import Apply, capture, edit
from probe.models import Model

#: What can be patched.
PATCHED = {
    "resid_pre": "the residual stream that enters a block",
    "resid_post": "the residual stream that leaves a block",
    "attn_out": "what a block's attention adds",
    "mlp_out": "what a block's MLP adds",
    "z": "what each head mixes of the values",
}
_BY = {"position": "every token by itself", "head": "every head, at all tokens", "block": "all tokens at once"}
_ROWS = 64
"""Rows of a pass."""


@dataclass(frozen=True)
class PatchMap:
    """How much of the metric each place brings back, 0 for the corrupt run and 1 for the clean one.

    Attributes:
        values: by block and place: tokens (counted from the end: the last column is the last token), heads, or one.
        site, by: what was patched, and how it is parted.
        about: metric, direction, pairs.
    """

    values: Float[Tensor, "layers places"]
    site: str
    by: str
    about: dict[str, Any] = field(default_factory=dict)

    def strongest(self, n: int = 5) -> list[tuple[int, int, float]]:
        """The places that bring most, as block, place and value."""
        order = self.values.flatten().abs().argsort(descending=True)[:n].tolist()
        places = (divmod(at, self.values.shape[1]) for at in order)
        return [(layer, place, float(self.values[layer, place])) for layer, place in places]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{self.site}.{i}</th>" + "".join(f"<td>{value:.2f}</td>" for value in row) + "</tr>"
            for i, row in reversed(list(enumerate(self.values.tolist())))
        )
        return f"<p>{self.site} by {self.by}: share of the metric that is brought back</p><table>{rows}</table>"


@torch.no_grad()
def patch(
    model: Model,
    pairs: Pairs,
    site: str = "resid_pre",
    by: str | None = None,
    *,
    metric: str = "logit-difference",
    noising: bool = False,
    source: Model | None = None,
    last: int | None = None,
    progress: bool = False,
) -> PatchMap:
    """Put each state of one run into the other, one at a time.

    Meng et al. (2202.05262); Heimersheim and Nanda (2404.15255) on what either direction tells.

    Args:
        site: a kind of :data:`PATCHED`, without a layer.
        by: ``position``, ``head`` (of z alone) or ``block``; heads for z and tokens for the others, unless said.
        metric: ``logit-difference`` or ``divergence`` from the clean run.
        noising: put corrupt states into the clean run instead, and tell what they take away.
        source: whose states are put in, if it is another model of the same width: its run of the same text.
        last: by position, only so many tokens from the end.
        progress: show a bar.

    Returns:
        Of the sums over all pairs. By position, as many tokens as the shortest pair has; those before the first at
        which any of its texts differ hold nothing that tells them apart, and are left at zero.

    Raises:
        ProbeError: for an unknown site or way to part it, a source of another shape, or pairs that the metric does not
            tell apart.
    """
    by = by or ("head" if site == "z" else "position")
    for what, said, known in (("site to patch", site, PATCHED), ("way to part a site", by, _BY)):
        if said not in known:
            raise ProbeError(f"there is no {what} {said!r}; {nearest(said, known)} (of: {', '.join(known)})")
    if by == "head" and site != "z":
        raise ProbeError(f"{site} has no heads: patch z by head")
    source = source or model
    if (source.d_model, source.n_layers) != (model.d_model, model.n_layers):
        raise ProbeError(f"{source.name} has another shape than {model.name}: its states do not fit")
    n_heads = model.hf.config.get_text_config().num_attention_heads
    shortest = min(rows.shape[1] for rows in pairs.clean)
    places = {"position": min(shortest, last or shortest), "head": n_heads, "block": 1}[by]
    sums = torch.zeros(model.n_layers, places, dtype=torch.float64)
    ends = torch.zeros(2, dtype=torch.float64)
    measured: list[tuple[Ids, Ids, Metric]] = []
    for clean, corrupt, right, wrong in pairs:
        measure = divergence(_logits(model, clean)) if metric == "divergence" else logit_difference(right, wrong)
        ends += torch.stack([measure(_logits(model, ids)).double().sum().cpu() for ids in (corrupt, clean)])
        measured.append((clean, corrupt, measure))
    lost, whole = ends.tolist()
    if lost == whole:
        raise ProbeError("the clean and the corrupt texts do not differ in the metric: there is nothing to bring back")
    for clean, corrupt, measure in tqdm(measured, desc=f"patching {site}", unit="length", disable=not progress):
        into, of = (clean, corrupt) if noising else (corrupt, clean)
        width = clean.shape[1]
        same = int((clean != corrupt).any(0).nonzero()[0]) - (width - places) if by == "position" else 0
        choices = [_choice(by, place - places) for place in range(max(0, same), places)]
        alone = measure(_logits(model, into)).double().sum().cpu()
        for layer in range(model.n_layers):
            found = _patched(model, source, f"{site}.{layer}", into, of, choices, measure)
            sums[layer] += torch.cat([alone.expand(places - len(found)), found])
    return PatchMap(
        ((sums - lost) / (whole - lost)).float(),
        site,
        by,
        {"metric": metric, "noising": noising, "pairs": len(pairs), "from": source.name, "into": model.name},
    )


def _choice(by: str, place: int) -> tuple[Any, ...]:
    """Of a state ``[pos, ...]`` the part that is exchanged; places are counted from the last."""
    if by == "block":
        return (slice(None),)
    return (slice(None), place) if by == "head" else (place,)


def _patched(
    model: Model, source: Model, site: str, into: Ids, of: Ids, choices: list[tuple[Any, ...]], measure: Metric
) -> Tensor:
    """The metric's sum for each part that is exchanged, many of them in a pass."""
    with capture(source, site) as acts:
        source.hf(of)
    theirs, n, found = acts[site], len(into), []
    several = max(1, _ROWS // n)
    for first in range(0, len(choices), several):
        some = choices[first : first + several]

        def exchange(state: Tensor, some: list[tuple[Any, ...]] = some) -> Tensor:
            state = state.clone()
            for i, choice in enumerate(some):
                block = state[i * n : (i + 1) * n]
                block[:, *choice] = theirs[:, *choice].to(block)
            return state

        with edit(model, {site: Apply(exchange)}):
            logits = _logits(model, into.repeat(len(some), 1))
        found += [measure(logits[i * n : (i + 1) * n]).double().sum().cpu() for i in range(len(some))]
    return torch.stack(found)


def _logits(model: Model, ids: Ids) -> Float[Tensor, "batch last vocab"]:
    """Of the last token alone, which is what metrics look at."""
    return model.hf(ids, logits_to_keep=1).logits
