"""How threads wait: what the runtime itself says of it, and that the user's own word counts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nst_lightning.process.rounding import round_alike
from nst_lightning.process.waiting import SPINS, SPINS_IF_BUSY, wait_briefly


def test_the_users_own_word_counts():
    for name, value in (("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "0")):
        environment = {name: value}
        wait_briefly(environment)
        assert environment == {name: value}


@pytest.mark.parametrize(("others", "spins"), [(0.0, SPINS), (0.4, SPINS), (1.0, SPINS_IF_BUSY), (9.0, SPINS_IF_BUSY)])
def test_beside_other_programs_threads_sleep_sooner(others, spins):
    environment = {}
    wait_briefly(environment, others)
    assert environment["GOMP_SPINCOUNT"] == str(spins)


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="asks Linux")
def test_a_program_that_works_is_seen():
    """Not only the one of a minute ago: it counts from its first moment."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as at_work:
        at_work.stdout.readline()
        environment = {}
        wait_briefly(environment)
        at_work.kill()
    assert environment["GOMP_SPINCOUNT"] == str(SPINS_IF_BUSY)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ("vendor_id : GenuineIntel flags : sse2 avx2 avx512f", "AVX512,STRICT"),
        ("vendor_id : GenuineIntel flags : sse2 avx2", "AVX2,STRICT"),
        ("vendor_id : GenuineIntel flags : sse2", None),
        ("vendor_id : AuthenticAMD flags : avx2 avx512f", "AVX512,STRICT"),
        ("vendor_id : Unknown flags : avx2 avx512f", None),
        ("", None),
    ],
)
def test_processors_on_which_bits_depend_on_threads_are_told(processor, expected):
    environment = {}
    round_alike(environment, processor)
    assert environment.get("MKL_CBWR") == expected
    environment = {"MKL_CBWR": "COMPATIBLE"}
    round_alike(environment, processor)
    assert environment == {"MKL_CBWR": "COMPATIBLE"}


@pytest.mark.skipif("gomp" not in torch.__config__.parallel_info() and sys.platform != "linux", reason="asks libgomp")
@pytest.mark.parametrize("asked", [None, pytest.param("77", marks=pytest.mark.slow)])
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
    expected = [asked] if asked else [SPINS, SPINS_IF_BUSY]
    assert any(f"GOMP_SPINCOUNT = '{spins}'" in result.stderr for spins in expected)
    assert "nst: error: data.content: " in result.stderr
