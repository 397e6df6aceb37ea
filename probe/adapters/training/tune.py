"""SAE-tuning: trains a LoRA on packed texts; interrupted training resumes and gives the same adapter, bit for bit."""

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
from safetensors.torch import load_file

from probe.adapters.training.config import AdapterPlan, TuneConfig
from probe.adapters.training.micro import MicroBatches
from probe.adapters.training.objective import Objective
from probe.adapters.training.packing import Example, in_parts
from probe.adapters.training.plan import adapted, prove_alive, trained
from probe.adapters.training.processes import Processes
from probe.config import read_as
from probe.convergence import Check, Schedule
from probe.engine import FolderLock, difference
from probe.errors import ProbeError
from probe.files import located, object_hash, write_json, write_tensors, writing
from probe.hooks import check_finite
from probe.models import Model, ThinkTags, fingerprint, identity, weights_hash
from probe.progress import progress_bar

if TYPE_CHECKING:
    from accelerate import Accelerator
    from peft import PeftModel

CARD = "probe.json"
"""The file in an adapter's folder that says how it was trained; it is written last."""
_CHECKPOINT = "checkpoint"


@dataclass(frozen=True, repr=False)
class Tuned:
    """A trained adapter and how its training went.

    Attributes:
        folder: the adapter as PEFT writes it, and ``probe.json``.
        history: for each evaluation its ``step``, the ``loss`` on the validation texts, and ``train``, the mean loss of
            the steps before it.
        cost: ``tokens`` seen, ``flops`` (2 forward and 4 backward for each parameter and token), ``seconds``, and
            ``peak_memory`` in bytes where the system reports it.
        converged: whether the validation loss stopped falling before the maximum number of steps.
    """

    folder: Path
    history: list[dict[str, float]]
    cost: dict[str, float]
    converged: bool

    @property
    def best(self) -> dict[str, float]:
        """The evaluation with the lowest validation loss, whose adapter was kept."""
        return min(self.history, key=lambda check: check["loss"])

    def __repr__(self) -> str:
        first, best = self.history[0]["loss"], self.best
        end = "" if self.converged else ", not converged"
        loss = f"validation loss {first:.4f} → {best['loss']:.4f} at step {best['step']}"
        return f"Tuned({str(self.folder)!r}, {loss}{end})"


def tune(
    model: Model,
    train: Sequence[Example],
    validation: Sequence[Example],
    objective: Objective,
    *,
    folder: str | Path,
    plan: AdapterPlan | None = None,
    config: TuneConfig | None = None,
    accelerator: "Accelerator | None" = None,
    progress: bool = False,
) -> Tuned:
    """Train an adapter and keep the one with the lowest validation loss, which may be the untrained one of step 0.

    A step runs in micro-batches that fit into ``model.budget``, with checkpointed blocks where a text would not fit
    alone. They change the gradient by rounding only; dropout and inserted noise are random for each micro-batch.

    Args:
        model: the base model; afterwards it is as before, bit for bit.
        train: texts to train on, from :func:`~probe.adapters.examples_of` for example.
        validation: texts by which the best step is chosen.
        folder: gets the adapter. Training that was interrupted there resumes if the settings are the same.
        plan: which layers get a LoRA; None takes the defaults.
        config: how it is trained; None takes the defaults.
        accelerator: shares each step among its processes; each must be given the same arguments.
        progress: show a bar.

    Raises:
        ProbeError: before any step, if a tensor of the plan gets no gradient, or the folder holds another adapter.
    """
    model.check_gradient("training an adapter")
    plan, config, folder = plan or AdapterPlan(), config or TuneConfig(), Path(folder)
    if not train or not validation or not any(example.counted > 0 for example in validation):
        raise ProbeError("there is nothing to train on: give at least one text to train on and one to validate with")
    processes = Processes(accelerator)
    told = _told(model, objective, plan, config, [*train, *validation])
    keys = (told["key"], _first_key(told))
    if (folder / CARD).exists():
        card = read_as(_Card, folder / CARD)
        if card["key"] not in keys:
            said = difference({name: card.get(name) for name in _IN_KEY}, {name: told[name] for name in _IN_KEY})
            raise ProbeError(f"{folder} holds another adapter ({said}): name another folder, or remove that one")
        history = [dict(check) for check in read_as(list[Check], folder / "history.json")]
        return Tuned(folder, history, card["cost"], card.get("converged", True))
    run = _Run(model, objective, config, train=train, validation=validation, folder=folder, processes=processes)
    lock = FolderLock(folder) if processes.is_main else nullcontext()
    with lock, adapted(model, plan, objective, seed=config.seed) as wrapped:
        prove_alive(model, wrapped, objective, lambda: run.backward_once(wrapped))
        done = run.train(wrapped, keys, progress)
        run.restore_best(wrapped)
        processes.wait()
        cost = {**done["cost"], **_peak_memory(model)}
        if processes.is_main:
            wrapped.peft_config["default"].base_model_name_or_path = told["model"]["path"]
            with writing(folder):
                wrapped.save_pretrained(str(folder), save_embedding_layers=False)
            write_json(folder / "history.json", done["history"])
            write_json(folder / CARD, {**told, "cost": cost, "scale": 1.0, "converged": done["converged"]})
            shutil.rmtree(folder / _CHECKPOINT, ignore_errors=True)
        processes.wait()
    return Tuned(folder, done["history"], cost, done["converged"])


class _Card(TypedDict):
    key: str
    cost: dict[str, float]
    converged: NotRequired[bool]


class _State(TypedDict):
    step: int
    key: str
    cost: dict[str, float]
    history: list[Check]
    budget: NotRequired[int]


def _told(
    model: Model, objective: Objective, plan: AdapterPlan, config: TuneConfig, texts: Sequence[Example]
) -> dict[str, Any]:
    """What the card says of an adapter before it is trained."""
    said: dict[str, Any] = {
        "base": fingerprint(model),
        "plan": asdict(plan),
        "tune": asdict(config),
        "objective": {
            "name": objective.name,
            "insert": objective.insert if objective.inserts is not None else None,
            "through": objective.through,
            "site": None if objective.site is None else str(objective.site),
            "latents": list(objective.latents),
            "value": objective.value,
            "match": objective.match,
            "source": None if objective.source is None else objective.source.name,
            "seed": objective.seed,
        },
        "sae": None if objective.sae is None else weights_hash(objective.sae.state_dict().items()),
        "source": None if objective.source is None else identity(objective.source),
        "texts": object_hash([[[*text.ids], text.start] for text in texts]),
    }
    # The fingerprint identifies the model; its path is only for loading it again, so it is not part of the key.
    found_at = located({name: getattr(model.config, name) for name in ("path", "revision", "prompt")}, Path.cwd())
    if (tags := model.think_tags) != ThinkTags():
        found_at |= {"think_close": tags.close, "think_open": tags.open}
    return {**said, "key": object_hash(said), "model": found_at}


_IN_KEY = ("base", "plan", "tune", "objective", "texts", "sae", "source")


def _first_key(told: dict[str, Any]) -> str:
    """The key that earlier versions wrote, which did not know the weights of the SAE and of the source."""
    return object_hash({name: told[name] for name in _IN_KEY if name not in ("sae", "source")})


class _Run:
    """The training steps; a step depends only on its number, so training can resume at any of them."""

    def __init__(
        self,
        model: Model,
        objective: Objective,
        config: TuneConfig,
        *,
        train: Sequence[Example],
        validation: Sequence[Example],
        folder: Path,
        processes: Processes,
    ) -> None:
        self.model, self.objective, self.config, self.folder = model, objective, config, folder
        self.examples, self.processes = train, processes
        self.validation = processes.share(in_parts(validation, config.batch_tokens))
        self.micro = MicroBatches(model, objective, config.pack_to)
        self.size = sum(tensor.numel() for tensor in model.hf.parameters())
        self.order: list[list[int]] = []

    def texts(self, step: int) -> list[Example]:
        """The texts of a step; each epoch goes through all texts in its own random order."""
        while len(self.order) <= step:
            generator = torch.Generator().manual_seed(1_000_003 * self.config.seed + len(self.order))
            order = torch.randperm(len(self.examples), generator=generator).tolist()
            places = iter(order)
            parts = in_parts([self.examples[i] for i in order], self.config.batch_tokens)
            self.order += [[next(places) for _ in part] for part in parts]
        return [self.examples[i] for i in self.order[step]]

    def train(self, wrapped: "PeftModel", keys: Sequence[str], progress: bool) -> dict[str, Any]:
        """Run the remaining steps and return the history and the cost; the first of ``keys`` is written."""
        config, tensors = self.config, trained(wrapped)
        optimizer = torch.optim.AdamW(tensors.values(), lr=config.lr, weight_decay=0.0)
        state = self._resume(tensors, optimizer, keys)
        if state is None:
            state = {
                "step": 0,
                "history": [],
                "cost": dict.fromkeys(("tokens", "flops", "seconds"), 0.0),
                "key": keys[0],
                "budget": self.micro.budget,
            }
            self._check(state, [], optimizer, wrapped)
        shown = progress and self.processes.is_main
        bar = progress_bar(initial=state["step"], desc=self.objective.name, unit="step", show=shown)
        recent: list[float] = []
        began = time.perf_counter()
        schedule = Schedule(config.steps, config.check_every, config.patience).replay(state["history"])
        while not schedule.ended(state["step"]):
            texts = self.texts(state["step"])
            optimizer.zero_grad()
            recent.append(self.processes.total(self._backward(wrapped, state["step"], texts)))
            # The sum over all processes: if one of them stopped alone, the others would wait for it.
            check_finite(torch.tensor(recent[-1]), f"the loss at step {state['step']} of the adapter", self.model)
            self.processes.sum_gradients(tensors.values())
            torch.nn.utils.clip_grad_norm_(tensors.values(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * schedule.rate(state["step"])
            optimizer.step()
            tokens = sum(len(text.ids) for text in texts)
            passes = 1 if self.objective.name == "ce" else 2
            state["cost"]["tokens"] += tokens
            state["cost"]["flops"] += (2.0 * passes + 4.0) * self.size * tokens
            state["step"] += 1
            bar.update()
            if schedule.due(state["step"]):
                state["cost"]["seconds"] += time.perf_counter() - began
                began = time.perf_counter()
                self._check(state, recent, optimizer, wrapped)
                schedule.update(state["step"], state["history"][-1]["loss"])
                bar.set_postfix(loss=f"{state['history'][-1]['loss']:.4f}")
                recent = []
        bar.close()
        return state | {"converged": schedule.converged}

    def backward_once(self, wrapped: "PeftModel") -> None:
        """Add the gradient of some texts of the first step."""
        wrapped.train()
        texts = self.texts(0)

        def work(budget: int) -> None:
            batch, light = next(self.micro.batches(texts, budget))
            with self.micro.scored(wrapped, batch, budget, light=light) as losses:
                losses.sum().backward()

        self.micro.fitted(work, texts, 0, "preparing the adapter")

    def _backward(self, wrapped: "PeftModel", step: int, texts: Sequence[Example]) -> float:
        """Set the gradient of this process's share of a step, and return its share of the loss."""
        processes, mine = self.processes, self.processes.share(texts)
        wrapped.train()
        if not any(text.counted > 0 for text in mine):
            return 0.0
        counted = max(1, sum(max(text.counted, 0) for text in texts))

        def work(budget: int) -> float:
            wrapped.zero_grad(set_to_none=True)
            total = 0.0
            for batch, light in self.micro.batches(mine, budget):
                with self.micro.scored(wrapped, batch, budget, light=light) as losses:
                    loss = losses.sum() / counted
                    loss.backward()
                total += loss.item()
            return total

        # Dropout and noise differ in each process.
        seed = (1_000_003 * self.config.seed + step) * processes.count + processes.rank
        return self.micro.fitted(work, mine, seed, f"training {self.objective.name} at step {step}")

    @torch.no_grad()
    def evaluate(self, wrapped: "PeftModel") -> float:
        """The mean loss over the counted tokens of the validation texts."""
        wrapped.eval()
        largest = max(self.validation, key=lambda part: sum(len(text.ids) for text in part), default=[])

        def work(budget: int) -> tuple[float, int]:
            total, n = 0.0, 0
            for part in self.validation:
                for batch, _ in self.micro.batches(part, budget):
                    with self.micro.scored(wrapped, batch, budget) as losses:
                        total, n = total + losses.sum().item(), n + len(losses)
            return total, n

        # The same noise at every evaluation.
        total, n = self.micro.fitted(work, largest, self.config.seed, "evaluating the adapter")
        loss = self.processes.total(total) / max(self.processes.total(n), 1)
        check_finite(torch.tensor(loss), "the validation loss of the adapter", self.model)
        return loss

    def restore_best(self, wrapped: "PeftModel") -> None:
        _put(trained(wrapped), load_file(self.folder / _CHECKPOINT / "best.safetensors"))

    def _check(
        self, state: dict[str, Any], recent: list[float], optimizer: torch.optim.Optimizer, wrapped: "PeftModel"
    ) -> None:
        """Evaluate, and leave a checkpoint."""
        check = {"step": state["step"], "loss": self.evaluate(wrapped)}
        state["history"].append(check | ({"train": sum(recent) / len(recent)} if recent else {}))
        if self.processes.is_main:
            self._keep(state, trained(wrapped), optimizer)
        self.processes.wait()

    def _keep(self, state: dict[str, Any], tensors: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint into a temporary folder, which then replaces the old one."""
        losses = [each["loss"] for each in state["history"]]
        there, fresh = self.folder / _CHECKPOINT, self.folder / f".{_CHECKPOINT}.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        now = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_tensors(fresh / "adapter.safetensors", now)
        if losses[-1] < min(losses[:-1], default=float("inf")):
            write_tensors(fresh / "best.safetensors", now)
        else:
            shutil.copy(there / "best.safetensors", fresh / "best.safetensors")
        moments = {}
        for i, tensor in enumerate(tensors.values()):
            for name, value in optimizer.state.get(tensor, {}).items():
                moments[f"{i}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
        write_tensors(fresh / "optimizer.safetensors", moments)
        # Micro-batches follow from the budget, and with them the last digits of the adapter.
        write_json(fresh / "state.json", state | {"budget": self.micro.budget})
        shutil.rmtree(there, ignore_errors=True)
        fresh.rename(there)

    def _resume(
        self, tensors: dict[str, Any], optimizer: torch.optim.Optimizer, keys: Sequence[str]
    ) -> dict[str, Any] | None:
        at = next(
            (
                at
                for at in (self.folder / _CHECKPOINT, self.folder / f".{_CHECKPOINT}.tmp")
                if (at / "state.json").exists()
            ),
            None,
        )
        if at is None:
            return None
        state: dict[str, Any] = dict(read_as(_State, at / "state.json", fix=f"remove {at} to train again"))
        if state["key"] not in keys:
            raise ProbeError(
                f"{self.folder} holds another adapter, interrupted: name another folder, or remove that one"
            )
        self.micro.budget = state.get("budget", self.micro.budget)
        _put(tensors, load_file(at / "adapter.safetensors"))
        moments = load_file(at / "optimizer.safetensors")
        for i, tensor in enumerate(tensors.values()):
            mine = {name.partition(".")[2]: value for name, value in moments.items() if name.startswith(f"{i}.")}
            if mine:
                optimizer.state[tensor] = {
                    name: value if name == "step" else value.to(tensor.device) for name, value in mine.items()
                }
        self.processes.wait()
        if at.name.startswith(".") and self.processes.is_main:
            at.rename(self.folder / _CHECKPOINT)
        self.processes.wait()
        return state


@torch.no_grad()
def _put(tensors: dict[str, Any], kept: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(kept[name])


def _peak_memory(model: Model) -> dict[str, float]:
    if gpus := [device for device in model.devices if device.type == "cuda"]:
        return {"peak_memory": float(max(map(torch.cuda.max_memory_allocated, gpus)))}
    try:
        import resource
    except ImportError:  # Windows has no such module
        return {}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory": float(most if sys.platform == "darwin" else 1024 * most)}
