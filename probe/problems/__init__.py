"""Problem sets and graders: what the models are asked, and whether their answers are right."""

from probe.problems.grading import GRADERS, Grade, extract_answer
from probe.problems.loading import load_problems
from probe.problems.problem_set import SPLITS, Problem, ProblemSet, split_of

__all__ = ["GRADERS", "SPLITS", "Grade", "Problem", "ProblemSet", "extract_answer", "load_problems", "split_of"]
