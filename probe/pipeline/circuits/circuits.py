"""``probe circuits``: the edges that carry a behaviour, how much they keep, and a model without the circuit's heads."""

from pathlib import Path
from typing import Any

from probe.circuits import EdgeLens
from probe.files import write_json
from probe.pipeline.circuits.config import CircuitConfig
from probe.pipeline.circuits.inputs import CircuitInputs, circuit_folder, circuit_inputs, settled
from probe.pipeline.circuits.stages import CircuitStages
from probe.pipeline.cut import warn_cut
from probe.pipeline.folder import RunFolder
from probe.pipeline.prompts import begin
from probe.reports import write_circuit_report


def find_circuit(config: CircuitConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Find a behaviour's circuit and write ``circuit.json``, ``results.json`` and ``report.html``.

    Args:
        config: see :class:`~probe.CircuitConfig`.
        out: folder of the results. The same settings in it resume: traces, pairs, scores, faithfulness and ablation are
            each kept as they are made.
        progress: show progress bars.

    Returns:
        The content of ``results.json``: sizes, faithfulness on pairs that were not used to choose the circuit, and the
        behaviour with and without the circuit's heads and random other heads.

    Raises:
        ProbeError: for invalid settings, before the expensive part.
        NotApplicable: if the traces give too few pairs of texts, or the model's edges cannot be separated.
    """
    out = Path(out).expanduser()
    inputs = circuit_inputs(config)
    config = settled(config, inputs)
    with circuit_folder(config, inputs, out) as folder:
        return _find(config, inputs, folder, progress=progress)


def _find(config: CircuitConfig, inputs: CircuitInputs, folder: RunFolder, *, progress: bool) -> dict[str, Any]:
    """Find the circuit in a folder that is locked."""
    model, taken, out = inputs.model, inputs.taken, folder.path
    lens = EdgeLens(model)  # refuses models that cannot be taken apart, before any trace is made
    prompts = None
    if taken is not None:
        sampling = {config.model: inputs.sampling}
        prompts = begin(
            out, {config.model: model}, inputs.train[0].question, sampling, remarks=taken.remarks, progress=progress
        )
    stages = CircuitStages(config, inputs, folder, progress)
    traces = stages.traces()
    pairs = stages.pairs(traces)
    found, second = pairs.split()
    scored = stages.scores(lens, found)
    circuit, kept = stages.circuit(lens, scored, found, second)
    circuit.save(out / "circuit.json")
    problems = None
    if taken is not None:
        problems = {"name": taken.problem_set.name, "train": len(inputs.train), "test": len(inputs.test)}
    results = {
        "model": model.name,
        "behaviour": pairs.about.get("behaviour", config.name),
        "source": "pairs" if inputs.behaviour is None else inputs.behaviour.source,
        "problems": problems,
        "prompts": prompts,
        "cut": None if traces is None else warn_cut({model.name: traces}, inputs.limit, progress=progress),
        "pairs": {"found": len(found), "held": len(second), "about": pairs.about},
        "window": config.window,
        "edges": len(circuit),
        "of": len(circuit.graph),
        "kept": kept["kept"],
        "kept_where_found": kept["first"],
        "faithfulness": kept["faithfulness"],
        "ablation": config.ablation,
        "where": config.where if inputs.behaviour is not None else "everywhere",
        "heads": stages.ablation(circuit, traces, found, second),
        "latents": stages.latents(traces, pairs),
    }
    write_json(out / "results.json", results)
    write_circuit_report(results, circuit, out / "report.html")
    return results
