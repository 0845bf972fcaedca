"""The line before a run starts: what will be done, and what it will need."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

from nst_lightning.console import log
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.hardware.accelerator import describe
from nst_lightning.planning.duration import in_bytes, in_words


class Announce(Callback):
    """Say device, precision, sizes, weights, time, memory and folder before the first evaluation."""

    def __init__(self) -> None:
        self._due = True

    def setup(self, *_: Any, **__: Any) -> None:
        """Say it in each run."""
        self._due = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Say it, now that no callback has found a fault with the trainer."""
        due, self._due = self._due, False
        if due and trainer.is_global_zero:
            seconds = pl_module.planner.seconds(pl_module.device)
            log.say("plan", start_line(trainer, pl_module, seconds), **_facts(trainer, pl_module, seconds))


def planned_evaluations(trainer: Trainer, module: StyleTransfer) -> int:
    """Evaluations of the whole run, which ``trainer.max_steps`` may cut short."""
    total = module.total_evaluations
    return total if trainer.max_steps < 0 else min(total, trainer.max_steps)


def _facts(trainer: Trainer, module: StyleTransfer, seconds: float) -> dict[str, Any]:
    height, width = trainer.datamodule.stage_size()  # type: ignore[attr-defined]
    return {
        "accelerator": describe(module.device).accelerator,
        "precision": str(trainer.precision),
        "width": width,
        "height": height,
        "evaluations": planned_evaluations(trainer, module),
        "stages": len(module.stages),
        "seconds": round(seconds, 1),
        "bytes": module.planner.memory(),
        "folder": str(trainer.default_root_dir),
        **({} if (found := trainer.datamodule.faces) is None else {"faces": found}),  # type: ignore[attr-defined]
    }


def start_line(trainer: Trainer, module: StyleTransfer, seconds: float) -> str:
    """One line: device, precision and reason, sizes, length, weights, time and memory, run folder."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    hardware = describe(module.device)
    reason = getattr(trainer, "precision_reason", "asked for")
    height, width = data.stage_size()
    styles = ", ".join(f"{w}x{h}" for h, w in data.style_sizes())
    stages = f" in {len(module.stages)} stages" if len(module.stages) > 1 else ""
    origins = ", then ".join(dict.fromkeys(module.extractor_of(stage).origin for stage in module.stages))
    tiles = sorted({plan.tile for plan in module.plans if plan.tile is not None})
    tiled = f" in tiles of {' and '.join(map(str, tiles))} px" if tiles else ""
    lean = [module.planner.history(plan)["history_size"] for plan in module.plans if plan.choice]
    tiled += f", history of {lean[-1]} pairs in bfloat16 for want of memory" if lean else ""
    memory = module.planner.memory()
    clear = "" if data.faces is None else f"; {data.faces} face{'' if data.faces == 1 else 's'} to stay clear"
    needs = f"; takes about {in_words(seconds)}"
    needs += f" and {memory / 2**30:.1f} GiB" if memory else ""
    if trainer.checkpoint_callback is not None:
        needs += f"; checkpoints of about {in_bytes(module.planner.checkpoint_bytes())}"
    return (
        f"{hardware.accelerator} ({hardware.name}), {trainer.precision} ({reason}); image {width}x{height} px{tiled}, "
        f"style {styles} px{clear}; {module.total_evaluations} evaluations{stages}; weights: {origins}{needs}; "
        f"run folder {trainer.default_root_dir}"
    )
