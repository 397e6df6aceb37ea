"""Reading activations: forward hooks that hand out the tensors of named sites, and stop once they have them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from torch import Tensor, nn
from transformers import PreTrainedModel

from probe.errors import ProbeError
from probe.hooks.attach import as_hf, attach
from probe.hooks.captured import Captured, Pool
from probe.hooks.passes import Enough, check_reached, passes_of
from probe.hooks.selection import Selection, Selector, Tokens
from probe.models import Model, Site, place


@contextmanager
def capture(
    model: Model | nn.Module,
    sites: str | Site | Iterable[str | Site],
    *,
    tokens: Tokens | Selection | None = None,
    pool: Pool | None = None,
    stop: bool = True,
    grad: bool = False,
    prompt_width: int | None = None,
) -> Iterator[Captured]:
    """Read sites of a model during the forward passes inside the block.

    >>> with torch.no_grad(), capture(model, ["resid_post.2"]) as acts:  # doctest: +SKIP
    ...     model.hf(input_ids, attention_mask=mask)
    >>> acts["resid_post.2"]  # [batch, pos, d_model]  # doctest: +SKIP
    >>> last = Tokens(positions=-1)
    >>> with capture(model, ["resid_post.2", "z.1"], tokens=last) as acts:  # doctest: +SKIP
    ...     model.hf.generate(**batch)
    >>> acts["z.1"]  # [row, n_heads, d_head]  # doctest: +SKIP

    A pass that goes on with a text (on a key/value cache) is added to what was captured of it, one that begins a text
    replaces what was there. The tensors are the model's own, not copies. A capture opened inside an `edit` sees the
    edited state. One thread at a time may run a model that is being read.

    Args:
        model: The model to read.
        sites: Which sites, as ``"resid_post.2"``, `Site`, or a module's path (``"model.layers.2.mlp.act_fn"``).
        tokens: Which tokens; the captured are then ``[token, ...]``, row by row, and `Captured.rows` and
            `Captured.positions` say which they are. Without, whole tensors, padding and all.
        pool: One vector a row, or a span where ``tokens`` names spans: their ``mean``, ``sum``, ``max`` or ``last``.
        stop: Run nothing above the deepest site, unless another open block wants it. The call to the model
            (``model.hf`` or its trunk) then gives nothing to use. Calls on a key/value cache or with
            ``use_cache=True``, and so ``generate``, are run whole.
        grad: Keep the autograd graph, and let `Captured.grad` give the gradient at the sites after ``backward()``.
        prompt_width: How many columns the prompt has, if it is run in several passes of your own.

    Raises:
        ProbeError: if the model lacks a site; at the end of the block, if one was not reached or a clause of ``tokens``
            selected nothing.
    """
    hf = as_hf(model)
    asked = as_sites(sites)
    if not asked:
        raise ProbeError("there is nothing to capture; give at least one site")
    for site in asked:
        place(hf, site)
        if not site.by_token and (tokens is not None or pool is not None):
            raise ProbeError(f"{site} has a state for each pair of tokens: capture it whole, without tokens and pool")
    reader = _Reader(hf, asked, None if tokens is None else Selector(tokens), pool, stop, grad, prompt_width)
    with ExitStack() as hooks:
        for site in asked:
            hooks.callback(attach(hf, site, reader.at(site)))
        hooks.enter_context(reader.passes.open(reader))
        with suppress(Enough):  # a wrapper of the model was called, and the block ends with its pass
            yield reader.acts
    reader.close()


class _Reader:
    """An open capture."""

    reads = True

    def __init__(
        self,
        hf: PreTrainedModel,
        sites: tuple[Site, ...],
        selector: Selector | None,
        pool: Pool | None,
        stop: bool,
        grad: bool,
        prompt_width: int | None,
    ) -> None:
        self.acts = Captured(sites, selector, pool, grad)
        self.passes = passes_of(hf)
        self.may_stop = stop
        self.selects = selector is not None
        self._sites, self._selector, self._grad, self._prompt_width = sites, selector, grad, prompt_width
        self._pending: set[Site] = set()
        self._reached: set[Site] = set()

    def begin(self, past: int) -> None:
        self._pending = set(self._sites)
        self.acts.begin(past)

    def waits(self) -> bool:
        return bool(self._pending)

    def at(self, site: Site) -> Callable[[Tensor], Tensor | None]:
        """What is called with the state at a site."""

        def read(hidden: Tensor) -> Tensor | None:
            now = None if self._selector is None else self.passes.now(self._prompt_width)
            self.acts.take(site, hidden, now, self.passes.some_rows)
            self._reached.add(site)
            self._pending.discard(site)
            self.passes.reached()
            # What was read may be a view beside the graph; handed back, it is what the model goes on with.
            return hidden if self._grad else None

        return read

    def close(self) -> None:
        """Refuse what was never reached or selected.

        Raises:
            ProbeError: naming it.
        """
        check_reached(self._sites, self._reached, "capture")
        if self._selector is not None:
            self._selector.forget()
            self._selector.check()


def as_sites(sites: str | Site | Iterable[str | Site]) -> tuple[Site, ...]:
    """One site or several, as text or not, each once."""
    several = [sites] if isinstance(sites, str | Site) else sites
    return tuple(dict.fromkeys(Site.parse(site) for site in several))
