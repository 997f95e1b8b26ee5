(* What fails of Theorem 1 without an assumption (counterexamples.v). *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements counterexamples linear eigen attenuation spectrum batch cost trap plane proxy allocation instances line.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Suppression.
Variable R : rcfType.

(* G = -2, k = r = 1: the edit -1 has loss 2, and D = 1 has -2. *)
Theorem T1_needs_definite_proof : T1_needs_definite R.
Proof.
exists (- 2%:R)%:M, 1%:M, 1%:M; split; first exact: sym1.
  by rewrite tr_scalar_mx mul1 add1 unit1 mulr1 (_ : _ + _ = - 1) ?oppr_eq0 ?oner_eq0 //; ring.
exists 1%:M; rewrite edit1 !loss1 mulr1 (_ : - 2%:R + 1 = - 1); last by ring.
by rewrite invrN1; differ 4%N 1%N.
Qed.

(* Sherman and Morrison ask for two inverses only *)
Theorem T1_without_symmetric_proof : T1_without_symmetric R.
Proof. by move=> m n G k r; apply: law_without_definiteness. Qed.

(* y = G2^-1 k: rho_1 >= 2 k.y - y.G1 y >= k.y = rho_2 *)
Theorem T1d_without_symmetric_proof : T1d_without_symmetric R.
Proof.
move=> n G1 G2 k p1 h; have [_ q1] := p1; have [_ r1] := pd_psd p1.
have u2 : G2 \in unitmx.
  apply: inj_unit => x e; apply/eqP; apply: contraT => x0.
  by have := lt_le_trans (q1 _ x0) (h x); rewrite e dot0r ltxx.
pose y := invmx G2 *m k; have le : dot y (G1 *m y) <= rho G2 k by apply: le_trans (h y) _; rewrite mulKVmx // dotC.
apply: attenuate_le; first exact: le_trans (r1 y) le.
apply: le_trans (rho_variational k y p1); rewrite (dotC y) -[dot k y]/(rho G2 k).
by rewrite mulr2n -addrA ler_addl subr_ge0.
Qed.

Let ones : 'M[R]_(1, 2) := const_mx 1.
Let opposed : 'M[R]_(1, 2) := (vec2 1 (- 1))^T.

Lemma col_ones j : col j ones = 1%:M.
Proof. by apply/matrixP => i k; rewrite !ord1 !mxE. Qed.

Lemma ones_sq : ones *m ones^T = 2%:M.
Proof. by apply/matrixP => i k; rewrite !ord1 !mxE sum2 !mxE !mulr1. Qed.

(* one key twice, residuals 1 and -1: the edit is zero *)
Theorem T1_needs_single_proof : T1_needs_single R.
Proof.
exists 1%:M, ones, opposed; split=> [|j]; first exact: id_pd.
have -> : batch_edit 1%:M ones opposed = 0.
  rewrite /batch_edit (_ : opposed *m ones^T = 0) ?mul0mx //.
  by apply/matrixP => i k; rewrite !ord1 !mxE sum2 !mxE /= !mulr1 subrr.
rewrite mul0mx eq_sym; apply: scale_neq0; rewrite ?col_ones.
  by rewrite eta_eq0 ?id_neq0 //; apply: id_pd.
apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE.
by case: ifP => _; rewrite ?oppr_eq0 oner_eq0.
Qed.

Lemma basis1 mu : eigenbasis (mu%:M : 'M[R]_1) 1%:M (const_mx mu).
Proof. exact: scalar_basis. Qed.

(* U = 2 and mu = 1: rho = 1, the sum is 4 *)
Theorem T1a_needs_orthonormal_proof : T1a_needs_orthonormal R.
Proof.
exists 1%:M, 2%:M, (const_mx 1), 1%:M; split; first by rewrite unit1 two_neq0.
- by rewrite diag_const_mx invmx_scalar !mul1 mulr1 mulfV ?two_neq0.
- exact: id_pd.
rewrite rho1 big_ord1 tr_scalar_mx mul1 entry1 mxE lt_eqF //; differ 3%N 1%N.
Qed.

(* G = 1, M = 1/2, eps = 2 *)
Theorem T1b_needs_share_proof : T1b_needs_share R.
Proof.
exists 1%:M, 1%:M, (const_mx 1), 1%:M, pred0, (2%:R^-1), 1, 2%:R; split; first exact: basis1.
- by split=> [|i]; rewrite ?ltr01 // mxE.
- by split=> //; apply: half_gt0.
- split; first by rewrite ler0n.
  by rewrite big_ord1 trmx1 mul1mx entry1 nrm1D normr1 !expr1n mulr1 ler1n.
rewrite rho1 nrm1D normr1; differ 1%N 1%N.
Qed.

(* G = 1, all of it protected, mu_min = 100 *)
Theorem T1b_needs_smallest_proof : T1b_needs_smallest R.
Proof.
exists 1%:M, 1%:M, (const_mx 1), 1%:M, predT, 1, 100%:R, (2%:R^-1); split; first exact: basis1.
- by split=> [|i]; rewrite ?ltr0n.
- by split=> [|i]; rewrite ?ltr01 // mxE.
- split; first by rewrite ltW ?half_gt0 // ltW ?half_lt1.
  by rewrite big_pred0 // mulr_ge0 ?sqr_ge0 // ltW ?half_gt0.
rewrite rho1 nrm1D normr1; differ 99%N 200%N.
Qed.

(* G = 4, M = 8 *)
Theorem T1b_needs_height_proof : T1b_needs_height R.
Proof.
exists 4%:M, 1%:M, (const_mx 4%:R), 1%:M, predT, 8%:R, 1, 0; split; first exact: basis1.
- by split=> [|i]; rewrite ?ltr01 // mxE ler1n.
- by rewrite ltr0n.
- by rewrite lexx ler01 big_pred0 // mul0r.
rewrite rho1 nrm1D normr1; differ 1%N 8%N.
Qed.

(* k = 0 *)
Theorem T1d_needs_nonzero_proof : T1d_needs_nonzero R.
Proof.
exists 1%:M, 1, 2%:R; split; [exact: id_pd | exact: ltr01 | by rewrite ltr1n |].
by rewrite /eta /rho !dot0l.
Qed.

(* P = 2: symmetric, not idempotent *)
Theorem T1e_needs_projector_proof : T1e_needs_projector R.
Proof.
exists 2%:M, 1, 1%:M, 1%:M; split; rewrite ?tr_scalar_mx ?ltr01 //; exists (4%:R^-1)%:M.
have e d : projected_loss 2%:M 1 1%:M (1%:M : 'cV[R]_1) d%:M = (d * 2%:R - 1) ^+ 2 + (d * 2%:R) ^+ 2.
  by rewrite /projected_loss !(mul1, tr_scalar_mx, opp1, add1, dot1) mulr1 mul1r /mxtrace big_ord1 entry1 !expr2.
rewrite /projected_edit !(mul1, tr_scalar_mx, scale1, dot1) !e; differ 9%N 50%N.
Qed.

(* P = I, beta = 0, k = e1: whatever D does to e2 costs nothing *)
Theorem T1e_needs_ridge_proof : T1e_needs_ridge R.
Proof.
exists 1%:M, (vec2 1 0), 1%:M; split; first exact: id_projector.
  by rewrite mul1mx vec2_eq0 oner_eq0.
have X : projected_edit 1%:M 0 (vec2 1 0) (1%:M : 'cV[R]_1) = (vec2 1 0)^T.
  by rewrite /projected_edit !mul1mx dot2 mulr0 addr0 add0r mulr1 invr1 scale1r.
exists (vec2 1 1)^T; rewrite X mulmx1; split.
  rewrite /projected_loss !mulmx1 !mul0r !addr0 !mul_tr_dot !dot2 !mulr0 !mulr1 !addr0.
  by rewrite lexx.
by apply/eqP => /matrixP/(_ 0 1)/eqP; rewrite !mxE /= oner_eq0.
Qed.

(* the same key twice: 1/3 after 1/2 *)
Theorem T1f_needs_orthogonal_proof : T1f_needs_orthogonal R.
Proof.
exists 1%:M, 1, 1%:M, 1%:M; split; [exact: id_projector | exact: ltr01 |].
rewrite /history /projected_eta !(mul1, tr_scalar_mx, add1, dot1) eta1; differ 1%N 6%N.
Qed.

(* V = 2 *)
Theorem X1_needs_orthonormal_proof : X1_needs_orthonormal R.
Proof.
exists 2%:M, 1, 1%:M, 1%:M, 0; split; first exact: ltr01.
rewrite /history !(mulmx0, mul0mx, trmx0, addr0, tr_scalar_mx, mul1) !edit1 mul1.
apply/eqP => /number_inj/eqP; rewrite lt_eqF //; differ 48%N 85%N.
Qed.

(* P = 0: the limit writes nothing, a finite penalty does *)
Theorem P15_needs_limit_proof : P15_needs_limit R.
Proof.
exists 0, 1, 1%:M, 1%:M; split; [by split; rewrite ?trmx0 ?mul0mx | exact: ltr01 | |].
  by rewrite /projected_edit mul0mx trmx0 mulmx0 scaler0 mul0mx.
move=> t t0; rewrite subr0 scale1 mulr1 add1 edit1 mul1 !mulr1 mul1r; apply: scalar_neq0.
by rewrite invr_eq0 gt_eqF // !ltr_paddr ?ler01 ?ltr01.
Qed.

(* T1's numbers, as a batch of one *)
Theorem X2_needs_definite_proof : X2_needs_definite R.
Proof.
exists (- 2%:R)%:M, 1%:M, 1%:M; split; first exact: sym1.
  by rewrite tr_scalar_mx mul1 add1 unit1 mulr1 (_ : _ + _ = - 1) ?oppr_eq0 ?oner_eq0 //; ring.
exists 1%:M; rewrite /batch_loss /batch_edit !(mul1, tr_scalar_mx, add1, invmx_scalar, opp1, cost1).
rewrite /mxtrace !big_ord1 !entry1 mulr1 (_ : - 2%:R + 1 = - 1); last by ring.
by rewrite invrN1; differ 4%N 1%N.
Qed.

Lemma ones_gram : gram 1%:M ones = const_mx 1 :> 'M[R]_2.
Proof. by rewrite /gram invmx1 mulmx1; apply/matrixP => i j; rewrite !mxE big_ord1 !mxE mulr1. Qed.



(* B = S/3 for S = 1 1^T *)
Lemma ones_retention : retention 1%:M ones = const_mx (3%:R^-1).
Proof.
rewrite /retention ones_gram; set S := const_mx 1.
have S0 i j : S i j = 1 by rewrite mxE.
have -> : invmx (1%:M + S) = \matrix_(i, j) ((i == j)%:R - 3%:R^-1).
  apply: invmx_right; apply/matrixP => i j; rewrite !mxE sum2 !mxE.
  by case: i j => -[|[|]] // hi [] [|[|]] // hj; rewrite -!val_eqE /= ?mulr1n ?mulr0n; field.
by apply/matrixP => i j; rewrite !mxE sum2 !mxE; case: j => -[|[|]] // hj; rewrite -!val_eqE /=; field.
Qed.

Lemma ones_rank : \rank ones = 1%N.
Proof.
apply/eqP; rewrite eqn_leq rank_leq_row lt0n mxrank_eq0.
by apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE oner_eq0.
Qed.

(* the same key twice: 1/3 < 1/2 *)
Theorem X3_needs_orthogonal_proof : X3_needs_orthogonal R.
Proof.
exists 1%:M, ones; split=> [|j]; first exact: id_pd.
rewrite ones_retention mxE col_ones eta1; differ 1%N 6%N.
Qed.

(* the same key twice, residuals 1 and 10: the first realizes 11/3 *)
Theorem X3_needs_coefficient_proof : X3_needs_coefficient R.
Proof.
pose T : 'M[R]_(1, 2) := (vec2 1 10%:R)^T; exists 1%:M, ones, T; split; [exact: id_pd | by rewrite !mxE ltr01 |].
have [_ _ -> _ _] := X2_proof ones T (id_pd R 1).
rewrite ones_retention !mxE sum2 !mxE /=; differ 8%N 3%N.
Qed.

(* G = -1/2, k = 1: B = 2 *)
Theorem X13_needs_definite_proof : X13_needs_definite R.
Proof.
exists (- 2%:R^-1)%:M, 1%:M; split; first exact: sym1.
  by rewrite tr_scalar_mx mul1 add1; apply: pd1; rewrite mulr1 addrC subr_gt0 half_lt1.
rewrite mxrank1 big_ord1 /retention /gram !(tr_scalar_mx, invmx_scalar, mul1, add1) entry1; differ 1%N 1%N.
Qed.

(* k = 3 twice: 0.9 each time *)
Theorem X13_needs_remembered_proof : X13_needs_remembered R.
Proof.
have c j : col j (3%:R *: ones) = 3%:M by rewrite linearZ /= col_ones scale1 mulr1.
exists 1%:M, (3%:R *: ones); split; first exact: id_pd.
rewrite mxrank_scale_nz ?pnatr_eq0 // ones_rank sum2 !c eta1; differ 4%N 5%N.
Qed.

(* the plane with G = diag(1, -1), k = e1: a component along e2 lowers the cost *)
Theorem X14_needs_definite_proof : X14_needs_definite R.
Proof.
pose G : 'M[R]_2 := mat2 1 0 0 (- 1); pose k : 'cV[R]_2 := vec2 1 0.
have Gk (x y : R) : (G + k *m k^T) *m vec2 x y = vec2 (2%:R * x) (- y).
  by rewrite mulmxDl -mulmxA mul_tr_dot mul_mx_scalar mat2_mul dot2 scale2 add2; congr vec2; ring.
have uM : G + k *m k^T \in unitmx.
  apply: inj_unit => x; rewrite [x]vec2E Gk => /eqP; rewrite vec2_eq0 oppr_eq0 mulf_eq0 (negbTE (two_neq0 R)) /=.
  by rewrite -vec2_eq0 => /eqP.
have q : channel G k = vec2 (2%:R^-1) 0.
  by apply: (canLR (mulKmx uM)); rewrite Gk mulfV ?two_neq0 // oppr0.
have c (x y : R) : cost G (vec2 x y)^T = x ^+ 2 - y ^+ 2.
  by rewrite /cost trmxK -mulmxA mat2_mul mul_tr_dot dot2 mxtrace_scalar; ring.
have e : edit G k (1%:M : 'cV[R]_1) = (vec2 (2%:R^-1) 0)^T by rewrite /edit q mul1mx.
exists G, k, 1%:M; split=> //; first by rewrite /sym tr_mat2.
  by rewrite vec2_eq0 oner_eq0.
exists (vec2 (2%:R^-1) 1)^T; rewrite e !c !mul_tr_dot !dot2 !mulr0; split=> //; differ 1%N 1%N.
Qed.

Lemma opposed_not_realized (D : 'M[R]_1) : D *m ones != opposed.
Proof.
apply/eqP => /matrixP e; have := e 0 0; have := e 0 1.
rewrite !mxE !big_ord1 !mxE /= => -> /eqP; rewrite lt_eqF //; differ 2%N 1%N.
Qed.

(* the same key twice: no target gives shifts 1 and -1 *)
Theorem X14_needs_independent_proof : X14_needs_independent R.
Proof. by exists 1%:M, ones, opposed; split=> [|T]; [exact: id_pd | exact: opposed_not_realized]. Qed.

Theorem P4_needs_independent_proof : P4_needs_independent R.
Proof. by exists 1%:M, ones, opposed; split=> [|T]; [exact: id_pd | exact: opposed_not_realized]. Qed.

(* an exact fit leaves nothing missing and costs 1 *)
Theorem X14_needs_soft_proof : X14_needs_soft R.
Proof.
exists 1%:M, 1%:M, 1%:M; split; [exact: id_pd | exact: id_independent |].
rewrite /exact_edit /gram !(tr_scalar_mx, invmx_scalar, mul1) cost1 big_ord1.
have -> j : col j (1%:M : 'M[R]_1) = 1%:M by apply/matrixP => i k; rewrite !ord1 !mxE.
rewrite mul1 opp1 add1 dot1; differ 1%N 1%N.
Qed.

(* C = 1, k = 10 *)
Theorem P8_needs_same_proof : P8_needs_same R.
Proof.
exists 1%:M, 1, 10%:M; split; [by rewrite scale1r; exact: id_pd | exact: ltr01 |].
rewrite scale1r rho1; differ 99%N 1%N.
Qed.

(* G = t^2, k = t *)
Theorem P9_needs_fixed_proof : P9_needs_fixed R.
Proof.
move=> M; pose t := `|M| + 1; have t1 : 1 <= t by rewrite ler_addr normr_ge0.
have t0 : 0 < t by apply: lt_le_trans t1; apply: ltr01.
exists (t * t)%:M, (t * t), t%:M; split; first by apply: pd1; rewrite mulr_gt0.
- apply: le_trans (_ : t <= _); last by rewrite ler_pmulr.
  by apply: le_trans (ler_norm M) _; rewrite ler_addl ler01.
- by rewrite mul_scalar_mx.
have tn : t != 0 by rewrite gt_eqF.
rewrite eta1 (_ : t * ((t * t)^-1 * t) = 1); last by field.
by rewrite mul1r.
Qed.

(* G = 1/10 and 2/10, k = 1, mu = 1 *)
Theorem P10_needs_floor_proof : P10_needs_floor R.
Proof.
exists (10%:R^-1)%:M, (2%:R / 10%:R)%:M, 1%:M, 1, (10%:R^-1).
have h : 0 < 10%:R^-1 :> R by rewrite invr_gt0 ltr0n.
split; first exact: ltr01.
- by split; apply: pd1; rewrite ?divr_gt0 ?ltr0n.
- split; first exact: ltW.
  rewrite opp1 add1; apply: bounded1; rewrite (_ : _ - _ = 10%:R^-1); last by field.
  by rewrite gtr0_norm.
rewrite subrr nrm0 mul0r mulr0 add0r mulr1 !eta1 (_ : _ - _ = 5%:R / 66%:R); last by field.
rewrite ger0_norm ?divr_ge0 ?ler0n //; differ 67%N 1320%N.
Qed.

(* G = k = 1, B = -1: the loss is r^2 - 2 D r *)
Theorem X12_needs_definite_proof : X12_needs_definite R.
Proof.
exists 1%:M, (- 1)%:M, 1%:M, 1%:M; split; [exact: id_pd | exact: sym1 |] => D; exists (D + 1%:M).
have e d : two_sided_loss 1%:M (- 1)%:M 1%:M (1%:M : 'cV[R]_1) d%:M = 1 - 2%:R * d.
  by rewrite /two_sided_loss !(mul1, tr_scalar_mx, opp1, add1, dot1) /mxtrace big_ord1 entry1; ring.
rewrite (number D) add1 !e; rewrite ltr_add2l ltr_opp2 ltr_pmul2l ?ltr0n // ltr_addl ltr01 //.
Qed.

(* B = diag(9, 1), G = k = 1, r = (1, 1): shares 1/10 and 1/2 *)
Theorem X12_needs_isotropic_proof : X12_needs_isotropic R.
Proof.
have pB : pd (two 0 (1 : R) 9%:R) by apply: two_pd; rewrite ?ltr01 // ler1n.
exists 1%:M, (two 0 1 9%:R), 1%:M, (const_mx 1); split=> //; first exact: id_pd.
have [E [_ uE eE]] := X12_proof 1%:M (const_mx 1) (id_pd R 1) pB.
move=> D hD c; rewrite (uE D) //; apply/eqP => h.
have d i : dot (axis R i : 'cV[R]_2) (const_mx 1) = 1.
  by rewrite dotE (bigD1 i) //= big1 => [|j /negbTE ji]; rewrite !mxE ?eqxx ?ji ?mul0r ?mulr1 ?addr0.
have := eE _ _ (axis_neq0 R 0) (two_top 0 1 9%:R); have := eE _ _ (axis_neq0 R 1) (two_low 0 1 9%:R).
rewrite h !dotZr !d rho1 !mulr1 => -> /eqP; rewrite gt_eqF //; differ 2%N 5%N.
Qed.

(* diag(1, 1/100), M = 1, k = (1, 1/10): 1% of the key is not protected; eta = 2/3, the bound is 1/2 *)
Theorem T1c_needs_inside_proof : T1c_needs_inside R.
Proof.
have h : 0 < 100%:R^-1 :> R by rewrite invr_gt0 ltr0n.
have le : 100%:R^-1 <= 1 :> R by rewrite invf_le1 ?ltr0n ?ler1n.
pose k : 'cV[R]_2 := vec2 1 (10%:R^-1).
have nk : nrm k ^+ 2 = 101%:R / 100%:R by rewrite nrm_sqr dot2; field.
exists (two 0 (100%:R^-1) 1), 1%:M, (two_values 0 (100%:R^-1) 1), k, (pred1 0), 1; split.
- exact: two_basis.
- exact: two_pd.
- by split=> [|i /eqP ->]; [rewrite ltr01 | rewrite mxE].
- rewrite nk big_mkcond sum2 /= add0r trmx1 mul1mx !mxE /=; apply: ltW; differ 1%N 10000%N.
have [_ law] := T1a_proof (two_pd 0 h le).
have e : rho (two 0 (100%:R^-1) 1) k = 2%:R.
  by rewrite (law _ _ (two_basis _ _ _)) sum2 trmx1 mul1mx !mxE /=; field.
rewrite /eta e nk; differ 11%N 67%N.
Qed.

(* diag(10, 1), diag(2, 11), k = e1: every eigenvalue grows and so does eta *)
Theorem T1d_needs_loewner_proof : T1d_needs_loewner R.
Proof.
pose d (a b : R) : 'rV[R]_2 := \row_i (if i == 0 then a else b).
have e a b : 0 < a -> 0 < b -> rho (diag_mx (d a b)) (vec2 1 0) = a^-1.
  move=> a0 b0; have eU : eigenbasis (diag_mx (d a b)) 1%:M (d a b).
    by split; rewrite ?id_orthonormal // trmx1 mulmx1 mul1mx.
  have pos i : 0 < d a b 0 i by rewrite mxE; case: ifP.
  have pG : pd (diag_mx (d a b)).
    split=> [|x x0]; first exact: tr_diag_mx.
    rewrite (basis_quad eU) trmx1 mul1mx; rewrite lt_neqAle eq_sym sumr_ge0 ?andbT => [|i _]; last first.
      by rewrite mulr_ge0 ?sqr_ge0 // ltW.
    apply: contra_neq x0 => /eqP; rewrite psumr_eq0 => [/allP h|i _]; last by rewrite mulr_ge0 ?sqr_ge0 // ltW.
    apply/colP => i; rewrite mxE; have := h i (mem_index_enum i).
    by rewrite /= mulf_eq0 gt_eqF //= sqrf_eq0 => /eqP.
  have [_ law] := T1a_proof pG.
  by rewrite (law _ _ eU) sum2 trmx1 mul1mx !mxE /= expr1n expr0n mul0r addr0 mul1r.
exists (d 10%:R 1), (d 2%:R 11%:R), (vec2 1 0); split=> [i|i|].
- by rewrite mxE; case: ifP; rewrite ?ltr01 ?ltr0n.
- by rewrite !mxE; case: i => -[|[|]] // hi; rewrite -!val_eqE /= ?ltr_nat ?ltr1n.
rewrite /eta !e ?ltr01 ?ltr0n //; differ 8%N 33%N.
Qed.

End Suppression.
