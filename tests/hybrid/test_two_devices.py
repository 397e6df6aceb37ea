"""Each model of a pair on a device of its own."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_two_devices_give_what_one_gives():
    """No stage mixes tensors of two devices, and tokens are the same."""
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-m", "tests.hybrid.on_two_devices"]
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["differ"] == [] and told["vectors"] == "pretend:0"
    assert {"traces", "gates", "loss", "hybrid", "oracle-free", "rerank-only", "force-token"} <= set(told["stages"])
