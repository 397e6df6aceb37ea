"""Arms that insert text, phases of two models, and one vector everywhere; each against a reference of a few lines."""

import pytest
import torch

from probe.errors import ProbeError
from probe.hooks import capture, edit
from probe.hybrid import (
    Budget,
    Closing,
    Instruction,
    Phase,
    SentenceStart,
    addition_arm,
    decode_hybrid,
    evaluate_arm,
    oracle_bits,
    passes,
    phased_arm,
    script_arm,
    speculative_arm,
    stream_hybrid,
    text_bits,
)
from probe.hybrid.evaluate import rollouts
from probe.models import PairSampling, Sampling
from probe.problems import load_problems
from probe.steering import difference_of_texts
from probe.traces import decode_greedy

TOKENS = 24
PROBLEMS = load_problems("story").take("test", 7)


def decoded(models, arm, **how):
    return [trace.tokens for trace in decode_hybrid(models, arm, PROBLEMS, max_new_tokens=TOKENS, **how)]


def alone(model):
    prompts = [model.prompt_ids(problem.question) for problem in PROBLEMS]
    return [list(row.tokens) for row in decode_greedy(model, prompts, TOKENS)]


@torch.no_grad()
def reference(model, problem, forced):
    """One row without a cache: ``forced(tokens, next)`` gives what is inserted instead of the model's next token."""
    prompt, tokens = model.prompt_ids(problem.question), []
    while len(tokens) < TOKENS:
        own = int(model.hf(torch.tensor([[*prompt, *tokens]])).logits[0, -1].argmax())
        inserted = forced(tokens, own)
        if not inserted and own in model.eos_ids:
            break
        tokens += inserted or [own]
    return tokens[:TOKENS]


def holds(tokens, text):
    return any(tuple(tokens[at : at + len(text)]) == text for at in range(len(tokens)))


def closing(model, *tokens):
    """A closing tag with the text of these tokens."""
    return Closing.of(model, model.decode(tokens))


def usual(model):
    """A token that the model often writes, which stands for the end of its thinking."""
    written = [token for row in alone(model) for token in row[2:12]]
    return max(set(written), key=written.count)


def test_a_budget_without_limits_is_the_model(llamas):
    for model in (llamas.base, llamas.thinking):
        unlimited = script_arm(Budget(Closing.of(model, "</think>"), (3, *model.eos_ids)), "budget")
        assert decoded(model, unlimited) == alone(model)
        prompts = [model.prompt_ids(problem.question) for problem in PROBLEMS]
        drawn = rollouts(
            model, "alone", PROBLEMS, prompts, max_new_tokens=TOKENS, sampling=Sampling(0.8), samples=2, seed=3
        )
        sampled = PairSampling(Sampling(0.8), Sampling(0.8), 2)
        assert decoded(model, unlimited, sampling=sampled, seed=3) == [trace.tokens for trace in drawn.traces]


def test_thinking_is_stopped_at_a_budget(llamas):
    close, ending = closing(llamas.base, 7, 8), (7, 8, 9)
    arm = script_arm(Budget(close, (7, *llamas.base.eos_ids), most=6, ending=ending), "budget")

    def forced(tokens, _):
        return list(ending) if len(tokens) == 6 and close.tag not in llamas.base.decode(tokens) else None

    found = decoded(llamas.base, arm)
    assert found == [reference(llamas.base, problem, forced) for problem in PROBLEMS]
    assert found[0][6:9] == list(ending)
    end = alone(llamas.base)[0][3]
    closed = script_arm(Budget(closing(llamas.base, end), (end,), most=6, ending=(end, 9)), "budget")
    assert decoded(llamas.base, closed)[0] == alone(llamas.base)[0], "thinking that is closed is not stopped"


@pytest.mark.parametrize("most", [None, 14])
def test_thinking_is_extended_to_a_budget(llamas, most):
    end, wait = usual(llamas.base), (11, 12, 13)
    ending = () if most is None else (end, 9)
    ends = (end, *llamas.base.eos_ids)
    close = closing(llamas.base, end)
    arm = script_arm(Budget(close, ends, least=12, wait=wait, most=most, ending=ending), "budget")

    def forced(tokens, own):
        closed = close.tag in llamas.base.decode(tokens[:most])
        if most == len(tokens) and not closed:
            return list(ending)
        return list(wait) if own in ends and len(tokens) < 12 and not closed else None

    found = decoded(llamas.base, arm)
    assert found == [reference(llamas.base, problem, forced) for problem in PROBLEMS]
    assert any(holds(row, wait) for row in found) and found != alone(llamas.base)


def test_an_instruction_begins_the_thinking(llamas):
    model = llamas.base
    first = alone(model)[0][0]
    for tag in ((), (first,), (first, 5)):
        arm = script_arm(Instruction((11, 12), tag), "intervention")

        def forced(tokens, own, tag=tag):
            opens = bool(tag) and (tokens[0] if tokens else own) == tag[0]
            return [11, 12] if len(tokens) == (len(tag) if opens else 0) else None

        assert decoded(model, arm) == [reference(model, problem, forced) for problem in PROBLEMS]


def test_inserted_text_does_not_depend_on_the_batch(llamas):
    end = usual(llamas.base)
    arm = script_arm(
        Budget(closing(llamas.base, end), (end, *llamas.base.eos_ids), 12, (11, 12, 13), 14, (end, 9)), "budget"
    )
    whole = decoded(llamas.base, arm)
    assert whole == decoded(llamas.base, arm, batch_size=2)
    answers = [(problem, 0) for problem in PROBLEMS]
    late = dict(stream_hybrid(llamas.base, arm, answers, max_new_tokens=TOKENS, batch_size=2, late=True))
    assert whole == [late[item].tokens for item in range(len(PROBLEMS))]


def test_a_budget_that_cannot_be_kept_is_refused(llamas):
    close = closing(llamas.base, 3)
    with pytest.raises(ProbeError, match="does not fit into 5"):
        Budget(close, (3,), least=6, wait=(4,), most=5)
    with pytest.raises(ProbeError, match="give a waiting text"):
        Budget(close, (3,), least=6)


def test_phases_of_one_model_are_that_model(llamas):
    never = Closing.of(llamas.base, "a tag that nobody writes")
    assert decoded(llamas, phased_arm(Phase(never), "thinking")) == alone(llamas.thinking)
    assert decoded(llamas, phased_arm(Phase(never, answer=True), "base")) == alone(llamas.base)
    assert decoded(llamas, phased_arm(SentenceStart(0, TOKENS), "opening")) == alone(llamas.thinking)
    assert phased_arm(SentenceStart(3, 5), "speculative") == speculative_arm(3, 5)


def test_the_answer_is_the_other_models(llamas):
    close = alone(llamas.thinking)[0][4:5]
    (first, *_) = decode_hybrid(
        llamas, phased_arm(Phase(closing(llamas.base, *close)), "phased"), PROBLEMS[:1], max_new_tokens=TOKENS
    )
    at = first.tokens.index(close[0]) + 1
    assert first.steered == [True] * at + [False] * (len(first.tokens) - at)
    prompt = llamas.base.prompt_ids(PROBLEMS[0].question) + first.tokens[:at]
    (rest,) = decode_greedy(llamas.base, [prompt], TOKENS - at)
    assert first.tokens[at:] == list(rest.tokens)


def test_one_vector_everywhere_is_an_edit_of_the_text(llamas):
    model, problem = llamas.base, PROBLEMS[0]
    sides = [[(model.prompt_ids(problem.question), row)] for row in ([5, 6, 7, 8], [9, 10])]
    vector = difference_of_texts(model, *sides, 1)
    means = []
    for ((prompt, text),) in sides:
        with torch.no_grad(), capture(model, "resid_post.1") as acts:
            model.hf(torch.tensor([[*prompt, *text]]))
        means.append(acts["resid_post.1"][0, len(prompt) - 1 : -1].mean(0))
    assert torch.allclose(vector.vectors[0], means[0] - means[1], atol=1e-5)
    assert decoded(model, addition_arm(vector, 0.0, "addition")) == alone(model)
    (trace,) = decode_hybrid(model, addition_arm(vector, 3.0, "addition"), [problem], max_new_tokens=TOKENS)
    prompt = model.prompt_ids(problem.question)
    shift = torch.zeros(len(prompt) + len(trace.tokens), model.d_model)
    shift[len(prompt) - 1 :] = 3.0 * vector.vectors[0]
    with torch.no_grad(), edit(model, {"resid_post.1": lambda state: state + shift}):
        logits = model.hf(torch.tensor([[*prompt, *trace.tokens]])).logits[0, len(prompt) - 1 : -1]
    assert logits.argmax(-1).tolist() == trace.tokens
    with pytest.raises(ProbeError, match="no text has a token"):
        difference_of_texts(model, sides[0], [([5], [])], 1)


def test_passes_count_the_tokens_of_each_model(llamas):
    opening = phased_arm(SentenceStart(0, 6), "opening")
    budget = script_arm(Budget(closing(llamas.base, 3), (3,)), "budget")
    for models, arm, of_thinking in ((llamas, opening, 6), (llamas.base, budget, 0)):
        found = evaluate_arm(models, arm, PROBLEMS, max_new_tokens=TOKENS)
        every = sum(len(trace.tokens) + (not trace.truncated) for trace in found.traces) / len(PROBLEMS)
        assert passes(found) == pytest.approx({"base_passes": every - of_thinking, "thinking_passes": of_thinking})


def test_inserted_tokens_cost_no_pass_but_what_they_replace_does(llamas):
    model = llamas.base
    end, wait = usual(model), (11, 12, 13)
    first = alone(model)[0][0]
    ends = (end, *model.eos_ids)
    for script in (
        Budget(closing(model, end), ends, least=12, wait=wait),
        Budget(closing(model, end), ends, least=12, wait=wait, most=14, ending=(end, 9)),
        Budget(closing(model, 7, 8), ends, most=6, ending=(7, 8, 9)),
        Instruction((11, 12), (first, 5)),
        Instruction((11, 12)),
    ):
        asked = 0

        def forced(tokens, own, script=script):
            """One pass gives ``own``; it is needed unless the text comes whatever the model gives."""
            nonlocal asked
            if isinstance(script, Instruction):
                opens = bool(script.open) and (tokens[0] if tokens else own) == first
                inserted = list(script.text) if len(tokens) == (2 if opens else 0) else None
                asked += inserted is None or (bool(script.open) and not tokens)
                return inserted
            closed = script.close.tag in model.decode(tokens if script.most is None else tokens[: script.most])
            if script.most == len(tokens) and not closed:
                return list(script.ending)
            asked += 1
            return list(wait) if own in ends and len(tokens) < script.least and not closed else None

        texts = [reference(model, problem, forced) for problem in PROBLEMS]
        found = evaluate_arm(model, script_arm(script, "inserted"), PROBLEMS, max_new_tokens=TOKENS)
        assert [trace.tokens for trace in found.traces] == texts
        assert any(any(trace.steered) for trace in found.traces)
        assert passes(found) == pytest.approx({"base_passes": asked / len(PROBLEMS), "thinking_passes": 0})


def test_bits_of_whole_texts_are_the_surprisal_of_their_tokens(llamas):
    forced = evaluate_arm(llamas, phased_arm(SentenceStart(0, TOKENS), "opening"), PROBLEMS, max_new_tokens=TOKENS)
    read = text_bits(llamas.base, PROBLEMS, [trace.tokens for trace in forced.traces], batch_size=3)
    assert read == pytest.approx(oracle_bits(forced)["parts"]["token"], abs=2e-4)
