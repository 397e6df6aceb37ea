"""Reading activations: forward hooks that hand out the tensors of named sites, and stop once they have them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from probe._errors import ProbeError
from probe.hooks.attach import attach
from probe.hooks.captured import Captured, Pool
from probe.hooks.passes import Passes, replaced
from probe.hooks.selection import Selection, Selector, Tokens
from probe.models import Model, Site, place


class _Enough(Exception):
    """Every site has been seen; nothing above them needs to run."""


@contextmanager
def capture(
    model: Model | PreTrainedModel,
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
    edited state.

    Args:
        model: The model to read.
        sites: Which sites, as ``"resid_post.2"``, `Site`, or a module's path (``"model.layers.2.mlp.act_fn"``).
        tokens: Which tokens; the captured are then ``[token, ...]``, row by row, and `Captured.rows` and
            `Captured.positions` say which they are. Without, whole tensors, padding and all.
        pool: One vector a row, or a span where ``tokens`` names spans: their ``mean``, ``sum``, ``max`` or ``last``.
        stop: Run nothing above the deepest site. The call to the model (``model.hf`` or its trunk) then gives back
            ``None``. Calls on a key/value cache or with ``use_cache=True``, and so ``generate``, are run whole.
        grad: Keep the autograd graph, and let `Captured.grad` give the gradient at the sites after ``backward()``.
        prompt_width: How many columns the prompt has, if it is run in several passes of your own.

    Raises:
        ProbeError: if the model lacks a site; at the end of the block, if one was not reached or a clause of ``tokens``
            selected nothing.
    """
    hf = model.hf if isinstance(model, Model) else model
    asked = as_sites(sites)
    if not asked:
        raise ProbeError("there is nothing to capture; give at least one site")
    for site in asked:
        place(hf, site)
        if not site.by_token and (tokens is not None or pool is not None):
            raise ProbeError(f"{site} has a state for each pair of tokens: capture it whole, without tokens and pool")
    passes, selector = Passes(prompt_width), None if tokens is None else Selector(tokens)
    acts = Captured(asked, passes, selector, pool, grad)
    pending = {str(site) for site in asked}

    def reader(site: Site) -> Callable[[Tensor], Tensor | None]:
        name = str(site)

        def read(hidden: Tensor) -> Tensor | None:
            acts._take(name, hidden)
            pending.discard(name)
            if cutting and not pending:
                raise _Enough
            # What was read may be a view beside the graph; handed back, it is what the model goes on with.
            return hidden if grad else None

        return read

    cutting: list[bool] = []

    @contextmanager
    def one_pass(cut: bool) -> Iterator[None]:
        pending.update(map(str, asked))
        cutting[:] = [True] if cut else []
        try:
            yield
        finally:
            cutting.clear()

    with ExitStack() as hooks:
        for site in asked:
            hooks.callback(attach(hf, site, reader(site)))
        hooks.enter_context(passes.follow(hf))
        if stop:
            for undo in _stopping(hf, passes, one_pass):
                hooks.enter_context(undo)
        with suppress(_Enough):  # a wrapper of the model was called, and the block ends with its pass
            yield acts
    missing = [str(site) for site in asked if site not in acts]
    if missing:
        raise ProbeError(f"no forward pass reached {', '.join(missing)}; call the model inside the capture block")
    if selector is not None:
        selector.check()


def as_sites(sites: str | Site | Iterable[str | Site]) -> tuple[Site, ...]:
    """One site or several, as text or not, each once."""
    several = [sites] if isinstance(sites, str | Site) else sites
    return tuple(dict.fromkeys(Site.parse(site) for site in several))


def _stopping(hf: PreTrainedModel, passes: Passes, one_pass: Callable[[bool], Any]) -> Iterator[Any]:
    """Let a call to the model or its trunk end quietly, with ``None``, when a hook has seen enough.

    Of the two nested calls, the one that was made from outside is the one that ends.
    """
    running = False

    def ending(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal running
            if running:
                return forward(*args, **kwargs)
            running = True
            try:
                cached = kwargs.get("past_key_values") is not None or kwargs.get("use_cache")
                with one_pass(not (cached or passes.generating)):
                    return forward(*args, **kwargs)
            except _Enough:
                return None
            finally:
                running = False

        return run

    callers: tuple[nn.Module, ...] = (hf, hf.base_model)
    for module in dict.fromkeys(callers):
        yield replaced(module, "forward", ending)
