"""How threads wait: what the runtime itself says of it, and that the user's own word counts."""

import os
import subprocess
import sys

import pytest
import torch

from nst_lightning.process.waiting import SPINS, wait_briefly


def test_the_users_own_word_counts():
    for name, value in (("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "0")):
        environment = {name: value}
        wait_briefly(environment)
        assert environment == {name: value}
    environment = {}
    wait_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": str(SPINS), "KMP_BLOCKTIME": "1"}


@pytest.mark.skipif("gomp" not in torch.__config__.parallel_info() and sys.platform != "linux", reason="asks libgomp")
@pytest.mark.parametrize("asked", [None, "77"])
def test_the_command_sets_it_before_the_runtime_is_loaded(tmp_path, asked):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment["OMP_DISPLAY_ENV"] = "verbose"  # the runtime says what it took when it is loaded
    if asked:
        environment["GOMP_SPINCOUNT"] = asked
    command = [sys.executable, "-m", "nst_lightning", "fit", "--data.content", "gone.png", "--data.style", "gone.png"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    if "GOMP_SPINCOUNT" not in result.stderr:
        pytest.skip("this PyTorch uses another runtime")
    assert f"GOMP_SPINCOUNT = '{asked or SPINS}'" in result.stderr
    assert "nst: error: data.content: " in result.stderr
