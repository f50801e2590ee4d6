"""Where TorchJD 0.18 and we differ: both values on a small case, and a check of ours that needs neither.

docs/disagreements.md tells the same, method by method.
"""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torchjd import aggregation, scalarization
from torchjd.aggregation import SDMGradWeighting

from mtlweights import Balancer
from tests.oracle import ASCENT, E2, A, B, direction, make, theirs, weights_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP"),
    pytest.mark.filterwarnings("ignore:divide by zero encountered in divide"),
    pytest.mark.filterwarnings("ignore:Solution may be inaccurate"),
]
PAGE = Path(__file__).parents[1] / "docs" / "disagreements.md"


def both(name, aggregator, rows, **hyperparameters):
    return theirs(aggregator, rows), direction(make(name, len(rows), **hyperparameters), rows)


def test_mgda_stops_early():
    """The first two cancel, so the shortest vector of the hull is 0; Frank-Wolfe creeps towards it."""
    rows = np.array([[1.0, 0], [-1, 0], [0, 1]])
    found, ours = both("mgda", aggregation.MGDA(), rows)
    assert np.linalg.norm(found) == pytest.approx(0.0494, abs=1e-4)
    assert ours.tolist() == [0, 0]


def test_mgda_meets_its_optimality_condition_where_frank_wolfe_does_not():
    """At the shortest vector ``g_i . d >= |d|^2`` for all i."""
    rows = np.array([[1.0, 0, 0], [0, 10, 0], [0.5, 3, 1]])
    found, ours = both("mgda", aggregation.MGDA(), rows)
    assert found == pytest.approx([0.97602, 0.14742, 0.04620], abs=1e-5)
    assert ours == pytest.approx([40 / 41, 6 / 41, 2 / 41])  # |d|^2 = 40 / 41
    assert (rows @ ours >= ours @ ours * (1 - 1e-12)).all()
    assert (rows @ found).min() < found @ found * (1 - 1e-4)


def worst_case_on_the_ball(rows, c, n=20001):
    """CAGrad's own maximum, ``max min_i g_i . d`` over ``|d - g_0| <= c |g_0|``, in the plane."""
    mean, turn = rows.mean(axis=0), np.linspace(0, 2 * math.pi, n)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    points = np.concatenate(
        [mean[:, None] + s * c * np.linalg.norm(mean) * circle for s in (0, 0.5, 1)], axis=1
    )
    return (rows @ points).min(axis=0).max()


@pytest.mark.parametrize("rows", [1e-3 * np.array(A), 1e-3 * np.array(B), np.array([[1.0, 0], [0, 0]])])
def test_cagrad_is_zero(rows):
    """Below a norm of 0.01, and with one zero gradient: outside the ball, since c < 1."""
    found, ours = both("cagrad", aggregation.CAGrad(c=0.5), rows)
    mean = rows.mean(axis=0)
    radius = 0.5 * np.linalg.norm(mean)
    assert found.tolist() == [0, 0]
    assert np.linalg.norm(found - mean) > 1.9 * radius
    assert np.linalg.norm(ours - mean) <= radius * (1 + 1e-9)
    best = worst_case_on_the_ball(rows, 0.5)  # from below: points of a grid
    assert (rows @ ours).min() >= best - 1e-9 * abs(rows @ mean).max()


def test_imtl_g_ascends():
    """All three projections -0.1049; the paper asks for equal ones. Ours have that size, upwards."""
    rows = np.array(ASCENT, dtype=np.float64)
    found, ours = both("imtl_g", aggregation.IMTLG(), rows)
    norms = np.linalg.norm(rows, axis=1)
    assert rows @ found / norms == pytest.approx([-0.1049] * 3, abs=1e-4)
    assert rows @ ours / norms == pytest.approx([0.1049] * 3, abs=1e-4)


@pytest.mark.parametrize(("rows", "wrong"), [(E2, [-5, 0]), ([[1, 0], [0, 0]], [1, 0])])
def test_imtl_g_of_dependent_gradients(rows, wrong):
    """Ours is the limit ``n_1 n_2 / (n_1 + n_2) (u_1 + u_2)`` of the formula as they become dependent."""
    found, ours = both("imtl_g", aggregation.IMTLG(), rows)
    assert found == pytest.approx(wrong)
    assert ours == pytest.approx([0, 0], abs=1e-12)
    for near in (1e-3, 1e-6):
        g = np.array(rows) + near * np.array([[0, 0], [0, 1.0]])
        n = np.linalg.norm(g, axis=1)
        limit = n.prod() / n.sum() * (g[0] / n[0] + g[1] / n[1])
        assert np.abs(limit).max() < 2 * near
        assert np.linalg.norm(g @ limit / n - (g @ limit / n)[0]) < 1e-9


NASH = [
    (B, [1, 1]),  # G 1 has a zero: the solver fails, and the first guess stays
    (((1, 1), (1, 1)), [2, 2]),  # the answer is found, and the one before it returned
    (1e-3 * np.array(A), [0.42673, 0.73914]),
]


@pytest.mark.parametrize(("rows", "wrong"), NASH)
def test_nash_mtl_misses_its_equation(rows, wrong):
    """``w_i (G w)_i = 1``, hence ``|d| = sqrt(T)``; with and without the clipping that is their default."""
    rows = np.array(rows, dtype=np.float64)
    found, ours = both("nash_mtl", aggregation.NashMTL(2, max_norm=0.0), rows)
    assert found == pytest.approx(wrong, abs=1e-4)
    weights = make("nash_mtl", 2).weights(rows @ rows.T, np.ones(2), np.arange(2))
    assert weights * (rows @ ours) == pytest.approx([1, 1], rel=1e-9)
    assert np.linalg.norm(ours) == pytest.approx(math.sqrt(2), rel=1e-9)
    assert abs(np.linalg.norm(found) - math.sqrt(2)) > 0.1 or abs(found - ours).max() > 0.1


def test_nash_mtl_clips():
    """Their default makes every length 1: ours over sqrt(T), a matter of the learning rate."""
    found, ours = both("nash_mtl", aggregation.NashMTL(2), A)
    assert found == pytest.approx(ours / math.sqrt(2), abs=1e-6)


@pytest.mark.parametrize(("scale", "wrong"), [(1e-3, [6.868, 4.642]), (1e-4, [0.994, 7.646])])
def test_fairgrad_misses_its_equation(scale, wrong):
    """``G w = w^(-1/2)`` of orthogonal gradients: ``w_i = |g_i|^(-4/3)``."""
    rows = scale * np.diag([1.0, 10.0])
    found, ours = both("fairgrad", aggregation.FairGrad(alpha=2.0), rows)
    assert found == pytest.approx(wrong, abs=2e-3)
    assert ours == pytest.approx(np.diag(rows) ** (-1 / 3), rel=1e-9)


def test_upgrad_and_dualproj_turn_into_the_mean():
    """Below a norm of 0.01. In closed form: half of gradient surgery; the mean less its part against g_2."""
    rows = 1e-3 * np.array([[2.0, 0], [-6, 1]])
    mean = rows.mean(axis=0)
    for name, aggregator in (("upgrad", aggregation.UPGrad()), ("dualproj", aggregation.DualProj())):
        found, ours = both(name, aggregator, rows)
        assert found == pytest.approx(mean, rel=1e-6)
        assert (rows @ found).min() < -1e-7  # a loss rises
        assert (rows @ ours >= -1e-18).all()
        if name == "upgrad":
            inner, squared = rows[0] @ rows[1], (rows**2).sum(axis=1)
            expected = sum(rows[i] * (1 - inner / squared[i]) for i in range(2)) / 2
        else:
            expected = mean - (rows[0] @ mean) / (rows[0] @ rows[0]) * rows[0]
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_upgrad_and_dualproj_regularised():
    """1e-4 of the trace on the diagonal: next to opposed gradients a loss rises."""
    rows = np.array([[1, 0], [-2, 0.02]])
    for name, aggregator in (("upgrad", aggregation.UPGrad()), ("dualproj", aggregation.DualProj())):
        found, ours = both(name, aggregator, rows)
        assert (rows @ found).min() < -1e-4
        assert (rows @ ours).min() >= -1e-12


def test_config_normalises_rounding():
    """Opposed gradients: the pseudo-inverse times 1 is 0 up to rounding, and its direction is noise."""
    lengths = [np.linalg.norm(both("config", aggregation.ConFIG(), r)[0]) for r in OPPOSED]
    assert max(lengths) > 1e-8
    for rows in OPPOSED:
        assert both("config", aggregation.ConFIG(), rows)[1] == pytest.approx([0] * len(rows[0]), abs=1e-15)


OPPOSED = [np.outer([1, -s], np.arange(1.0, n)) for s in (1, 2, 3) for n in (3, 4, 6)]


def test_aligned_mtl_takes_the_lower_of_two_middle_eigenvalues():
    rows = np.diag([1.0, 2, 3, 4])
    options = {"scale": "median", "preference": [0.25] * 4}
    found, ours = both("aligned_mtl", aggregation.AlignedMTL(scale_mode="median"), rows, **options)
    assert found == pytest.approx([math.sqrt(4) / 4] * 4)
    assert ours == pytest.approx([math.sqrt((4 + 9) / 2) / 4] * 4)


@pytest.mark.parametrize(("scale", "cosine"), [(1e-4, -0.25), (1e-5, -0.5 / 101)])
def test_gradvac_sees_wrong_cosines(scale, cosine):
    """1e-8 is added to the product of two norms. The cosine is -1/2, and the first step PCGrad's."""
    found, ours = both("gradvac", aggregation.GradVac(), scale * np.array(A))
    assert found == pytest.approx((1 - cosine) * np.sum(A, axis=0) * scale, rel=2e-3)
    assert ours == pytest.approx(1.5 * np.sum(A, axis=0) * scale, rel=1e-9)


def test_pcd_is_not_scale_free():
    """1e-8 is added to the squared norms. In closed form: ``u_1 + (tau - cos) u_2``, at the length of g_1."""
    rows = 1e-5 * np.array(B, dtype=np.float64)
    found, ours = both("pcd", aggregation.PCD(tau=0.5), rows, tau=0.5)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = unit[0] + (0.5 - unit[0] @ unit[1]) * unit[1]
    expected *= np.linalg.norm(rows[0]) / np.linalg.norm(expected)
    assert ours == pytest.approx(expected, rel=1e-9)
    assert found == pytest.approx([6.2506e-06, 1.89982e-05], rel=1e-4)


def test_krum_sums_distances():
    """The paper sums squares: to their two nearest .01 + 25 for the first, 9 + 9 for the third."""
    rows = np.array([[0, 0], [0, 0.1], [5, 0], [8, 0], [5, 3]])
    found, ours = both("krum", aggregation.Krum(1), rows, n_byzantine=1)
    squares = np.sort(((rows[:, None] - rows) ** 2).sum(axis=2), axis=1)[:, 1:3].sum(axis=1)
    assert squares == pytest.approx([25.01, 25.02, 18, 27, 27])
    assert found.tolist() == rows[0].tolist()
    assert ours.tolist() == rows[squares.argmin()].tolist()


def test_sdmgrad_jumps_between_corners():
    """Both batches alike, lambda = 0: w should minimise ``|J' w|^2``, as it does at the shortest vector."""
    rows = np.array([[1.0, 0, 0], [0, 1.5, 0], [0.4, 0.4, 1]])
    stacked, gram = np.vstack([rows] * 3), rows @ rows.T
    found = SDMGradWeighting(lambda_=0.0)(torch.from_numpy(gram)).numpy()
    ours = make("sdmgrad", 3, regularisation=0.0).weights(stacked @ stacked.T, np.ones(3), np.arange(3))[0][
        6:
    ]
    least = 1 / (np.linalg.solve(gram, np.ones(3)).sum())  # inside the simplex, where G w is constant
    assert found @ gram @ found > 1.5 * least
    assert ours @ gram @ ours == pytest.approx(least, rel=1e-3)


def test_excess_mtl_moves_on_the_first_step():
    """By the raw excess risks, (1, 10). The paper divides by a baseline, which a first step only sets."""
    rows = np.diag([1.0, 10])
    found, ours = both("excess_mtl", aggregation.ExcessMTL(), rows, eta=1.0)
    assert found / [1, 10] == pytest.approx(np.exp([1, 10]) / np.exp([1, 10]).sum(), rel=1e-5)
    assert ours == pytest.approx([0.5, 5])


def test_famo_is_not_scale_free():
    """``w_i`` proportional to ``1 / l_i`` at equal logits; 1e-8 is added to every loss."""
    losses = torch.tensor([1e-8, 2e-8], requires_grad=True)
    assert weights_of(scalarization.FAMO(2)(losses), losses) == pytest.approx([0.6, 0.4], rel=1e-4)
    assert weights_of(make("famo", 2).combine(losses), losses) == pytest.approx([2 / 3, 1 / 3], rel=1e-4)


def test_famo_and_dwa_learn_from_validation_batches():
    """Every call is a training step to them, in evaluation mode too."""
    famo = scalarization.FAMO(2)
    famo(torch.tensor([1.0, 1.0]))
    famo.eval()(torch.tensor([9.0, 1.0]))
    famo.update(torch.tensor([1.0, 1.0]))
    assert next(famo.parameters()).abs().max() > 0.02  # nothing changed between the training losses
    layer = torch.nn.Linear(1, 2).eval()
    balancer = Balancer("famo", ["a", "b"], model=layer)
    one, two = layer(torch.ones(1)).square()
    assert balancer({"a": one, "b": two}) == one + two
    assert balancer.strategy.before.isnan().all()
    dwa = scalarization.DWA()
    for value in (1.0, 1.0):
        dwa.train()(torch.tensor([value, value]))
        dwa.eval()(torch.tensor([9 * value, value]) if value else None)
        dwa.step()
    losses = torch.ones(2, requires_grad=True)
    assert weights_of(dwa(losses), losses).tolist() == [1, 1]


def test_a_loss_of_zero():
    """The geometric mean's gradient is undefined there; ours leaves the loss out."""
    losses = torch.tensor([0.0, 2.0], requires_grad=True)
    assert np.isnan(weights_of(scalarization.GeometricMean()(losses), losses)[0])
    assert weights_of(make("geometric", 2).combine(losses), losses).tolist() == [0, 1]
    dwa, ours = scalarization.DWA(), make("dwa", 2)
    for _ in range(2):
        dwa(losses)
        dwa.step()
        ours.end_epoch(losses.detach().numpy(), None)
    assert np.isnan(weights_of(dwa(losses), losses)).all()
    assert weights_of(ours.combine(losses), losses).tolist() == [1, 1]


def test_pbi_is_blunt_near_its_ray():
    """1e-12 is added to a squared distance of 5e-17: the penalty's slope is lost."""
    losses = torch.tensor([1e-8, 2e-8], requires_grad=True)
    found = scalarization.PBI(5.0, weights=torch.tensor([0.5, 0.5]))(losses)
    slope = 1 / math.sqrt(2) - 5 / math.sqrt(2), 1 / math.sqrt(2) + 5 / math.sqrt(2)
    assert weights_of(found, losses) == pytest.approx([0.68211, 0.73211], abs=1e-4)
    assert weights_of(make("pbi", 2).combine(losses), losses) == pytest.approx(slope, rel=1e-5)


def test_their_state_does_not_come_back():
    trained = aggregation.GradVac()
    trained(torch.eye(2))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        aggregation.GradVac().load_state_dict(trained.state_dict())
    assert not scalarization.DWA().state_dict()
    ours = make("gradvac", 2, beta=0.5)
    direction(ours, A)
    restored = make("gradvac", 2, beta=0.5)
    restored.load_state_dict(ours.state_dict())
    assert restored.target[0, 1].item() == pytest.approx(-0.25)


def test_the_page_has_a_section_for_every_method_here():
    text = Path(__file__).read_text(encoding="utf-8")
    names = set(re.findall(r'(?:both|make)\("(\w+)"', text)) | {"upgrad", "dualproj"}
    sections = set(
        re.findall(r"`(\w+)`", "\n".join(re.findall(r"^### .*$", PAGE.read_text(encoding="utf-8"), re.M)))
    )
    assert names <= sections, sorted(names - sections)
