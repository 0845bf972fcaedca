#!/usr/bin/env bash
# NNST (NeuralNeighborStyleTransfer 290976a), torch 2.14.1, torchvision 0.29.1: which layers does the final pass compare?
# Expected: each of ten layers of the result with the same layer of the style, at its default long side of 512 px as with
# --high_res (1024 px); layers of at most 64 cells a side are taken whole, larger ones at every nth cell.
# Seen: at 512 px relu4_1, relu4_2 and relu4_3 of the result are never looked at. Only the branch for larger layers sets
# the variable that is compared, so that cells of relu3_3 stand in it, and `view` reads two places of 256 channels as one
# of 512: three of ten distances are between other things than their names say, without a word. At 1024 px, where these
# layers have 128 cells a side, all ten are right.
# A network with random weights does, since only shapes and identities are looked at. NNST=FOLDER takes a clone that is
# there already.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
git clone -q --no-checkout "${NNST:-https://github.com/nkolkin13/NeuralNeighborStyleTransfer}" nnst
git -C nnst checkout -q 290976a -- utils
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 imageio==2.27.0 pillow==12.0.0
cd nnst
../v/bin/python - > ../seen <<'P'
import warnings

import torch
import torchvision

from utils import misc, stylize
from utils.imagePyramid import dec_lap_pyr

warnings.simplefilter("ignore")
misc.USE_GPU = False
torch.manual_seed(0)
layers = torchvision.models.vgg16(weights=None).features[:23].eval().requires_grad_(False)
distance = stylize.pairwise_distances_cos_center


def features(image, wanted, concatenate):
    found = []
    for index, layer in enumerate(layers):
        image = layer(image)
        if index in wanted:
            found.append(image)
    return found


for side in (512, 1024):
    content, style = torch.rand(1, 3, side * 2 // 3, side), torch.rand(1, 3, 64, 64)
    made, compared = [], []

    def phi(image, wanted, concatenate):
        found = features(image, wanted, concatenate)
        if image.shape[-1] == side:  # the result's, and not the style's
            made.extend({tuple(cell) for cell in layer[0, :3].flatten(1).T.tolist()} for layer in found)
        return found

    def spy(style_cells, cells):
        compared.append({tuple(cell) for cell in cells[:, :3].tolist()})
        return distance(style_cells, cells)

    stylize.pairwise_distances_cos_center = spy
    pyramid = dec_lap_pyr(content, 8)
    stylize.optimize_output_im(
        dec_lap_pyr(content, 8), pyramid, content, style, None, 2e-3, 1, 0, phi, final_pass=True, flip_aug=False
    )
    right = [cells <= layer for cells, layer in zip(compared, made, strict=True)]
    names = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3"]
    print(side, "not of their layer:", *[name for name, good in zip(names, right, strict=True) if not good])
P
cat ../seen
diff ../seen - <<'P'
512 not of their layer: 4_1 4_2 4_3
1024 not of their layer:
P
