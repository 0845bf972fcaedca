"""What Lightning, logging, the bar and snapshots add to a bare loop, at 256 px.

The objective is total variation alone: the scatter of an evaluation with VGG-19 would hide the overhead.
"""

from __future__ import annotations

import statistics
import time

from lightning.pytorch import Callback
from programs import synchronize

from nst_lightning.callbacks import Export, Faults, Figure, Metrics, Progress, Snapshots
from nst_lightning.data.module import StyleTransferData
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.features import Extractor
from nst_lightning.losses import TotalVariation
from nst_lightning.optim import LBFGS

SIZE, WARM_UP, STEPS = 256, 30, 230
EVERY = 50  # the default of `nst fit`


class NoNetwork(Extractor):
    """An extractor that is never asked."""

    def set_compute_dtype(self, dtype):
        """See the base class."""


class Clock(Callback):
    """When each step began; as the first callback it sees the work of all others in between."""

    def __init__(self, accelerator):
        self.accelerator, self.times = accelerator, []

    def on_train_batch_start(self, *_):
        """See Callback."""
        if len(self.times) in {0, WARM_UP, STEPS - 1}:
            synchronize(self.accelerator)
        self.times.append(time.perf_counter())


class TimedSnapshots(Snapshots):
    """Snapshots that know how long the loop waited for each."""

    def __init__(self, every):
        super().__init__(every)
        self.waits = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        """See Callback."""
        synchronize(pl_module.device.type)
        begin = time.perf_counter()
        super().on_train_batch_end(trainer, pl_module, *args)
        if trainer.global_step % self.every == 0:
            self.waits.append(time.perf_counter() - begin)


def seconds_per_step(times):
    """Mean over the steps after warming up."""
    return (times[-1] - times[WARM_UP]) / (len(times) - 1 - WARM_UP)


def test_loop(benchmark, accelerator, tmp_path):
    """`nst fit` against forward, backward and update."""
    fitted, bare, waits = [], [], []

    def fit():
        data = StyleTransferData(content="demo:content", style="demo:style", size=SIZE)
        module = StyleTransfer(evaluations=STEPS, terms=[TotalVariation()], extractor=NoNetwork())
        clock, snapshots = Clock(accelerator), TimedSnapshots(EVERY)
        callbacks = [clock, Progress(), Metrics(), Faults(), snapshots, Figure(), Export(str(tmp_path / "result.png"))]
        trainer = StyleTrainer(
            accelerator=accelerator, callbacks=callbacks, default_root_dir=tmp_path, logger=False, max_epochs=-1,
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        fitted.append(seconds_per_step(clock.times))
        waits.extend(snapshots.waits)
        loop(module)

    def loop(module):
        image = module.image.detach().clone().to(accelerator).requires_grad_()
        module.to(accelerator)
        optimiser, times = LBFGS([image]), []

        def closure():
            optimiser.zero_grad()
            loss = module(image).loss
            loss.backward()
            return loss

        for step in range(STEPS):
            if step in {0, WARM_UP, STEPS - 1}:
                synchronize(accelerator)
            times.append(time.perf_counter())
            optimiser.step(closure)
        bare.append(seconds_per_step(times))

    benchmark.extra_info.update(suite="overhead", size=SIZE, accelerator=accelerator, program="nst_lightning")
    benchmark.pedantic(fit, rounds=3, warmup_rounds=1)
    overhead = [f - b for f, b in zip(fitted, bare, strict=True)][1:]
    benchmark.extra_info.update(
        overhead_seconds=statistics.median(overhead),
        overhead_spread=(max(overhead) - min(overhead)) / 2,
        bare_seconds=statistics.median(bare[1:]),
        snapshot_seconds=statistics.median(waits),
        longest_snapshot_seconds=max(waits[STEPS // EVERY :]),
    )
