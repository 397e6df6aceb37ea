"""The arms of a run that are done, and which test problems they solved."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from probe.hybrid import ArmResult
from probe.pipeline.run.arms import recipe
from probe.pipeline.run.experiment import Experiment
from probe.statistics import Grades


@dataclass(frozen=True)
class Finished:
    """The arms of a run that are done.

    Attributes:
        experiment: the run.
        arms: the result of each arm, including further seeds of the hybrid.
    """

    experiment: Experiment
    arms: dict[str, ArmResult]
    _graded: dict[str, Grades] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, list[str]]:
        """The answers of both models and of every arm on the test problems."""
        texts = {name: [trace.text for trace in of] for name, of in self.experiment.rollouts.of_test.items()}
        return texts | {name: arm.texts for name, arm in self.arms.items()}

    @property
    def correct(self) -> dict[str, Grades]:
        """The grade of every answer, grouped by problem if there are several; None if it could not be graded."""
        inputs = self.experiment.inputs
        for name, texts in self.texts.items():
            if name not in self._graded:
                self._graded[name] = inputs.graded(inputs.test, texts, self.by_thinking(name))
        return dict(self._graded)

    def by_thinking(self, name: str) -> list[str]:
        """The answers that count as the thinking model's own when those of an arm are graded."""
        return self.texts[name if recipe(name).on_thinking else "thinking"]

    def grades(self, name: str) -> list[bool | None]:
        """The grade of every answer of an arm, in the order of its texts."""
        return [one for each in self.correct[name] for one in (each if isinstance(each, Sequence) else [each])]
