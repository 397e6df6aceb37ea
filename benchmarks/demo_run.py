"""Makes the small finished run that ``probe.demo()`` opens, in artifacts/demo: python -m benchmarks.demo_run

The run and its circuit are made in runs/demo-small by the settings in artifacts/demo, and copied without what can be
made again from the rest: the report, the gates, and the candidates of the taxonomy.
"""

import shutil
from pathlib import Path

import probe
from probe.config import from_dict, read_yaml

DEMO = Path(__file__).parents[1] / "artifacts" / "demo"
MADE = Path("runs/demo-small")
LEFT_OUT = ("report.html", "gates", "grid", "place.json", ".lock")
MOST = 2_000_000
"""Bytes of the whole folder."""


def make(out: Path) -> None:
    """Make the run and its circuit; what is already there is kept."""
    probe.run(from_dict(probe.RunConfig, read_yaml(DEMO / "config.yaml")), out, progress=True)
    circuit = from_dict(probe.CircuitConfig, read_yaml(DEMO / "circuit.yaml"))
    probe.find_circuit(circuit, out.parent / f"{out.name}-circuit", progress=True)


def pack(made: Path, packed: Path) -> None:
    """Copy what is needed to open the run, and open it.

    Raises:
        ProbeError: if something that is needed was left out.
    """
    shutil.rmtree(packed, ignore_errors=True)
    shutil.copytree(made, packed, ignore=shutil.ignore_patterns(*LEFT_OUT))
    circuit = packed / "circuits" / "check"
    circuit.mkdir(parents=True)
    for name in ("circuit.json", "results.json"):
        shutil.copyfile(made.parent / f"{made.name}-circuit" / name, circuit / name)
    run = probe.open_run(packed)
    for name in run.arms:
        assert len(run.arms[name].texts) == run.config.sizes.test, name
    for arm in ("hybrid", "oracle-free"):
        assert run.ask(run.problems.take("test", 1)[0].question, arm=arm).text, arm
    assert run.circuits and run.taxonomy and run.vectors and run.behaviours


def main() -> None:
    make(MADE)
    pack(MADE, DEMO / "run")
    size = sum(file.stat().st_size for file in DEMO.rglob("*") if file.is_file())
    print(f"{size:,} bytes")
    assert size < MOST, f"the folder must be smaller than {MOST:,} bytes"


if __name__ == "__main__":
    main()
