"""What the optimiser knows of curvature goes on to another size."""

from __future__ import annotations

import io
import math

import pytest
import torch

from nst_lightning.optim import LBFGS
from nst_lightning.optim.lbfgs import Curvature
from nst_lightning.runs.checkpoint import add_new_settings


class Filtered:
    """Half the mean square of a filtered image: the Hessian is ``strength · f^(2 exponent)`` over the pixels."""

    def __init__(self, height, width, *, exponent=0.5, strength=3.0, seed=0):
        f = (torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width).square()).sqrt()
        self.gain = strength * f.clamp(min=1 / max(height, width)).pow(2 * exponent)
        torch.manual_seed(seed)
        self.image = (0.05 * torch.randn(1, 3, height, width, dtype=torch.float64)).requires_grad_()
        self.bad: set[int] = set()
        self.losses: list[float] = []

    def step(self, optimiser):
        def closure():
            optimiser.zero_grad()
            filtered = torch.fft.irfft2(
                torch.fft.rfft2(self.image, norm="ortho") * self.gain.sqrt(), s=self.image.shape[-2:], norm="ortho"
            )
            loss = filtered.square().sum() / (2 * self.image.shape[-2:].numel())
            if len(self.losses) in self.bad:
                loss = loss * math.nan
            loss.backward()
            self.losses.append(float(loss.detach()))
            return loss.detach()

        optimiser.step(closure)


def test_the_first_step_is_the_quasi_newton_step():
    """With the inverse Hessian exactly known the minimum is one step away."""
    problem = Filtered(20, 30)
    optimiser = LBFGS([problem.image], relaxation=1.0, max_step=math.inf)
    optimiser.begin_with(Curvature([math.log(0.01), math.log(0.5)], [-math.log(3.0)] * 2))
    for _ in range(2):
        problem.step(optimiser)
    assert problem.losses[1] < 1e-12 * problem.losses[0]


def test_what_is_known_is_a_function_of_frequency_and_of_pixels():
    """Measured on a small image, of a Hessian that the metric does not have, and compared with its value by hand."""
    small = Filtered(32, 40, exponent=1.0)
    optimiser = LBFGS([small.image], history_size=30)
    for _ in range(25):
        small.step(optimiser)
    known = optimiser.curvature()
    assert known is not None
    assert len(known.log_factors) == 3 * len(known.log_frequencies)  # brightness and two colours, which are alike here
    assert known.log_frequencies == sorted(known.log_frequencies)
    # 1 / (3 f^2) is f^-1, the metric's own, times 1 / (3 f).
    expected = [-math.log(3.0) - f for f in known.log_frequencies] * 3
    errors = torch.tensor(known.log_factors) - torch.tensor(expected)
    assert (errors - errors.median()).abs().median() < 0.5
    assert abs(float(errors.median())) < 1.0


def test_a_run_at_another_size_begins_where_this_one_ended():
    small = Filtered(32, 40, exponent=1.0)
    optimiser = LBFGS([small.image])
    for _ in range(20):
        small.step(optimiser)
    known = optimiser.curvature()

    def run(curvature):
        large = Filtered(64, 80, exponent=1.0, seed=1)
        following = LBFGS([large.image])
        following.begin_with(curvature)
        for _ in range(8):
            large.step(following)
        return large.losses

    without, carried = run(None), run(known)
    assert carried[1] < 0.3 * without[1]
    assert carried[-1] < 0.3 * without[-1]


@pytest.mark.parametrize("factor", [0.125, 8.0])
@pytest.mark.parametrize("history", [3, 20])
def test_what_is_not_true_here_is_soon_corrected(factor, history):
    """The loss of the next size may be steeper, or flatter; then the run is hardly worse than without."""

    def run(curvature):
        problem = Filtered(40, 60, exponent=1.0)
        optimiser = LBFGS([problem.image], history_size=history)
        optimiser.begin_with(curvature)
        for _ in range(12):
            problem.step(optimiser)
        return problem.losses[-1]

    true = [-math.log(3.0) - f + math.log(factor) for f in (-4.1, -0.4)]
    assert run(Curvature([-4.1, -0.4], true)) < 1.5 * run(None)


def test_a_first_step_that_led_to_no_number_is_made_small():
    problem = Filtered(20, 30)
    problem.bad = {1}
    optimiser = LBFGS([problem.image], first_step=0.001)
    optimiser.begin_with(Curvature([-4.0, -0.7], [3.0, 3.0]))
    start = problem.image.detach().clone()
    lengths = []
    for _ in range(3):
        problem.step(optimiser)
        lengths.append(float((problem.image.detach() - start).square().mean().sqrt()))
    assert lengths[0] > 0.05  # far too long a step
    assert lengths[1] == 0.0  # taken back
    assert lengths[2] == pytest.approx(0.001)


def test_a_checkpoint_of_an_earlier_version_goes_on():
    problem = Filtered(16, 16)
    optimiser = LBFGS([problem.image])
    problem.step(optimiser)
    saved = optimiser.state_dict()
    del saved["param_groups"][0]["prior"]
    optimiser.load_state_dict(saved)
    for _ in range(2):
        problem.step(optimiser)
    assert problem.losses[2] < problem.losses[0]


def test_a_checkpoint_from_before_opponent_colours_goes_on_as_it_would_have():
    problem, other = Filtered(16, 16), Filtered(16, 16)
    before = LBFGS([problem.image], opponent_colors=False)
    for _ in range(3):
        problem.step(before)
    saved = before.state_dict()
    saved["param_groups"] = [{k: v for k, v in saved["param_groups"][0].items() if k != "opponent_colors"}]
    add_new_settings({"optimizer_states": [saved]}, LBFGS([other.image]).param_groups)
    resumed = LBFGS([other.image])
    resumed.load_state_dict(saved)
    with torch.no_grad():
        other.image.copy_(problem.image)
    for _ in range(3):
        problem.step(before)
        other.step(resumed)
    assert torch.equal(problem.image, other.image)


def test_what_is_known_of_all_channels_together_goes_for_each_colour():
    known = Curvature([-4.0, -1.0], [1.0, 3.0])
    assert known.at([-2.5], 10, axes=3) == pytest.approx([10 * math.exp(2.0)] * 3)
    known = Curvature([-4.0, -1.0], [1.0, 3.0, 0.0, 0.0, 2.0, 2.0])
    assert known.at([-2.5, 0.0], 1, axes=3) == pytest.approx([math.exp(x) for x in (2, 3, 0, 0, 2, 2)])
    assert known.at([-2.5, 0.0], 1) == pytest.approx([math.exp(x / 3) for x in (4, 5)])  # one axis: their mean


@pytest.mark.parametrize(
    ("before", "after"),
    [({"rings": 1}, {"rings": 1}), ({}, {"rings": 1}), ({"rings": 1}, {}), ({}, {"opponent_colors": False})],
)
def test_optimisers_of_different_rings_follow_each_other(before, after):
    first, second = Filtered(16, 16), Filtered(24, 24)
    optimiser, following = LBFGS([first.image], **before), LBFGS([second.image], **after)
    for _ in range(6):
        first.step(optimiser)
    known = optimiser.curvature()
    assert known is not None
    following.begin_with(known)
    for _ in range(6):
        second.step(following)
    assert second.losses[-1] < second.losses[0]


def test_pairs_of_before_a_restart_are_forgotten():
    """A gradient that is not finite begins the history anew; what lies in slots out of use counts no more."""
    problem = Filtered(16, 16)
    optimiser = LBFGS([problem.image], history_size=20)
    for _ in range(8):
        problem.step(optimiser)

    def fails():
        problem.image.grad = torch.full_like(problem.image, math.nan)
        return torch.tensor(math.nan)

    optimiser.step(fails)
    for _ in range(4):
        problem.step(optimiser)
    (state,) = optimiser.state.values()
    known = optimiser.curvature()
    assert known is not None
    assert 0 < int(state["count"]) < 8
    unused = [slot for slot in range(20) if (int(state["newest"]) - slot) % 20 >= int(state["count"])]
    state["ss"][:, unused], state["yy"][:, unused], state["yy"][:, :, unused] = 7.0, 3.0, 3.0
    assert optimiser.curvature() == known


def test_it_goes_through_a_file():
    problem, other = Filtered(16, 16), Filtered(16, 16)
    optimiser, resumed = LBFGS([problem.image]), LBFGS([other.image])
    optimiser.begin_with(Curvature([-3.0, -0.7], [0.1, -0.4]))
    problem.step(optimiser)
    file = io.BytesIO()
    torch.save(optimiser.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        other.image.copy_(problem.image)
    for _ in range(4):
        problem.step(optimiser)
        other.step(resumed)
    assert torch.equal(problem.image, other.image)


@pytest.mark.parametrize("options", [{"spectral_exponent": 0.0}, {"rules": "torch"}])
def test_without_a_metric_nothing_is_known(options):
    problem = Filtered(16, 16)
    optimiser = LBFGS([problem.image], **options)
    for _ in range(3):
        problem.step(optimiser)
    assert optimiser.curvature() is None


def test_before_the_first_pair_nothing_is_known():
    problem = Filtered(16, 16)
    optimiser = LBFGS([problem.image])
    assert optimiser.curvature() is None
    problem.step(optimiser)
    assert optimiser.curvature() is None
