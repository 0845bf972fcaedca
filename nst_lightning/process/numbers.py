"""What the environment says of this process's place among others, before a library reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nst_lightning.errors import UserError

# Lightning makes numbers of these, of the first four as soon as it is imported.
_NUMBERS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "SLURM_NTASKS")


def check_numbers(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse variables that have to be numbers and are something else, empty for example.

    Raises:
        UserError: For the first one.
    """
    for name in _NUMBERS:
        value = environment.get(name, "0")
        if not value.isdecimal():
            raise UserError(f"{name}: must be a number in the environment, got '{value}'; unset it")
