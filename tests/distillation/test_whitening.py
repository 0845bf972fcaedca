import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nst_lightning.distillation.network import CompactNetwork
from nst_lightning.distillation.whitening import WhitenedAdam, input_moments


def test_it_is_adam_on_whitened_weights():
    """Against torch's Adam on W' with W = W' S^-½ written out, and a bias that is left as it is."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, 3, 3, generator=generator)
    inputs = torch.rand(200, 27, generator=generator) @ torch.diag(torch.logspace(-1, 1, 27))
    moments = inputs.T @ inputs / 200
    damped = (moments + 1e-3 * moments.diagonal().mean() * torch.eye(27)).double()
    root = torch.linalg.inv(torch.linalg.cholesky(damped))  # another root than the symmetric one: for the loss below
    values, vectors = torch.linalg.eigh(damped)
    inverse = (vectors * values**-0.5 @ vectors.T).float()
    assert (root.T @ root).allclose((inverse @ inverse).double(), rtol=1e-3, atol=1e-3)
    weight, bias = nn.Parameter(start.clone()), nn.Parameter(torch.ones(4))
    white = nn.Parameter(start.flatten(1) @ torch.linalg.inv(inverse.double()).float())
    other = nn.Parameter(torch.ones(4))
    size = float(white.detach().square().mean().sqrt())
    ours = WhitenedAdam([weight, bias], {weight: moments}, 0.01)
    theirs = torch.optim.Adam([{"params": [white], "lr": 0.01 * size}, {"params": [other], "lr": 0.01}], eps=0)
    theirs.param_groups[0]["betas"] = theirs.param_groups[1]["betas"] = (0.9, 0.99)
    goal = torch.randn(200, 4, generator=generator)
    for _ in range(20):
        for optimizer, flat, shift in (
            (ours, lambda: weight.flatten(1), bias),
            (theirs, lambda: white @ inverse, other),
        ):
            optimizer.zero_grad()
            (inputs @ flat().T + shift - goal).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(weight.flatten(1), white @ inverse, rtol=1e-2, atol=1e-3)
    assert not torch.allclose(weight, start, atol=1e-3)
    torch.testing.assert_close(bias, other, rtol=1e-3, atol=1e-4)


def test_state_goes_with_a_checkpoint():
    weight = nn.Parameter(torch.randn(2, 5))
    moments = {weight: torch.eye(5) + 0.3}
    first = WhitenedAdam([weight], moments, 0.1)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        first.step()
    twin = nn.Parameter(weight.detach().clone())
    second = WhitenedAdam([twin], {twin: torch.eye(5)}, 0.1)  # of other inputs, as before a student is loaded
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for parameter, optimizer in ((weight, first), (twin, second)):
        parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
    assert torch.equal(weight, twin)


@pytest.mark.parametrize("reduced", [0, 2])
def test_moments_are_of_what_weights_are_multiplied_with(reduced):
    """One image with fewer positions than are sampled, so that nothing is left to chance."""
    widths, full = (3,) * 13, (4,) * 13
    student = CompactNetwork(widths, full, (0, 0, 2, *(0,) * 10), (0, 0, reduced, *(0,) * 10))
    image = torch.rand(1, 3, 16, 16)
    moments = input_moments(student, [image])
    assert set(moments) == {p for name, p in student.named_parameters() if "bias" not in name}
    with torch.no_grad():
        x = (image - student.mean) / student.std
        patches = F.unfold(x, 3, padding=1)[0]
        torch.testing.assert_close(moments[student.convolution(0).weight], patches @ patches.T / 256)
        tapped = student(image)["relu1_1"].flatten(2)[0]
        torch.testing.assert_close(moments[student.maps["relu1_1"]], tapped @ tapped.T / 256)
        if reduced:
            x = F.max_pool2d(F.relu(student.convolve(1, F.relu(student.convolve(0, x)))), 2).flatten(2)[0]
            torch.testing.assert_close(moments[student.reduction(2).weight], x @ x.T / 64)
