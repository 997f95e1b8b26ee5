(* What fails of Theorem 2 without an assumption (counterexamples.v). *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements counterexamples linear eigen attenuation spectrum drift batch cost trap regularizers plane proxy allocation instances line.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Trap.
Variable R : rcfType.

(* A = -3, lam = 1, g = 1: the stationary point 1/2 has 1/4, and -1 has -2 *)
Theorem T2a_needs_convex_proof : T2a_needs_convex R.
Proof.
exists (- 3%:R)%:M, 1%:M, 1; split; first exact: sym1.
  by rewrite add1 unit1 (_ : _ + _ = - 2%:R) ?oppr_eq0 ?two_neq0 //; ring.
exists (- 1)%:M; rewrite displacement1 (_ : - 3%:R + 1 = - 2%:R); last by ring.
rewrite invrN !surrogate1; differ 9%N 4%N.
Qed.

(* the same numbers: the step 1/2 has 1/8 without the penalty, and -1/2, as long, has -7/8 *)
Theorem L1_needs_convex_proof : L1_needs_convex R.
Proof.
exists (- 3%:R)%:M, 1%:M, 1; split; [exact: sym1 | exact: ler01 | |].
  by rewrite add1 unit1 (_ : _ + _ = - 2%:R) ?oppr_eq0 ?two_neq0 //; ring.
rewrite displacement1 (_ : - 3%:R + 1 = - 2%:R); last by ring.
rewrite invrN mulr1 opprK; exists (- 2%:R^-1)%:M; split; first by rewrite /ball !nrm1D normrN.
rewrite !surrogate1; differ 1%N 1%N.
Qed.

(* A = 2, g = 1, lam = -1: the step -1 has 0, and -1/2 has -1/4 *)
Theorem L1_needs_sign_proof : L1_needs_sign R.
Proof.
have e : 2%:R - 1 = 1 :> R by ring.
exists 2%:M, 1%:M, (- 1); split; first exact: sym1.
  by rewrite add1 e; apply: id_pd.
rewrite displacement1 e invr1 mulr1; exists (- 2%:R^-1)%:M; split.
  by rewrite /ball !nrm1D !normrN normr1 gtr0_norm ?half_gt0 // ltW ?half_lt1.
rewrite !surrogate1; differ 1%N 4%N.
Qed.

(* g = 0 *)
Theorem L1_needs_nonzero_proof : L1_needs_nonzero R.
Proof.
exists 1%:M, 1, 2%:R; split; [exact: sym1 | by rewrite ltr1n | exact: id_two_pd |].
by rewrite /displacement !mulmx0.
Qed.

(* H = diag(1, 0): (0, t) lies in every ellipsoid *)
Theorem L2_needs_definite_proof : L2_needs_definite R.
Proof.
exists (mat2 1 0 0 0); split.
- split=> [|x]; first by rewrite /sym tr_mat2.
  by rewrite [x]vec2E mat2_mul dot2 !mul0r !mul1r !addr0 mulr0 addr0 -expr2 sqr_ge0.
- by apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE /= oner_eq0.
move=> tau r t0 /(_ (vec2 0 (`|r| + 1))) h; have : ball r (vec2 0 (`|r| + 1)).
  by apply: h; rewrite /ellipsoid mat2_mul dot2 !(mul0r, mulr0, addr0, add0r) sqr_ge0.
rewrite /ball nrm2 expr0n add0r sqrtr_sqr [`|_ + 1|]ger0_norm ?addr_ge0 ?normr_ge0 ?ler01 // leNgt.
by move/negP; apply; apply: le_lt_trans (ler_norm r) _; rewrite ltr_addl ltr01.
Qed.

Let r10 : Num.sqrt (10%:R ^+ 2) = 10%:R :> R. Proof. by rewrite sqrtr_sqr ger0_norm ?ler0n. Qed.
Let one_le : (1 : R) <= 10%:R ^+ 2. Proof. by rewrite -natrX ler1n. Qed.

(* H = diag(100, 1), tau = 1, Delta = 1/2: no ball, and yet e2/2 is long and safe *)
Theorem T2b_needs_containment_proof : T2b_needs_containment R.
Proof.
have pH := two_pd 0 ltr01 one_le.
have [h _] := T2b_proof pH (two_largest 0 one_le) (two_smallest 0 one_le) ltr01.
exists (two 0 1 (10%:R ^+ 2)), 1, (2%:R^-1); split=> //.
  by apply/(h (2%:R^-1)); rewrite r10; differ 2%N 5%N.
exists (2%:R^-1 *: axis R 1); split; first by rewrite nrmZ axis_unit mulr1 ler_norm.
rewrite /ellipsoid -scalemxAr two_low !dotZr dotZl -nrm_sqr axis_unit !expr1n !mulr1 ?mul1r.
by rewrite mulr_ile1 ?ltW ?half_gt0 ?half_lt1.
Qed.

(* a trap at kappa = 1 with Delta = 2, and none at any kappa with Delta = 1/sqrt(kappa) *)
Theorem T2b_needs_relative_proof : T2b_needs_relative R.
Proof.
move=> kappa k1; have k0 : 0 < kappa by apply: lt_le_trans k1; apply: ltr01.
have one1 : (1 : R) <= 1 by [].
have [h1 _] := T2b_proof (two_pd 0 ltr01 one1) (two_largest 0 one1) (two_smallest 0 one1) ltr01.
have l2 := two_largest 0 k1; have s2 := two_smallest 0 k1; have p2 := two_pd 0 ltr01 k1.
have [h2 _ _] := L2_proof p2 l2 s2 ltr01.
exists (two 0 1 1), (two 0 1 kappa), kappa, 1, (1 / Num.sqrt kappa); split.
- exact: (two_pd 0 ltr01 one1).
- exact: p2.
- by split; [exact: (two_largest 0 one1) | exact: (two_smallest 0 one1)].
- by split; rewrite ?divr1.
split.
  by apply/(h1 2%:R); rewrite sqrtr1 divr1 ltr1n.
by split; [rewrite divr_gt0 ?sqrtr_gt0 ?ltr01 | exists (1 / Num.sqrt kappa); split=> //; apply/h2].
Qed.

(* H = 1, a = 1, b = 2, tau = Delta = 1: no lam without curvature, lam = 1 where the hard request has A = 1 *)
Theorem T2c_needs_linear_proof : T2c_needs_linear R.
Proof.
exists 1%:M, 0, 1%:M, 1%:M, 1, 2%:R, 1, 1; rewrite !scale1 !mulr1 !opp1; split.
- exact: id_pd.
- by rewrite nrm1D normr1.
- by rewrite !ltr01 ltr0n.
- move=> [l [l0]]; rewrite /ellipsoid (_ : (0 : 'M[R]_1) = 0%:M); last by rewrite raddf0.
  rewrite !displacement1 !add0r !mulrN !opprK mulr1 nrm1D mul1 dot1 mul1r expr1n => -[h1 h2].
  have li : 1 <= l^-1 by rewrite gtr0_norm ?invr_gt0 in h1.
  have : 1 < l^-1 * 2%:R * (l^-1 * 2%:R).
    apply: lt_le_trans (_ : 2%:R * 2%:R <= _); first by rewrite -natrM ltr1n.
    by rewrite ler_pmul ?ler0n // ler_pmull ?ltr0n.
  by rewrite ltNge h2.
exists 1; split; first exact: ltr01.
rewrite /ellipsoid (_ : (0 : 'M[R]_1) = 0%:M); last by rewrite raddf0.
rewrite !displacement1 add0r !mulrN !opprK invr1 mulr1 nrm1D normr1 mul1 dot1 mul1r expr1n; split=> //.
by rewrite -[1 + 1]/(2%:R) mulVf ?two_neq0 // mulr1.
Qed.

(* a trap at kappa = 1 with b = 2 a, none at any kappa with a = b sqrt(kappa) *)
Theorem T2c_needs_gradients_proof : T2c_needs_gradients R.
Proof.
move=> kappa k1; have k0 : 0 < kappa by apply: lt_trans k1; apply: ltr01.
have one1 : (1 : R) <= 1 by []; have kl := ltW k1.
have s0 : 0 < Num.sqrt kappa by rewrite sqrtr_gt0.
have law top (lt : 1 <= top) := T2c_proof (two_pd 0 ltr01 lt) (two_largest 0 lt) (two_smallest 0 lt)
  (axis_unit R 1) (axis_unit R 0) (two_low 0 1 top) (two_top 0 1 top).
exists (two 0 1 1), (two 0 1 kappa), (axis R 1), (axis R 0), (Num.sqrt kappa), 1; split.
- by split; [exact: (two_pd 0 ltr01 one1) | exact: (two_pd 0 ltr01 kl)].
- by split; [exact: (two_largest 0 one1) | exact: (two_smallest 0 one1)].
- by split; [exact: (two_largest 0 kl) | exact: (two_smallest 0 kl)].
- by split; rewrite ?axis_unit ?two_low ?two_top ?scale1r.
have two0 : 0 < 2%:R :> R by rewrite ltr0n.
split=> //.
  by have [h _] := law _ one1 1 2%:R 1 ltr01 two0 ltr01; apply/(h 1 ltr01); rewrite sqrtr1 !divr1 mulr1 ltr1n.
by have [h _] := law _ kl _ 1 1 s0 ltr01 ltr01; move/(h 1 ltr01); rewrite mul1r !divr1 ltxx.
Qed.

(* progress asks for length alone, and safety for the H-length of uh *)
Theorem T2c_without_directions_proof : T2c_without_directions R.
Proof.
move=> n H ue uh a b tau Delta pH ne a0 b0 t0 D0.
have safe l : 0 < l -> ellipsoid H tau (displacement 0 (- (b *: uh)) l) <-> b * hlen H uh / tau <= l.
  move=> l0; apply: iff_trans (ellipsoid_hlen _ pH (ltW t0)) _.
  rewrite displacement0 scalerA hlenZ ?mulr_ge0 ?invr_ge0 ?(ltW l0) ?(ltW b0) //.
  by rewrite -[l^-1 * b * _]mulrA ler_pdivr_mull // [b * _ / _ <= _]ler_pdivr_mulr.
split=> [[l [l0]]|h]; first by rewrite progress // => h1 /(safe _ l0) h2; apply: le_trans h2 h1.
have l0 : 0 < a / Delta by rewrite divr_gt0.
by exists (a / Delta); split=> //; [rewrite progress | apply/safe].
Qed.

(* v = e1, delta = e2: long, and the logit stays *)
Theorem T2d_needs_parallel_proof : T2d_needs_parallel R.
Proof.
have n1 a : nrm (vec2 a 0 : 'cV[R]_2) = `|a| by rewrite nrm2 expr0n addr0 sqrtr_sqr.
have n2 a : nrm (vec2 0 a : 'cV[R]_2) = `|a| by rewrite nrm2 expr0n add0r sqrtr_sqr.
exists (vec2 1 0), (vec2 0 1), 1; rewrite vec2_eq0 oner_eq0 ltr01 n1 n2 normr1 divr1 lexx dot2.
by rewrite mul0r mulr0 addr0 ltr01.
Qed.

(* v = (3, 4), m = 15, along e1 alone: length 3 is not enough *)
Theorem T2d_needs_confined_proof : T2d_needs_confined R.
Proof.
exists (vec2 3%:R 4%:R), (vec2 1 0), 15%:R; split.
- by rewrite vec2_eq0 pnatr_eq0.
- by rewrite mul_tr_dot dot2 mulr1 mulr0 addr0.
- by rewrite ltr0n.
have nv : nrm (vec2 3%:R 4%:R : 'cV[R]_2) = 5%:R.
  by rewrite nrm2 (_ : _ + _ = 5%:R ^+ 2) ?sqrtr_sqr ?ger0_norm ?ler0n //; ring.
move=> c; have -> : vec2 1 0 *m c = vec2 (c 0 0) 0.
  by apply/colP => i; rewrite !mxE big_ord1 !mxE; case: ifP; rewrite ?mul1r ?mul0r.
rewrite nv nrm2 expr0n addr0 sqrtr_sqr dot2 mulr0 addr0 (_ : 15%:R / 5%:R = 3%:R); last by field.
move=> h; apply: le_lt_trans (_ : 3%:R * 3%:R < _); last by rewrite -natrM ltr_nat.
by rewrite ler_pmul2l ?ltr0n // (le_trans (ler_norm _)).
Qed.

(* f(x) = x + x^2: gradient 1 at 0, margin 2 at length 1 *)
Theorem T2d_needs_linear_proof : T2d_needs_linear R.
Proof.
exists (fun x : 'cV[R]_1 => x 0 0 + x 0 0 ^+ 2), 1%:M, 1%:M, 2%:R; split.
- move=> e e0; exists e; split=> // H; rewrite frob_cV (number H) nrm1D add0r !entry1 mxE expr0n !addr0 subr0.
  rewrite inner_cV dot1 mul1r addrAC subrr add0r normrX expr2 => h.
  by rewrite ler_wpmul2r ?normr_ge0.
- exact: id_neq0.
- by rewrite entry1 !mxE expr1n expr0n addr0 subr0.
by rewrite nrm1D normr1 divr1 ltr1n.
Qed.

(* k = 0: nothing is realized at any cost *)
Theorem P3_needs_nonzero_proof : P3_needs_nonzero R.
Proof. by move=> m n G delta pG d0; split=> [|D]; rewrite ?mulmx0 1?eq_sym //; rewrite /rho dot0l. Qed.

(* F = I, H = diag(4, 1): the same eigenvectors, and a mismatch of 2 *)
Theorem X5_needs_proportional_proof : X5_needs_proportional R.
Proof.
have l : (1 : R) <= 2%:R ^+ 2 by rewrite -natrX ler1n.
exists 1%:M, (two 0 1 (2%:R ^+ 2)), (2%:R ^+ 2), 1; rewrite invmx1 !mul1mx mulmx1; split=> //.
- exact: id_pd.
- exact: (two_pd 0 ltr01 l).
- by split; [exact: (two_largest 0 l) | exact: (two_smallest 0 l)].
by rewrite divr1 sqrtr_sqr ger0_norm ?ler0n // ltr1n.
Qed.

(* the matrix [[2, 1], [1, 2]]: both axes have the quadratic form 2, the eigenvalues are 1 and 3 *)
Let bent : 'M[R]_2 := mat2 2%:R 1 1 2%:R.

Lemma bent_pd : pd bent.
Proof.
split=> [|x x0]; first by rewrite /sym tr_mat2.
rewrite [x]vec2E mat2_mul dot2; move: x0; rewrite {1}[x]vec2E vec2_eq0; set p := x 0 0; set q := x 1 0 => x0.
rewrite (_ : _ + _ = p ^+ 2 + q ^+ 2 + (p + q) ^+ 2); last by ring.
rewrite ltr_paddr ?sqr_ge0 // lt_neqAle eq_sym addr_ge0 ?sqr_ge0 // andbT.
by rewrite paddr_eq0 ?sqr_ge0 // !sqrf_eq0.
Qed.

Lemma axis_top : axis R 0 = vec2 1 0 :> 'cV[R]_2.
Proof. by rewrite [LHS]vec2E !mxE. Qed.

Lemma axis_low : axis R 1 = vec2 0 1 :> 'cV[R]_2.
Proof. by rewrite [LHS]vec2E !mxE. Qed.

Lemma bent_axis (i : 'I_2) : dot (axis R i) (bent *m axis R i) = 2%:R.
Proof.
by rewrite [axis R i]vec2E mat2_mul dot2 !mxE; case: i => -[|[|]] // ?; rewrite -!val_eqE /= !(mulr0, mulr1, mul0r, mul1r, addr0, add0r).
Qed.

Lemma two_form (x y : R) : dot (vec2 x y) (two 0 1 (2%:R ^+ 2) *m vec2 x y) = 4%:R * x ^+ 2 + y ^+ 2.
Proof.
have -> : two 0 1 (2%:R ^+ 2) *m vec2 x y = vec2 (4%:R * x) y :> 'cV[R]_2.
  by apply/colP => i; rewrite mul_diag_mx !mxE -natrX; case: eqP => _; rewrite ?mul1r.
by rewrite dot2; ring.
Qed.

Let four_le : (1 : R) <= 2%:R ^+ 2. Proof. by rewrite -natrX ler1n. Qed.
Let four_root : Num.sqrt (2%:R ^+ 2) = 2%:R :> R. Proof. by rewrite sqrtr_sqr ger0_norm ?ler0n. Qed.

(* H = diag(4, 1), F = bent, tau = Delta = a = 1, b = 13/25: l = 18/25 serves, the formula with 2 and 2 says b <= 1/2 *)
Theorem X6_needs_commuting_proof : X6_needs_commuting R.
Proof.
exists (two 0 1 (2%:R ^+ 2)), bent, (2%:R ^+ 2), 1, (axis R 1), (axis R 0), 1, (13%:R / 25%:R), 1, 1.
move=> step; pose l : R := 18%:R / 25%:R; have l0 : 0 < l by rewrite divr_gt0 ?ltr0n.
have solve (g s : 'cV[R]_2) : l *: (bent *m s) = g -> step (- g) l = s.
  move=> e; rewrite /step mulmxN opprK; apply: (canLR (mulKmx (pd_unit (pdZ l0 bent_pd)))).
  by rewrite -scalemxAl e.
split.
- by split; [exact: (two_pd 0 ltr01 four_le) | exact: bent_pd | exact: axis_unit | exact: axis_unit].
- by split; [exact: (two_largest 0 four_le) | exact: (two_smallest 0 four_le) | exact: two_low | exact: two_top].
- by split; rewrite ?ltr01 // divr_gt0 ?ltr0n.
- exists l; split=> //.
    rewrite (solve _ (vec2 (- 25%:R / 54%:R) (25%:R / 27%:R))); last first.
      by rewrite axis_low mat2_mul !scale2 /l; congr vec2; field.
    rewrite nrm2 -[X in X <= _]sqrtr1; apply: ler_wsqrtr; apply: ltW; differ 209%N 2916%N.
  rewrite (solve _ (vec2 (13%:R / 27%:R) (- 13%:R / 54%:R))); last first.
    by rewrite axis_top mat2_mul !scale2 /l; congr vec2; field.
  rewrite /ellipsoid two_form; apply: ltW; differ 43%N 2916%N.
rewrite !bent_axis four_root; differ 1%N 50%N.
Qed.

(* H = diag(4, 1), A = bent, a = 2, b = tau = Delta = 1: l = 1/2 serves, the formula with 2 and 2 asks for l <= 0 *)
Theorem X7_needs_eigenvectors_proof : X7_needs_eigenvectors R.
Proof.
exists (two 0 1 (2%:R ^+ 2)), bent, (2%:R ^+ 2), 1, (axis R 1), (axis R 0), 2%:R, 1, 1, 1.
have p l : 0 < l -> pd (bent + l%:M) by move=> l0; apply: pdD; [exact: bent_pd | apply/pd_psd/scalar_pd].
pose l : R := 2%:R^-1; have l0 : 0 < l by apply: half_gt0.
have solve (g s : 'cV[R]_2) : bent *m s + l *: s = g -> displacement bent (- g) l = s.
  move=> e; rewrite /displacement mulmxN opprK; apply: (canLR (mulKmx (pd_unit (p _ l0)))).
  by rewrite mulmxDl mul_scalar_mx.
move=> serves; split=> //.
- by split; [exact: (two_pd 0 ltr01 four_le) | exact: axis_unit | exact: axis_unit].
- by split; [exact: (two_largest 0 four_le) | exact: (two_smallest 0 four_le) | exact: two_low | exact: two_top].
- by rewrite !ltr01 ltr0n.
split; last by rewrite bent_axis divr1 subrr.
exists l; split=> //; split.
  rewrite (solve _ (vec2 (- 8%:R / 21%:R) (20%:R / 21%:R))); last first.
    by rewrite axis_low mat2_mul !scale2 add2 /l; congr vec2; field.
  rewrite nrm2 -[X in X <= _]sqrtr1; apply: ler_wsqrtr; apply: ltW; differ 23%N 441%N.
rewrite (solve _ (vec2 (10%:R / 21%:R) (- 4%:R / 21%:R))); last first.
  by rewrite axis_top mat2_mul !scale2 add2 /l; congr vec2; field.
rewrite /ellipsoid two_form; apply: ltW; differ 25%N 441%N.
Qed.

(* H = 1, A = 10, g = -1, tau = 1: the least is at 1/10, within the region *)
Theorem X6_needs_linear_proof : X6_needs_linear R.
Proof.
exists 1%:M, 10%:M, (- 1)%:M, 1, (10%:R^-1)%:M.
have h : 0 < 10%:R^-1 :> R by rewrite invr_gt0 ltr0n.
split; [exact: id_pd | by apply: pd1; rewrite ltr0n | | |].
- split; first exact: ltr01.
  by rewrite /ellipsoid mul1 dot1 mul1r expr1n mulr_ile1 ?ltW // invf_lt1 ?ltr0n ?ltr1n.
- move=> x; rewrite (number x) !surrogate1; set t := x 0 0; rewrite -subr_ge0 (_ : _ - _ = 5%:R * (t - 10%:R^-1) ^+ 2).
    by rewrite mulr_ge0 ?ler0n ?sqr_ge0.
  by field.
rewrite /hlen mul1 dot1 mul1r -expr2 sqrtr_sqr gtr0_norm //; differ 2%N 5%N.
Qed.

End Trap.
