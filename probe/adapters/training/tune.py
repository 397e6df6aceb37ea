"""SAE-tuning: a LoRA trained on packed texts, which may be broken off at any step and goes on as if it had not been."""

import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from probe.adapters.exports.fingerprint import fingerprint
from probe.adapters.training.objective import Objective
from probe.adapters.training.packing import Example, Packed, pack
from probe.adapters.training.plan import AdapterPlan, adapted, prove_alive, trained
from probe.adapters.training.processes import processes
from probe.config import check_above_zero, check_least
from probe.errors import ProbeError
from probe.files import object_hash, read_json, write_json
from probe.models import Model

if TYPE_CHECKING:
    from peft import PeftModel

CARD = "probe.json"
"""What an adapter's folder says of it beside PEFT's own files; written last."""
_CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class TuneConfig:
    """How an adapter is trained."""

    steps: int = 300
    batch_tokens: int = 2048
    """Tokens that a step sees, at least; texts are whole."""
    pack_to: int = 512
    """How long the rows are into which texts are packed; the loss does not depend on it."""
    lr: float = 1e-3
    check_every: int = 25
    """Steps between looks at the validation texts; each leaves a checkpoint."""
    patience: int = 4
    """Looks without a lower validation loss after which training stops."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_least("tune", self, steps=1, batch_tokens=1, pack_to=1, check_every=1, patience=1)
        check_above_zero("tune", self, "lr")


@dataclass(frozen=True)
class Tuned:
    """An adapter and how its training went.

    Attributes:
        folder: as PEFT writes one, and ``probe.json``.
        history: per look ``step``, ``loss`` on the validation texts, and ``train``, the mean of the steps before.
        cost: tokens seen, forward and backward FLOPs (2 and 4 a parameter and token, of what is run), seconds, and
            the highest memory in bytes.
    """

    folder: Path
    history: list[dict[str, float]]
    cost: dict[str, float]

    @property
    def best(self) -> dict[str, float]:
        """The look whose adapter was kept."""
        return min(self.history, key=lambda look: look["loss"])


def tune(
    model: Model,
    train: Sequence[Example],
    validation: Sequence[Example],
    objective: Objective,
    folder: str | Path,
    plan: AdapterPlan | None = None,
    config: TuneConfig | None = None,
    *,
    progress: bool = False,
) -> Tuned:
    """Train an adapter; the one with the lowest loss on the validation texts is kept, which may be the one of step 0.

    Args:
        model: as it was afterwards, bit for bit.
        train, validation: texts, as from :func:`~probe.adapters.examples_of`.
        folder: gets the adapter. If it holds one that was broken off, with the same settings, that goes on.

    Raises:
        ProbeError: before any step, if a tensor of the plan gets no gradient, or the folder holds another adapter.
    """
    plan, config, folder = plan or AdapterPlan(), config or TuneConfig(), Path(folder)
    if not train or not validation or not any(example.counted > 0 for example in validation):
        raise ProbeError("there is nothing to train on: give at least one text to train on and one to validate with")
    told = _told(model, train, validation, objective, plan, config)
    if (folder / CARD).exists() and read_json(folder / CARD)["key"] != told["key"]:
        raise ProbeError(f"{folder} holds another adapter: name another folder, or remove that one")
    run = _Run(model, train, validation, objective, config, folder)
    if (folder / CARD).exists():
        return Tuned(folder, read_json(folder / "history.json"), read_json(folder / CARD)["cost"])
    folder.mkdir(parents=True, exist_ok=True)
    with adapted(model, plan, objective, seed=config.seed) as wrapped:
        prove_alive(model, wrapped, objective, pack(model, run.texts(0), config.pack_to))
        done = run.train(wrapped, told["key"], progress)
        run.restore_best(wrapped)
        processes().wait()
        cost = {**done["cost"], "peak_memory": float(_peak_memory(model))}
        if processes().is_main:
            wrapped.peft_config["default"].base_model_name_or_path = str(model.config.path)
            wrapped.save_pretrained(str(folder), save_embedding_layers=False)
            write_json(folder / "history.json", done["history"])
            write_json(folder / CARD, {**told, "cost": cost, "scale": 1.0})
            shutil.rmtree(folder / _CHECKPOINT, ignore_errors=True)
        processes().wait()
    return Tuned(folder, done["history"], cost)


def _told(
    model: Model,
    train: Sequence[Example],
    validation: Sequence[Example],
    objective: Objective,
    plan: AdapterPlan,
    config: TuneConfig,
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
        "texts": object_hash([[[*e.ids], e.start] for e in (*train, *validation)]),
    }
    return {**said, "key": object_hash(said)}


class _Run:
    """The steps, each of which hangs on its number alone: whoever begins at it does the same."""

    def __init__(
        self,
        model: Model,
        train: Sequence[Example],
        validation: Sequence[Example],
        objective: Objective,
        config: TuneConfig,
        folder: Path,
    ) -> None:
        self.model, self.objective, self.config, self.folder = model, objective, config, folder
        self.examples = train
        parts = processes().share(_parts(validation, config.batch_tokens))
        self.held = [pack(model, part, config.pack_to) for part in parts]
        self.size = sum(tensor.numel() for tensor in model.hf.parameters())
        self.order: list[list[int]] = []

    def texts(self, step: int) -> list[Example]:
        """Those of a step: rounds through all of them, each in an order of its own."""
        while len(self.order) <= step:
            generator = torch.Generator().manual_seed(1_000_003 * self.config.seed + len(self.order))
            order = torch.randperm(len(self.examples), generator=generator).tolist()
            places = iter(order)
            parts = _parts([self.examples[i] for i in order], self.config.batch_tokens)
            self.order += [[next(places) for _ in part] for part in parts]
        return [self.examples[i] for i in self.order[step]]

    def mine(self, step: int) -> Packed | None:
        """What this process does of a step, if there is enough for all."""
        share = processes().share(self.texts(step))
        return pack(self.model, share, self.config.pack_to) if any(text.counted > 0 for text in share) else None

    def train(self, wrapped: "PeftModel", key: str, progress: bool) -> dict[str, Any]:
        config, tensors = self.config, trained(wrapped)
        optimizer = torch.optim.AdamW(tensors.values(), lr=config.lr, weight_decay=0.0)
        state = self._resume(tensors, optimizer, key)
        if state is None:
            state = {"step": 0, "history": [], "cost": dict.fromkeys(("tokens", "flops", "seconds"), 0.0), "key": key}
            self._look(state, [], tensors, optimizer, wrapped)
        shown = progress and processes().is_main
        bar = tqdm(total=config.steps, initial=state["step"], desc=self.objective.name, unit="step", disable=not shown)
        recent: list[float] = []
        began = time.perf_counter()
        while state["step"] < config.steps and not self._stale(state["history"]):
            step = state["step"]
            texts, batch = self.texts(step), self.mine(step)
            # Dropout and noise, in each process another.
            torch.manual_seed((1_000_003 * config.seed + step) * processes().count + processes().rank)
            wrapped.train()
            optimizer.zero_grad()
            loss = 0.0
            if batch is not None:
                losses = self.objective.losses(self.model, wrapped.disable_adapter, batch)
                mine = losses.sum() / max(1, sum(max(text.counted, 0) for text in texts))
                mine.backward()
                loss = mine.item()
            processes().sum_gradients(tensors.values())
            torch.nn.utils.clip_grad_norm_(tensors.values(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * _schedule(step, config.steps)
            optimizer.step()
            recent.append(processes().total(loss))
            tokens = sum(len(text.ids) for text in texts)
            passes = 1 if self.objective.name == "ce" else 2
            state["cost"]["tokens"] += tokens
            state["cost"]["flops"] += (2.0 * passes + 4.0) * self.size * tokens
            state["step"] += 1
            bar.update()
            if state["step"] % config.check_every == 0 or state["step"] == config.steps:
                state["cost"]["seconds"] += time.perf_counter() - began
                began = time.perf_counter()
                self._look(state, recent, tensors, optimizer, wrapped)
                bar.set_postfix(loss=f"{state['history'][-1]['loss']:.4f}")
                recent = []
        bar.close()
        return state

    @torch.no_grad()
    def evaluate(self, wrapped: "PeftModel") -> float:
        """Mean loss of the validation texts' tokens."""
        wrapped.eval()
        torch.manual_seed(self.config.seed)  # the same noise at every look
        total, n = 0.0, 0
        for batch in self.held:
            losses = self.objective.losses(self.model, wrapped.disable_adapter, batch)
            total, n = total + losses.sum().item(), n + len(losses)
        return processes().total(total) / max(processes().total(n), 1)

    def restore_best(self, wrapped: "PeftModel") -> None:
        _put(trained(wrapped), load_file(self.folder / _CHECKPOINT / "best.safetensors"))

    def _stale(self, history: list[dict[str, float]]) -> bool:
        losses = [look["loss"] for look in history]
        return len(losses) - 1 - losses.index(min(losses)) >= self.config.patience

    def _look(
        self,
        state: dict[str, Any],
        recent: list[float],
        tensors: dict[str, Any],
        optimizer: torch.optim.Optimizer,
        wrapped: "PeftModel",
    ) -> None:
        """Evaluate, and leave a checkpoint: the folder of one that is complete is put in the old one's place."""
        look = {"step": state["step"], "loss": self.evaluate(wrapped)}
        state["history"].append(look | ({"train": sum(recent) / len(recent)} if recent else {}))
        if processes().is_main:
            self._keep(state, tensors, optimizer)
        processes().wait()

    def _keep(self, state: dict[str, Any], tensors: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
        losses = [each["loss"] for each in state["history"]]
        there, fresh = self.folder / _CHECKPOINT, self.folder / f".{_CHECKPOINT}.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        now = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(now, fresh / "adapter.safetensors")
        if losses[-1] < min(losses[:-1], default=float("inf")):
            save_file(now, fresh / "best.safetensors")
        else:
            shutil.copy(there / "best.safetensors", fresh / "best.safetensors")
        moments = {}
        for i, tensor in enumerate(tensors.values()):
            for name, value in optimizer.state.get(tensor, {}).items():
                moments[f"{i}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
        save_file(moments, fresh / "optimizer.safetensors")
        write_json(fresh / "state.json", state)
        shutil.rmtree(there, ignore_errors=True)
        fresh.rename(there)

    def _resume(self, tensors: dict[str, Any], optimizer: torch.optim.Optimizer, key: str) -> dict[str, Any] | None:
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
        state = read_json(at / "state.json")
        if state["key"] != key:
            raise ProbeError(
                f"{self.folder} holds another adapter, broken off: name another folder, or remove that one"
            )
        _put(tensors, load_file(at / "adapter.safetensors"))
        moments = load_file(at / "optimizer.safetensors")
        for i, tensor in enumerate(tensors.values()):
            mine = {name.partition(".")[2]: value for name, value in moments.items() if name.startswith(f"{i}.")}
            if mine:
                optimizer.state[tensor] = {
                    name: value if name == "step" else value.to(tensor.device) for name, value in mine.items()
                }
        processes().wait()
        if at.name.startswith(".") and processes().is_main:
            at.rename(self.folder / _CHECKPOINT)
        processes().wait()
        return state


def _schedule(step: int, steps: int) -> float:
    """A tenth of the steps up, the others down to a hundredth; it hangs on the step alone."""
    up = max(1, steps // 10)
    return min((step + 1) / up, max(0.01, (steps - step) / max(1, steps - up)))


def _parts(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """Whole texts, in order, at least so many tokens to a part; what is left over goes with the last."""
    parts: list[list[Example]] = [[]]
    size = 0
    for example in examples:
        if size >= tokens:
            parts.append([])
            size = 0
        parts[-1].append(example)
        size += len(example.ids)
    return parts


@torch.no_grad()
def _put(tensors: dict[str, Any], kept: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(kept[name])


def _peak_memory(model: Model) -> int:
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
