"""Fitting a Jacobian lens on a model by hooks, with as many rows of each Jacobian at a time as fit into memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.activations import Document, documents_of
from probe.circuits.lenses.jacobian import ABOUT, JacobianLens, weights_of
from probe.errors import ProbeError
from probe.files import object_hash, read_tensors, write_tensors
from probe.hooks import capture
from probe.models import Model, Sizes, check_frequencies, halving
from probe.progress import progress_bar
from probe.traces import Traces

_EVERY = 8
"""Texts after which the sums are written to the folder."""
_MOST_ROWS = 32
"""The most rows of a Jacobian that one backward pass computes; more are not faster."""


def fit_jacobian_lens(
    model: Model,
    texts: Traces | Sequence[Document | str | Sequence[int]],
    *,
    source: str = "",
    layers: Sequence[int] | None = None,
    max_tokens: int = 128,
    skip: int = 16,
    folder: str | Path | None = None,
    progress: bool = False,
) -> JacobianLens:
    """Fit a Jacobian lens: the mean derivative of the last block's output with respect to each other block's output.

    For each text, the derivatives of the outputs at all later tokens are summed and averaged over the tokens that are
    read; texts count equally. This is the estimator of Gurnee et al. (2026), as in TransformerLens. About 100 texts of
    128 tokens are usable; published lenses have up to 1,000. A text costs one forward pass and about ``d_model`` rows
    of backward passes.

    Args:
        model: best in float32; in bfloat16 the derivatives are rounded.
        texts: traces (read with their prompts), texts, token ids or documents.
        source: where the texts are from, for the record.
        layers: the blocks that get a matrix, counted from 0; None for all but the last.
        max_tokens: the number of tokens of each text that are read.
        skip: the number of tokens at the beginning that are left out, because models treat them in their own way. The
            last token is left out too.
        folder: where the lens is saved. Interrupted fitting resumes there, and a finished lens of the same model, texts
            and settings is read from it.
        progress: show a progress bar.

    Raises:
        ProbeError: if a block does not exist or is the last one, no text is longer than ``skip`` and one token, or the
            folder holds another lens.
    """
    model.check_gradient("fitting a Jacobian lens")
    last = model.n_layers - 1
    asked = tuple(range(last)) if layers is None else tuple(sorted(set(layers)))
    if not asked or asked[0] < 0 or asked[-1] >= last:
        raise ProbeError(
            f"a Jacobian lens of {model.name} is for some of the blocks 0 to {last - 1}; got {list(asked)}"
        )
    if skip < 0 or max_tokens < skip + 2:
        raise ProbeError(f"max_tokens is {max_tokens}; after the first {skip} at least two tokens must be left")
    rows = [list(document.ids[:max_tokens]) for document in documents_of(model, texts)]
    long = [ids for ids in rows if len(ids) > skip + 1]
    if not long:
        raise ProbeError(f"no text has more than {skip + 1} tokens; give longer texts, or a smaller skip")
    model.check_ids(long)
    check_frequencies(model.hf, max(map(len, long)))
    weights = weights_of(model)
    settings = {"layers": asked, "max_tokens": max_tokens, "skip": skip, "dtype": str(model.dtype)}
    key = object_hash([weights, long, settings])
    sums = _Sums(model, asked, None if folder is None else Path(folder), key)
    if (done := sums.finished()) is not None:
        return done
    for ids in progress_bar(
        sums.left(long), desc="Jacobian lens", unit="text", initial=sums.n, total=len(long), show=progress
    ):
        text = torch.tensor(ids, device=model.device)
        found = halving(
            lambda several, text=text: text_jacobian(model, text, asked, skip, several),
            _rows_that_fit(model, len(ids)),
            device=model.device,
            what=f"fitting a Jacobian lens of {model.name}",
        )
        sums.add(found)
    lens = JacobianLens(
        {layer: total / sums.n for layer, total in sums.total.items()},
        model.name,
        model.n_layers,
        {
            "n_texts": sums.n,
            "texts": source,
            "max_tokens": max_tokens,
            "skip": skip,
            "dtype": str(model.dtype).removeprefix("torch."),
            "key": key,
        },
        weights=weights,
    )
    sums.finish(lens)
    return lens


def text_jacobian(
    model: Model, ids: Int[Tensor, " pos"], layers: Sequence[int], skip: int, several: int
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """The derivative of the last block's output with respect to the outputs of some blocks, for one text.

    Args:
        ids: the text.
        layers: the blocks, counted from 0, in ascending order.
        skip: the number of tokens at the beginning that are left out.
        several: the number of rows that are computed at a time.

    Returns:
        For each block, derivatives summed over the tokens of the last block's output, and averaged over the tokens of
        the block's own, in float32 on the CPU.
    """
    target, sites = f"resid_post.{model.n_layers - 1}", [f"resid_post.{layer}" for layer in layers]
    read, several = slice(skip, len(ids) - 1), min(several, model.d_model)
    found = {layer: torch.zeros(model.d_model, model.d_model) for layer in layers}
    # Each row of the batch is the same text, and computes another row of the Jacobian.
    with torch.enable_grad(), capture(model, [*sites, target], grad=True) as acts:
        model.hf(ids.expand(several, -1), use_cache=False, logits_to_keep=1)
    end, begins = acts[target], [acts[site] for site in sites]
    towards = torch.zeros_like(end)
    for first in range(0, model.d_model, several):
        size = min(several, model.d_model - first)
        each = torch.arange(size, device=end.device)
        towards.zero_()
        towards[each, read, first + each] = 1
        more = first + several < model.d_model
        slopes = torch.autograd.grad(end, begins, towards, retain_graph=more)
        for layer, slope in zip(layers, slopes, strict=True):
            found[layer][first : first + size] = slope[:size, read].float().mean(1).cpu()
    return found


def _rows_that_fit(model: Model, width: int) -> int:
    """The number of rows of a Jacobian that fit into the model's budget at once, at least 1."""
    sizes, size = Sizes.of(model.hf.config), model.dtype.itemsize
    # What a block keeps for its backward pass, and its pattern where attention is computed in the eager way.
    block = width * (size * (16 * model.d_model + 6 * sizes.d_mlp) + 4 * sizes.scanned)
    block += width**2 * sizes.heads * (2 * size + 4)
    return max(1, min(_MOST_ROWS, model.d_model, model.budget // 2 // (block * model.n_layers)))


class _Sums:
    """The sums of Jacobians over texts, which a folder keeps while they grow."""

    def __init__(self, model: Model, layers: Sequence[int], folder: Path | None, key: str) -> None:
        self.total = {layer: torch.zeros(model.d_model, model.d_model) for layer in layers}
        self.n = 0
        self._folder, self._key = folder, key
        self._part = None if folder is None else folder / f".{key[:16]}.safetensors"
        if self._part is not None and self._part.exists():
            kept = read_tensors(self._part)
            self.n = int(kept.pop("n_texts"))
            self.total = {int(layer): total.clone() for layer, total in kept.items()}

    def finished(self) -> JacobianLens | None:
        """The finished lens in the folder.

        Raises:
            ProbeError: if the lens there is another.
        """
        if self._folder is None or not (self._folder / ABOUT).exists():
            return None
        lens = JacobianLens.load(self._folder)
        if lens.fitted.get("key") != self._key:
            raise ProbeError(
                f"{self._folder} holds a lens of {lens.model} with other texts or settings; name another folder"
            )
        return lens

    def left(self, rows: Sequence[list[int]]) -> Iterator[list[int]]:
        """The texts that are not in the sums yet."""
        yield from rows[self.n :]

    def add(self, found: dict[int, Tensor]) -> None:
        """Add the Jacobians of the next text."""
        for layer, each in found.items():
            self.total[layer] += each
        self.n += 1
        if self._part is not None and self.n % _EVERY == 0:
            kept = {str(layer): total for layer, total in self.total.items()}
            write_tensors(self._part, kept | {"n_texts": torch.tensor(self.n)})

    def finish(self, lens: JacobianLens) -> None:
        """Save the finished lens, and remove the sums."""
        if self._folder is not None and self._part is not None:
            lens.save(self._folder)
            self._part.unlink(missing_ok=True)
