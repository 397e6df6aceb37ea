import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from probe import ProbeError
from probe.activations import SentenceActivations, harvest
from probe.models import Model, load_model
from probe.organisms.documents import join, wander
from probe.problems import Problem, ProblemSet
from probe.problems.story.story import draw_story
from probe.taxonomy import Taxonomy, TaxonomyConfig, fit_taxonomy
from probe.taxonomy.neuronpedia import write_neuronpedia
from probe.traces import Traces, make_trace

SITE = "resid_post.2"


def story_traces(model: Model, n: int) -> Traces:
    rng = random.Random(0)
    stories = [draw_story(rng, 3) for _ in range(n)]
    problems = tuple(Problem(f"story/{i}", story.question(), str(story.answer)) for i, story in enumerate(stories))
    problem_set = ProblemSet("story", "numeric", {"train": problems})
    emitted = [model.tokenizer(join(wander(story, rng)), add_special_tokens=False).input_ids for story in stories]
    some = [make_trace(model, problem_set, p, ids, False) for p, ids in zip(problems, emitted, strict=True)]
    return Traces(model.name, "story", some)


@dataclass(frozen=True)
class Written:
    model: Model
    traces: Traces
    activations: SentenceActivations
    taxonomy: Taxonomy
    folder: Path

    def records(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


# One with a norm that has a bias and centres, one without.
@pytest.fixture(scope="module", params=["llama", "gpt2"])
def written(request: pytest.FixtureRequest, tiny_folder, tmp_path_factory: pytest.TempPathFactory) -> Written:
    model = load_model(tiny_folder(request.param), device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.hf.get_submodule(
        "transformer.ln_f" if request.param == "gpt2" else "model.norm"
    ).parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator)
    traces = story_traces(model, 12)
    activations = harvest(model, traces, SITE)
    taxonomy = fit_taxonomy(activations, activations, TaxonomyConfig(sizes=(4,), seeds=(0,), steps=30))
    folder = tmp_path_factory.mktemp("neuronpedia")
    assert write_neuronpedia(folder, taxonomy, model, traces, activations, examples=5) == folder
    return Written(model, traces, activations, taxonomy, folder)


def raw_latents(taxonomy: Taxonomy, x: torch.Tensor) -> torch.Tensor:
    return taxonomy.latents(x) * (x - taxonomy.normaliser.mean).norm(dim=-1, keepdim=True)


def test_features(written: Written) -> None:
    features = written.records("features")
    assert [feature["index"] for feature in features] == ["0", "1", "2", "3"]
    latents = raw_latents(written.taxonomy, written.activations.vectors[SITE])
    for i, feature in enumerate(features):
        assert feature["layer"] == "2-probe-res-4"
        assert feature["modelId"] == written.model.name.lower()
        assert feature["hookName"] == "blocks.2.hook_resid_post"
        assert feature["frac_nonzero"] == pytest.approx((latents[:, i] > 0).float().mean().item())
        own = [each["maxValue"] for each in written.records("activations") if each["index"] == str(i)]
        assert feature["maxActApprox"] == max(own)


def test_logits_are_those_of_the_direction(written: Written) -> None:
    """As if the norm's scale were folded into the unembedding; its bias is none of the direction's doing."""
    hf = written.model.hf
    for direction, feature in zip(written.taxonomy.directions, written.records("features"), strict=True):
        if hf.config.model_type == "gpt2":
            norm, centred = hf.transformer.ln_f, direction - direction.mean()
        else:
            norm, centred = hf.model.norm, direction
        eps = getattr(norm, "eps", None) or norm.variance_epsilon
        normed = norm.weight * centred / (centred.square().mean() + eps).sqrt()
        logits = normed @ hf.lm_head.weight.T
        for name, sign in (("pos", 1), ("neg", -1)):
            tokens = (sign * logits).argsort(descending=True)[:10].tolist()
            assert feature[f"{name}_values"] == pytest.approx(logits[tokens].tolist(), abs=1e-4)
            assert feature[f"{name}_str"] == [written.model.tokenizer.decode([token]) for token in tokens]


def test_values_are_those_of_tokens(written: Written) -> None:
    records = written.records("activations")
    assert 4 <= len(records) <= 20
    model = written.model
    by_problem = {trace.problem_id: trace for trace in written.traces}
    for record in records:
        assert record["maxValue"] == max(record["values"]) == record["values"][record["maxValueTokenIndex"]]
        assert record["minValue"] == min(record["values"])
        assert len(record["tokens"]) == len(record["values"])
        assert record["dataSource"] == "story"
        problem, _, number = record["dataIndex"].rpartition("/")
        trace = by_problem[problem]
        sentence = trace.sentences[int(number)]
        prompt = model.tokenizer(trace.prompt).input_ids
        ids = [*prompt, *trace.tokens]
        start = max(0, len(prompt) + sentence.token_start - 32)
        end = min(len(ids), len(prompt) + sentence.token_end + 32)
        with torch.no_grad():
            states = model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states[3][0]
        assert record["tokens"] == [model.tokenizer.decode([token]) for token in ids[start:end]]
        true = raw_latents(written.taxonomy, states)[start:end, int(record["index"])]
        assert record["values"] == pytest.approx(true.tolist(), rel=1e-3, abs=1e-4)


def test_shows_the_top_sentences(written: Written) -> None:
    latents = raw_latents(written.taxonomy, written.activations.vectors[SITE])
    for i in range(4):
        top = latents[:, i].argsort(descending=True, stable=True)[: min(5, int((latents[:, i] > 0).sum()))]
        places = [written.activations.index[row] for row in top.tolist()]
        shown = [each["dataIndex"] for each in written.records("activations") if each["index"] == str(i)]
        assert shown == [f"{written.traces[trace].problem_id}/{sentence}" for trace, sentence in places]


def test_explanations(written: Written, tmp_path: Path) -> None:
    first = written.records("explanations")
    assert [each["description"] for each in first] == written.taxonomy.labels
    assert {(each["typeName"], each["explanationModelName"]) for each in first} == {("probe-label", "")}
    assert len({each["id"] for kind in ("activations", "explanations") for each in written.records(kind)}) == 4 + len(
        written.records("activations")
    )
    args = (written.taxonomy, written.model, written.traces, written.activations)
    write_neuronpedia(tmp_path, *args, examples=1, names=["a", "b", "c", "d <é>"])
    assert (
        json.loads((tmp_path / "explanations.jsonl").read_text(encoding="utf-8").splitlines()[3])["description"]
        == "d <é>"
    )


def test_outlier_tokens_have_value_zero(written: Written, tmp_path: Path) -> None:
    tight = Taxonomy.load(written.taxonomy.save(tmp_path / "taxonomy"))
    norms = written.activations.vectors[SITE].norm(dim=1)
    tight.normaliser.limit = norms.median().item()
    write_neuronpedia(tmp_path, tight, written.model, written.traces, written.activations, examples=3)
    features = [json.loads(line) for line in (tmp_path / "features.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = raw_latents(tight, written.activations.vectors[SITE]) * (norms <= tight.normaliser.limit)[:, None]
    assert [each["frac_nonzero"] for each in features] == pytest.approx((kept > 0).float().mean(0).tolist())


def test_refuses_what_does_not_belong_together(written: Written, tmp_path: Path) -> None:
    model, traces, activations, taxonomy = written.model, written.traces, written.activations, written.taxonomy
    x = activations.vectors[SITE]
    elsewhere = SentenceActivations({"resid_post.1": x}, activations.index, activations.texts)
    bad = x.clone()
    bad[3, 2] = float("nan")
    holed = SentenceActivations({SITE: bad}, activations.index, activations.texts)
    empty = SentenceActivations({SITE: x[:0]}, [], [])
    for args, options, message in (
        ((traces, elsewhere), {}, r"reads resid_post\.2, but .* harvested at resid_post\.1"),
        ((traces[:2], activations), {}, "is not a sentence of these traces"),
        ((Traces("m", "story", traces.traces[::-1]), activations), {}, "row 0 of the activations is not a sentence"),
        ((traces, holed), {}, "1 of .* are not finite"),
        ((traces, empty), {}, "no sentences to show"),
        ((traces, activations), {"names": ["a"]}, "1 names were given for 4 behaviours"),
        ((traces, activations), {"examples": 0}, "examples=0 shows nothing"),
    ):
        with pytest.raises(ProbeError, match=message):
            write_neuronpedia(tmp_path / "none", taxonomy, model, *args, **options)
    assert not (tmp_path / "none").exists()
