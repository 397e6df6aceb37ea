"""Which lens reads the last digit of a sum before the bundled thinking model writes it: the figures of docs/lenses.md.

``--quick`` takes a fifth of the texts.
"""

import re
import sys
from collections import defaultdict
from dataclasses import replace

import torch

import probe
from benchmarks.table import Row, report
from probe.circuits import Foresight, JacobianLens, Written, equation_results
from probe.statistics import Interval, mean_interval

PLACES = {0: "at the first digit", 1: "at the equals sign"}
LENSES = ("logit", "Jacobian")
EQUALS, JACOBIAN = 1, 1


def same_operand(model: probe.Model, texts: list[Written], lens: JacobianLens) -> list[Interval]:
    """The advantage of each block at the equals sign, against results with the same sign and right operand alone.

    A model that holds only the operand has none. The means and intervals are over signs and operands.
    """
    parts: dict[str, list[Written]] = defaultdict(list)
    for text in texts:
        mine: dict[str, list[int]] = defaultdict(list)
        for at, place in enumerate(text.places):
            said = re.findall(r"\S+ \d+ =", model.decode(list(text.ids[:place])))
            mine[said[-1]].append(at)
        for said, some in mine.items():
            pick = {name: tuple(getattr(text, name)[at] for at in some) for name in ("places", "unfair")}
            parts[said].append(replace(text, **pick))
    found = []
    for some in parts.values():
        try:
            found.append(probe.foresight(model, some, lens, back=2).advantage[JACOBIAN, :, EQUALS])
        except probe.ProbeError:  # too few texts have this sign and operand
            continue
    return [mean_interval(values) for values in torch.stack(found, 1).double().numpy()]


def main() -> None:
    torch.set_num_threads(1)
    n_fit, n = (10, 24) if "--quick" in sys.argv else (48, 120)
    pair, problems = probe.load_pair("tiny-rl", device="cpu"), probe.load_problems("story")
    model = pair.thinking
    some = problems.take("test", 600 + n)[600:]
    others, traces = (
        probe.generate_traces(model, problems, each, max_new_tokens=200)
        for each in (problems.take("validation", n_fit), some)
    )
    lens = probe.fit_jacobian_lens(model, others, progress=True)
    texts = equation_results(model, traces, some)
    found = probe.foresight(model, texts, lens, back=2)
    print(f"{found.n} results in {found.texts} texts; advantage in nats over the digits of other texts")
    rows = []
    for back, place in PLACES.items():
        for at, name in enumerate(LENSES):
            _show(found, at, back, f"{place}, {name} lens")
        for layer in range(len(found.layers) - 1):  # both lenses read the last block alike
            right, other = (float(each[JACOBIAN, layer, back]) for each in (found.right, found.of_others))
            if back == EQUALS:
                what = f"the right digit is likeliest {place}, Jacobian lens, block {layer}"
                rows.append(Row(what, "the digit of another text", right / max(other, 1 / found.n), 1.0, "higher"))
        print(f"{place}: the Jacobian lens reads it {found.earlier[back]} blocks earlier")
    base = probe.foresight(pair.base, equation_results(pair.base, traces, some), lens.lent_to(pair.base), back=2)
    _show(base, JACOBIAN, EQUALS, "tiny-base, at the equals sign, the same Jacobian lens")
    for layer, each in zip(found.layers, same_operand(model, texts, lens), strict=True):
        said = f"against results with the same sign and right operand ({each.n} of them), block {layer}"
        print(f"{said}: {each.write('{:.2f}'.format)}")
    report("foresight", rows)


def _show(found: Foresight, lens: int, back: int, what: str) -> None:
    for at, layer in enumerate(found.layers):
        value, low, high, null, right, others = (
            float(each[lens, at, back])
            for each in (found.advantage, found.low, found.high, found.threshold, found.right, found.of_others)
        )
        print(
            f"{what}, block {layer}: {value:.2f} [{low:.2f}, {high:.2f}], null {null:.2f}; "
            f"likeliest {right:.0%}, of other texts {others:.0%}"
        )


if __name__ == "__main__":
    main()
