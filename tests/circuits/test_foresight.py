"""Foresight is measured against tokens of other texts; on a bundled model the Jacobian lens sees a digit coming."""

import pytest
import torch

from probe.circuits import JacobianLens, Written, equation_results, fit_jacobian_lens, foresight, logit_lens
from probe.circuits.lenses.jacobian import weights_of
from probe.errors import NotApplicable, ProbeError
from probe.models import load_model
from probe.problems import load_problems
from probe.traces import generate_traces


@pytest.fixture(scope="module")
def texts(llama):
    """Texts that the model itself continues, so that its last block knows the next token."""
    generator, found = torch.Generator().manual_seed(0), []
    for number in range(10):
        ids = torch.randint(6, 100, (6 + number % 3,), generator=generator)
        for _ in range(3):
            ids = torch.cat([ids, llama.hf(ids[None]).logits[0, -1:].argmax(-1)])
        found.append(Written(tuple(ids.tolist()), (len(ids) - 3, len(ids) - 1)))
    return found


@pytest.fixture(scope="module")
def same(llama):
    """The lens that changes nothing."""
    return JacobianLens({i: torch.eye(32) for i in range(3)}, llama.name, 4, weights=weights_of(llama))


def test_the_advantage_is_over_tokens_of_other_texts(llama, texts, same):
    found = foresight(llama, texts, same, back=2)
    torch.testing.assert_close(found.advantage[0], found.advantage[1])  # a lens that changes nothing
    assert (found.right[:, -1, 0] == 1).all() and found.first(0, 0) is not None, "the last block knows the next token"
    assert found.earlier[0].value == 0 and found.n == 20 and found.texts == 10
    # By hand, for one block and place.
    tokens = sorted({text.ids[at] for text in texts for at in text.places})
    by_text = []
    for text in texts:
        with torch.no_grad():
            states = llama.hf(torch.tensor([text.ids]), output_hidden_states=True).hidden_states[2][0]
        gains = []
        for at in text.places:
            log_p = llama.unembed(states[at - 2])[tokens].log_softmax(-1)
            others = [log_p[tokens.index(o.ids[a])] for o in texts if o is not text for a in o.places]
            gains.append(log_p[tokens.index(text.ids[at])] - torch.stack(others).mean())
        by_text.append(torch.stack(gains).mean())
    torch.testing.assert_close(found.advantage[0, 1, 1], torch.stack(by_text).mean(), atol=1e-4, rtol=1e-4)
    assert found.low[0, 1, 1] < found.advantage[0, 1, 1] < found.high[0, 1, 1]
    assert "Foresight" in found._repr_html_() and len(found.rows()) == 2 * 4 * 2


def test_tokens_at_random_are_not_foreseen(llama, texts, same):
    """Places whose token is exchanged for that of another text."""
    shuffled = [Written((*text.ids[:-1], texts[i - 1].ids[-1]), (len(text.ids) - 1,)) for i, text in enumerate(texts)]
    found = foresight(llama, shuffled, same, back=1)
    assert (found.advantage <= found.threshold).all() and found.first(1, 0) is None


def test_bad_texts_are_refused(llama, texts, same):
    with pytest.raises(ProbeError, match="two texts or more"):
        foresight(llama, texts[:1], same)
    with pytest.raises(ProbeError, match="make back smaller"):
        foresight(llama, texts, same, back=7)
    unfair = [Written(text.ids, text.places, (frozenset(range(200)),) * 2) for text in texts]
    with pytest.raises(NotApplicable, match="no token of another text"):
        foresight(llama, unfair, same)


@pytest.mark.slow
def test_the_jacobian_lens_sees_the_digit_of_a_sum_blocks_earlier():
    """At the equals sign, block 0 holds the last digit of the result; the logit lens reads it at no block there."""
    model, problems = load_model("bundled:tiny-rl", device="cpu"), load_problems("story")
    fitted = generate_traces(model, problems, problems.take("validation", 8), max_new_tokens=200)
    lens = fit_jacobian_lens(model, fitted, source="traces of story, validation")
    some = problems.take("test", 30)
    traces = generate_traces(model, problems, some, max_new_tokens=200)
    texts = equation_results(model, traces, some)
    text, trace = texts[0], traces[0]
    start = len(text.ids) - len(trace.tokens)
    assert all(trace.tokens[at - start - 2] == model.encode("1 =", start=False)[-1] for at in text.places)
    found = foresight(model, texts, lens, back=2)
    gain = found.earlier[1]
    assert gain.low is not None and gain.low >= 2, f"the Jacobian lens reads the digit {gain} blocks earlier"
    assert found.first(0, 1) is None and found.first(1, 1) == 0
    read = logit_lens(model, torch.tensor(text.ids[:60]), lens)
    assert read.layers == (0, 1, 2, 3)
