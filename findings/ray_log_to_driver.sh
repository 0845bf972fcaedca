#!/usr/bin/env bash
# Ray 2.60.0, ray.init(log_to_driver=False): does a driver's standard output stay its own?
# Expected: nothing of Ray's is printed there; the argument says that output of workers is not sent to the driver, and
# logging_level=CRITICAL keeps the rest back.
# Seen: when a node is lost, some thirty lines of its raylet's log are printed on the driver's standard output, in colour,
# past both arguments and past Python's logging. A program whose standard output others read (JSON a line) is broken by
# the very event that it wants to survive.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check ray==2.60.0
v/bin/python - > out.txt 2> err.txt <<'P'
import logging
import time

import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
cluster.remove_node(second, allow_graceful=False)
time.sleep(15)
ray.shutdown()
cluster.shutdown()
P
echo "lines on standard output: $(wc -l < out.txt), that name the raylet: $(grep -c raylet out.txt || true)"
grep -q "Raylet is terminated" out.txt
