"""The arms of a run and what is learned for them alone, each with what it takes."""

from collections.abc import Iterable
from dataclasses import replace

from probe.hybrid import LATENT_SEEK
from probe.pipeline.plan.costs import Need, decoded_row, decoding, reading, training
from probe.pipeline.plan.stages import (
    STEERED,
    Setup,
    learning_need,
    learning_passes,
    policy,
    prefix_passes,
)
from probe.pipeline.plan.work import Passes, Stage

_ALONE = ("oracle-free", "bias", "budget", "intervention", "addition")
"""Arms that are decoded by the base model alone."""
_ON_THINKING = ("budget-on-thinking", "intervention-on-thinking", "addition-on-thinking")
"""Arms that are decoded by the thinking model alone."""
_ADDITIONS = ("addition", "addition-on-thinking")
"""Arms whose vector is a difference of means over both models' answers."""
_WRITTEN = ("lora", "lora-rank-1", "majority", "few-shot", "handbook")
"""Arms that are decoded in another way than token by token with the parts of a hybrid."""
_STEERED = {"oracle-free": STEERED, **dict.fromkeys(("bias", *_ADDITIONS), 1.0)}
"""The share of tokens at which the layers above the steering layer run again."""
_GATES = ("rank-1",)
"""Mechanisms that are learned at the gates of the hybrid."""
_ANSWERS = 2
"""Answers to each problem of which the arm majority takes the most frequent; both models together run as many."""
_HANDBOOK = 1000
"""Tokens of the description of behaviours in the prompt of the arm handbook."""
_CHECKS, _INSTRUCTION = 4, 150
"""Verifications of an answer in the arm latent-seek, and the tokens of what each asks."""
_STARTS, _WRITTEN_ON, _FLIP_ROWS = 100, 48, 128
"""Sentence starts at which vectors are tried, the tokens written there, and how many are decoded together."""
_TRACE, _TRACE_FILE = 150, 50
"""Bytes of the machine's memory, and on disk, for what is recorded of each token of an arm."""


def arms(setup: Setup) -> list[Stage]:
    """The stages of all arms, of what is learned for them, and of what follows them."""
    config = setup.config
    names = [*config.hybrid.names, *(f"hybrid-seed-{seed}" for seed in config.steering.seeds[1:])]
    alone = [name for name in names if name in _ALONE]
    on_thinking = [name for name in names if name in _ON_THINKING]
    joint = [name for name in names if name not in (*_ALONE, *_ON_THINKING, *_WRITTEN, *LATENT_SEEK)]
    found = [_joint(setup, joint)]
    if "oracle-free" in names:
        found.append(policy(setup))
    found += [_at_gates(setup, name) for name in names if name in _GATES]
    if any(name.startswith("v2") for name in names):
        found.append(_v2(setup))
    if "bias" in names:
        found.append(_on_sentences(setup, "bias", 1))
    if any(name.startswith("v1") for name in names):
        found.append(_on_sentences(setup, "v1", 2))
    found += [_lora(setup, name) for name in names if name in ("lora", "lora-rank-1")]
    found += [_differences(setup, name) for name in names if name in _ADDITIONS]
    if alone:
        found.append(_alone(setup, alone, "base"))
    if on_thinking:
        found.append(_alone(setup, on_thinking, "thinking"))
    found += [_written(setup, name) for name in names if name in _WRITTEN]
    found += [_latent_seek(setup, name) for name in names if name in LATENT_SEEK]
    return [*found, _effects(setup), _report(setup, len(names))]


def _folders(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"arms/{name}" for name in names)


def _disk(setup: Setup, n: int) -> float:
    return n * setup.answers * setup.texts.tokens * _TRACE_FILE


def _host(setup: Setup, n: int) -> float:
    """Traces and the results of arms stay in memory until the report is written."""
    return setup.kept_traces + n * setup.answers * setup.texts.tokens * _TRACE


def _decoded(setup: Setup, role: str, times: float, prompt: int | None = None) -> tuple[Passes, Need]:
    """The passes and the memory of decoding the test problems."""
    shape, texts, n = setup.shape(role), setup.texts, setup.answers
    prompt = texts.prompt if prompt is None else prompt
    rows = min(n, setup.config.decoding.batch_size)
    row = decoded_row(shape, prompt + texts.tokens)
    passes = Passes(times * n * prompt, times * n * texts.tokens, rows, row)
    return passes, decoding(shape, rows, prompt + texts.tokens, prompt)


def _joint(setup: Setup, names: list[str]) -> Stage:
    base, need = _decoded(setup, "base", len(names))
    thinking, other = _decoded(setup, "thinking", len(names))
    share = setup.above / setup.base.layers
    again = STEERED * share * base.decoded
    searched = sum(_searches(setup, name) for name in names)
    return Stage(
        f"{len(names)} hybrid arms" if len(names) > 1 else "hybrid",
        _folders(names),
        {"base": replace(base, decoded=base.decoded + again, read=base.read + searched), "thinking": thinking},
        {"base": need, "thinking": other},
        together=True,
        host=_host(setup, len(names)),
        disk=_disk(setup, len(names)),
        says=f"both models at each token; {STEERED:.0%} of the tokens are assumed to be steered",
    )


def _searches(setup: Setup, name: str) -> float:
    """Tokens that the search of version 1 runs: at each steered token the whole text, for every strength and window."""
    if not name.startswith("v1") or name == "v1-fixed":
        return 0.0
    config, texts = setup.config, setup.texts
    columns = sum(window or texts.prompt + texts.tokens / 2 for window in config.hybrid.v1_windows)
    gates = STEERED * setup.answers * texts.tokens
    return gates * columns * len(config.hybrid.v1_strengths) * setup.above / setup.base.layers


def _alone(setup: Setup, names: list[str], role: str) -> Stage:
    times = {name: 1 + _tried(setup, name) for name in names}
    passes, need = _decoded(setup, role, sum(times.values()))
    share = setup.above / setup.base.layers
    steered = sum(_STEERED.get(name, 0.0) * each for name, each in times.items()) / sum(times.values())
    tuned = ", and what is tried on validation" if any(each > 1 for each in times.values()) else ""
    return Stage(
        " and ".join(names) if len(names) < 3 else f"{len(names)} arms of the {role} model",
        _folders(names),
        {role: replace(passes, decoded=passes.decoded * (1 + steered * share))},
        {role: need},
        host=_host(setup, len(names)),
        disk=_disk(setup, len(names)),
        says=f"the {role} model alone{tuned}",
    )


def _tried(setup: Setup, name: str) -> float:
    """How many times the test problems are as many as the answers that an arm tries its settings on."""
    hybrid, sizes = setup.config.hybrid, setup.config.sizes
    kind = name.removesuffix("-on-thinking")
    settings = {
        "budget": (len(hybrid.budgets) or 2) * (len(hybrid.waits) + len(hybrid.endings)),
        "intervention": len(hybrid.instructions),
        "addition": len(hybrid.additions),
    }
    return settings.get(kind, 0) * min(hybrid.tuned_on, sizes.validation) / setup.answers


def _differences(setup: Setup, name: str) -> Stage:
    """The base model answers train problems; the model that is steered reads these answers and the traces."""
    n, texts, shape = min(setup.config.hybrid.addition_texts, setup.config.sizes.train), setup.texts, setup.base
    rows, reader = min(n, setup.config.decoding.batch_size), "thinking" if name in _ON_THINKING else "base"
    row = decoded_row(shape, texts.prompt + texts.tokens)
    passes = {"base": Passes(n * texts.prompt, n * texts.tokens, rows, row)}
    needs = {"base": decoding(shape, rows, texts.prompt + texts.tokens, texts.prompt)}
    read, need = Passes(2 * n * texts.whole), reading(setup.shape(reader), setup.rows, texts.whole, states=1)
    passes[reader] = passes[reader] + read if reader in passes else read
    needs[reader] = needs[reader] | need if reader in needs else need
    return Stage(
        f"{name} vector",
        (f"mechanisms/{name}",),
        passes,
        needs,
        host=setup.kept_traces,
        setting="hybrid.addition_texts",
    )


def _written(setup: Setup, name: str) -> Stage:
    texts, hybrid = setup.texts, setup.config.hybrid
    longer = {"few-shot": hybrid.shots * texts.whole, "handbook": _HANDBOOK}.get(name, 0)
    times = _ANSWERS if name == "majority" else 1
    passes, need = _decoded(setup, "base", times, texts.prompt + longer)
    setting = "hybrid.shots" if name == "few-shot" else "decoding.max_new_tokens"
    return Stage(
        f"{name} answers" if "lora" in name else name,
        _folders([name]),
        {"base": passes},
        {"base": need},
        host=_host(setup, 1),
        disk=_disk(setup, 1) / 4,  # the tokens alone
        setting=setting,
    )


def _latent_seek(setup: Setup, name: str) -> Stage:
    config, texts, n = setup.config.latent_seek, setup.texts, setup.answers
    tries = 1 + config.updates
    passes, need = _decoded(setup, "base", tries)
    if name == "latent-seek" and config.reward == "verifiers":
        prompt, replies = texts.whole + _INSTRUCTION, _CHECKS * tries * n
        rows = min(_CHECKS * n, setup.config.decoding.batch_size)
        row = decoded_row(setup.base, prompt + config.verdict_tokens)
        passes += Passes(replies * prompt, replies * config.verdict_tokens, rows, row)
        need |= decoding(setup.base, rows, prompt + config.verdict_tokens, prompt)
    return Stage(
        name,
        _folders([name]),
        {"base": passes},
        {"base": need},
        host=_host(setup, 1),
        disk=_disk(setup, 1) / 4,  # the tokens alone
        setting="latent_seek.updates",
        says="as many updates as the settings allow, and the longest replies",
    )


def _at_gates(setup: Setup, name: str) -> Stage:
    return Stage(
        name,
        (f"mechanisms/{name}",),
        {"base": learning_passes(setup)},
        {"base": learning_need(setup)},
        host=setup.kept_traces,
    )


def _v2(setup: Setup) -> Stage:
    read = Passes(setup.learned_on * setup.texts.whole)
    rows = {
        role: reading(setup.shape(role), setup.rows, setup.texts.whole, states=1, logits=True)
        for role in ("base", "thinking")
    }
    return Stage(
        "v2 vectors",
        ("mechanisms/v2",),
        {"base": read + learning_passes(setup), "thinking": read},
        {**rows, "base": rows["base"] | learning_need(setup)},
        host=setup.kept_traces,
    )


def _on_sentences(setup: Setup, name: str, trainings: int) -> Stage:
    """Mechanisms that are learned at every token: the losses of the base model first, then the trainings."""
    read = Passes(setup.learned_on * setup.texts.whole)
    return Stage(
        f"{name} vectors",
        (f"mechanisms/{name}",),
        {"base": read + prefix_passes(setup) + learning_passes(setup) * trainings},
        {"base": reading(setup.base, setup.rows, setup.texts.whole, logits=True) | learning_need(setup, 1.0)},
        host=setup.kept_traces,
    )


def _lora(setup: Setup, name: str) -> Stage:
    config, shape, whole = setup.config, setup.base, setup.texts.whole
    distil, rows = config.distil, min(config.distil.batch_size, config.sizes.train)
    evaluations = (distil.steps // distil.check_every + 1) * config.sizes.validation
    return Stage(
        f"{name} training",
        (f"adapters/{name}",),
        {"base": Passes((3 * distil.steps * rows + evaluations) * whole)},
        {"base": training(shape, rows, whole, blocks=shape.layers, lora=True)},
        host=setup.kept_traces,
        disk=4 * 3 * 8 * shape.values * shape.layers,
        says="forward, again for checkpointing, and backward",
    )


def _effects(setup: Setup) -> Stage:
    """Sentences with each behaviour's vector, a random one and none, classified by the thinking model."""
    sizes, texts = setup.config.sizes, setup.texts
    texts_read = _STARTS * (2 * setup.behaviours + 1)
    read, rows = texts_read * (texts.prompt + texts.tokens / 2), min(_FLIP_ROWS, _STARTS)
    row = decoded_row(setup.base, texts.whole)
    return Stage(
        "effects",
        ("effects",),
        {
            "base": Passes(read, texts_read * _WRITTEN_ON, rows, row),
            "thinking": Passes(read + 2 * sizes.validation * texts.whole),
        },
        {
            "base": decoding(setup.base, rows, texts.whole, texts.whole),
            "thinking": reading(setup.thinking, setup.rows, texts.whole, states=2),
        },
        host=setup.kept_traces,
        setting="taxonomy.sizes",
    )


def _report(setup: Setup, n: int) -> Stage:
    return Stage("report", (), host=_host(setup, n), disk=_disk(setup, n) / 10, setting="hybrid.arms")
