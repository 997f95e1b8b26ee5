"""Every geometry against its dense form, and the laws of theory that the code relies on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metake.errors import MetakeError
from metake.geometry.identity import Identity
from metake.geometry.null_space import Projected
from metake.geometry.operator import Ridge

DTYPE = torch.float64
EPS = torch.finfo(DTYPE).eps


@st.composite
def cases(draw):
    """A positive definite C with a spectrum over up to six decades, keys, and earlier keys."""
    d = draw(st.integers(2, 12))
    n = draw(st.integers(1, 5))
    p = draw(st.integers(0, 4))
    decades = draw(st.floats(0, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    basis, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=DTYPE))
    spectrum = 10 ** (-decades * torch.rand(d, generator=generator, dtype=DTYPE))
    keys = torch.randn(d, n, generator=generator, dtype=DTYPE)
    past = torch.randn(d, p, generator=generator, dtype=DTYPE) if p else None
    weight = draw(st.floats(0.1, 1e4))
    return (basis * spectrum) @ basis.T, keys, past, weight


def dense(geometry, moment, weight, past):
    """G in the geometry's own coordinates, and keys' map into them."""
    if isinstance(geometry, Ridge):
        matrix, inside = weight * moment + 0.1 * torch.eye(len(moment), dtype=DTYPE), lambda k: k
    elif isinstance(geometry, Identity):
        matrix, inside = torch.eye(len(moment), dtype=DTYPE), lambda k: k
    else:
        size = geometry.basis.shape[1]
        matrix, inside = geometry.l2 * torch.eye(size, dtype=DTYPE), lambda k: geometry.basis.T @ k
    if past is not None:
        matrix = matrix + inside(past) @ inside(past).T
    return matrix, inside


def build(kind, moment, weight, past):
    if kind == "ridge":
        return Ridge(moment, weight, 0.1, past=past)
    if kind == "identity":
        return Identity(past=past)
    return Projected(moment, 0.3, keep=0.7, past=past)


@pytest.mark.parametrize("kind", ["ridge", "projected", "identity"])
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_with_past_equals_dense(kind, case):
    moment, keys, past, weight = case
    geometry = build(kind, moment, weight, past)
    matrix, inside = dense(geometry, moment, weight, past)
    k = inside(keys)
    tolerance = 200 * EPS * float(torch.linalg.cond(matrix + k @ k.T)) * float(torch.linalg.cond(matrix))
    expected = torch.linalg.solve(matrix + k @ k.T, k)
    actual = inside(geometry.channel(keys))
    assert (actual - expected).norm() <= max(tolerance, 1e-12) * expected.norm() + 1e-14
    gram = k.T @ torch.linalg.solve(matrix, k)
    assert (geometry.gram(keys) - gram).norm() <= max(tolerance, 1e-12) * gram.norm() + 1e-14


@pytest.mark.parametrize("kind", ["ridge", "projected", "identity"])
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_channel_realizes_eta_of_one_residual(kind, case):
    """One edit keeps eta of its residual.

    T1: D k = eta r, for each key alone; the direction is kept, eta in [0, 1).
    """
    moment, keys, past, weight = case
    geometry = build(kind, moment, weight, past)
    residual = torch.ones(3, 1, dtype=DTYPE)
    for j, eta in enumerate(geometry.attenuation(keys)):
        key = keys[:, [j]]
        update = residual @ geometry.channel(key).T
        torch.testing.assert_close(update @ key, eta * residual, rtol=1e-7, atol=1e-12)
        assert 0 <= eta < 1


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_channel_is_the_minimum_of_the_soft_fit(case):
    """(18): no perturbation of D lowers ||D K - R||^2 + tr(D G D^T)."""
    moment, keys, past, weight = case
    geometry = build("ridge", moment, weight, past)
    matrix, _ = dense(geometry, moment, weight, past)
    residuals = torch.randn(2, keys.shape[1], dtype=DTYPE)
    best = residuals @ geometry.channel(keys).T

    def cost(update):
        return ((update @ keys - residuals) ** 2).sum() + (update @ matrix * update).sum()

    for scale in (1e-3, 1e-1, 1.0):
        other = best + scale * torch.randn_like(best)
        assert cost(other) >= cost(best) * (1 - 1e-9) - 1e-12


@pytest.mark.parametrize("kind", ["ridge", "projected", "identity"])
def test_channel_exact_reaches_the_residuals(kind):
    torch.manual_seed(0)
    factor = torch.randn(9, 40, dtype=DTYPE)
    keys, residuals = torch.randn(9, 3, dtype=DTYPE), torch.randn(4, 3, dtype=DTYPE)
    geometry = build(kind, factor @ factor.T / 40, 10.0, None)
    update = residuals @ geometry.channel(keys, "equality_constrained").T
    torch.testing.assert_close(update @ keys, residuals)


def test_channel_exact_takes_equal_keys():
    """The exact fit survives equal keys."""
    key = torch.ones(4, 1, dtype=DTYPE)
    geometry = Ridge(torch.eye(4, dtype=DTYPE), 1.0)
    update = (
        torch.ones(2, 2, dtype=DTYPE) @ geometry.channel(torch.cat([key, key], 1), "equality_constrained").T
    )
    torch.testing.assert_close(update @ key, torch.ones(2, 1, dtype=DTYPE))


def test_channel_exact_drops_directions_of_rounding():
    """The exact fit leaves out what rounding added.

    Many keys in few dimensions: the gram's zeros come out as noise of either sign.
    """
    torch.manual_seed(0)
    keys = torch.randn(3, 40, dtype=DTYPE)
    channel = Ridge(torch.eye(3, dtype=DTYPE), 1.0).channel(keys, "equality_constrained")
    torch.testing.assert_close(channel, torch.linalg.pinv(keys).T)


@pytest.mark.parametrize("kind", ["ridge", "projected", "identity"])
def test_channel_takes_keys_of_any_dtype(kind):
    torch.manual_seed(0)
    factor, keys = torch.randn(6, 30, dtype=DTYPE), torch.randn(6, 2)
    geometry = build(kind, factor @ factor.T / 30, 10.0, None)
    torch.testing.assert_close(geometry.channel(keys), geometry.channel(keys.double()), rtol=0, atol=0)
    past = geometry.with_past(keys).realizability(keys.double())
    torch.testing.assert_close(past, geometry.with_past(keys.double()).realizability(keys), rtol=0, atol=0)


def test_projected_counts_its_null_space():
    """Strictly below the threshold; at least one direction of a small share; and the share is told."""
    moment = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=DTYPE))
    for arguments, size in [
        ({"threshold": 3.0}, 2),
        ({"threshold": 3.1}, 3),
        ({"keep": 1e-6}, 1),
        ({"keep": 0.5}, 2),
        ({"keep": 1}, 4),
    ]:
        geometry = Projected(moment, 1.0, **arguments)
        assert geometry.basis.shape == (4, size)
        assert geometry.share == size / 4


def test_compensation_turns_soft_into_exact():
    """P4: with residuals R B^-1, B = S (I + S)^-1, the least-squares fit realizes R in full."""
    torch.manual_seed(1)
    factor = torch.randn(8, 30, dtype=DTYPE)
    keys, residuals = torch.randn(8, 3, dtype=DTYPE), torch.randn(5, 3, dtype=DTYPE)
    geometry = Ridge(factor @ factor.T / 30, 20.0)
    gram = geometry.gram(keys)
    kept = torch.linalg.solve(torch.eye(3, dtype=DTYPE) + gram, gram).T  # B; S and (I + S)^-1 commute
    compensated = residuals @ torch.linalg.inv(kept)
    torch.testing.assert_close(
        compensated @ geometry.channel(keys).T, residuals @ geometry.channel(keys, "equality_constrained").T
    )


def test_projected_equals_the_published_alphaedit_solve():
    """X1: V-coordinates give R K^T P (P K K^T P + P K_p K_p^T P + L2 I)^-1 of the published code."""
    torch.manual_seed(2)
    factor = torch.randn(7, 20, dtype=DTYPE)
    moment, keys, past = (
        factor @ factor.T / 20,
        torch.randn(7, 2, dtype=DTYPE),
        torch.randn(7, 3, dtype=DTYPE),
    )
    threshold = float(torch.linalg.eigvalsh(moment)[4])
    geometry = Projected(moment, 10.0, threshold=threshold, past=past)
    projector = geometry.basis @ geometry.basis.T
    published = torch.linalg.solve(
        projector @ (keys @ keys.T + past @ past.T) + 10 * torch.eye(7, dtype=DTYPE), projector @ keys
    )
    torch.testing.assert_close(geometry.channel(keys), published)
    assert geometry.basis.shape[1] == 4


@settings(max_examples=40, deadline=None)
@given(case=cases(), factor=st.floats(1.01, 100))
def test_attenuation_falls_with_more_protection(case, factor):
    """T1d and T1f: eta falls as lambda grows, and as earlier keys join."""
    moment, keys, past, weight = case
    looser, tighter = Ridge(moment, weight), Ridge(moment, weight * factor)
    assert (tighter.attenuation(keys) <= looser.attenuation(keys)).all()
    if past is not None:
        remembered = looser.with_past(past)
        assert (remembered.attenuation(keys) <= looser.attenuation(keys) * (1 + 1e-9)).all()


@pytest.mark.parametrize(("rho", "dtype"), [(1e-18, torch.float64), (1e-12, torch.float32)])
def test_attenuation_does_not_cancel_when_tiny(rho, dtype):
    """X4: rho/(1+rho) keeps its digits where 1 - 1/(1+rho) gives 0."""
    geometry = Ridge(torch.eye(2, dtype=dtype), 1.0, dtype=dtype)
    key = torch.tensor([[rho**0.5], [0.0]], dtype=dtype)
    assert geometry.attenuation(key)[0].item() == pytest.approx(rho, rel=1e-5)


def test_attenuation_in_fp32_stays_within_its_condition():
    """X4: the relative error of eta is within about 8 eps cond(G)."""
    torch.manual_seed(3)
    basis, _ = torch.linalg.qr(torch.randn(20, 20, dtype=DTYPE))
    moment = (basis * torch.logspace(0, -4, 20, dtype=DTYPE)) @ basis.T
    keys = torch.randn(20, 6, dtype=DTYPE)
    exact = Ridge(moment, 5.0).attenuation(keys)
    rough = Ridge(moment.float(), 5.0, dtype=torch.float32)
    error = ((rough.attenuation(keys.float()) - exact) / exact).abs().max()
    assert error <= 8 * torch.finfo(torch.float32).eps * 1e4


def test_condition_is_near_the_dense_value():
    """Condition is about right."""
    moment = torch.diag(torch.logspace(0, -3, 15, dtype=DTYPE))
    assert Ridge(moment, 7.0).condition == pytest.approx(1e3, rel=0.05)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda c: Ridge(c * float("nan"), 1.0), "^statistics: C holds NaN or infinity; collect them again$"),
        (lambda c: Ridge(c, 0.0), "lambda > 0"),
        (lambda c: Ridge(c, 1.0, -1.0), "beta >= 0"),
        (
            lambda c: Ridge(c - 2 * torch.eye(3), 1.0),
            r"^lambda C \+ beta I \(lambda 1, beta 0\) is not positive definite in float64; raise beta .* in float64$",
        ),
        (lambda c: Projected(c, 0.0, keep=0.5), "L2"),
        (lambda c: Projected(c, 1.0), "^geometry: give either a null-space threshold or the share to keep$"),
        (lambda c: Projected(c, 1.0, keep=1.5), "share"),
        (lambda c: Projected(c, 1.0, keep=0.0), "share"),
        (
            lambda c: Projected(c + torch.diag(torch.arange(3)), 1.0, threshold=1e-9),
            r"below 1e-09 \(smallest 1\); use a relative null space .* an absolute threshold$",
        ),
        (
            lambda c: Projected(c * float("inf"), 1.0, keep=0.5),
            "^statistics: C holds NaN or infinity; collect them again$",
        ),
    ],
)
def test_geometry_refuses_bad_moments(make, complaint):
    with pytest.raises(MetakeError, match=complaint):
        make(torch.eye(3))


def test_channel_refuses_keys_that_overflow():
    with pytest.raises(MetakeError, match="not finite"):
        Ridge(torch.eye(2), 1.0).channel(torch.tensor([[float("inf")], [0.0]]))
