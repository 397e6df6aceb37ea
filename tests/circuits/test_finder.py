"""Head scores are TransformerLens' own; a planted head is found, its null is not; behaviour shares are direct ones."""

from typing import Any

import pytest
import torch
from transformer_lens.head_detector import detect_head

from probe.circuits import (
    Attention,
    EdgeLens,
    HeadScores,
    HeadTable,
    behaviour_heads,
    direct_attribution,
    find_heads,
    qk_attribution,
    receiver_scores,
)
from probe.circuits.heads.behaviour import _shares
from probe.circuits.heads.finder import random_texts
from probe.errors import NotApplicable, ProbeError
from probe.models import ModelConfig, load_model
from probe.problems import load_problems
from probe.taxonomy import Behaviour
from probe.traces import generate_traces

LENGTH = 12
NAMES = {
    "induction": "induction_head",
    "previous token": "previous_token_head",
    "duplicate token": "duplicate_token_head",
}


def detected(bridge, kind, repeated, other):
    """The mean attention that TransformerLens detects; it divides by all rows of the pattern."""
    ids = other if kind == "previous token" else repeated
    bridge.to_tokens = lambda _: ids[None]  # a text of random tokens may be divided into others
    name: Any = NAMES[kind]
    share = detect_head(bridge, "", name, error_measure="mul") * len(ids)
    return share / (len(ids) - 1 if kind == "previous token" else LENGTH)


def check_against_transformer_lens(model, rtol):
    bridge, texts = model.lens(), random_texts(model, 2, LENGTH)
    found = find_heads(model, n_texts=2, length=LENGTH)
    for kind in ("induction", "duplicate token"):
        expected = torch.stack([detected(bridge, kind, *text) for text in texts]).mean(0)
        torch.testing.assert_close(found[kind].score, expected.float(), atol=1e-5, rtol=rtol)
    return found


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_scores_are_those_of_transformer_lens(tiny_folder, arch):
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    found = check_against_transformer_lens(model, 1e-4)
    # The previous token of all queries; ours is of those of the second half.
    _, other = random_texts(model, 2, LENGTH)[0]
    model.hf.set_attn_implementation("eager")
    patterns = [each[0] for each in model.hf(other[None], output_attentions=True).attentions]
    expected = torch.stack([torch.stack([p.diagonal(-1, 1, 2)[:, LENGTH - 1 :]]).mean((0, 2)) for p in patterns])
    one = find_heads(model, n_texts=1, length=LENGTH)["previous token"]
    torch.testing.assert_close(one.score, expected, atol=1e-5, rtol=1e-4)
    assert "previous token" in found._repr_html_() and len(found.rows()) == 16


def test_a_planted_head_is_found_and_its_null_is_not():
    generator = torch.Generator().manual_seed(0)
    values, nulls = torch.rand(2, 14, 2, 3, generator=generator)
    values[:, 1, 2] = nulls[:, 1, 2] + 0.1 + 0.1 * torch.rand(14, generator=generator)
    found = HeadTable("m", (HeadScores.of("planted", "x", values, nulls),))
    assert found.top("planted") == [(1, 2)] and "a1.h2" in repr(found)
    assert found.scores()["planted"][1, 2] == found.rows()[5]["planted"]
    assert found["planted"].p[1, 2] == pytest.approx(6 * 2.0**-14, rel=1e-6)
    assert (found["planted"].p.flatten()[:-1] > 0.05).all()
    values[3, 0, 0] = torch.nan
    some = HeadScores.of("planted", "x", values, nulls).p
    assert some[0, 0].isnan() and some[1, 2] == pytest.approx(5 * 2.0**-14, rel=1e-6)
    with pytest.raises(ProbeError, match="did you mean 'planted'"):
        found.top("plantd")
    with pytest.raises(ProbeError, match="both have 'planted'"):
        _ = found + found


def test_a_head_whose_sentences_agree_receives(llama):
    n, generator = 20, torch.Generator().manual_seed(0)
    texts = []
    for _ in range(8):
        agree = torch.rand(n, n, generator=generator) * 0.1
        agree[:, 2] += 1
        own = torch.rand(n, n, generator=generator) * 0.1
        for row in range(5, n):
            own[row, torch.randint(0, row - 3, (1,), generator=generator)] += 1
        texts.append(
            Attention(
                tuple("abcdefghijklmnopqrst"), tuple(range(4)), torch.stack([own, own, agree, own]).tril(-1)[:, None]
            )
        )
    found = receiver_scores(llama, texts)
    assert found.top("receiver") == [(2, 0)] and found["receiver"].p[[0, 1, 3]].min() > 0.05
    with pytest.raises(ProbeError, match="attention of all blocks"):
        receiver_scores(llama, [Attention(texts[0].names, (0,), texts[0].patterns[:1])])


@pytest.fixture(scope="module")
def solved():
    """The reinforced bundled model, its own traces and their problems."""
    model, problems = load_model("bundled:tiny-rl", device="cpu"), load_problems("story")
    some = problems.take("test", 20)
    return model, problems, some, generate_traces(model, problems, some, max_new_tokens=200)


def test_heads_of_a_behaviour_write_towards_it(solved):
    model, problems, some, traces = solved
    found = behaviour_heads(model, traces, some, Behaviour.of_type(problems, "restate"))
    best = found.top("restate", 2)
    assert len(best) == 2 and all(found["restate"].score[at] > found["restate"].null[at] + 0.5 for at in best)
    with pytest.raises(NotApplicable, match="too few traces"):
        behaviour_heads(model, traces, some, Behaviour.of_type(problems, "redo"))


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_shares_are_the_direct_contributions(tiny_folder, arch):
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    ids = torch.randint(6, 100, (1, 9), generator=torch.Generator().manual_seed(0))
    right, wrong = torch.tensor([7]), torch.tensor([8])
    expected = direct_attribution(EdgeLens(model), ids, right, wrong)
    weight = model.hf.get_submodule("lm_head").get_parameter("weight")
    found = _shares(model, ids[0].tolist(), [4, 8], (weight[7] - weight[8]).detach())
    for layer in range(4):
        for head in range(4):
            torch.testing.assert_close(found[1, layer, head], expected[f"a{layer}.h{head}"][0], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_real_model_has_induction_heads_that_read_previous_token_heads(smollm2):
    found = check_against_transformer_lens(smollm2, 1e-3)
    assert found["induction"].n == 2
    whole = find_heads(smollm2, n_texts=14, length=24)
    best = whole.top("induction", 3)
    assert len(best) == 3 and all(whole["induction"].score[at] > 0.3 for at in best)
    # What makes the key attractive is what a previous-token head wrote there: induction heads are known to work so.
    start, (text, _) = len(smollm2.start_ids), random_texts(smollm2, 1, 24)[0]
    why = qk_attribution(smollm2, text, best[0], query=start + 34, keys=[start + 11, start + 5])
    apart = why.against(start + 11, start + 5).sum(0)
    writers = [f"a{layer}.h{head}" for layer, head in whole.top("previous token", 3)]
    assert why.writers[int(apart.argmax())] in writers and apart.max() > 0.5 * (why.score[0] - why.score[1])
    torch.testing.assert_close(why.parts.sum((1, 2)), why.score, atol=1e-4, rtol=1e-4)
