import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from serving import ModelServer, as_reply, served

from probe.config import from_dict
from probe.errors import ProbeError
from probe.models import Model, Sampling, load_model, load_pair
from probe.pipeline import RunConfig
from probe.problems import Problem, ProblemSet, load_problems
from probe.servers import ServersConfig
from probe.traces import generate_traces, open_servers, served_traces

PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i + 3}?", str(2 * i + 3)) for i in range(7)]
SUMS = ProblemSet("sums", "numeric", {"test": tuple(PROBLEMS)})
LIMIT = 12
QUICK = ServersConfig(concurrency=3, timeout=20, patience=0.5)


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return load_model(tiny_folder("llama", "letters"), device="cpu")


@pytest.fixture(scope="module")
def other(tiny_folder) -> Model:
    return load_model(tiny_folder("llama", "letters", seed=1), device="cpu")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def opened(model: Model, *servers: ModelServer, sampling: Sampling = Sampling(), config: ServersConfig = QUICK):  # noqa: B008
    urls = [server.url for server in servers]
    return open_servers(urls, model, PROBLEMS, max_new_tokens=LIMIT, sampling=sampling, config=config)


def write(model: Model, *servers: ModelServer, folder: Path | None = None, config: ServersConfig = QUICK):
    found = opened(model, *servers, config=config)
    return served_traces(model, SUMS, PROBLEMS, found, max_new_tokens=LIMIT, folder=folder)


def local(model: Model):
    return list(generate_traces(model, SUMS, PROBLEMS, max_new_tokens=LIMIT))


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
def test_every_kind_of_server_is_found_out_and_gives_the_traces_of_local_decoding(model, kind, tmp_path):
    with served(model, kind) as server:
        found = write(model, server, folder=tmp_path)
        assert list(found) == local(model)
    # Finished traces are read without their server.
    again = served_traces(model, SUMS, PROBLEMS, None, max_new_tokens=LIMIT, folder=tmp_path)
    assert list(again) == list(found)
    assert json.loads((tmp_path / "00000.done.json").read_text())["how"]["urls"] == [server.url]
    key = json.loads((tmp_path / "key.json").read_text())["key"]
    assert key["server"]["kind"] == kind and key["server"]["model"] == "served"
    assert not list(tmp_path.glob("answers-*"))


def test_a_server_of_text_gives_the_same_traces_and_base_and_thinking_model_are_not_exchanged():
    pair, problems = load_pair("tiny-rl", device="cpu"), load_problems("story")
    some = problems.take("test", 4)
    with served(pair.thinking, "text") as server:
        servers = open_servers([server.url], pair.thinking, some, max_new_tokens=30, config=QUICK)
        found = served_traces(pair.thinking, problems, some, servers, max_new_tokens=30)
        assert list(found) == list(generate_traces(pair.thinking, problems, some, max_new_tokens=30))
        with pytest.raises(ProbeError, match="does not run tiny-base greedily"):
            open_servers([server.url], pair.base, some, max_new_tokens=64, config=QUICK)


def test_another_model_under_the_same_name_is_refused(model, other):
    with served(other) as server:
        with pytest.raises(ProbeError, match="does not run llama-letters-0 greedily"):
            opened(model, server)
        with pytest.raises(ProbeError, match=r"does not sample llama-letters-0 with temperature 0\.7"):
            opened(model, server, sampling=Sampling(0.7))


@pytest.mark.parametrize(
    "how", [Sampling(0.7), Sampling(1.3, top_p=0.8), Sampling(1.0, top_k=3), Sampling(1.0, min_p=0.2)]
)
def test_sampling_is_checked_against_the_distribution(model, how):
    with served(model) as server:
        opened(model, server, sampling=how)
        server.sampled = False
        with pytest.raises(ProbeError, match=r"does not sample|same text for every seed"):
            opened(model, server, sampling=how)


@pytest.mark.parametrize(
    "ignored", [{"temperature": 1.0}, {"temperature": 1.6, "top_p": 1.0}, {"top_k": 0, "temperature": 0.9}]
)
def test_a_server_that_ignores_a_setting_of_sampling_is_refused(model, ignored, monkeypatch):
    with served(model) as server:
        real = server._write
        monkeypatch.setattr(server, "_write", lambda ids, how, *rest: real(ids, {**how, **ignored}, *rest))
        how = Sampling(0.5, top_p=0.9, top_k=5)
        with pytest.raises(ProbeError, match="does not sample"):
            open_servers([server.url], model, PROBLEMS, max_new_tokens=24, sampling=how, config=QUICK)


def test_the_server_says_which_model_it_serves_or_the_address_does(model, monkeypatch):
    with served(model, name="their-name") as server:
        assert opened(model, server).who == {"kind": "vllm", "model": "their-name", "version": "1.0"}
        several = as_reply({"data": [{"id": "a"}, {"id": "their-name", "root": model.config.path}]})
        monkeypatch.setattr(server, "listed", lambda: several)
        assert opened(model, server).who["model"] == "their-name"
        monkeypatch.setattr(server, "listed", lambda: as_reply({"data": [{"id": "a"}, {"id": "their-name"}]}))
        with pytest.raises(ProbeError, match=r"has several models \(a, their-name\); name one, as http.*#a"):
            opened(model, server)
        found = open_servers([f"{server.url}#their-name"], model, PROBLEMS, max_new_tokens=LIMIT, config=QUICK)
        assert found.who["model"] == "their-name"
        with pytest.raises(ProbeError, match="The model `nobody` does not exist"):
            open_servers([f"{server.url}#nobody"], model, PROBLEMS, max_new_tokens=LIMIT, config=QUICK)


def test_what_a_server_does_to_answers_is_noticed(model):
    with served(model) as server:
        server.adds = 1
        with pytest.raises(ProbeError, match=r"reads a prompt of .* tokens as .* it adds tokens"):
            opened(model, server)
        server.adds, server.context = 0, 20
        with pytest.raises(ProbeError, match="has a context of 20 tokens"):
            opened(model, server)
        server.context = 4096
        servers = opened(model, server)
        short = as_reply({"choices": [{"text": "", "finish_reason": "length", "token_ids": [5, 6]}], "model": "served"})
        server.before = lambda *_: short
        with pytest.raises(ProbeError, match="cut an answer after 2 of 12 tokens"):
            served_traces(model, SUMS, PROBLEMS, servers, max_new_tokens=LIMIT)
        swapped = as_reply({"choices": [{"text": "", "finish_reason": "stop", "token_ids": [5]}], "model": "new"})
        server.before = lambda *_: swapped
        with pytest.raises(ProbeError, match="asked for the model served and answered with new"):
            served_traces(model, SUMS, PROBLEMS, servers, max_new_tokens=LIMIT)


def test_temporary_failures_are_tried_again_and_lose_nothing(model):
    broken = {
        0: as_reply("busy", 429, Retry_After="0"),
        1: as_reply("down", 500, Retry_After="0"),
        2: (200, {"Content-Length": "999"}, b'{"choices": [{"te'),
        3: (200, {}, b"<html>"),
        4: as_reply({"choices": []}),
        5: as_reply("loading", 503),
    }
    with served(model) as server:
        servers = opened(model, server, config=replace(QUICK, patience=9))
        begun = len(server.requests)
        server.before = lambda number, _: broken.get(number - begun)
        assert list(served_traces(model, SUMS, PROBLEMS, servers, max_new_tokens=LIMIT)) == local(model)
        server.before = lambda *_: as_reply("out of order", 500, Retry_After="0")
        with pytest.raises(ProbeError, match=r"failed 5 times on the same request.*out of order"):
            served_traces(model, SUMS, PROBLEMS, servers, max_new_tokens=LIMIT)


@pytest.mark.slow
def test_a_server_that_dies_hands_its_work_on_and_the_last_one_ends_the_command_without_loss(model, tmp_path):
    with served(model) as first, served(model) as second:
        servers = opened(model, first, second)
        begun = len(first.requests) + len(second.requests)

        def die(number: int, _: dict) -> None:
            if number >= 4 + 1:  # those of the check, and one
                threading.Thread(target=first.stop).start()

        first.before = die
        one = served_traces(model, SUMS, PROBLEMS, servers, max_new_tokens=LIMIT, folder=tmp_path / "both")
        assert list(one) == local(model)
        assert begun < len(first.requests) + len(second.requests)
    with served(model) as server:
        servers = opened(model, server)
        asked = len(server.requests)

        def gone(number: int, _: dict) -> None:
            if number == asked + 4:
                server.stop()

        server.before = gone
        folder = tmp_path / "one"
        with pytest.raises(ProbeError, match=r"stopped answering .* run the same command again"):
            served_traces(model, SUMS, PROBLEMS, servers, max_new_tokens=LIMIT, folder=folder)
        kept = next(folder.glob("answers-*.jsonl")).read_text().splitlines()
        assert 0 < len(kept) < len(PROBLEMS)
        with next(folder.glob("answers-*.jsonl")).open("a") as torn:
            torn.write('[6, {"tok')
        server.before = lambda *_: None
        server.requests.clear()
        server.start()
        again = write(model, server, folder=folder)
        assert list(again) == local(model)
        assert len(server.requests) == 1 + 4 + len(PROBLEMS) - len(kept)  # the trial, the check, what was missing


def test_servers_that_differ_and_folders_of_another_server_are_refused(model, tmp_path):
    with served(model) as first, served(model, "sglang") as second:
        with pytest.raises(ProbeError, match="differ"):
            opened(model, first, second)
        write(model, first, folder=tmp_path)
        with pytest.raises(ProbeError, match=r"server\.kind: 'vllm' there, 'sglang' now"):
            write(model, second, folder=tmp_path)
        with pytest.raises(ProbeError, match="work: 'served traces' there"):
            generate_traces(model, SUMS, PROBLEMS, max_new_tokens=LIMIT, folder=tmp_path)


def test_every_sample_has_a_seed_of_its_own(model):
    with served(model) as server:
        how = Sampling(0.9)
        servers = opened(model, server, sampling=how)
        server.requests.clear()
        few, seeds = PROBLEMS[:3], []
        for seed in (0, 1):
            found = served_traces(model, SUMS, few, servers, max_new_tokens=LIMIT, sampling=how, samples=2, seed=seed)
            seeds.append([body["seed"] for body in server.requests])
            server.requests.clear()
        assert [(trace.problem_id, trace.sample) for trace in found[:3]] == [("p0", 0), ("p0", 1), ("p1", 0)]
        assert len({*seeds[0], *seeds[1]}) == 12 and all(0 <= each < 2**31 for each in seeds[0])
        again = served_traces(model, SUMS, few, servers, max_new_tokens=LIMIT, sampling=how, samples=2, seed=1)
        assert list(again) == list(found) and sorted(body["seed"] for body in server.requests) == sorted(seeds[1])


def test_nothing_answers_and_no_key(model, monkeypatch):
    with served(model) as server:
        server.stop()
        with pytest.raises(ProbeError, match=r"nothing answers at .*; correct thinking_url, or start the server"):
            open_servers([server.url], model, PROBLEMS, max_new_tokens=LIMIT, setting="thinking_url")
    with served(model) as server:
        server.before = lambda *_: as_reply("who are you", 401)
        with pytest.raises(ProbeError, match="needs a key; set the environment variable OPENAI_API_KEY"):
            opened(model, server)
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        with pytest.raises(ProbeError, match="refuses the key in OPENAI_API_KEY"):
            opened(model, server)


def test_the_page_on_servers_tells_what_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "servers.md").read_text()
    (code,), (settings,) = (re.findall(rf"```{kind}\n(.*?)```", page, flags=re.DOTALL) for kind in ("python", "yaml"))
    assert from_dict(RunConfig, {"pair": "tiny-rl", **yaml.safe_load(settings)}).servers.patience == 600
    names: dict = {}
    with served(load_pair("tiny-rl", device="cpu").thinking) as server:
        exec(compile(code.replace("http://localhost:8000/v1", server.url), "docs/servers.md", "exec"), names)
    assert len(names["traces"]) == 8
