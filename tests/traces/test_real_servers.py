"""Rollouts of servers that people use; each test is skipped where its server is not installed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

from probe.errors import ProbeError
from probe.models import Sampling, load_pair
from probe.models.loading.packaged import PACKAGED, packaged_file
from probe.problems import Problem, ProblemSet
from probe.servers import ServersConfig
from probe.traces import generate_traces, open_servers, served_traces

pytestmark = pytest.mark.slow
PROBLEMS = [Problem(f"p{i}", f"How much is {i} + {2 * i + 3}?", str(3 * i + 3)) for i in range(6)]
SUMS = ProblemSet("sums", "numeric", {"test": tuple(PROBLEMS)})
LIMIT = 40
CONFIG = ServersConfig(concurrency=2, timeout=120, patience=2)
TRANSFORMERS = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
LLAMA = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.n_ctx, params.n_parallel, params.n_gpu_layers, params.cpuparams.n_threads = 1024, 2, 0, 1
server = xllamacpp.Server(params)
time.sleep(600)
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def running(code: str, port: int, *arguments: str) -> Iterator[subprocess.Popen]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(1200):
            assert process.poll() is None, "the server ended"
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def transformers_serve(folder: str) -> Iterator[tuple[str, subprocess.Popen]]:
    for library in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(library)
    port = free_port()
    how = ("--continuous-batching", "--device", "cpu", "--dtype", "float32", "--port", str(port))
    with running(TRANSFORMERS, port, "serve", folder, *how) as process:
        yield f"http://localhost:{port}/v1#{folder}", process


@pytest.mark.long
def test_transformers_serve_gives_the_texts_of_local_decoding(smollm2):
    with transformers_serve(smollm2.hf.config._name_or_path) as (url, _):
        servers = open_servers([url], smollm2, PROBLEMS, max_new_tokens=LIMIT, config=CONFIG)
        assert servers.who["kind"] == "transformers"
        found = served_traces(smollm2, SUMS, PROBLEMS, servers, max_new_tokens=LIMIT)
        local = generate_traces(smollm2, SUMS, PROBLEMS, max_new_tokens=LIMIT)
        assert [(trace.text, trace.truncated) for trace in found] == [(trace.text, trace.truncated) for trace in local]
        # With continuous batching it samples every request as it did the first.
        with pytest.raises(ProbeError, match=r"does not sample smollm2-135m with temperature 0\.7"):
            open_servers([url], smollm2, PROBLEMS, max_new_tokens=64, sampling=Sampling(0.7), config=CONFIG)


@pytest.mark.long
def test_llama_cpp_gives_the_tokens_of_local_decoding_and_survives_a_kill(smollm2, tmp_path):
    if find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")
    file, port = packaged_file(next(iter(PACKAGED))), free_port()
    url = f"http://127.0.0.1:{port}/v1"
    folder = tmp_path / "kept"
    local = list(generate_traces(smollm2, SUMS, PROBLEMS, max_new_tokens=LIMIT))
    with running(LLAMA, port, str(file), str(port)) as process:
        servers = open_servers([url], smollm2, PROBLEMS, max_new_tokens=LIMIT, config=CONFIG)
        assert servers.who["kind"] == "llama.cpp" and servers.by_ids
        open_servers([url], smollm2, PROBLEMS, max_new_tokens=64, sampling=Sampling(0.8, top_p=0.9), config=CONFIG)
        many = [Problem(f"q{i}", f"What comes after {i}?", str(i + 1)) for i in range(40)]
        rows = 0
        with pytest.raises(ProbeError, match="stopped answering"):
            watched = served_shards_of(smollm2, servers, many, folder)
            for _ in watched:
                rows += 1
                if rows == 5:
                    os.kill(process.pid, signal.SIGKILL)
    kept = next(folder.glob("answers-*.jsonl")).read_text().splitlines()
    assert 5 <= len(kept) < 40
    with running(LLAMA, port, str(file), str(port)):
        servers = open_servers([url], smollm2, many, max_new_tokens=LIMIT, config=CONFIG)
        again = served_traces(smollm2, SUMS, many, servers, max_new_tokens=LIMIT, folder=folder)
        kept_rows = dict(map(json.loads, kept))
        assert all(list(trace.tokens) == kept_rows[i]["tokens"] for i, trace in enumerate(again) if i in kept_rows)
        found = list(served_traces(smollm2, SUMS, PROBLEMS, servers, max_new_tokens=LIMIT))
    # Its file is quantised, and llama.cpp rounds what it multiplies with too, so a near tie may fall the other way.
    assert sum(one.tokens == other.tokens for one, other in zip(found, local, strict=True)) >= len(local) - 2


def served_shards_of(model, servers, problems, folder: Path):
    from probe.traces import served_shards

    shards = served_shards(model, servers, problems, max_new_tokens=LIMIT, folder=folder)
    return shards.work(range(len(problems)))


@pytest.mark.long
def test_transformers_serve_writes_the_traces_of_a_bundled_model():
    pair = load_pair("tiny-rl", device="cpu")
    some = [Problem(f"p{i}", f"How many is {i}?", "1") for i in range(4)]
    with transformers_serve(pair.thinking.hf.config._name_or_path) as (url, _):
        servers = open_servers([url], pair.thinking, some, max_new_tokens=30, config=CONFIG)
        found = served_traces(pair.thinking, SUMS, some, servers, max_new_tokens=30)
        local = generate_traces(pair.thinking, SUMS, some, max_new_tokens=30)
        assert [trace.text for trace in found] == [trace.text for trace in local]
        with pytest.raises(ProbeError, match="does not run tiny-base greedily"):
            open_servers([url], pair.base, some, max_new_tokens=30, config=CONFIG)
