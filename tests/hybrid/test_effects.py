"""What vectors do: a vector of nothing flips nothing, and a model compared with itself has no difference."""

from dataclasses import asdict

import pytest
import torch

from probe import harvest
from probe.hooks import force, forced_pass
from probe.hybrid.effects import flip_rates, naming_agreement, two_by_two
from probe.models import Pair, PairConfig
from probe.problems import load_problems
from probe.steering import (
    ComingReader,
    FixedVectors,
    collect_gates,
    decoder_rows,
    difference_of_means,
    token_behaviours,
)
from probe.taxonomy import Behaviour
from probe.traces import generate_traces
from tests.hybrid.conftest import random_taxonomy

K, SITE_LAYER, LAYER = 3, 2, 1


@pytest.fixture
def problems():
    return load_problems("story")


@pytest.fixture
def some(problems):
    return problems.take("train", 5)


@pytest.fixture
def traces(llamas, problems, some):
    return generate_traces(llamas.thinking, problems, some, max_new_tokens=40)


@pytest.fixture
def taxonomy(llamas):
    return random_taxonomy(llamas.thinking, SITE_LAYER, K)


@pytest.fixture
def acts(llamas, traces, taxonomy):
    return harvest(llamas.thinking, traces, [taxonomy.site])


def test_gates_are_named_by_their_sentence(llamas, taxonomy, traces, some, acts):
    """Sentence by sentence, from the harvest; without it, from the token before."""
    named = {
        (i, j): behaviour
        for (i, s), behaviour in zip(acts.index, taxonomy.behaviour(acts.vectors[taxonomy.site]).tolist(), strict=True)
        for j in range(traces[i].sentences[s].token_start, traces[i].sentences[s].token_end)
    }
    batches = list(collect_gates(llamas, taxonomy, traces, some, acts=acts, batch_size=1))
    plain = list(collect_gates(llamas, taxonomy, traces, some, batch_size=1))
    order = sorted(range(len(traces)), key=lambda i: len(traces[i].tokens) + (not traces[i].truncated))
    for i, batch, other in zip(order, batches, plain, strict=True):
        assert torch.equal(batch.gate, other.gate) and batch.gate.any()
        for j in range(len(traces[i].tokens)):
            if (i, j) in named:
                assert int(batch.behaviour[0, j]) == named[i, j]
    assert any(not torch.equal(a.behaviour, b.behaviour) for a, b in zip(batches, plain, strict=True))


def test_ways_of_naming_are_counted_at_gates(llamas, taxonomy, traces, some, acts):
    torch.manual_seed(1)
    reader = ComingReader(3, llamas.thinking.d_model, K).requires_grad_(False)
    gates = list(collect_gates(llamas, taxonomy, traces, some, acts=acts, batch_size=2))
    found = naming_agreement(llamas, taxonomy, traces, some, reader=reader, gates=gates, batch_size=2)
    hits, n = {"single": 0, "pooled": 0, "coming": 0}, 0
    for trace, problem, wanted in zip(traces, some, token_behaviours(taxonomy, traces, acts), strict=True):
        read, emitted = {}, [*trace.tokens, *([] if trace.truncated else llamas.thinking.eos_ids[:1])]
        for role, model in (("base", llamas.base), ("thinking", llamas.thinking)):
            forced = force(model, [model.prompt_ids(problem.question)], [emitted])
            for layer in (SITE_LAYER, reader.layer):
                site = f"resid_post.{layer}"
                ran = forced_pass(model, forced, site)
                read[role, layer] = ran.predicting(site)[0]
            read[role] = ran.logits[0]
        starts = {sentence.token_start for sentence in trace.sentences}
        begin = 0
        for j in range(len(emitted)):
            begin = j if j in starts else begin
            if read["base"][j].argmax() == read["thinking"][j].argmax():
                continue
            state = read["thinking", SITE_LAYER]
            said = {
                "single": int(taxonomy.behaviour(state[j : j + 1])),
                "pooled": int(taxonomy.behaviour(state[begin : j + 1].mean(0, keepdim=True))),
                "coming": int(reader(read["thinking", reader.layer][j : j + 1])),
            }
            want = int(wanted[j]) if wanted[j] >= 0 else said["single"]
            n += 1
            for name, behaviour in said.items():
                hits[name] += behaviour == want
    assert found == pytest.approx({name: count / n for name, count in hits.items()})


def test_a_vector_of_nothing_flips_nothing(llamas, taxonomy, problems, some):
    base = list(generate_traces(llamas.base, problems, some, max_new_tokens=60))
    nothing = FixedVectors.of(torch.zeros(K, llamas.base.d_model), LAYER)
    rates = flip_rates(llamas, taxonomy, base, some, mechanism=nothing, starts=9)
    assert rates.starts > 0 and {each.rate for each in rates.per_behaviour if each.n} == {0.0}
    assert sum(round(each.unsteered * rates.starts) for each in rates.per_behaviour) <= rates.starts
    assert rates._repr_html_().count("<tr>") == K + 2 and repr(rates).startswith("FlipRates(0% over 3 behaviours")
    assert rates.to_dict()["per_behaviour"][0] == asdict(rates.per_behaviour[0])


def test_a_pair_of_one_model_has_one_direction(llamas, taxonomy, traces, problems, some, acts):
    model = llamas.thinking
    same = Pair(PairConfig("same", model.config, model.config), model, model)
    number = int(taxonomy.behaviour(acts.vectors[taxonomy.site])[0])
    behaviour = Behaviour.of_category(taxonomy, number, model)
    found = two_by_two(
        same,
        problems,
        traces,
        some,
        behaviour=behaviour,
        chosen_on=problems.take("validation", 2),
        reported_on=some[:2],
        layer=LAYER,
        max_new_tokens=20,
        doses=(0.0, 8.0),
    )
    rates = {(cell["rate"], cell["before"], cell["dose"]) for cell in found["cells"]}
    assert len(found["cells"]) == 4 and len(rates) == 1
    still = two_by_two(
        same,
        problems,
        traces,
        some,
        behaviour=behaviour,
        chosen_on=some[:1],
        reported_on=some[:2],
        layer=LAYER,
        max_new_tokens=20,
        doses=(0.0,),
    )
    assert all(cell["rate"] == cell["before"] for cell in still["cells"])


def test_directions_that_nobody_trains(llamas, taxonomy, traces, some, acts):
    gates = list(collect_gates(llamas, taxonomy, traces, some, acts=acts, batch_size=2))
    made = difference_of_means(llamas.base, gates, K, LAYER)
    at_gates, everywhere = {k: [] for k in range(K)}, []
    for batch in gates:
        for row in range(len(batch.gate)):
            width = int(batch.forced.valid[row].sum())
            ids = batch.forced.ids[row, :width]
            with torch.no_grad():
                hidden = llamas.base.hf(ids[None], output_hidden_states=True).hidden_states[LAYER + 1][0]
            for j in batch.forced.emitted[row].nonzero()[:, 0].tolist():
                state = hidden[batch.forced.predicts[row, j]]
                everywhere.append(state)
                if batch.gate[row, j]:
                    at_gates[int(batch.behaviour[row, j])].append(state)
    whole = torch.stack(everywhere).mean(0)
    for k, found in at_gates.items():
        expected = torch.stack(found).mean(0) - whole if found else torch.zeros_like(whole)
        torch.testing.assert_close(made.vectors[k], expected, rtol=1e-4, atol=1e-5)
    rows = decoder_rows(taxonomy, torch.tensor([1.0, 2.0, 3.0]), llamas.base, LAYER).vectors
    torch.testing.assert_close(rows.norm(dim=1), torch.tensor([1.0, 2.0, 3.0]))
    cosine = torch.nn.functional.cosine_similarity(rows, taxonomy.directions, dim=1)
    torch.testing.assert_close(cosine, torch.ones(K))
