"""Plans know a model that is divided between devices."""

import pytest

from probe.errors import ProbeError
from probe.pipeline import RunConfig
from probe.pipeline.plan.devices import Device, device_of, devices_of, shared

GB = 10**9


@pytest.mark.parametrize(
    ("where", "name", "memory", "parts"),
    [
        ("auto", "cuda", 80 * GB, 1),
        ("cuda:0,cuda:1", "cuda:0,cuda:1", 160 * GB, 2),
        ({"model": "cuda:0", "lm_head": 1}, "cuda:0,cuda:1", 160 * GB, 2),
        ({"model": "cuda:1", "lm_head": "cuda:1"}, "cuda:1", 80 * GB, 1),
        ({"model": 0, "lm_head": "cpu"}, "cuda:0,cpu", None, 1),
        ({"": "disk"}, "disk", None, 1),
    ],
)
def test_devices_by_every_name(where, name, memory, parts):
    """What offloaded weights leave free is unknown."""
    found = device_of(where, 80 * GB)
    assert (found.name, found.memory, found.parts) == (name, memory, parts)


def test_models_that_share_a_device_share_all_of_both():
    alone = RunConfig(pair="tiny-rl", base_device="cuda:0", thinking_device="cuda:1")
    assert {role: each.name for role, each in devices_of(alone, GB).items()} == {"base": "cuda", "thinking": "cuda:1"}
    shared = RunConfig(pair="tiny-rl", base_device="cuda:0", thinking_device="cuda:0,cuda:1")
    assert {each.name for each in devices_of(shared, GB).values()} == {"cuda:0,cuda:1"}


@pytest.mark.parametrize(
    ("engine", "name", "gpus", "pairs"),
    [
        ("here", "cuda", 2, 1),
        ("processes:3", "cuda", 2, 3),
        ("processes:3", "cpu", 0, 4),
        ("ray", "cuda", 2, 2),
        ("ray:10.0.0.1:6379", "cpu", 0, 5),
    ],
)
def test_the_process_that_waits_and_its_workers_each_hold_the_models(monkeypatch, engine, name, gpus, pairs):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert shared(Device(name, 80 * GB, "GPU"), engine).pairs == pairs


def test_names_are_refused_before_anything_is_loaded(monkeypatch):
    RunConfig(pair="tiny-rl", device="balanced").check()
    RunConfig(pair="tiny-rl", device={"model": 0, "lm_head": "disk", "offload_folder": "x"}).check()
    for wrong in ("gpu", "cuda:0,gpu", {"model": "gpu"}):
        with pytest.raises(ProbeError, match="unknown device 'gpu'"):
            RunConfig(pair="tiny-rl", device=wrong).check()
    for placed in ("balanced", "cuda:1", {"": "cpu"}):
        with pytest.raises(ProbeError, match="gives each process a GPU of its own"):
            RunConfig(pair="tiny-rl", device=placed, engine="processes:2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ProbeError, match="list those of the other machine, such as cuda:0,cuda:1"):
        device_of("balanced", GB)
