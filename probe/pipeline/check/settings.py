"""Checks of a config against the weights: no other value of a setting may predict text better.

Training fits the weights to the settings they were trained with. So the loss is near its minimum at the right rotary
base, norm epsilon, activation, scale of the attention and order of the blocks, and a config that has another value
shows itself: the loss falls when the setting is moved towards the right one. No reference is needed, only a text that
the model was trained to predict.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.activations import ACT2FN

from probe.errors import NotApplicable
from probe.pipeline.check.bench import Bench
from probe.pipeline.check.checks import Check
from probe.pipeline.check.language import worse_by
from probe.pipeline.check.texts import Text

_GROUP = "language"
_LIMIT = 0.03
"""Another value of a setting may be better by so much, in nats for each token: quantised and fine-tuned weights are not
quite at the minimum."""
_STEP = 8.0
"""The factor between the rotary bases that are tried."""
_SCREEN_TOKENS, _SCREENED = 48, 3
"""Of the pairs of blocks, so many are compared on more tokens: those that lose least on a few."""
_ORDER_TOKENS = 128
_ORDER_WORK = 2e13
"""The most floating-point operations on a CPU for the check of the order of blocks, about a minute."""


@dataclass(frozen=True)
class _Other:
    """Another value of a setting."""

    name: str
    """The setting and the value, as in a sentence."""
    applied: Callable[[], AbstractContextManager[object]]
    """Makes a block in which the model has this value."""
    then: Callable[[], "_Other | None"] = lambda: None
    """The value to try next if this one is better."""


def _compared(
    bench: Bench, name: str, others: Sequence[_Other], fix: str, texts: Sequence[Text] | None = None
) -> Check:
    """Compare the loss of the model as it is with its loss under other values of a setting."""
    own = bench.own_losses if texts is None else bench.losses(texts)
    best, better, limit = "", -float("inf"), _LIMIT
    waiting = list(others)
    while waiting:
        other = waiting.pop(0)
        with other.applied():
            gain, most = worse_by(own, bench.losses(texts), _LIMIT)
        if gain > better:
            best, better, limit = other.name, gain, most
            if gain > _LIMIT and (following := other.then()) is not None:
                waiting.append(following)
    loss = float(own.mean())
    failed = better > limit
    if not bench.predicts:
        if loss - better > bench.loss_limit:
            raise NotApplicable("the model does not predict the texts, with these settings or with others")
        failed = True
    return Check(
        _GROUP,
        name,
        "failed" if failed else "passed",
        f"with {best}, the loss falls from {loss:.2f} to {loss - better:.2f} nats a token; {fix}"
        if failed
        else f"no other value tried predicts the texts better (the best, {best}: {_signed(-better)} nats a token)",
        better,
        limit,
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def rotary_base(bench: Bench) -> Check:
    """No other rotary base predicts the texts better."""
    hf: Any = bench.model.hf
    config = hf.config.get_text_config()
    if bench.model.longest_text is not None:
        raise NotApplicable("its rotary frequencies depend on the length of the text")
    ropes = _ropes(config)
    if not ropes or not list(_rotary(hf)):
        raise NotApplicable("the model has no rotary positions")

    def based(kind: str | None, factor: float) -> _Other:
        value = ropes[kind] * factor
        said = f"rope_theta {value:.3g}" + (f" in blocks of {kind}" if kind else "")
        following = factor * (_STEP if factor > 1 else 1 / _STEP)
        return _Other(
            said,
            lambda: _rotated(hf, kind, value),
            lambda: based(kind, following) if 1e-4 < following < 1e4 else None,
        )

    others = [based(kind, factor) for kind in ropes for factor in (1 / _STEP, _STEP)]
    fix = (
        "rope_theta in config.json is not the one that the weights were trained with; take that of the published model"
    )
    return _compared(bench, "rotary base", others, fix)


def _ropes(config: Any) -> dict[str | None, float]:
    """The rotary base, by kind of block or for all."""
    found = getattr(config, "rope_parameters", None) or {}
    if "rope_theta" in found:
        return {None: float(found["rope_theta"])}
    return {
        kind: float(each["rope_theta"])
        for kind, each in found.items()
        if isinstance(each, dict) and each.get("rope_theta") and kind in (getattr(config, "layer_types", None) or ())
    }


def _rotary(hf: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The modules that rotate, each with its parent and its name there."""
    for parent in hf.modules():
        for name, child in parent.named_children():
            if type(child).__name__.endswith("RotaryEmbedding") and hasattr(child, "config"):
                yield parent, name, child


@contextmanager
def _rotated(hf: Any, kind: str | None, base: float) -> Iterator[None]:
    """Rotate with another base in a block."""
    with ExitStack() as undo:
        for parent, name, child in list(_rotary(hf)):
            changed: Any = copy.deepcopy(getattr(child, "config"))  # noqa: B009 - a module's attribute
            ropes = changed.rope_parameters
            (ropes if kind is None else ropes[kind])["rope_theta"] = base
            made: Any = type(child)(config=changed)
            buffer = next(child.buffers(), None)
            undo.enter_context(_child(parent, name, made if buffer is None else made.to(buffer.device)))
        yield


@contextmanager
def _child(parent: nn.Module, name: str, new: nn.Module) -> Iterator[None]:
    """Put another module in the place of a child in a block."""
    old = parent._modules[name]
    parent._modules[name] = new
    try:
        yield
    finally:
        parent._modules[name] = old


@contextmanager
def _attributes(modules: Sequence[nn.Module], name: str, value: Callable[[float], float]) -> Iterator[None]:
    """Give modules another value of an attribute in a block."""
    before = [getattr(module, name) for module in modules]
    for module, old in zip(modules, before, strict=True):
        setattr(module, name, value(old))
    try:
        yield
    finally:
        for module, old in zip(modules, before, strict=True):
            setattr(module, name, old)


def norm_epsilon(bench: Bench) -> Check:
    """No other epsilon of the norms predicts the texts better."""
    modules = [module for module in bench.model.hf.modules() if "Norm" in type(module).__name__]
    names = ("variance_epsilon", "eps")
    name = next((each for each in names if any(hasattr(module, each) for module in modules)), names[0])
    having = [module for module in modules if isinstance(getattr(module, name, None), float)]
    if not having:
        raise NotApplicable("the norms have no epsilon")
    own = getattr(having[0], name)
    others = [
        _Other(
            f"a norm epsilon of {own * factor:.0e}",
            lambda factor=factor: _attributes(having, name, lambda e: e * factor),
        )
        for factor in (1e-3, 1e2)
    ]
    fix = "the epsilon of the norms in config.json (rms_norm_eps) is not the one that the weights were trained with"
    return _compared(bench, "norm epsilon", others, fix)


def attention_scale(bench: Bench) -> Check:
    """No other scale of the attention scores predicts the texts better."""
    having = [
        module
        for module in bench.model.hf.modules()
        if "Attention" in type(module).__name__ and isinstance(getattr(module, "scaling", None), float)
    ]
    if not having:
        raise NotApplicable("the attention has no scale that can be changed")
    others = [
        _Other(
            f"attention scores {factor} times as large",
            lambda factor=factor: _attributes(having, "scaling", lambda scale: scale * factor),
        )
        for factor in (0.7, 1.4)
    ]
    fix = "the scale of the attention (head_dim, query_pre_attn_scalar or attention_multiplier in config.json) is wrong"
    return _compared(bench, "attention scale", others, fix)


def activation(bench: Bench) -> Check:
    """No other activation of the MLPs predicts the texts better."""
    hf: Any = bench.model.hf
    own = str(getattr(hf.config.get_text_config(), "hidden_act", None) or "")
    places = [
        (parent, name)
        for parent in hf.modules()
        for name, child in parent.named_children()
        if name in ("act_fn", "act", "activation_fn") and not list(child.children()) and not list(child.parameters())
    ]
    if not places:
        raise NotApplicable("the model has no activation that can be exchanged")

    @contextmanager
    def with_activation(name: str) -> Iterator[None]:
        with ExitStack() as undo:
            for parent, child in places:
                undo.enter_context(_child(parent, child, ACT2FN[name]))
            yield

    kind = type(places[0][0]._modules[places[0][1]])
    others = [
        _Other(f"the activation {name}", lambda name=name: with_activation(name))
        for name in ("silu", "gelu_pytorch_tanh", "relu")
        if type(ACT2FN[name]) is not kind
    ]
    fix = f"hidden_act ({own}) in config.json is not the one that the weights were trained with"
    return _compared(bench, "activation", others, fix)


def unembedding(bench: Bench) -> Check:
    """The unembedding of its own predicts the texts better than the embedding in its place."""
    hf: Any = bench.model.hf
    head, embedding = hf.get_output_embeddings(), hf.get_input_embeddings()
    if head is None or head.weight.shape != embedding.weight.shape:
        raise NotApplicable("the unembedding has another shape than the embedding")
    if head.weight is embedding.weight:
        raise NotApplicable("the unembedding is the embedding")

    @contextmanager
    def with_embedding() -> Iterator[None]:
        own = head.weight
        head.weight = embedding.weight
        try:
            yield
        finally:
            head.weight = own

    others = [_Other("the embedding as the unembedding", with_embedding)]
    fix = "the unembedding in the checkpoint is damaged or was never trained; set tie_word_embeddings to true"
    return _compared(bench, "unembedding", others, fix)


def order(bench: Bench) -> Check:
    """No two neighbouring blocks predict the texts better when they are exchanged."""
    model = bench.model
    config: Any = model.hf.config
    work = 2.0 * model.hf.num_parameters() * _SCREEN_TOKENS * (model.n_layers - 1)
    if model.device.type == "cpu" and work > _ORDER_WORK:
        raise NotApplicable(f"{model.n_layers - 1} pairs of blocks take too long on a CPU; use a GPU")
    kinds = list(getattr(config.get_text_config(), "layer_types", None) or [None] * model.n_layers)
    layers = model.layers

    @contextmanager
    def exchanged(at: int) -> Iterator[None]:
        one, two = layers[at], layers[at + 1]
        layers[at], layers[at + 1] = two, one
        try:
            yield
        finally:
            layers[at], layers[at + 1] = one, two

    others = [
        _Other(f"blocks {at} and {at + 1} exchanged", lambda at=at: exchanged(at))
        for at in range(model.n_layers - 1)
        if kinds[at] == kinds[at + 1]
    ]
    if not others:
        raise NotApplicable("neighbouring blocks are of different kinds")
    before, ids = bench.texts[0]
    few = [(before, ids[:_SCREEN_TOKENS])]
    gains = []
    for other in others:
        with other.applied():
            gains.append(-float(bench.losses(few).mean()))
    likeliest = sorted(range(len(others)), key=gains.__getitem__)[-_SCREENED:]
    others = [others[at] for at in sorted(likeliest)]
    texts = [(before, ids[:_ORDER_TOKENS])]
    fix = "the weights of these blocks are in the wrong places; convert the checkpoint again"
    return _compared(bench, "order of blocks", others, fix, texts)
