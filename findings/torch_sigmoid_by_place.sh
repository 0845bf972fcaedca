#!/usr/bin/env bash
# PyTorch 2.14.1 on a CPU: is sigmoid() of a number the same wherever the number lies in a tensor?
# Expected: yes; a function of single numbers has nothing to add up, and deterministic algorithms are asked for.
# Seen: no. Numbers that fill a vector register go through one program and the rest through another, whose last bit may
# differ; so a tensor of 35 times one number has two values after sigmoid, softplus or pow(1.5), and threads, each of which
# has a rest of its own, make other values with another number of them. exp, tanh and log have one program for both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check torch==2.14.1 numpy
ATEN_CPU_CAPABILITY=avx2 v/bin/python - <<'P'
import sys

import torch
import torch.nn.functional as F

torch.use_deterministic_algorithms(True)
numbers = torch.linspace(-3, 3, 4001)
functions = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "pow(1.5)": lambda x: (x.abs() + 0.1).pow(1.5),
    "exp": torch.exp,
    "tanh": torch.tanh,
    "log": lambda x: (x.abs() + 0.1).log(),
}
two = {name: sum(len(f(x.repeat(35)).unique()) > 1 for x in numbers) for name, f in functions.items()}
print("torch", torch.__version__, "of 4001 numbers, how many have two values in one tensor:", two)

many, by_threads = torch.randn(1000, 1001, generator=torch.Generator().manual_seed(0)), {}
for threads in (1, 3):
    torch.set_num_threads(threads)
    by_threads[threads] = torch.sigmoid(many)
print("sigmoid of a million numbers, with 1 and 3 threads: differ", int((by_threads[1] != by_threads[3]).sum()))
expected = [two[name] > 0 for name in functions] == [True, True, True, False, False, False]
sys.exit(0 if expected else 1)
P
