"""Reading activations: `capture` records the tensors of named sites during forward passes."""

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
    """Record sites of a model during the forward passes inside the block.

    Example::

        import torch, probe

        model = probe.load_pair("tiny-rl").base
        ids = torch.tensor([model.prompt_ids("Tom has 2 cards. He finds 3 more. How many?")])
        with torch.no_grad(), probe.capture(model, ["resid_post.2", "z.1"], tokens=probe.Tokens(positions=-1)) as acts:
            model.hf(ids)
        acts["resid_post.2"]  # [token, d_model]: the last token of the prompt
        acts["z.1"]  # [token, n_heads, d_head]

    A pass on a filled key/value cache is appended to the text before it; a pass that begins a text replaces what was
    captured. The tensors are the model's own, not copies. A capture opened inside an `edit` sees the edited state. Only
    one thread at a time may run a model inside the block.

    Args:
        sites: site names such as ``"resid_post.2"``, `Site` objects, or module paths (``"model.layers.2.mlp.act_fn"``).
        tokens: which tokens to keep, as ``[token, ...]`` row by row; `Captured.rows` and `Captured.positions` identify
            them. None: whole tensors, padding included.
        pool: pool the tokens of each row (of each span, if ``tokens`` names spans) to one vector: ``mean``, ``sum``,
            ``max`` or ``last``.
        stop: run nothing above the deepest site, unless another open block needs it. The model's output is then
            unusable. Calls with a key/value cache or ``use_cache=True``, such as ``generate``, always run in full.
        grad: keep the autograd graph, so that `Captured.grad` gives the gradients after ``backward()``.
        prompt_width: the number of columns of the prompt, if you run the prompt in several passes yourself.

    Returns:
        A context manager that gives a `Captured`.

    Raises:
        ProbeError: if the model lacks a site; at the end of the block, if a site was never reached or a clause of
            ``tokens`` selected nothing.
    """
    if grad and isinstance(model, Model):
        model.check_gradient("capture(grad=True)")
    hf = as_hf(model)
    asked = as_sites(sites)
    if not asked:
        raise ProbeError("nothing to capture; give at least one site")
    for site in asked:
        place(hf, site)
        if not site.by_token and (tokens is not None or pool is not None):
            raise ProbeError(f"{site} has one value for each pair of tokens; capture it whole, without tokens and pool")
    reader = _Reader(hf, asked, None if tokens is None else Selector(tokens), pool, stop, grad, prompt_width)
    with ExitStack() as hooks:
        for site in asked:
            hooks.callback(attach(hf, site, reader.at(site)))
        hooks.enter_context(reader.passes.open(reader))
        with suppress(Enough):  # raised through a wrapper of the model; the block ends with its pass
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
        """Make the hook of a site."""

        def read(hidden: Tensor) -> Tensor | None:
            if self.passes.quiet:
                return None
            now = None if self._selector is None else self.passes.now(self._prompt_width)
            self.acts.take(site, hidden, now, self.passes.some_rows)
            self._reached.add(site)
            self._pending.discard(site)
            self.passes.reached()
            # What was read may be a view outside the graph; returning it makes the model continue with it.
            return hidden if self._grad else None

        return read

    def close(self) -> None:
        """Check the capture at the end of its block.

        Raises:
            ProbeError: if a site was never reached or a clause selected nothing.
        """
        check_reached(self._sites, self._reached, "capture")
        if self._selector is not None:
            self._selector.forget()
            self._selector.check()


def as_sites(sites: str | Site | Iterable[str | Site]) -> tuple[Site, ...]:
    """Parse one site or several, each once and in order.

    Args:
        sites: names or `Site` objects.
    """
    several = [sites] if isinstance(sites, str | Site) else sites
    return tuple(dict.fromkeys(Site.parse(site) for site in several))
