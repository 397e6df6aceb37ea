"""LatentSeek: equal to a plain reference, to the base model without updates, and the same in any batch."""

import copy
from functools import partial
from types import MappingProxyType

import pytest
import torch

from probe.errors import ProbeError
from probe.hooks import Head, stream
from probe.hybrid import ConfidenceReward, GradeReward, LatentSeekConfig, VerifierReward, run_latent_seek
from probe.hybrid.baselines.latent_seek_rewards import CHECKS, MARK, Attempt, Reward, Rewards, verdict
from probe.hybrid.baselines.latent_seek_states import Latents
from probe.models import GREEDY, ModelConfig, Sampling, load_model
from probe.problems import Problem, load_problems
from probe.traces import generate_traces, sample_key

PROMPT = "Problem: {question}\nSolution:"
LIMIT = 24


@pytest.fixture
def base(tiny_folder):
    return load_model(ModelConfig(str(tiny_folder("llama", seed=1)), prompt=PROMPT), device="cpu")


@pytest.fixture
def problems():
    return load_problems("story").take("test", 6)


class Never(Rewards):
    """Rewards nothing."""

    key = MappingProxyType({"reward": "never"})

    def __call__(self, attempts):
        return [Reward(-1.0) for _ in attempts]


class ByTokens(Rewards):
    """Rewards by the tokens alone."""

    key = MappingProxyType({"reward": "tokens"})

    def __call__(self, attempts):
        return [Reward(-(sum(each.tokens) % 7) / 7) for each in attempts]


@torch.no_grad()
def greedy(model, ids, limit):
    """Decode without a cache."""
    found = []
    for _ in range(limit):
        token = int(model.hf(torch.tensor([[*ids, *found]])).logits[0, -1].argmax())
        if token in model.eos_ids:
            break
        found.append(token)
    return found


def reference(model, problem, reward, *, share, lr, updates, limit, stop=-0.2):
    """LatentSeek of one problem: no cache, no batch."""
    prompt, states = model.prompt_ids(problem.question), []
    norm = model.hf.get_decoder().norm if hasattr(model.hf.get_decoder(), "norm") else None
    answer = greedy(model, prompt, limit)
    values = [reward(problem, answer)]
    n = max(1, int(share * len(answer)))
    hook = norm.register_forward_hook(lambda *seen: states.append(seen[-1]))
    with torch.no_grad():
        model.hf(torch.tensor([[*prompt, *answer[:n]]]))
    hook.remove()
    z = torch.nn.Parameter(states[0][0, len(prompt) - 1 : len(prompt) - 1 + n].clone())
    adam = torch.optim.Adam([z], lr=lr)
    for _ in range(updates):
        if values[-1] > stop:
            break
        chances = model.hf.lm_head(z).softmax(-1).max(-1)
        given = [at for at, token in enumerate(chances.indices.tolist()) if token in model.eos_ids]
        loss = -values[-1] * chances.values[: given[0] + 1 if given else n].log().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        begin = model.hf.lm_head(z).argmax(-1).tolist()
        ends = [at for at, token in enumerate(begin) if token in model.eos_ids]
        answer = begin[: ends[0]] if ends else begin + greedy(model, prompt + begin, limit - n)
        values.append(reward(problem, answer))
    return answer, values, z.detach()


def test_rewards_updates_and_answers_are_those_of_a_plain_reference(base, problems):
    config = LatentSeekConfig(share=0.3, lr=0.3, updates=4)
    found = run_latent_seek(base, problems, ByTokens(), config=config, max_new_tokens=LIMIT)
    changed = 0
    for trace, problem in zip(found.traces, problems, strict=True):
        answer, values, _ = reference(
            base, problem, lambda _, tokens: -(sum(tokens) % 7) / 7, share=0.3, lr=0.3, updates=4, limit=LIMIT
        )
        assert trace.tokens == answer
        changed += len(values) > 1 and answer != greedy(base, base.prompt_ids(problem.question), LIMIT)
    assert changed, "an update has changed an answer"


def test_states_and_gradients_are_those_of_a_plain_reference(base, problems):
    prompts = [base.prompt_ids(problem.question) for problem in problems]
    answers = [greedy(base, prompt, LIMIT) for prompt in prompts]
    sizes = [max(1, int(0.3 * len(answer))) for answer in answers]
    latents = Latents(
        base, prompts, [a[:n] for a, n in zip(answers, sizes, strict=True)], [0] * 6, lr=0.05, sampling=GREEDY
    )
    latents._size = 5  # states of one answer are in several chunks
    rows = [0, 2, 3]
    for _ in range(3):
        latents.update(rows, [-0.5] * 3)
    for row in range(6):
        *_, z = reference(
            base,
            problems[row],
            lambda *_: -0.5,
            share=0.3,
            lr=0.05,
            updates=3 * (row in rows),
            limit=LIMIT,
        )
        assert torch.allclose(latents.states[row].detach(), z, atol=1e-5), row


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.9, top_p=0.9)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("config", [LatentSeekConfig(updates=0), LatentSeekConfig(stop_above=-2)], ids=["none", "kept"])
def test_without_an_update_the_answers_are_those_of_the_base_model(base, problems, sampling, config):
    samples = 1 if sampling.greedy else 2
    how = {"max_new_tokens": LIMIT, "sampling": sampling, "samples": samples, "seed": 3}
    found = run_latent_seek(base, problems, Never(), config=config, **how)
    own = list(generate_traces(base, load_problems("story"), problems, **how))
    assert [trace.tokens for trace in found.traces] == [list(trace.tokens) for trace in own]
    assert [trace.truncated for trace in found.traces] == [trace.truncated for trace in own]
    assert found.told["updates"] == 0


def test_nothing_is_rewarded_that_cannot_be_updated(base, problems, monkeypatch):
    monkeypatch.setattr(Never, "__call__", lambda *_: pytest.fail("an answer was rewarded"))
    found = run_latent_seek(base, problems, Never(), config=LatentSeekConfig(updates=0), max_new_tokens=LIMIT)
    assert found.told == {"updates": 0}
    ended = sum(not trace.truncated for trace in found.traces)
    assert found.base_passes == pytest.approx((found.emitted + ended) / len(problems))


def test_an_answer_that_ends_at_once_is_updated_further(base, problems):
    """The token that the first update gives is the end token."""
    config = LatentSeekConfig(share=0.01, lr=1.0, updates=3)
    prompt = base.prompt_ids(problems[0].question)
    answer = greedy(base, prompt, LIMIT)
    latents = Latents(base, [prompt], [answer[:1]], [0], lr=config.lr, sampling=GREEDY)
    latents.update([0], [-1.0])
    ((end,),) = latents.tokens
    assert end != answer[0]
    other, ended = copy.copy(base), []
    other.eos_ids = [end]

    class Watching(Never):
        def __call__(self, attempts):
            ended.extend(not each.tokens for each in attempts)
            return super().__call__(attempts)

    found = run_latent_seek(other, problems[:1], Watching(), config=config, max_new_tokens=LIMIT)
    assert ended[:2] == [False, True] and found.told["updates"] == 3


def test_states_after_an_end_token_are_left_alone(base, problems):
    (end, *_) = base.eos_ids
    prompt = base.prompt_ids(problems[0].question)
    latents = Latents(base, [prompt], [[5, end, 6, 7]], [0], lr=0.1, sampling=GREEDY)
    before = latents.states[0].detach().clone()
    latents.update([0], [-1.0])
    moved = (latents.states[0].detach() != before).any(-1)
    assert moved.tolist() == [True, True, False, False]


def test_given_tokens_cost_no_pass(base, problems):
    attempts = []

    class Watching(Never):
        def __call__(self, some):
            attempts.extend(some)
            return super().__call__(some)

    config = LatentSeekConfig(share=0.3, lr=0.3, updates=1)
    found = run_latent_seek(base, problems, Watching(), config=config, max_new_tokens=LIMIT)
    every = sum(len(each.tokens) + (not each.truncated) for each in attempts)
    first = {each.problem.id: max(1, int(0.3 * len(each.tokens))) for each in attempts[:6]}
    given = [first[each.problem.id] for each in attempts[6:]]
    assert sum(given) > len(given) > 0
    assert all(len(each.tokens) >= n for each, n in zip(attempts[6:], given, strict=True)), "no end token is given"
    assert found.base_passes == pytest.approx((every - sum(given)) / len(problems))


def test_rewards_are_rounded_so_that_batches_do_not_change_them(base, problems, tmp_path, monkeypatch):
    monkeypatch.setattr(Never, "__call__", lambda _, some: [Reward(-1 / 3)] * len(some))
    how = {"max_new_tokens": LIMIT, "folder": tmp_path / "kept"}
    found = run_latent_seek(base, problems, Never(), config=LatentSeekConfig(updates=1), **how)
    assert found.told["first_reward"] == found.told["last_reward"] == -0.3333
    kept = "".join(file.read_text() for file in (tmp_path / "kept").glob("*.json*"))
    assert "-0.3333" in kept and "-0.33333" not in kept


def test_states_give_the_tokens_of_the_answer_until_they_are_updated(base, problems):
    """A sampled token comes from the same random number."""
    sampling, how = Sampling(0.9), {"max_new_tokens": LIMIT, "seed": 3}
    own = list(generate_traces(base, load_problems("story"), problems, sampling=sampling, **how))
    prompts = [base.prompt_ids(problem.question) for problem in problems]
    keys = [sample_key(3, problem.id, 0) for problem in problems]
    begins = [list(trace.tokens[:6]) for trace in own]
    latents = Latents(base, prompts, begins, keys, lr=1e-9, sampling=sampling)
    latents.update(range(6), [-1.0] * 6)
    assert latents.tokens == begins


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.9)], ids=["greedy", "sampled"])
def test_nothing_depends_on_batches_or_on_memory(base, problems, sampling, monkeypatch):
    config = LatentSeekConfig(share=0.3, lr=0.3, updates=3)
    how = {"config": config, "max_new_tokens": LIMIT, "sampling": sampling, "seed": 1}
    problems = problems[:4]
    whole = run_latent_seek(base, problems, ByTokens(), **how)
    assert run_latent_seek(base, problems, ByTokens(), batch_size=2, **how).texts == whole.texts
    alone = [run_latent_seek(base, [problem], ByTokens(), **how).texts[0] for problem in problems[:2]]
    assert alone == whole.texts[:2]
    small = copy.copy(base)
    small.memory = 60_000
    assert run_latent_seek(small, problems, ByTokens(), **how).texts == whole.texts
    monkeypatch.setattr("probe.hybrid.baselines.latent_seek.stream", partial(stream, late=True))
    assert run_latent_seek(base, problems, ByTokens(), **how).texts == whole.texts


def test_what_is_kept_is_read_again_and_belongs_to_its_settings(base, problems, tmp_path, monkeypatch):
    config = LatentSeekConfig(share=0.3, lr=0.3, updates=2)
    how = {"max_new_tokens": LIMIT, "folder": tmp_path / "kept"}
    monkeypatch.setattr("probe.hybrid.baselines.latent_seek._SHARD", 2)
    whole = run_latent_seek(base, problems, ByTokens(), config=config, **how)
    files = sorted((tmp_path / "kept").glob("*.done.json"))
    assert len(files) == 3
    files[1].unlink()
    asked = []
    monkeypatch.setattr(ByTokens, "__call__", lambda _, some: asked.extend(some) or [Reward(-1.0)] * len(some))
    again = run_latent_seek(base, problems, ByTokens(), config=config, **how)
    assert {attempt.problem.id for attempt in asked} == {problem.id for problem in problems[2:4]}
    assert [again.texts[at] for at in (0, 1, 4, 5)] == [whole.texts[at] for at in (0, 1, 4, 5)]
    with pytest.raises(ProbeError, match=r"other|another"):
        run_latent_seek(base, problems, ByTokens(), config=LatentSeekConfig(lr=0.1), **how)


def test_an_answer_of_the_same_tokens_is_not_written_again(base, problems, monkeypatch):
    """A tiny step changes no token."""
    asked = []
    monkeypatch.setattr(Never, "__call__", lambda _, some: asked.extend(some) or [Reward(-1.0, 5)] * len(some))
    found = run_latent_seek(base, problems, Never(), config=LatentSeekConfig(lr=1e-9), max_new_tokens=LIMIT)
    assert len(asked) == len(problems)
    assert found.told["updates"] == 10
    ended = sum(not trace.truncated for trace in found.traces)
    assert found.base_passes == (found.emitted + ended) / len(problems) + 5


def test_the_true_grade_keeps_right_answers(base):
    problems = load_problems("story")
    right, wrong = (Attempt(Problem("a", "6 x 7?", "42"), [5], text, False, -1.0) for text in ("It is 42.", "It is 7."))
    none = Attempt(Problem("a", "6 x 7?"), [5], "It is 42.", False, -1.0)
    rewards = GradeReward(base, problems)
    assert [each.value for each in rewards([right, wrong, none])] == [0, -1, 0]


def test_grades_after_other_tags_are_other_rewards(base):
    problems = load_problems("story")
    own, same, other = (GradeReward(base, problems, tags).key for tags in (None, base.think_tags, "[/THINK]"))
    assert own == same != other and other["tags"] == {"open": "[THINK]", "close": "[/THINK]"}


def test_confidence_is_the_mean_probability_of_the_tokens(base, problems):
    seen = []

    class Watching(ConfidenceReward):
        def __call__(self, attempts):
            seen.extend(zip(attempts, found := super().__call__(attempts), strict=True))
            return found

    config = LatentSeekConfig(updates=1, stop_above=-2)
    run_latent_seek(base, problems[:2], Watching(), config=config, max_new_tokens=LIMIT)
    assert len(seen) == 2
    for attempt, reward in seen:
        prompt = base.prompt_ids(attempt.problem.question)
        logits = base.hf(torch.tensor([prompt + attempt.tokens])).logits[0, len(prompt) - 1 : -1]
        chances = logits.log_softmax(-1)[torch.arange(len(attempt.tokens)), attempt.tokens]
        assert reward.value == pytest.approx(chances.mean().exp().item() - 1, abs=1e-5)
    empty = Attempt(problems[0], [], "", False, 0.0)
    assert ConfidenceReward()([empty])[0].value == -1


def test_verdicts_are_read_from_the_reply_alone():
    assert verdict(f"First {MARK} True. No: {MARK} **False**, though much is true") is False
    assert verdict(f"{MARK.lower()}'true'.") is True
    assert verdict("All true.") is None
    assert verdict("'True', as 6 x 7 = 42.") is True
    assert verdict(f"{MARK} perhaps true") is None


def test_verifications_cost_their_weights(tiny_folder, monkeypatch):
    model = load_model(ModelConfig(str(tiny_folder("llama", "letters")), prompt=PROMPT), device="cpu")
    replies = {"calculation": "True", "answer": "False", "completeness": "True", "understanding": "?"}
    asked = {tuple(VerifierReward(model).prompt(check, "6 x 7?", "It is 42.")): check for check in CHECKS}

    def said(_, prompts, *__, **___):
        for at, prompt in reversed(list(enumerate(prompts))):
            yield at, model.encode(f"{MARK} {replies[asked[tuple(prompt)]]}", start=False), False

    monkeypatch.setattr("probe.hybrid.baselines.latent_seek_rewards.stream_draws", said)
    attempt = Attempt(Problem("a", "6 x 7?", "42"), [5], "It is 42.", False, -1.0)
    (reward,) = VerifierReward(model)([attempt])
    assert reward.value == pytest.approx(-2 / 6)
    assert reward.unread == 1 and reward.passes > 4 * len(MARK)


def test_a_model_rewards_itself_by_what_it_says(tiny_folder, problems):
    model = load_model(ModelConfig(str(tiny_folder("llama", "letters")), prompt=PROMPT), device="cpu")
    rewards = VerifierReward(model, tokens=4)
    found = run_latent_seek(model, problems[:2], rewards, config=LatentSeekConfig(updates=1), max_new_tokens=8)
    assert found.told["first_reward"] == -1 and found.told["unread_verdicts"] >= 4


def test_a_tokenizer_without_the_words_of_the_verifications_is_refused(base, problems):
    with pytest.raises(ProbeError, match=r"lacks words of the verifications; set latent_seek.reward to confidence"):
        VerifierReward(base).check(problems, LIMIT)


@pytest.mark.parametrize("name", ["gemma2", "gpt2"])
def test_other_heads_are_run_by_their_own_code(tiny_folder, problems, name):
    """Gemma 2 caps its logits; GPT-2 ties its unembedding to the embedding."""
    model = load_model(ModelConfig(str(tiny_folder(name)), prompt=PROMPT), device="cpu")
    prompts = [model.prompt_ids(problem.question) for problem in problems]
    answers = [greedy(model, prompt, 8) or [5] for prompt in prompts]
    latents = Latents(model, prompts, answers, [0] * 6, lr=0.01, sampling=GREEDY)
    for prompt, answer, states in zip(prompts, answers, latents.states, strict=True):
        logits = model.hf(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        assert torch.allclose(Head(model)(states[None].detach())[0], logits, atol=1e-4)


def test_states_that_are_not_finite_are_refused(base, problems):
    latents = Latents(base, [base.prompt_ids(problems[0].question)], [[5, 6]], [0], lr=0.1, sampling=GREEDY)
    latents.states[0].data[1] = torch.nan
    with pytest.raises(ProbeError, match=r"a logit of an updated state of .* is not finite"):
        latents.update([0], [-1.0])


def test_settings_out_of_range_are_refused():
    for wrong in ({"share": 0}, {"share": 1.5}, {"lr": 0}, {"updates": -1}, {"most": 0}):
        with pytest.raises(ProbeError, match=f"latent_seek.{next(iter(wrong))}"):
            LatentSeekConfig(**wrong)
