(* Balls, ellipsoids and requests that share a penalty: L2, T2b, T2c, T2d, P3. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation spectrum.

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

(* a request with gradient -a u, ||u|| = 1, moves by a/l *)
Lemma progress n (u : 'cV[R]_n) a Delta l : nrm u = 1 -> 0 < a -> 0 < Delta -> 0 < l ->
  (Delta <= nrm (displacement 0 (- (a *: u)) l)) = (l <= a / Delta).
Proof.
move=> u1 a0 D0 l0; rewrite displacement0 scalerA nrmZ u1 mulr1 ger0_norm ?mulr_ge0 ?invr_ge0 ?(ltW l0) ?(ltW a0) //.
by rewrite ler_pdivl_mull // -ler_pdivl_mulr.
Qed.

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
  rewrite progress // displacement0 scalerA; split=> //; rewrite /ellipsoid -scalemxAr eh !dotZl !dotZr -nrm_sqr nh expr1n mulr1 mulrA -expr2.
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

Lemma margin_attained n (v : 'cV[R]_n) m : v != 0 -> 0 <= m -> exists d, dot v d = m /\ nrm d = m / nrm v.
Proof.
move=> v0 m0; have nv : 0 < nrm v by rewrite nrm_gt0.
exists ((m / nrm v ^+ 2) *: v); rewrite dotZr -nrm_sqr divfK ?expf_neq0 ?gt_eqF //.
by split=> //; rewrite nrmZ ger0_norm ?divr_ge0 ?exprn_ge0 ?(ltW nv) //; field; rewrite gt_eqF.
Qed.

(* Cauchy and Schwarz, with equality along v alone; within a subspace the same for the projected v. *)
Theorem T2d_proof : T2d R.
Proof.
move=> n v m v0; have nv : 0 < nrm v by rewrite nrm_gt0.
split.
- by move=> d h; rewrite ler_pdivr_mulr // mulrC; apply: le_trans h (cauchy_le _ _).
- exact: margin_attained.
- move=> d e f; apply/eqP; rewrite -subr_eq0 -dot_eq0 dotBl !dotBr !dotZl !dotZr (dotC d v) e -!nrm_sqr f.
  by apply/eqP; field; rewrite gt_eqF.
move=> p V VV w0; have nw : 0 < nrm (V^T *m v) by rewrite nrm_gt0.
have length c : nrm (V *m c) = nrm c by rewrite /nrm dot_mull mulmxA VV mul1mx.
have along c : dot v (V *m c) = dot (V^T *m v) c by rewrite -{1}[V]trmxK -dot_mull.
split=> [c|m0]; first by rewrite along length ler_pdivr_mulr // mulrC => h; apply: le_trans h (cauchy_le _ _).
by have [c [h1 h2]] := margin_attained w0 m0; exists c; rewrite along length.
Qed.

(* The edit along G^-1 k is G-orthogonal to everything that does not see k; two requests share a penalty as in T2c. *)
Theorem P3_proof : P3 R.
Proof.
move=> m n G k delta pG k0; have r0 := rho_gt0 pG k0; have s0 : 0 < Num.sqrt (rho G k) by rewrite sqrtr_gt0.
have least (y : 'cV[R]_m) D : D *m k = y -> nrm y ^+ 2 / rho G k <= cost G D.
  by rewrite nrm_sqr; apply: execution_cost.
have attained (y : 'cV[R]_m) : exists D, D *m k = y /\ cost G D = nrm y ^+ 2 / rho G k.
  have [h1 h2] := @execution_cost_attained R m n G k y pG k0.
  by eexists; split; [exact: h1 | rewrite nrm_sqr -h2].
split=> // [|ue uh ne nh a b tau Delta a0 b0 t0 D0 easy hard]; first exact: least.
have safe l : 0 < l -> (exists D, D *m k = hard l /\ cost G D <= tau ^+ 2) <-> b / (tau * Num.sqrt (rho G k)) <= l.
  move=> l0; apply: iff_trans (_ : nrm (hard l) ^+ 2 / rho G k <= tau ^+ 2 <-> _).
    split=> [[D [e h]]|h]; first exact: le_trans (least _ _ e) h.
    by have [D [e c]] := attained (hard l); exists D; rewrite c.
  rewrite /hard displacement0 scalerA nrmZ nh mulr1 ger0_norm ?mulr_ge0 ?invr_ge0 ?(ltW l0) ?(ltW b0) // ler_pdivr_mulr //.
  rewrite -[X in _ <= _ * X]sqr_sqrtr ?(ltW r0) // -exprMn ler_sq ?mulr_ge0 ?invr_ge0 ?(ltW l0) ?(ltW b0) ?(ltW t0) ?(ltW s0) //.
  by rewrite ler_pdivr_mull // ler_pdivr_mulr ?mulr_gt0.
split=> [[l [l0]]|h]; first by rewrite progress // => h1 /(safe _ l0) h2; apply: le_trans h2 h1.
have l0 : 0 < a / Delta by rewrite divr_gt0.
by exists (a / Delta); split=> //; [rewrite progress | apply/safe].
Qed.

End Claims.
