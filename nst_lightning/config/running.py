"""From a job to its picture, and from what Lightning, PyTorch or the system raise on the way to one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nst_lightning.config.build import Job
from nst_lightning.console import log
from nst_lightning.console.quiet import lightning_quiet
from nst_lightning.engine.complaints import complaint
from nst_lightning.errors import UserError
from nst_lightning.hardware.memory import is_out_of_memory
from nst_lightning.process.isolation import process_as_before


def run(job: Job) -> None:
    """Make the picture. A folder that nothing came into is removed again, however the run ends.

    Raises:
        UserError: If it cannot be made.
        KeyboardInterrupt: After Ctrl-C, when everything is written.
        SystemExit: After SIGTERM, likewise.
    """
    job.make_trainer()
    try:
        job.trainer.fit(job.model, datamodule=job.data, ckpt_path=job.config.ckpt_path)
    except BaseException as error:
        if not job.trainer.global_step:  # nothing was made that could be kept
            job.discard_folder()
        if not isinstance(error, Exception):
            raise
        if not isinstance(error, UserError) and is_out_of_memory(error):
            reason = " ".join(str(error).split())[:150]
            raise UserError(f"memory: ran out ({reason}); set model.tile or model.memory, or data.size lower") from None
        line = error if isinstance(error, UserError) else complaint(error)
        raise line or error from None


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Let a program's own runs say nothing, Lightning included, and find the process as it was before afterwards."""
    with process_as_before(), lightning_quiet(), log.silent():
        yield
