"""Gates on disk are those in memory, a killed search resumes, and what is held does not grow with the traces."""

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.peak import Peak
from probe import harvest
from probe.engine import FolderLock
from probe.errors import ProbeError
from probe.models import ModelConfig, Pair, PairConfig, load_model
from probe.problems import load_problems
from probe.steering import (
    PolicyConfig,
    SteeringConfig,
    collect_gates,
    coming as coming_module,
    difference_of_means,
    keep_gates,
    learn_policy,
    learn_reader,
    learn_vectors,
    policy_data,
    residual_bits,
    text_batches,
    token_behaviours,
)
from probe.steering.prefix import Prefix
from probe.traces import Traces, generate_traces
from tests.hybrid.conftest import random_taxonomy

K, LAYER = 3, 1


@pytest.fixture(scope="module")
def made(tiny_folder):
    """A pair of random models, a taxonomy, and traces of 12 problems with their sentences."""
    configs = [
        ModelConfig(str(tiny_folder("llama", seed=1)), prompt="Problem: {question}\nSolution:"),
        ModelConfig(str(tiny_folder("llama", seed=2)), prompt="Question: {question}\n<think>"),
    ]
    pair = Pair(PairConfig("random", *configs), *(load_model(config, device="cpu") for config in configs))
    problem_set = load_problems("story")
    problems = problem_set.take("train", 12)
    traces = generate_traces(pair.thinking, problem_set, problems, max_new_tokens=30)
    taxonomy = random_taxonomy(pair.thinking, 2, K)
    return pair, taxonomy, traces, problems, harvest(pair.thinking, traces, [taxonomy.site])


def same(one, other):
    for a, b in zip(one, other, strict=True):
        for name, tensor in {**vars(a.forced), "gate": a.gate, "behaviour": a.behaviour, "target": a.target}.items():
            there = getattr(b.forced if hasattr(b.forced, name) else b, name)
            assert torch.equal(tensor, there) and tensor.dtype == there.dtype, name
    return True


def test_gates_in_files_are_those_in_memory_whatever_the_budget(made, tmp_path, monkeypatch):
    pair, taxonomy, traces, problems, acts = made
    plain = list(collect_gates(pair, taxonomy, list(traces), problems, acts=acts, batch_size=5))
    kept = keep_gates(tmp_path, pair, taxonomy, list(traces), problems, acts=acts, batch_size=5)
    assert len(kept) == 3 and same(kept, plain) and same(kept[1:], plain[1:])
    assert kept[0] is not kept[1] and kept[-1].gate.any()
    held = kept[1]
    assert kept[1] is held, "what is held elsewhere is one object"
    for model in (pair.base, pair.thinking):
        monkeypatch.setattr(model, "memory", 1)
    assert same(collect_gates(pair, taxonomy, list(traces), problems, acts=acts, batch_size=5), plain)


def test_only_missing_batches_are_found_again(made, tmp_path):
    pair, taxonomy, traces, problems, acts = made
    how = {"acts": acts, "batch_size": 5}
    kept = keep_gates(tmp_path, pair, taxonomy, list(traces), problems, **how)
    whole = [batch.read_bytes() for batch in kept.files]
    times = [file.stat().st_mtime_ns for file in kept.files]
    kept.files[1].unlink()
    again = keep_gates(tmp_path, pair, taxonomy, list(traces), problems, **how)
    assert [file.read_bytes() for file in again.files] == whole
    assert [file.stat().st_mtime_ns == before for file, before in zip(again.files, times, strict=True)] == [1, 0, 1]
    with FolderLock(tmp_path):  # finished gates are read while another process writes
        assert len(keep_gates(tmp_path, pair, taxonomy, list(traces), problems, **how)) == 3


def test_a_folder_of_other_gates_is_refused(made, tmp_path):
    pair, taxonomy, traces, problems, acts = made
    some = list(traces)
    keep_gates(tmp_path, pair, taxonomy, some, problems, acts=acts)
    changed = [replace(some[0], tokens=(some[0].tokens[1], *some[0].tokens[1:])), *some[1:]]
    swapped = Pair(pair.config, pair.thinking, pair.thinking)
    for args, how, said in (
        ((pair, taxonomy, changed, problems), {"acts": acts}, "traces differs"),
        ((pair, taxonomy, some, problems), {}, "sentences"),
        ((pair, taxonomy, some, problems), {"acts": acts, "batch_size": 3}, "batch_size: 16 there, 3 now"),
        ((pair, random_taxonomy(pair.thinking, 1, K), some, problems), {"acts": None}, "taxonomy differs"),
        ((swapped, taxonomy, some, problems), {"acts": acts}, "base"),
    ):
        with pytest.raises(ProbeError, match=f"keeps the work of other inputs .*{said}"):
            keep_gates(tmp_path, *args, **how)


_PROCESS = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
from probe.models import ModelConfig, Pair, PairConfig, load_model
from probe.problems import load_problems
from probe.steering import keep_gates, kept_gates
from probe.traces import Traces
from tests.hybrid.conftest import random_taxonomy

torch.set_num_threads(1)
slow = kept_gates.write_tensors
def write(file, tensors):
    slow(file, tensors)
    print("written", flush=True)
    time.sleep(5)
kept_gates.write_tensors = write
prompts = ("Problem: {question}\\nSolution:", "Question: {question}\\n<think>")
configs = [ModelConfig(path, prompt=prompt) for path, prompt in zip(sys.argv[2:4], prompts)]
pair = Pair(PairConfig("random", *configs), *(load_model(config, device="cpu") for config in configs))
problems = load_problems("story").take("train", 12)
taxonomy = random_taxonomy(pair.thinking, 2, 3)
keep_gates(sys.argv[5], pair, taxonomy, list(Traces.load(sys.argv[4])), problems, batch_size=5)
"""


def test_a_search_that_is_killed_resumes(made, tiny_folder, tmp_path):
    pair, taxonomy, traces, problems, _ = made
    traces.save(tmp_path / "traces")
    root = str(__import__("pathlib").Path(__file__).parents[2])
    folders = [str(tiny_folder("llama", seed=seed)) for seed in (1, 2)]
    arguments = [root, *folders, str(tmp_path / "traces"), str(tmp_path / "gates")]
    with subprocess.Popen([sys.executable, "-c", _PROCESS, *arguments], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    left = sorted((tmp_path / "gates").glob("batch-*"))
    assert len(left) == 1
    before = left[0].stat().st_mtime_ns
    kept = keep_gates(tmp_path / "gates", pair, taxonomy, list(traces), problems, batch_size=5)
    assert left[0].stat().st_mtime_ns == before
    assert same(kept, collect_gates(pair, taxonomy, list(traces), problems, batch_size=5))


def test_what_is_learned_from_files_is_what_is_learned_from_memory(made, tmp_path):
    pair, taxonomy, traces, problems, acts = made
    plain = list(collect_gates(pair, taxonomy, list(traces), problems, acts=acts, batch_size=4))
    kept = keep_gates(tmp_path, pair, taxonomy, list(traces), problems, acts=acts, batch_size=4)
    how = {"n_behaviours": K, "layer": LAYER, "config": SteeringConfig(steps=4, check_every=2, hidden=4), "seed": 0}
    one, other = (learn_vectors(pair.base, gates, gates[:1], **how).vectors for gates in (plain, kept))
    assert torch.equal(one.vectors, other.vectors)
    one, other = (difference_of_means(pair.base, gates, K, LAYER).vectors for gates in (plain, kept))
    assert torch.equal(one, other)
    one, other = (policy_data(pair.base, gates, (0, 2)) for gates in (plain, kept))
    assert torch.equal(one.states, other.states) and torch.equal(one.wanted, other.wanted)


def test_a_sample_of_tokens_is_some_of_all_and_the_same_for_any_budget(made, monkeypatch):
    pair, taxonomy, traces, problems, _ = made
    gates = list(collect_gates(pair, taxonomy, list(traces), problems, batch_size=5))
    whole = policy_data(pair.base, gates, (1, 3))
    beyond = policy_data(pair.base, gates, (1, 3), tokens=10**6)
    assert torch.equal(whole.states, beyond.states) and torch.equal(whole.wanted, beyond.wanted)
    assert len(whole.wanted) == sum(int(batch.forced.emitted.sum()) for batch in gates)
    some, again, other = (policy_data(pair.base, gates, (1, 3), tokens=20, seed=seed) for seed in (0, 0, 1))
    assert len(some.wanted) == 20 and torch.equal(some.states, again.states)
    assert not torch.equal(some.states, other.states)
    near = torch.cdist(some.states, whole.states, compute_mode="donot_use_mm_for_euclid_dist")
    at = near.argmin(1)
    assert (near.min(1).values < 1e-3).all() and torch.equal(some.wanted, whole.wanted[at])
    assert (at.diff() > 0).all(), "in the order of the texts"
    monkeypatch.setattr(pair.base, "memory", 1)
    torch.testing.assert_close(policy_data(pair.base, gates, (1, 3), tokens=20).states, some.states)


def test_a_policy_reads_spread_layers_and_those_of_old_settings_keep_their_key():
    config = PolicyConfig()
    assert config.spread(4) == (0, 1, 2, 3) and config.spread(28) == (3, 6, 10, 13, 17, 20, 24, 27)
    assert replace(config, layers=1).spread(28) == (27,)
    assert not {"layers", "tokens"} & set(config.key)
    assert replace(config, layers=3).key == {**config.key, "layers": 3}
    with pytest.raises(ProbeError, match=r"policy\.layers"):
        PolicyConfig(layers=0)


def test_a_policy_in_half_precision_learns_what_one_in_full_precision_does():
    def data(n, seed, dtype):
        x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)).bfloat16()
        from probe.steering.base_policy import PolicyData

        return PolicyData(x.to(dtype), torch.where(x[:, 0].float() > 1, 1 + (x[:, 5] > 0).long(), 0))

    found = []
    for dtype in (torch.float32, torch.bfloat16):
        train, unseen = data(2000, 0, dtype), data(500, 1, dtype)
        config = PolicyConfig(hidden=8, steps=60, batch_size=128)
        policy = learn_policy(train, unseen, layers=(0, 3), n_behaviours=2, config=config, seed=0).policy
        found.append((policy.mean, policy.network[0].weight, residual_bits(policy, unseen)["bits_per_token"]))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]


def test_a_reader_is_fitted_on_the_tokens_that_it_would_choose_of_all(made, monkeypatch):
    """With a limit of n tokens it reads only texts that have one of them, and is the reader of those tokens."""
    pair, taxonomy, traces, problems, acts = made
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    seen, read = [], coming_module.predicting_states

    def spy(model, problems, part, emitted, layer):
        seen.extend(part)
        return read(model, problems, part, emitted, layer)

    monkeypatch.setattr(coming_module, "predicting_states", spy)
    whole = learn_reader(pair, taxonomy, list(traces), problems, acts=acts)
    assert sorted(seen) == sorted(i for i, trace in enumerate(traces) if trace.tokens)
    states, labels, named = [], [], token_behaviours(taxonomy, list(traces), acts)
    for part, emitted in text_batches(pair, list(traces), problems, 16):
        for i, own, resid in zip(part, emitted, read(pair.thinking, problems, part, emitted, 3), strict=True):
            label = named[i][: len(own)]
            states.append(resid[: len(own)][label >= 0])
            labels.append(label[label >= 0])
    x, y = torch.cat(states).numpy(), torch.cat(labels).numpy()
    for most in (10**6, 40, 9):
        some = np.random.default_rng(0).permutation(len(y))[:most]
        scaler = StandardScaler().fit(x[some])
        wanted = LogisticRegression(max_iter=300).fit(scaler.transform(x[some]), y[some]).predict(scaler.transform(x))
        monkeypatch.setattr(coming_module, "_MAX_TOKENS", most)
        seen.clear()
        reader = learn_reader(pair, taxonomy, list(traces), problems, acts=acts)
        assert len(seen) <= min(most, len(traces)) and (reader(torch.from_numpy(x)).numpy() == wanted).mean() > 0.99
        assert torch.equal(reader.linear.weight, whole.linear.weight) == (most > len(y))


def test_states_below_are_written_when_they_are_used_and_computed_where_there_is_no_room(made, tmp_path, monkeypatch):
    pair, taxonomy, traces, problems, _ = made
    gates = list(collect_gates(pair, taxonomy, list(traces), problems, batch_size=4))
    below = Prefix(pair.base, gates, LAYER, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    first = below[1][1]
    assert len(list((tmp_path / "there").iterdir())) == 1 and torch.equal(below[1][1], first)
    size = next((tmp_path / "there").iterdir()).stat().st_size
    usage = type("usage", (), {"free": 3 * size})
    monkeypatch.setattr("probe.steering.prefix.shutil.disk_usage", lambda _: usage)
    states = [below[i][1] for i in range(len(gates))]
    assert len(list((tmp_path / "there").iterdir())) < len(gates), "they never take more than they leave free"
    assert all(torch.equal(below[i][1], each) for i, each in enumerate(states))
    (tmp_path / "file").write_text("in the way")
    blocked = Prefix(pair.base, gates, LAYER, tmp_path / "file")
    assert torch.equal(blocked[1][1], first)


def repeated(traces, problems, acts, times):
    """The same traces several times, with their harvested sentences."""
    from probe.activations import SentenceActivations

    n = len(traces)
    index = [(trace + n * i, sentence) for i in range(times) for trace, sentence in acts.index]
    vectors = {site: rows.repeat(times, 1) for site, rows in acts.vectors.items()}
    more = Traces(traces.model_name, traces.problems_name, list(traces) * times)
    return more, list(problems) * times, SentenceActivations(vectors, index, acts.texts * times)


def test_what_is_held_does_not_grow_with_the_number_of_traces(made, tmp_path, monkeypatch):
    """Ten times the traces, at most 1.1 times the memory, for gates and what is learned from them."""
    pair, taxonomy, traces, problems, acts = made
    monkeypatch.setattr(coming_module, "_MAX_TOKENS", 50)
    peaks = {}
    for times in (2, 20):
        many, questions, sentences = repeated(traces, problems, acts, times)
        some = list(many)
        found = {}
        with Peak() as held:
            gates = keep_gates(tmp_path / str(times), pair, taxonomy, some, questions)
        found["gates"] = held.peak
        with Peak() as held:
            policy_data(pair.base, gates, (1, 3), tokens=100)
        found["policy"] = held.peak
        with Peak() as held:
            difference_of_means(pair.base, gates, K, LAYER)
        found["means"] = held.peak
        with Peak() as held:
            learn_reader(pair, taxonomy, some, questions, acts=sentences)
        found["reader"] = held.peak
        below = Prefix(pair.base, gates, LAYER, tmp_path / f"below-{times}")
        with Peak() as held:
            for i in range(len(below)):
                below[i]
        found["prefix"] = held.peak
        peaks[times] = found
    for what, before in peaks[2].items():
        assert peaks[20][what] <= 1.1 * before, (what, peaks)
