"""The small finished run that ships with probe."""

from probe.models import bundled_folder
from probe.pipeline.run.opened import Run, open_run


def demo() -> Run:
    """Open a small finished run of the bundled pair ``tiny-rl``, to look at what a run holds.

    It was made with few problems, so its accuracies have wide intervals. Nothing is written into its folder. To add
    arms to it, copy the folder first.

    >>> run = demo()
    >>> list(run.arms)[:3], len(run.traces.train), sorted(run.circuits)
    (['base', 'thinking', 'hybrid'], 32, ['check'])
    """
    return open_run(bundled_folder("demo") / "run")
