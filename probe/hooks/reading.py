"""Reading activations: plain forward hooks that hand out the tensors of named sites, and stop once they have them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from probe._errors import ProbeError
from probe.models import Model, Site, place


class Captured(dict[str, Tensor]):
    """What a forward pass had at the sites asked for: ``acts["resid_post.2"]``, ``[batch, pos, d_model]``."""

    def __init__(self, sites: Iterable[Site]) -> None:
        super().__init__()
        self.sites = tuple(sites)

    def __getitem__(self, site: str | Site) -> Float[Tensor, "batch pos d_model"]:
        if site not in self:
            asked, seen = ", ".join(map(str, self.sites)), ", ".join(self) or "none yet"
            raise ProbeError(f"nothing was captured at {site}; asked for: {asked}; seen: {seen}")
        return super().__getitem__(str(site))

    def __contains__(self, site: object) -> bool:
        return super().__contains__(str(site))

    def __repr__(self) -> str:
        return f"Captured({', '.join(f'{site}: {list(tensor.shape)}' for site, tensor in self.items())})"


class _Enough(Exception):
    """Every site has been seen; nothing above them needs to run."""


@contextmanager
def capture(
    model: Model | PreTrainedModel, sites: str | Site | Iterable[str | Site], *, stop: bool = True
) -> Iterator[Captured]:
    """Read sites of a model during the forward passes inside the block.

    >>> with torch.no_grad(), capture(model, ["resid_post.2"]) as acts:  # doctest: +SKIP
    ...     model.hf(input_ids, attention_mask=mask)
    >>> acts["resid_post.2"]  # doctest: +SKIP

    A second pass inside the block replaces what the first one left. The tensors are the model's own, not copies, and
    stay in the autograd graph if there is one: run under ``torch.no_grad()`` unless you want it. A capture opened
    inside an `edit` sees the edited state.

    Args:
        model: The model to read.
        sites: Which sites, as ``"resid_post.2"`` or `Site`.
        stop: Run nothing above the deepest site. The call to the model (``model.hf`` or its trunk) then gives back
            ``None``; with a key/value cache, the layers above get no entries.

    Raises:
        ProbeError: if the model lacks a site, or at the end of the block, if one was not reached.
    """
    hf = model.hf if isinstance(model, Model) else model
    asked = as_sites(sites)
    acts = Captured(asked)
    pending = {str(site) for site in asked}

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(hidden: Tensor) -> None:
            acts[name] = hidden
            pending.discard(name)
            if stop and not pending:
                raise _Enough

        return read

    def begin() -> None:
        pending.update(map(str, asked))

    with ExitStack() as hooks:
        for site in asked:
            hooks.callback(attach(hf, site, reader(str(site))).remove)
        if stop:
            hooks.enter_context(_stopping([hf, hf.base_model], begin))
        with suppress(_Enough):  # a wrapper of the model was called, and the block ends with its pass
            yield acts
    missing = [str(site) for site in asked if site not in acts]
    if missing:
        raise ProbeError(f"no forward pass reached {', '.join(missing)}; call the model inside the capture block")


def as_sites(sites: str | Site | Iterable[str | Site]) -> tuple[Site, ...]:
    """One site or several, as text or not, each once."""
    several = [sites] if isinstance(sites, str | Site) else sites
    return tuple(dict.fromkeys(Site.parse(site) for site in several))


def attach(hf: PreTrainedModel, site: Site, act: Callable[[Any], Any]) -> RemovableHandle:
    """Have ``act`` called with the tensor at ``site`` on every pass; what it returns, unless ``None``, takes its place.

    This is the only place that knows how modules are given their input and how they return their output.
    """
    where = place(hf, site)
    module = hf.get_submodule(where.module)

    def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        new = act(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    def on_output(_: nn.Module, __: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
        if isinstance(output, Tensor):
            return act(output)
        new = act(output[0])
        return None if new is None else (new, *output[1:])

    if where.side == "input":
        return module.register_forward_pre_hook(on_input, with_kwargs=True)
    return module.register_forward_hook(on_output)


@contextmanager
def _stopping(callers: Iterable[nn.Module], begin: Callable[[], None]) -> Iterator[None]:
    """Let a call to one of these modules end quietly, with ``None``, when a hook has seen enough.

    Callers may be nested (a model and its trunk): the one that was called from outside is the one that ends.
    """
    running = False

    def ending(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal running
            if running:
                return forward(*args, **kwargs)
            running = True
            begin()
            try:
                return forward(*args, **kwargs)
            except _Enough:
                return None
            finally:
                running = False

        return run

    with ExitStack() as undo:
        for module in dict.fromkeys(callers):
            undo.callback(_restore_forward, module, module.__dict__.get("forward"))
            module.forward = ending(module.forward)
        yield


def _restore_forward(module: nn.Module, own: Callable[..., Any] | None) -> None:
    """Undo a change of ``module.forward``; ``own`` is what the instance had, if it had one beside its class's."""
    if own is None:
        del module.forward
    else:
        module.forward = own
