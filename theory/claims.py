"""The register of claims: what is said, under which assumptions, and where its two sides are computed.

A claim holds no verdict. Verdicts come from what `verification/` runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Origin = Literal["paper", "prose", "ours"]


@dataclass(frozen=True)
class Claim:
    """One numbered statement.

    Attributes:
        id: T = theorem, L = lemma, P = prose or a remark on it, A = allocation, X = extension.
        theorem: 1 suppression, 2 trap, 3 fidelity.
        statement: in the form that holds, or, for a prose claim, as the paper says it.
        origin: numbered in the paper, said in its prose, or added here.
        equations: the paper's numbers that belong to it.
        functions: `module.function` of `theory` that state its sides.
        assumptions: key -> what is assumed. Each has a test that drops it and shows a counterexample.
        unneeded: key -> what the paper assumes and the claim does not need; each has a test without it.
        correction: what had to change in the paper's form, shown by a test that refutes that form.
        addition: what has to be assumed beyond the paper, shown by a test that refutes its form.
    """

    id: str
    theorem: int
    title: str
    statement: str
    origin: Origin
    functions: tuple[str, ...]
    equations: tuple[int, ...] = ()
    assumptions: dict[str, str] = field(default_factory=dict)
    unneeded: dict[str, str] = field(default_factory=dict)
    correction: str = ""
    addition: str = ""

    def resolve(self) -> list[Callable[..., Any]]:
        """The functions themselves."""
        return [getattr(importlib.import_module(f"theory.{m}"), n) for m, n in map(_split, self.functions)]


def _split(name: str) -> tuple[str, str]:
    module, _, function = name.partition(".")
    return module, function


PD = "G is symmetric positive definite"
H_PD = "H is symmetric positive definite"

CLAIMS: tuple[Claim, ...] = (
    # -- Theorem 1 ------------------------------------------------------------------------------
    Claim(
        "T1", 1, "Attenuation law",
        "D* = r q^T with q = (G + k k^T)^-1 k is the one minimizer of ||D k - r||^2 + tr(D G D^T), and D* k = eta r",
        "paper", ("suppression.edit", "suppression.channel", "suppression.attenuation", "suppression.gradient"),
        (3, 13, 14, 15, 16, 17, 18, 21, 22, 23),
        {"definite": PD, "single": "one key is edited at a time"},
        {"symmetric": "symmetry and definiteness, for D* k = eta r alone: G and 1 + rho are invertible"},
    ),
    Claim(
        "T1a", 1, "Spectral form", "rho = sum_i a_i^2 / mu_i, a = U^T k",
        "paper", ("suppression.realizability", "suppression.realizability_spectral"), (24,),
        {"orthonormal": "G = U diag(mu) U^T with U orthonormal"},
    ),
    Claim(
        "T1b", 1, "Suppression bound",
        "rho <= ||k||^2 ((1 - eps)/M + eps/mu_min) if mu_i >= M on S and at most eps ||k||^2 lies outside S",
        "paper", ("suppression.realizability", "suppression.suppression_bound"), (25,),
        {"share": "eps <= 1", "smallest": "mu_min is the minimum over all eigenvalues",
         "height": "M is a lower bound of the eigenvalues on S"},
        {"order": "M >= mu_min: for M < mu_min the bound holds too"},
        addition="mu_min over all of the spectrum and eps <= 1",
    ),
    Claim(
        "T1c", 1, "Suppression limit", "a key within the protected subspace has eta <= ||k||^2/(M + ||k||^2) -> 0 as M grows",
        "paper", ("suppression.suppression_limit", "suppression.attenuation"), (26,),
        {"inside": "the key lies entirely in the protected subspace"},
    ),
    Claim(
        "T1d", 1, "Monotonicity",
        "G2 >= G1 implies eta2 <= eta1; eta(c G) falls strictly in c if k != 0; 0 <= eta < 1, 0 iff k = 0",
        "paper", ("suppression.attenuation", "suppression.realizability"), (),
        {"loewner": "G2 - G1 is positive semidefinite (eigenvalue-wise order is not enough)",
         "nonzero": "k != 0, for strictness"},
        {"symmetric": "symmetry and definiteness of G2: x^T G2 x >= x^T G1 x suffices"},
    ),
    Claim(
        "T1e", 1, "AlphaEdit's specialization",
        "min ||D P k - r||^2 + beta ||D P||^2 is solved by D P = r k~^T/(beta + ||k~||^2), k~ = P k; eta = ||P k||^2/(beta + ||P k||^2)",
        "paper", ("suppression.projected_edit", "suppression.projected_attenuation", "suppression.raw_key_edit",
                  "suppression.shipped_edit"),
        (27, 28, 29, 30, 31, 32, 33, 34, 35),
        {"projector": "P = P^T = P^2", "ridge": "beta > 0"},
        correction="X = X P has to stay a constraint: (29)-(31) with the raw key leave the range of P",
    ),
    Claim(
        "T1f", 1, "History only attenuates", "with earlier keys K_p eta is at most the eta without, equal iff K_p^T P k = 0",
        "paper", ("suppression.projected_edit", "suppression.projected_attenuation"), (),
        {"orthogonal": "K_p^T P k = 0, for equality"},
    ),
    Claim(
        "X1", 1, "AlphaEdit is MEMIT in other coordinates", "with P = V V^T: keys V^T k and geometry beta I + V^T K_p K_p^T V give the same edit",
        "ours", ("suppression.coordinates_edit", "suppression.projected_edit"), (),
        {"orthonormal": "the columns of V are orthonormal"},
    ),
    Claim(
        "P15", 1, "AlphaEdit is a limit of ridge", "the edit with G = beta I + t (I - P) tends to AlphaEdit's as t -> infinity, at rate 1/t",
        "ours", ("suppression.penalized_geometry", "suppression.edit", "suppression.projected_edit"), (),
        {"limit": "t -> infinity: at any finite t a key outside the range of P is still written"},
    ),
    Claim(
        "X2", 1, "Batch law", "D* K = R B, B = S (I + S)^-1, S = K^T G^-1 K; the eigenvalues of B are s_i/(1 + s_i)",
        "ours", ("suppression.batch_edit", "suppression.retention", "suppression.gram"), (),
        {"definite": PD},
    ),
    Claim(
        "X3", 1, "Crosstalk only lowers what an edit keeps of itself",
        "B_jj <= rho_j/(1 + rho_j), equal iff key j is G^-1-orthogonal to the others; B_jj falls as keys join; "
        "||R - D* K|| <= ||R||/(1 + s_min)",
        "ours", ("suppression.retention", "suppression.batch_shortfall_bound"), (),
        {"orthogonal": "the other keys are G^-1-orthogonal, for equality",
         "coefficient": "it is the coefficient B_jj: the realized residual of one edit can grow through crosstalk"},
    ),
    Claim(
        "X13", 1, "A layer has room for so many edits",
        "an edit whose geometry holds the keys of the n - 1 others keeps eta_j = B_jj of all n; "
        "sum_j eta_j = sum_i s_i/(1 + s_i) < rank K <= min(n, d_k), so their mean is below d_k/n",
        "ours", ("suppression.room", "suppression.room_bound", "suppression.retention"), (),
        {"definite": PD, "remembered": "each edit remembers the keys of all others"},
    ),
    Claim(
        "X14", 1, "What an edit costs, and a loop that does not pay",
        "tr(D* G D*^T) = sum_j <r_j - D* k_j, D* k_j>, one edit: ||D* k||^2/rho, the least that any D with D K = D* K costs; "
        "the closed loop reaches every D K under every G, and every shift if the keys are independent; with a price alpha of that cost beside ||D K - X||^2 "
        "it ends at what the soft fit of X realizes in alpha G",
        "ours", ("suppression.edit_cost", "suppression.batch_cost", "suppression.least_cost", "suppression.priced_shift"),
        (),
        {"definite": PD, "independent": "the keys are linearly independent, for every shift and not only every D K",
         "soft": "the fit is soft: an exact one leaves nothing missing"},
    ),
    Claim(
        "X16", 1, "Windows of one answer",
        "windows of one answer are a batch: with their keys K and the keys K_p of its other tokens D* = R Q^T, Q that of G + K_p K_p^T, "
        "minimizes ||D K - R||^2 + ||D K_p||^2 + tr(D G D^T); D* K = R B; B_jj is at most what it is without K_p, all equal iff K_p^T G^-1 K = 0; "
        "the gradient by the targets of all windows is Gamma Q",
        "ours",
        ("suppression.preserving_geometry", "suppression.batch_edit", "suppression.retention", "fidelity.joint_proxy_gradient"),
        (),
        {"definite": PD, "orthogonal": "K_p^T G^-1 K = 0, for equality",
         "joint": "the targets of all windows are varied together: planned one after the other, each gradient lacks what later windows lose"},
    ),
    Claim(
        "P4", 1, "Full compensation", "asking for R B^-1 makes the soft fit realize R, and is EMMET's exact fit; for one edit: delta/eta",
        "ours", ("suppression.compensated_residuals", "suppression.exact_edit"), (),
        {"independent": "the keys are linearly independent"},
    ),
    Claim(
        "P8", 1, "Typical attenuation", "E rho <= d_k/lambda over keys with second moment C, and E eta <= E rho/(1 + E rho)",
        "ours", ("suppression.mean_realizability", "suppression.attenuation"), (),
        {"same": "the keys have the second moment that G was built from"},
    ),
    Claim(
        "P9", 1, "A high eigenvalue suppresses", "rho -> 0 as the eigenvalue along k grows",
        "prose", ("suppression.realizability",), (),
        {"fixed": "the key stays put: one that grows with the spectrum keeps its eta"},
        addition="||k|| fixed while the eigenvalue grows",
    ),
    Claim(
        "P10", 1, "Drift of attenuation", "|eta_l - eta_L| <= (3 sqrt 3/8) eps_k/sqrt(mu) + eps_C/(4 mu)",
        "ours", ("suppression.attenuation_drift_bound", "suppression.attenuation"), (),
        {"floor": "both geometries are >= mu I"},
    ),
    Claim(
        "X4", 1, "Floating point", "rho/(1 + rho) computed with machine epsilon e is within c e cond(G) of eta, relatively, c <= 8",
        "ours", ("suppression.attenuation", "suppression.rounding_bound"), (),
        {"quotient": "eta is computed as rho/(1 + rho), not as 1 - 1/(1 + rho)"},
    ),
    Claim(
        "X12", 1, "Two-sided geometry", "under tr(B D G D^T) the share realized along eigenvector j of B is rho/(b_j + rho)",
        "ours", ("suppression.two_sided_edit", "suppression.two_sided_attenuation"), (),
        {"definite": "B is positive definite", "isotropic": "B = c I, for the direction of r to be kept"},
    ),
    # -- Theorem 2 ------------------------------------------------------------------------------
    Claim(
        "T2a", 2, "Penalized step", "g^T delta + delta^T A delta/2 + lam ||delta||^2/2 has the one minimizer -(A + lam I)^-1 g",
        "paper", ("trap.displacement", "trap.surrogate"), (36, 37, 38, 39),
        {"convex": "A + lam I is positive definite"},
    ),
    Claim(
        "L1", 2, "Penalty and trust region",
        "delta(lam) minimizes the surrogate over ||delta|| <= R(lam) with multiplier lam; R(lam) does not increase, and falls strictly unless g = 0",
        "paper", ("trap.displacement", "trap.radius"), (40, 41),
        {"convex": "A + lam I is positive definite", "sign": "lam >= 0", "nonzero": "g != 0, for strictness"},
        addition="lam >= 0 and A + lam I > 0; and not every radius comes from a lam > 0",
    ),
    Claim(
        "L2", 2, "Ball and ellipsoid",
        "ball(R) lies in E(tau) iff R <= tau/sqrt(mu_max); E(tau) in ball(R) iff R >= tau/sqrt(mu_min); ratio sqrt(kappa)",
        "paper", ("trap.inscribed_radius", "trap.circumscribed_radius", "trap.mismatch"), (42,),
        {"definite": H_PD},
    ),
    Claim(
        "T2b", 2, "No radius is safe and lets progress", "no R has R >= Delta and ball(R) in E(tau) iff Delta > tau/sqrt(mu_max), i.e. sqrt(kappa) > 1/theta",
        "paper", ("trap.ball_trap", "trap.ball_trap_relative"), (43, 44, 45),
        {"containment": "safety means the whole ball: one displacement of that length can be safe",
         "relative": "Delta scales with the ellipsoid, Delta = theta tau/sqrt(mu_min): kappa alone does not decide"},
        {"theta": "theta <= 1"},
        addition="safety is containment of the ball, and Delta is tied to the ellipsoid",
    ),
    Claim(
        "T2c", 2, "Two requests, one penalty", "no lam serves both iff b sqrt(mu_max)/tau > a/Delta, i.e. theta (b/a) sqrt(kappa) > 1",
        "paper", ("trap.shared_penalties", "trap.request_trap_relative"), (46, 47, 48, 49, 50),
        {"linear": "the loss is linear (curvature: X7)", "gradients": "the two gradients' sizes a and b are given: kappa alone decides nothing"},
        {"directions": "u_min and u_max: u_e may be any unit vector, and u_h any vector with sqrt(u_h^T H u_h) for sqrt(mu_max)"},
        addition="the condition holds the ratio b/a: high kappa is neither needed nor enough",
    ),
    Claim(
        "T2d", 2, "Margin needs length", "a logit margin m with gradient v needs ||delta|| >= m/||v||",
        "paper", ("trap.margin_norm",), (),
        {"parallel": "delta is parallel to v, for the length to suffice", "confined": "the projected gradient counts where delta is confined",
         "linear": "the logit is linear in delta"},
    ),
    Claim(
        "P3", 2, "The executor's cost is isotropic", "min tr(D G D^T) under D k = delta is ||delta||^2/rho: anisotropy exists between requests only",
        "ours", ("trap.execution_cost", "trap.cost_penalties"), (),
        {"nonzero": "rho > 0"},
    ),
    Claim(
        "X5", 2, "KL's ellipsoid", "it lies in E(tau) iff s^2 lambda_max(F^-1 H) <= tau^2; mismatch sqrt(cond(F^-1/2 H F^-1/2)), 1 iff F ~ H",
        "ours", ("trap.kl_inside", "trap.kl_mismatch", "trap.relative_condition_bounds"), (),
        {"proportional": "F is proportional to H, for a mismatch of 1"},
    ),
    Claim(
        "X6", 2, "Other regularizers", "an F with u_min and u_max among its eigenvectors moves the window of b/a, and no F widens it; an aligned trust region opens it",
        "ours", ("trap.regularized_penalties", "trap.one_sided_limit", "trap.two_sided_window", "trap.aligned_displacement"), (),
        {"commuting": "u_min and u_max are eigenvectors of F (as where F commutes with H), for the closed form", "linear": "the loss is linear, for the aligned region"},
    ),
    Claim(
        "X7", 2, "Curvature", "with u_min, u_max eigenvectors of the curvature: shared lam > lam0 exists iff a/Delta - alpha_e > lam0 "
        "and b sqrt(mu_max)/tau - alpha_h <= a/Delta - alpha_e; a sandwich for any A; the hard cost falls with lam if u_max is an eigenvector or d = 2",
        "ours", ("trap.curved_penalties", "trap.curved_sandwich", "trap.penalty_floor"), (),
        {"eigenvectors": "u_min and u_max are eigenvectors of A"},
    ),
    # -- Section 4 and Theorem 3 ----------------------------------------------------------------
    Claim(
        "L3", 3, "Inverse perturbation", "||(X+E)^-1 - X^-1|| <= ||E||/(mu (mu - ||E||)); where both are symmetric >= mu I: ||E||/(mu (mu + ||E||))",
        "paper", ("fidelity.inverse_drift_stated", "fidelity.inverse_drift"), (),
        {"floor": "X >= mu I", "small": "||E|| < mu, for the first form", "both": "X + E >= mu I too, for the second"},
    ),
    Claim(
        "L4", 3, "Drift of the channel",
        "||q_l - q_L|| <= eps_k/mu + min(eps_C/(2 mu^1.5), B eps_C/(mu (mu + eps_C)))",
        "paper", ("fidelity.channel_drift", "fidelity.channel_drift_stated", "suppression.channel"), (52, 57, 58),
        {"floor": "G_l, G_L >= mu I"},
        {"bounded": "||k|| <= B", "small": "eps_C + 2 B eps_k < mu"},
    ),
    Claim(
        "L5", 3, "Proxy identity", "the gradient by z of a smooth loss at W + (z - c) q^T is Gamma q, and ||Gamma q|| <= ||Gamma|| ||q||",
        "paper", ("fidelity.proxy_gradient",), (7, 8, 59),
        {"fixed": "q does not depend on z"},
    ),
    Claim(
        "X8", 3, "Joint proxy", "a batch shares DeltaW = (Z - H) Q^T: the gradient by Z is Gamma Q, each target feels the crosstalk of the others",
        "ours", ("fidelity.joint_proxy_gradient",), (),
        {"fixed": "Q does not depend on Z"},
    ),
    Claim(
        "J1", 3, "Allocation of a perturbed identity", "if (I + E) r = z, ||E|| < 1: J = (I + E)^-1 and ||J - I|| <= ||E||/(1 - ||E||)",
        "paper", ("fidelity.allocation_drift_bound",), (),
        {"small": "||E|| < 1", "fixed": "E does not depend on z"},
    ),
    Claim(
        "T3a", 3, "Fidelity of the proxy", "||g - g~|| <= gamma ||g_L|| + eps_I ||Gamma_L|| ||q_L||",
        "paper", ("fidelity.error_bound", "fidelity.layer_gradient", "fidelity.tail"),
        (10, 51, 54, 60, 61, 62, 63, 64, 65, 66),
        {"frozen": "channels do not move with z, and both gradients are taken at the same weights"},
        {"drift": "(53), small drift of keys and geometries", "uniform": "(55), ||J_l|| <= B_J and slow drift",
         "dominance": "gamma < 1"},
        addition="frozen channels: keys of later layers move when earlier ones are edited",
    ),
    Claim(
        "T3b", 3, "Descent", "zeta = gamma (1 + eps_I) + eps_I/sigma < 1 implies <g, g~> >= (1 - zeta) ||g~||^2 > 0; zeta' needs no sigma",
        "paper", ("fidelity.zeta", "fidelity.zeta_sharp", "fidelity.descent_bound", "fidelity.nondegeneracy"), (67, 68, 69, 70),
        {"small": "zeta' < 1", "nonzero": "g~ != 0"},
        {"sigma": "sigma > 0 enters the condition"},
    ),
    Claim(
        "T3c", 3, "Descent, sharp", "cos(g, g~) >= sqrt((1 - eps^2)(1 - gamma^2)) - eps gamma, eps = min_c ||J_L/c - I||; the bound is attained for gamma, eps < 1 and d_v >= 2, and is positive iff gamma^2 + eps^2 < 1",
        "ours", ("fidelity.cosine_bound", "fidelity.scaled_gap", "fidelity.cosine"), (),
        {"circle": "gamma^2 + eps^2 < 1"},
    ),
    Claim(
        "A1", 3, "MEMIT's first layer", "under MEMIT's allocation J_1 = I/n, so eps_J + eps_I >= 1 - 1/n on every model: (55) and (56) are not both small",
        "ours", ("fidelity.spread_shares",), (55, 56),
        {"spread": "the allocation is MEMIT's"},
    ),
    Claim(
        "A2", 3, "Identity transport", "J_l = x_l/(n-l+1), x_{l+1} = x_l (1 - eta_l/(n-l+1)); executed 1 - prod(1 - eta_l/(n-l+1)); H_n - 1 < gamma < n - 1 in the best case",
        "ours", ("fidelity.allocation_scales", "fidelity.missing_shares", "fidelity.executed_fraction", "fidelity.aligned_tail"), (),
        {"identity": "writes pass through the layers above unchanged and keys do not move"},
    ),
    Claim(
        "J2", 3, "Small drift makes J_L nearly the identity", "(53) implies (56)",
        "prose", ("fidelity.allocation_scales",), (53,),
    ),
    Claim(
        "P1", 3, "The meta-gradient moves z to where eta = 1", "eta grows along the optimization of z",
        "prose", ("suppression.attenuation",), (),
    ),
    Claim(
        "P2", 3, "The gate rotates a gradient into the feasible range", "the proxy of one edit changes the direction of the gradient at its own token",
        "prose", ("fidelity.proxy_gradient", "suppression.retention"), (),
    ),
    Claim(
        "P5", 3, "Hard edits are bounded by the safety limit", "the cost of the optimized edit stays bounded as rho -> 0",
        "prose", ("trap.execution_cost",), (),
    ),
    Claim(
        "P6", 3, "Asymptotic alignment with the feasible manifold", "q^T G q/||q||^2 falls along the optimization of z",
        "prose", ("suppression.channel",), (),
    ),
    Claim(
        "P7", 3, "Suppression is circumvented", "closing the loop realizes the edit whatever the constraint",
        "prose", ("suppression.projected_edit",), (),
    ),
    Claim(
        "P11", 3, "Adam's step descends", "a step of Adam along a proxy that descends, descends",
        "prose", ("fidelity.cosine",), (),
    ),
    Claim(
        "P12", 3, "The guarantee covers the whole loss", "T3b covers g~ plus the direct gradient of L_reg",
        "prose", ("fidelity.zeta",), (),
    ),
    Claim(
        "P13", 3, "How fast the loop closes", "gradient descent on (eta d - 1)^2/2 has eta d_T = 1 - (1 - a eta^2)^T; with one layer the proxy is the hypergradient",
        "ours", ("fidelity.realized_after",), (),
        {"rate": "a eta^2 T is not small: else the edit stays suppressed", "layer": "one layer is edited"},
    ),
    Claim(
        "X9", 3, "Descent by alignment", "if <g_l, g~> >= 0 for all l and <g_L, g~> >= (1 - eps_I) ||g~||^2 > 0, then <g, g~> > 0, whatever gamma",
        "ours", ("fidelity.alignment_premise",), (),
        {"aligned": "no layer's gradient opposes the proxy"},
    ),
    Claim(
        "X11", 3, "Parallel proxy", "||g - g^|| is bounded a posteriori term by term; as G grows its relative error vanishes, the last-layer proxy's does not",
        "ours", ("fidelity.parallel_error_bound",), (),
        {"fixed": "z stays put while G grows: a compensated target, ||z - h|| ~ 1/eta, keeps the error"},
    ),
)  # fmt: skip

#: Numbers that define something and claim nothing.
DEFINITIONS: dict[int, str] = {
    1: "an FFN as associative memory, v = W k",
    2: "stage I, the open-loop plan",
    4: "the bi-level problem",
    5: "lower level: (3) at every edited layer",
    6: "upper level: L_edit + alpha_loc L_loc + alpha_reg L_reg",
    9: "the step of z (Adam)",
    11: "L_edit",
    12: "L_loc",
    19: "rho (number lost in the text)",
    20: "eta (number lost in the text)",
}


def claim(id: str) -> Claim:
    """The claim of an ID.

    Args:
        id: ID of the claim.

    Returns:
        The claim.

    Raises:
        KeyError: no such claim.
    """
    return {c.id: c for c in CLAIMS}[id]
