"""Traces as other software writes them: one function a shape, which makes records of our own traces."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from probe.models import Model
from probe.problems import ProblemSet
from probe.traces import Trace

Record = dict[str, Any]

ODD = {"question": "q.body", "text": "out", "answer": "gold_label", "finish_reason": "why"}
"""The column map of :meth:`Foreign.odd`."""


class Foreign:
    """Writes traces of a model in foreign shapes.

    Args:
        model: wrote the traces.
        problem_set: their problems.
        traces: problem by problem.
    """

    def __init__(self, model: Model, problem_set: ProblemSet, traces: Sequence[Trace]) -> None:
        self.model, self.traces = model, list(traces)
        by_id = {each.id: each for some in problem_set.splits.values() for each in some}
        self.problems = [by_id[trace.problem_id] for trace in traces]

    def records(self, make: Callable[[Trace, Any], Record]) -> list[Record]:
        return [make(trace, problem) for trace, problem in zip(self.traces, self.problems, strict=True)]

    def parts(self, trace: Trace) -> tuple[str, str | None]:
        """The thinking and the answer; the answer is None if the thinking was not closed."""
        close = trace.think_tags.close
        if trace.think_end is None:
            return trace.text, None
        return trace.text[: trace.think_end - len(close)], trace.text[trace.think_end :]

    def vllm(self) -> list[Record]:
        end = [self.model.eos_ids[0]]
        return self.records(
            lambda trace, _: {
                "request_id": "0",
                "prompt": trace.prompt,
                "prompt_token_ids": self.model.encode_prompt(trace.prompt),
                "outputs": [
                    {
                        "index": trace.sample,
                        "text": trace.text,
                        "token_ids": [*trace.tokens, *([] if trace.truncated else end)],
                        "finish_reason": "length" if trace.truncated else "stop",
                    }
                ],
            }
        )

    def vllm_ids(self) -> list[Record]:
        """Ids alone, without special tokens in the text."""
        found = self.vllm()
        for record in found:
            record["prompt"] = None
            for output in record["outputs"]:
                output["text"] = output["text"].replace("</think>", "")
        return found

    def choice(self, trace: Trace, key: str = "reasoning_content") -> Record:
        thinking, answer = self.parts(trace)
        return {
            "index": 0,
            "message": {"role": "assistant", key: thinking, "content": answer},
            "finish_reason": "length" if trace.truncated else "stop",
        }

    def chat(self) -> list[Record]:
        return self.records(
            lambda trace, problem: {
                "id": f"chatcmpl-{problem.id}",
                "model": self.model.name,
                "messages": [{"role": "user", "content": problem.question}],
                "answer": problem.answer,
                "choices": [self.choice(trace, "reasoning")],
            }
        )

    def batch(self) -> list[Record]:
        return self.records(
            lambda trace, problem: {
                "id": "batch_req_1",
                "custom_id": problem.id,
                "response": {"status_code": 200, "body": {"model": self.model.name, "choices": [self.choice(trace)]}},
                "error": None,
            }
        )

    def conversations(self) -> list[Record]:
        def said(trace: Trace) -> str:
            thinking, answer = self.parts(trace)
            text = f"<|begin_of_thought|>{thinking}"
            if answer is None:
                return text
            return f"{text}<|end_of_thought|>\n\n<|begin_of_solution|>{answer}<|end_of_solution|>"

        return self.records(
            lambda trace, problem: {
                "system": "",
                "model": self.model.name,
                "answer": problem.answer,
                "conversations": [
                    {"from": "user", "value": problem.question},
                    {"from": "assistant", "value": said(trace)},
                ],
            }
        )

    def openthoughts(self) -> list[Record]:
        return self.records(
            lambda trace, problem: {
                "problem": problem.question,
                "deepseek_reasoning": self.parts(trace)[0],
                "deepseek_solution": self.parts(trace)[1] or "",
                "ground_truth_solution": problem.answer,
                "domain": "math",
                "source": "x",
            }
        )

    def s1k(self) -> list[Record]:
        return self.records(
            lambda trace, problem: {
                "solution": problem.answer,
                "question": problem.question,
                "cot": None,
                "thinking_trajectories": [self.parts(trace)[0]],
                "attempt": self.parts(trace)[1] or "",
            }
        )

    def openr1(self) -> list[Record]:
        return self.records(
            lambda trace, problem: {
                "problem": problem.question,
                "answer": problem.answer,
                "uuid": problem.id,
                "generations": [f"<think>{trace.text}"],
                "is_reasoning_complete": [trace.think_end is not None],
                "finish_reasons": ["length" if trace.truncated else "stop"],
                "correctness_math_verify": [trace.correct],
                "messages": [{"role": "user", "content": problem.question}],
            }
        )

    def plain(self) -> list[Record]:
        return self.records(
            lambda trace, problem: {
                "question": problem.question,
                "response": trace.text,
                "gold": problem.answer,
                "finish_reason": "length" if trace.truncated else "stop",
            }
        )

    def odd(self) -> list[Record]:
        """Columns that no shape knows; ``ODD`` is their map."""
        return self.records(
            lambda trace, problem: {
                "q": {"body": problem.question},
                "out": [trace.text],
                "gold_label": problem.answer,
                "why": "length" if trace.truncated else "stop",
            }
        )

    def rollouts(self, folder: Path) -> Path:
        """A folder of math-rollouts."""
        for number, (trace, problem) in enumerate(zip(self.traces, self.problems, strict=True)):
            home = folder / self.model.name / "temperature_0.6_top_p_0.95" / "base_solution" / f"problem_{number}"
            home.mkdir(parents=True)
            told = {"problem": problem.question, "gt_answer": problem.answer, "level": "Level 5"}
            (home / "problem.json").write_text(json.dumps(told))
            said = {"prompt": trace.prompt, "solution": trace.text, "full_cot": trace.prompt + trace.text}
            (home / "base_solution.json").write_text(json.dumps(said | {"is_correct": trace.correct}))
        return folder


def write_jsonl(path: Path, records: Sequence[Record]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path
