#!/usr/bin/env bash
# jsonargparse 4.53.0 (the parser of LightningCLI): what is left of a list of classes when the option is given again?
# Expected: nothing, as of a list of numbers; or, if it merges, what was there whatever the length.
# Seen: if both lists have as many items, each new one takes over the arguments of the one that stood at its place, of
# whatever class that was, as far as it has them by the same name: Blur, whose own weight is 1, gets 7 from Edges. With
# one item more or less none does. A configuration file with the list, given after another, does the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check "jsonargparse[signatures]==4.53.0"
cat > losses.py <<'P'
class Loss:
    pass


class Edges(Loss):
    def __init__(self, weight: float = 1.0, radius: int = 2) -> None: ...


class Blur(Loss):
    def __init__(self, weight: float = 1.0) -> None: ...
P
cat > seen.py <<'P'
import json

from jsonargparse import ArgumentParser

from losses import Loss

parser = ArgumentParser()
parser.add_argument("--config", action="config")
parser.add_argument("--losses", type=list[Loss])
first = '[{"class_path": "losses.Edges", "init_args": {"weight": 7}}, {"class_path": "losses.Edges"}]'
for second in ('["losses.Blur", "losses.Blur"]', '["losses.Blur"]', '["losses.Blur", "losses.Blur", "losses.Blur"]'):
    open("a.json", "w").write(f'{{"losses": {first}}}')
    open("b.json", "w").write(f'{{"losses": {second}}}')
    for args in ([f"--losses={first}", f"--losses={second}"], ["--config=a.json", "--config=b.json"]):
        found = parser.parse_args(args).losses
        print(args[0][:8], len(found), [loss.init_args.weight for loss in found])
P
v/bin/python seen.py > seen
cat seen
diff seen - <<'P'
--losses 2 [7.0, 1.0]
--config 2 [7.0, 1.0]
--losses 1 [1.0]
--config 1 [1.0]
--losses 3 [1.0, 1.0, 1.0]
--config 3 [1.0, 1.0, 1.0]
P
