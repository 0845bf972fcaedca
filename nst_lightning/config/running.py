"""From a job to its picture, and from what Lightning, PyTorch or the system raise on the way to one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nst_lightning.callbacks.companions import Companions, is_lost_connection
from nst_lightning.config.build import Job
from nst_lightning.console import log
from nst_lightning.console.quiet import lightning_quiet
from nst_lightning.engine.complaints import complaint
from nst_lightning.errors import UserError
from nst_lightning.hardware.memory import is_out_of_memory
from nst_lightning.process.isolation import process_as_before
from nst_lightning.process.launched import LostConnectionError, launched
from nst_lightning.process.world import leave_group


def run(job: Job) -> None:
    """Make the picture. A folder that nothing came into is removed again, however the run ends.

    Raises:
        UserError: If it cannot be made.
        KeyboardInterrupt: After Ctrl-C, when everything is written.
        SystemExit: After SIGTERM, likewise.
    """
    job.make_trainer()
    launch = launched()
    if launch is not None:
        job.trainer.callbacks.insert(0, Companions(launch))  # type: ignore[attr-defined]
    try:
        job.trainer.fit(job.model, datamodule=job.data, ckpt_path=job.config.ckpt_path)
    except BaseException as error:
        if not job.trainer.global_step:  # nothing was made that could be kept
            job.discard_folder()
        if not isinstance(error, Exception):
            raise
        raise _line_of(error, job) or error from None
    finally:
        leave_group()


def _line_of(error: Exception, job: Job) -> UserError | None:
    """What an error means to the user; None for a fault of the program."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        reason = " ".join(str(error).split())[:150]
        return UserError(f"memory: ran out ({reason}); set model.tile or model.memory, or data.size lower")
    if job.trainer.world_size > 1 and is_lost_connection(error):  # Lightning waits for the others, too
        return LostConnectionError(
            f"trainer.devices: the connection to another process was lost: {str(error).splitlines()[0][:150]}; "
            f"stopped at evaluation {job.trainer.global_step}, what was written is whole"
        )
    return complaint(error)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Let a program's own runs say nothing, Lightning included, and find the process as it was before afterwards."""
    with process_as_before(), lightning_quiet(), log.silent():
        yield
