"""What is measured on a pair besides its arms, by the functions of the library, on a pair that may lie anywhere."""

import math
from typing import Any

import torch

from probe.activations import harvest
from probe.anchors import contrast, entropy, forced_answers, roll_out
from probe.circuits import heads_changed, logit_lens, operand_pairs, patch, reference, sentence_attention
from probe.diff import OF_SAE, PARTS, diff_models
from probe.hybrid import flip_rates, naming_agreement
from probe.models import Pair
from probe.problems import load_problems
from probe.steering import collect_gates, difference_of_means, learn_reader
from probe.taxonomy import FalsifyConfig, Taxonomy, TaxonomyConfig, falsify, fit_taxonomy
from probe.traces import Traces, generate_traces

PROBLEMS = load_problems("story")
SOME = PROBLEMS.take("train", 6)
_FEW = TaxonomyConfig(sites=("resid_post.2",), sizes=(3,), k=3, steps=20, seeds=(0,), rivals=())
_ELSEWHERE = ("heads", "latents")
"""Parts of a comparison that take a copy of the models on one device, or long to train."""
_TRIALS = FalsifyConfig(sentences=4, prefixes=2, samples=2, new_tokens=8)


def measures(pair: Pair, taxonomy: Taxonomy | None = None) -> tuple[dict[str, Any], Taxonomy]:
    """What is measured, by name, in lists and dictionaries; and the taxonomy."""
    found: dict[str, Any] = {}
    traces = generate_traces(pair.thinking, PROBLEMS, SOME, max_new_tokens=80)
    acts = harvest(pair.thinking, traces, "resid_post.2")
    taxonomy = taxonomy or fit_taxonomy(acts, acts, _FEW)
    gates = list(collect_gates(pair, taxonomy, list(traces), SOME, acts=acts))
    reader = learn_reader(pair, taxonomy, list(traces), SOME, acts=acts)
    vectors = difference_of_means(pair.base, gates, 3, 1)
    flips = flip_rates(pair, taxonomy, list(traces), SOME, mechanism=vectors, behaviours=[0], starts=4)
    found["flips"] = _plain(flips)
    found["naming"] = _plain(naming_agreement(pair, taxonomy, list(traces), SOME, reader=reader, gates=gates))
    found["falsify"] = _plain([vars(card) for card in falsify(pair.thinking, taxonomy, traces, acts, config=_TRIALS)])
    trace, problem = traces[0], SOME[0]
    found["contrast"] = _plain(contrast(pair.thinking, pair.base, problem, trace))
    found["entropy"] = _plain(entropy(pair.base, problem, trace))
    few: dict[str, Any] = {"n_samples": 2, "max_new_tokens": 6}
    found["rollouts"] = _plain(roll_out(pair.thinking, PROBLEMS, problem, trace, places=[3, 9], **few))
    found["forced answers"] = _plain(forced_answers(pair.thinking, PROBLEMS, problem, trace, **few))
    ids = torch.tensor(pair.thinking.prompt_ids(problem.question) + list(trace.tokens))
    found["logit lens"] = _plain(logit_lens(pair.thinking, ids).log_prob)
    spans = [(0, 9), (9, 20), (20, len(ids))]
    found["attention"] = _plain(sentence_attention(pair.thinking, ids, spans))
    pairs = operand_pairs(pair.thinking, list(traces), SOME, n_pairs=4)
    found["patching"] = _plain(vars(patch(pair.thinking, pairs, "resid_pre")))
    mean = reference(pair.thinking, Traces(list(traces)[:2]) if not isinstance(traces, Traces) else traces)
    with torch.no_grad(), heads_changed(pair.thinking, [(1, 0), (2, 1)], "mean", reference=mean):
        found["heads"] = _plain(pair.thinking.hf(ids.to(pair.thinking.device)[None]).logits[0, -1])
    parts = [part for part in PARTS if part not in (*_ELSEWHERE, OF_SAE)]
    diff = diff_models(pair, parts=parts, traces=traces, n_problems=6, n_pairs=6, max_new_tokens=80)
    found |= {f"diff {part}": _plain(getattr(diff, part)) for part in parts}
    found["diff missing"] = sorted(diff.missing)
    return found, taxonomy


def _plain(value: Any) -> Any:
    """Any result in lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return [_plain(each) for each in value.detach().float().cpu().flatten().tolist()[::7]]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str | int | bool) or value is None:
        return value
    return _plain(vars(value)) if hasattr(value, "__dict__") else str(type(value).__name__)
