#!/usr/bin/env bash
# STROTSS (the author's, 9a1543a), torch 2.14.1: at which cells is the picture compared with a region of the style (-gr)?
# Expected: at cells of that region of the photograph, 1024 of them drawn anew for every step, from a lattice that is laid
# anew every ten steps.
# Seen: rows and columns of the region's cells are shuffled each on its own, so that a cell is any of its rows with any of
# its columns: for a region of two opposite quarters half of the cells lie in the other two, which belong to another
# region of the style. And lattices that are laid later are appended to a list of which only the first is read: of a
# picture of 512x512 px one cell in sixteen is ever looked at, in all 250 steps.
# STROTSS=FOLDER takes a clone that is there already.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
git clone -q --no-checkout "${STROTSS:-https://github.com/nkolkin13/STROTSS}" strotss
git -C strotss checkout -q 9a1543a -- contextual_loss.py stylize_objectives.py utils.py
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check torch==2.14.1 numpy==2.4.6 imageio==2.27.0
v/bin/python - > seen <<'P'
import numpy as np
import torch

from strotss.stylize_objectives import objective_class

torch.Tensor.cuda = lambda tensor: tensor  # the original asks for CUDA in places that -cpu does not reach
np.random.seed(0)
side = 512
region = np.zeros((side, side), dtype=bool)
region[: side // 2, : side // 2] = region[side // 2 :, side // 2 :] = True
picture, style = [torch.zeros(1, 3, side, side)], [[torch.zeros(1, 3, 1000, 1)]]
cells = objective_class(objective="remd_dp_g")
rows, columns, inside = set(), set(), []
for step in range(250):  # as style_transfer does
    if step % 10 == 0:
        cells.init_inds(picture, style, region, 0)
        first = region[cells.rand_ixy[0][-1], cells.rand_ixx[0][-1]].mean()
    cells.shuffle_feature_inds()
    x, y, _ = cells.get_feature_inds()
    inside.append(region[y, x].mean())
    rows.update(x.tolist())
    columns.update(y.tolist())
print(f"of the cells as they are laid {first:.2f} lie in the region, as they are compared {np.mean(inside):.2f}")
print("rows and columns ever looked at:", len(rows), len(columns), "of", side)
P
cat seen
diff seen - <<'P'
of the cells as they are laid 1.00 lie in the region, as they are compared 0.50
rows and columns ever looked at: 128 128 of 512
P
