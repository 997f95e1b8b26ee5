(* Balls, ellipsoids and requests that share a penalty: L2, T2b, T2c, T2d. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

Lemma ler_sq (a b : R) : 0 <= a -> 0 <= b -> (a ^+ 2 <= b ^+ 2) = (a <= b).
Proof. by move=> a0 b0; rewrite ler_pexpn2r ?nnegrE. Qed.

Lemma le_by_sqrt (r tau c : R) : 0 < c -> 0 <= r -> 0 <= tau -> (r ^+ 2 * c <= tau ^+ 2) = (r <= tau / Num.sqrt c).
Proof.
move=> c0 r0 t0; have s0 : 0 < Num.sqrt c by rewrite sqrtr_gt0.
by rewrite -{1}[c]sqr_sqrtr ?(ltW c0) // -exprMn ler_sq ?mulr_ge0 ?(ltW s0) // ler_pdivl_mulr.
Qed.

Lemma ge_by_sqrt (r tau c : R) : 0 < c -> 0 <= r -> 0 <= tau -> (tau ^+ 2 <= r ^+ 2 * c) = (tau / Num.sqrt c <= r).
Proof.
move=> c0 r0 t0; have s0 : 0 < Num.sqrt c by rewrite sqrtr_gt0.
by rewrite -{1}[c]sqr_sqrtr ?(ltW c0) // -exprMn ler_sq ?mulr_ge0 ?(ltW s0) // ler_pdivr_mulr.
Qed.

Lemma sqrt_ratio (tau a b : R) : 0 < tau -> 0 < a -> 0 < b -> (tau / Num.sqrt b) / (tau / Num.sqrt a) = Num.sqrt (a / b).
Proof.
move=> t0 a0 b0; have sa : 0 < Num.sqrt a by rewrite sqrtr_gt0.
have sb : 0 < Num.sqrt b by rewrite sqrtr_gt0.
by rewrite sqrtrM ?(ltW a0) // sqrtrV ?(ltW b0) //; field; rewrite !gt_eqF.
Qed.

(* a unit vector along the largest eigenvalue leaves the ellipsoid first, one along the smallest last *)
Lemma ball_inside n (H : 'M[R]_n) top tau : pd H -> largest H top -> 0 < tau ->
  forall r, inside (ball r) (ellipsoid H tau) <-> r <= tau / Num.sqrt top.
Proof.
move=> pH lt tau0 r; have [sH _] := pH; have top0 : 0 < top by apply: pd_eigenvalue pH _; case: lt.
have [u [e u1]] := unit_eigenvector sH (proj1 lt); have nu : nrm u = 1 by rewrite /nrm u1 sqrtr1.
have s0 : 0 < Num.sqrt top by rewrite sqrtr_gt0.
have [r0|r0] := lerP 0 r; last first.
  split=> [_|_ x hx]; first by apply: le_trans (ltW r0) _; rewrite divr_ge0 ?ltW.
  by have := le_lt_trans hx r0; rewrite ltNge nrm_ge0.
rewrite -le_by_sqrt ?(ltW tau0) //; split=> [h|h x hx].
  have := h (r *: u); rewrite /ball /ellipsoid nrmZ nu mulr1 ger0_norm // => /(_ (lexx r)).
  by rewrite -scalemxAr e !dotZl !dotZr u1 mulr1 mulrA -expr2.
apply: le_trans h; apply: le_trans (quad_largest sH lt x) _.
by rewrite mulrC ler_pmul2r // -nrm_sqr ler_sq ?nrm_ge0.
Qed.

Lemma ellipsoid_inside n (H : 'M[R]_n) low tau : pd H -> smallest H low -> 0 < tau ->
  forall r, inside (ellipsoid H tau) (ball r) <-> tau / Num.sqrt low <= r.
Proof.
move=> pH lt tau0 r; have [sH _] := pH; have low0 : 0 < low by apply: pd_eigenvalue pH _; case: lt.
have [u [e u1]] := unit_eigenvector sH (proj1 lt); have nu : nrm u = 1 by rewrite /nrm u1 sqrtr1.
have s0 : 0 < Num.sqrt low by rewrite sqrtr_gt0.
have t0 : 0 <= tau / Num.sqrt low by rewrite divr_ge0 ?ltW.
split=> [h|h x hx].
  have := h ((tau / Num.sqrt low) *: u); rewrite /ball /ellipsoid nrmZ nu mulr1 ger0_norm //; apply.
  rewrite -scalemxAr e !dotZl !dotZr u1 mulr1 mulrA -expr2 exprMn exprVn sqr_sqrtr ?(ltW low0) // divfK // gt_eqF //.
apply: le_trans h; rewrite -le_by_sqrt ?nrm_ge0 ?(ltW tau0) //; apply: le_trans hx.
by rewrite nrm_sqr mulrC; apply: quad_smallest.
Qed.

Theorem L2_proof : L2 R.
Proof.
move=> n H top low pH hT hL tau tau0; split.
- exact: ball_inside.
- exact: ellipsoid_inside.
by apply: sqrt_ratio => //; apply: pd_eigenvalue pH _; [case: hT | case: hL].
Qed.

(* the relative form of a comparison of two radii *)
Lemma relative (theta tau a b : R) : 0 < theta -> 0 < tau -> 0 < a -> 0 < b ->
  (tau / Num.sqrt a < theta * (tau / Num.sqrt b)) = (theta^-1 < Num.sqrt (a / b)).
Proof.
move=> h0 t0 a0 b0; have d0 : 0 < tau / Num.sqrt a by rewrite divr_gt0 // sqrtr_gt0.
by rewrite -(sqrt_ratio t0 a0 b0) ltr_pdivl_mulr // ltr_pdivr_mull.
Qed.

(* The best radius is Delta itself, and the ball of radius Delta has to be inside. *)
Theorem T2b_proof : T2b R.
Proof.
move=> n H top low pH hT hL tau tau0 trap.
have h Delta : trap Delta <-> tau / Num.sqrt top < Delta.
  rewrite ltNge; split=> [t|/negP t [r [rD /(ball_inside pH hT tau0) rt]]]; last exact/t/(le_trans rD).
  by apply/negP => D; apply: t; exists Delta; split=> //; apply/(ball_inside pH hT tau0).
have p a : eigenvalue H a -> 0 < a by apply: pd_eigenvalue.
split=> // theta h0; apply: iff_trans (h _) _.
by rewrite relative //; apply: p; [case: hT | case: hL].
Qed.

Lemma displacement0 n (g : 'cV[R]_n) l : displacement 0 (- g) l = l^-1 *: g.
Proof. by rewrite /displacement add0r mulmxN opprK invmx_scalar mul_scalar_mx. Qed.

(* Both requests ask for a penalty: one for at most a/Delta, the other for at least b sqrt(mu_max)/tau. *)
Theorem T2c_proof : T2c R.
Proof.
move=> n H top low ue uh pH hT hL ne nh ee eh a b tau a0 b0 tau0 trap.
have p c : eigenvalue H c -> 0 < c by apply: pd_eigenvalue.
have top0 : 0 < top by apply: p; case: hT.
have low0 : 0 < low by apply: p; case: hL.
have s0 : 0 < Num.sqrt top by rewrite sqrtr_gt0.
have serve Delta l : 0 < Delta -> 0 < l ->
    (Delta <= nrm (displacement 0 (- (a *: ue)) l) <-> l <= a / Delta) /\
    (ellipsoid H tau (displacement 0 (- (b *: uh)) l) <-> b * Num.sqrt top / tau <= l).
  move=> D0 l0; have li : 0 <= l^-1 by rewrite invr_ge0 ltW.
  rewrite !displacement0 !scalerA nrmZ ne mulr1 ger0_norm ?mulr_ge0 ?(ltW a0) // ler_pdivl_mull // -ler_pdivl_mulr //.
  split=> //; rewrite /ellipsoid -scalemxAr eh !dotZl !dotZr -nrm_sqr nh expr1n mulr1 mulrA -expr2.
  by rewrite le_by_sqrt ?(ltW tau0) ?mulr_ge0 ?(ltW b0) // ler_pdivr_mull // mulrA ler_pdivl_mulr // ler_pdivr_mulr.
have h Delta : 0 < Delta -> (trap Delta <-> a / Delta < b * Num.sqrt top / tau).
  move=> D0; rewrite ltNge; split=> [t|/negP t [l [l0 /(serve _ _ D0 l0).1 h1 /(serve _ _ D0 l0).2 h2]]].
    apply/negP => le; apply: t; have l0 : 0 < a / Delta by rewrite divr_gt0.
    by exists (a / Delta); split=> //; [apply/(serve _ _ D0 l0).1 | apply/(serve _ _ D0 l0).2].
  exact/t/(le_trans h2).
split=> // theta h0.
have D0 : 0 < theta * (tau / Num.sqrt low) by rewrite mulr_gt0 // divr_gt0 // sqrtr_gt0.
apply: iff_trans (h _ D0) _; have sl : 0 < Num.sqrt low by rewrite sqrtr_gt0.
rewrite sqrtrM ?(ltW top0) // sqrtrV ?(ltW low0) //.
rewrite ltr_pdivr_mulr // (_ : theta * _ * _ = b * Num.sqrt top / tau * (theta * (tau / Num.sqrt low)) / a).
  by rewrite ltr_pdivl_mulr // mul1r.
by field; rewrite !gt_eqF.
Qed.

(* Cauchy and Schwarz, with equality along v. *)
Theorem T2d_proof : T2d R.
Proof.
move=> n v m v0; have nv : 0 < nrm v by rewrite nrm_gt0.
split.
- by move=> d h; rewrite ler_pdivr_mulr // mulrC; apply: le_trans h (cauchy_le _ _).
- move=> m0; exists ((m / nrm v ^+ 2) *: v).
  have n2 : nrm v ^+ 2 != 0 by rewrite expf_neq0 // gt_eqF.
  rewrite dotZr -nrm_sqr divfK // nrmZ ger0_norm ?divr_ge0 ?exprn_ge0 ?(ltW nv) //; split=> //.
  by field; rewrite gt_eqF.
move=> p V c VV w0 h; have nw : 0 < nrm (V^T *m v) by rewrite nrm_gt0.
have -> : nrm (V *m c) = nrm c by rewrite /nrm dot_mull mulmxA VV mul1mx.
rewrite ler_pdivr_mulr // mulrC; apply: le_trans h _; rewrite -{1}[V]trmxK -dot_mull.
exact: cauchy_le.
Qed.

End Claims.
