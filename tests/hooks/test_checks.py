"""What a model cannot read, and what it computes that is not finite, is refused in one line that says where."""

import math
from dataclasses import replace

import pytest
import torch

import probe
from probe.errors import ProbeError
from probe.hooks import Clamp, Lane, ProjectOut, Scale, Swap, edit, force, forced_pass, likeliest, stream
from probe.hybrid import (
    AddVector,
    Always,
    Arm,
    ComingBehaviour,
    FixedStrength,
    ForceToken,
    FuseLogits,
    LearnedGate,
    LeastSimilar,
    Never,
    OneBehaviour,
    decode_hybrid,
)
from probe.hybrid.baselines import run_majority
from probe.models import Model, ModelConfig, Pair, PairConfig, Sampling, load_model
from probe.problems import Problem, ProblemSet
from probe.steering import BasePolicy, ComingReader, FixedVectors, collect_gates
from probe.taxonomy import Taxonomy
from probe.taxonomy.sae.normaliser import Normaliser
from probe.taxonomy.sae.weights import Weights
from probe.traces import decode_greedy, make_trace, sample_each, sample_texts

BAD = 77
"""The token whose embedding is spoiled."""
PROMPTS = [[5, 6, 7], [8, 9, BAD], [5, 9]]


@pytest.fixture
def model(tiny_folder) -> Model:
    return load_model(ModelConfig(str(tiny_folder("llama", "letters")), prompt="Q: {question}\nA:"), device="cpu")


def spoil(model: Model, value: float = math.nan, token: int = BAD) -> Model:
    model.hf.get_input_embeddings().weight.data[token] = value
    return model


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_greedy_decoding_says_which_prompt(model, value, late):
    lane = Lane(spoil(model, value), PROMPTS)
    with pytest.raises(ProbeError, match="a logit at new token 0 of prompt 1 of llama-letters-0 is not finite"):
        list(
            stream(
                [lane], lambda now: (likeliest(now.steps[0].logits),), ends=set(), max_new_tokens=4, slots=3, late=late
            )
        )


@pytest.mark.parametrize("late", [False, True])
def test_decoding_says_which_token(model, late):
    tokens = decode_greedy(model, [[5, 6, 7]], 6)[0].tokens
    at = next(i for i in range(1, 6) if tokens[i] not in (5, 6, 7, *tokens[:i]))
    lane = Lane(spoil(model, token=tokens[at]), [[5, 6, 7]])
    with pytest.raises(ProbeError, match=f"at new token {at + 1} of prompt 0"):
        list(
            stream(
                [lane], lambda now: (likeliest(now.steps[0].logits),), ends=set(), max_new_tokens=8, slots=1, late=late
            )
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_row_of_the_unembedding(model, value):
    model.hf.get_output_embeddings().weight.data[3] = value
    with pytest.raises(ProbeError, match="new token 0 of prompt 0"):
        decode_greedy(model, [[5, 6, 7]], 2)
    with pytest.raises(ProbeError, match="new token 0 of sample 0 of prompt 0"):
        sample_each(model, [[5, 6, 7]], 2, 2)


def test_half_precision_that_overflows_says_what_to_do(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"), device="cpu", dtype="float16")
    model.layers[1].mlp.down_proj.weight.data *= 6e4
    with pytest.raises(ProbeError, match=r"float16 overflows above 65504, so load the model with dtype bfloat16"):
        decode_greedy(model, [[5, 6, 7]], 3)


def test_samples_say_which(model):
    spoil(model)
    with pytest.raises(ProbeError, match="a logit at new token 0 of sample 0 of prompt 1 of llama-letters-0"):
        sample_each(model, PROMPTS, 2, 3, sampling=Sampling(temperature=1.0, top_p=0.9))
    with pytest.raises(ProbeError, match="not finite"):
        sample_texts(model, PROMPTS, 2, 3)


def test_a_majority_of_nothing_finite(model):
    question = Problem("a", model.decode([BAD]), "1")
    with pytest.raises(ProbeError, match="new token 0 of prompt 0"):
        run_majority(spoil(model), [question], n=2, max_new_tokens=2)


@pytest.fixture
def pair(model, tiny_folder) -> Pair:
    config = ModelConfig(str(tiny_folder("llama", "letters", 1)), prompt="Question: {question}\n")
    return Pair(PairConfig("random", model.config, config), model, load_model(config, device="cpu"))


@pytest.mark.parametrize(
    ("spoilt", "where", "emit"),
    [
        ("base", Never(), ForceToken()),
        ("base", Always(), ForceToken()),
        ("thinking", Always(), ForceToken()),
        ("thinking", Always(), FuseLogits()),
        ("thinking", Always(), AddVector(FixedVectors.of(torch.ones(1, 32), 1))),
        ("base", Always(), AddVector(FixedVectors.of(torch.full((1, 32), math.nan), 1))),
    ],
)
@pytest.mark.parametrize("persistent", [False, True])
def test_a_hybrid_says_which_model(pair, spoilt, where, emit, persistent):
    if isinstance(emit, AddVector):
        emit.mechanism.persistent = persistent
    if not (isinstance(emit, AddVector) and emit.mechanism.vectors.isnan().any()):
        spoil(getattr(pair, spoilt))
    problem = Problem("a", pair.base.decode([BAD]), "1")
    arm = Arm("mine", where, OneBehaviour(0), FixedStrength(), emit)
    if spoilt == "thinking" and not arm.asks:
        assert decode_hybrid(pair, arm, [problem], max_new_tokens=3)
        return
    with pytest.raises(ProbeError, match=f"new token 0 of prompt 0 of {getattr(pair, spoilt).name} is not finite"):
        decode_hybrid(pair, arm, [problem], max_new_tokens=3)


def test_forced_passes(model):
    spoil(model)
    fine, bad = force(model, [[5, 6]], [[7, 8]]), force(model, [[5, 6], [5, 6]], [[7, 8], [BAD, 8]])
    assert forced_pass(model, fine, "resid_post.1").logits.isfinite().all()
    with pytest.raises(ProbeError, match=r"a state at resid_post\.1 in a forced pass of llama-letters-0"):
        forced_pass(model, bad, "resid_post.1", logits=False)
    with pytest.raises(ProbeError, match="a logit in a forced pass"):
        forced_pass(model, bad)


@pytest.mark.parametrize("multiple", [None, 10.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_harvest_names_document_and_sentence(model, tmp_path, value, multiple):
    # Attention multiplies the values of later tokens by zero, and zero times NaN is NaN.
    texts = ["One. Two.", f"One. T{spoil(model, value).decode([BAD])}o. Three."]
    with pytest.raises(ProbeError, match=r"a state at resid_post\.1 in sentence 0 of document 1 of llama-letters-0"):
        probe.harvest(model, texts, ["resid_post.1"], outliers=multiple)
    with pytest.raises(ProbeError, match="in token 0 of document 1"):
        probe.harvest(model, texts, "resid_post.1", unit="token", folder=tmp_path, outliers=multiple)


def test_a_harvest_does_not_overflow_where_it_is_kept(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"), device="cpu")
    model.layers[0].mlp.down_proj.weight.data *= 1e6
    assert probe.harvest(model, ["One."], "resid_post.1").vectors["resid_post.1"].abs().max() > 1e5
    with pytest.raises(ProbeError, match="not finite"):
        probe.harvest(model, ["One."], "resid_post.1", dtype="float16")


@pytest.mark.parametrize(
    ("prompts", "new", "said"),
    [
        ([[]], 3, "prompt 0 .*has no token"),
        ([[7, 8, 9], []], 3, "prompt 1 .*has no token"),
        ([[7]], 0, "max_new_tokens is 0; it must be at least 1"),
        ([[7], [3, 100_000]], 3, "cannot read token id 100000"),
        ([[7], [-1]], 3, "cannot read token id -1"),
    ],
)
def test_nothing_to_begin_with(model, prompts, new, said):
    for run in (decode_greedy, lambda *args: sample_texts(model, args[1], 2, args[2])):
        with pytest.raises(ProbeError, match=said):
            run(model, prompts, new)


def test_no_prompts_give_no_texts(model):
    assert decode_greedy(model, [], 3) == []
    assert sample_texts(model, [], 2, 3) == []


def test_a_forced_text_the_model_cannot_read(model):
    with pytest.raises(ProbeError, match="cannot read token id 5000"):
        force(model, [[5], [6]], [[7], [5000]])


def shift(width: int, layer: int) -> AddVector:
    return AddVector(FixedVectors.of(torch.ones(1, width), layer))


ONE, FORCE = OneBehaviour(0), ForceToken()


@pytest.mark.parametrize(
    ("where", "which", "emit", "said"),
    [
        (Always(), ONE, shift(31, 1), "emit .* FixedVectors for models 31 wide"),
        (Always(), ONE, shift(32, 3), "steered at layers 0 to 2"),
        (LearnedGate(BasePolicy([0, 4], 32, 1)), ONE, FORCE, "where .* reads layer 4; llama-letters-0"),
        (LearnedGate(BasePolicy([0, 3], 16, 1)), ONE, FORCE, "BasePolicy for models 16 wide"),
        (Always(), ComingBehaviour(ComingReader(9, 32, 1)), FORCE, "which .* reads layer 9; llama-letters-1"),
        (Always(), LeastSimilar(ComingBehaviour(ComingReader(1, 33, 1)), (0,)), FORCE, "ComingReader for models 33"),
    ],
)
def test_arms_that_were_learned_for_other_models_are_refused(pair, where, which, emit, said):
    arm = Arm("mine", where, which, FixedStrength(), emit)
    with pytest.raises(ProbeError, match=said):
        decode_hybrid(pair, arm, [Problem("a", "1?", "1")], max_new_tokens=2)


@pytest.mark.usefixtures("unchecked")
def test_states_of_another_width_are_refused(model):
    with pytest.raises(ProbeError, match=r"32 wide; these vectors have shape \[2, 31\]"):
        model.unembed(torch.zeros(2, 31))
    taxonomy = Taxonomy("resid_post.1", Normaliser(torch.zeros(32)), Weights(torch.eye(32), torch.eye(32), k=1))
    for use in (taxonomy.behaviour, taxonomy.latents, taxonomy.variance_explained):
        with pytest.raises(ProbeError, match=r"reads states 32 wide at resid_post\.1; these have shape \[5, 1\]"):
            use(torch.zeros(5, 1))
    ids = torch.tensor([[5, 6, 7]])
    for change in (
        torch.ones(31),
        Clamp(torch.ones(31), low=0.0),
        ProjectOut(torch.ones(33)),
        Scale(2.0, torch.ones(1)),
        Swap(torch.ones(4, 32)),
        torch.ones(2, 1, 3, 32),
    ):
        with pytest.raises(ProbeError, match=r"the edit at resid_post\.1"), edit(model, {"resid_post.1": change}):
            model.hf(ids)


def test_gates_leave_out_what_only_the_thinking_model_has(pair):
    """Training compares the tokens that both models have, as decoding does."""
    problems = ProblemSet("mine", "numeric", {"test": (Problem("a", "6 x 7?", "42"),)})
    (problem,) = problems.take("test")
    thinking = pair.thinking
    known = thinking.n_embeddings
    trace = make_trace(thinking, problems, problem, [40, 41, 42, 43], False)
    taxonomy = Taxonomy("resid_post.1", Normaliser(torch.zeros(32)), Weights(torch.eye(32), torch.eye(32), k=1))
    (before,) = collect_gates(pair, taxonomy, [trace], [problem])
    with torch.random.fork_rng(devices=[]):
        thinking.hf.resize_token_embeddings(known + 5, mean_resizing=False)
    thinking.hf.lm_head.weight.data[known:] = 100 * thinking.hf.lm_head.weight.data[:5]
    thinking.eos_ids = (known + 2, *thinking.eos_ids)
    (batch,) = collect_gates(pair, taxonomy, [trace], [problem])
    assert torch.equal(batch.target, before.target) and torch.equal(batch.gate, before.gate)
    with pytest.raises(ProbeError, match=f"trace of a has token {known + 1}, but only ids below {known}"):
        list(collect_gates(pair, taxonomy, [replace(trace, tokens=(40, known + 1))], [problem]))
