"""Which lens reads the last digit of a sum before the bundled thinking model writes it: the table of docs/lenses.md.

``--quick`` takes a fifth of the texts.
"""

import sys

import torch

import probe
from benchmarks.table import Row, report
from probe.circuits import Foresight, equation_results

PLACES = {0: "at the first digit", 1: "at the equals sign"}
LENSES = ("logit", "Jacobian")


def measured(n_fit: int, n: int) -> Foresight:
    """Fit a lens on validation traces of tiny-rl, and compare it with the logit lens on test problems from 600 on."""
    model, problems = probe.load_pair("tiny-rl", device="cpu").thinking, probe.load_problems("story")

    def traces(some: tuple[probe.Problem, ...]) -> probe.Traces:
        return probe.generate_traces(model, problems, some, max_new_tokens=200)

    lens = probe.fit_jacobian_lens(model, traces(problems.take("validation", n_fit)), progress=True)
    some = problems.take("test", 600 + n)[600:]
    return probe.foresight(model, equation_results(model, traces(some), some), lens, back=2)


def main() -> None:
    torch.set_num_threads(1)
    found = measured(*((10, 24) if "--quick" in sys.argv else (48, 120)))
    print(f"{found.n} results in {found.texts} texts; advantage in nats over the digits of other texts")
    rows = []
    for back, place in PLACES.items():
        for lens, name in enumerate(LENSES):
            for at, layer in enumerate(found.layers):
                value, low, high, null, right, others = (
                    float(each[lens, at, back])
                    for each in (
                        found.advantage, found.low, found.high, found.threshold, found.right, found.of_others
                    )
                )  # fmt: skip
                print(
                    f"{place}, {name} lens, block {layer}: {value:.2f} [{low:.2f}, {high:.2f}], null {null:.2f}; "
                    f"likeliest {right:.0%}, of other texts {others:.0%}"
                )
                if lens == 1 and back == 1 and layer != found.layers[-1]:  # both lenses read the last block alike
                    what = f"the right digit is likeliest {place}, Jacobian lens, block {layer}"
                    rows.append(Row(what, "the digit of another text", right / max(others, 1 / found.n), 1.0, "higher"))
        print(f"{place}: the Jacobian lens reads it {found.earlier[back]} blocks earlier")
    report("foresight", rows)


if __name__ == "__main__":
    main()
