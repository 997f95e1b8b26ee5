(* What fails of Section 4 and Theorem 3 without an assumption (counterexamples.v). *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements counterexamples linear eigen attenuation spectrum batch cost trap plane proxy allocation instances descent line.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Fidelity.
Variable R : rcfType.

(* X = 1/10, E = 1/2, mu = 1: the inverses differ by 25/3, the bound says 1 *)
Theorem L3_needs_floor_proof : L3_needs_floor R.
Proof.
exists (10%:R^-1)%:M, (2%:R^-1)%:M, 1, (2%:R^-1).
have h : 0 < 10%:R^-1 :> R by rewrite invr_gt0 ltr0n.
split; first exact: pd1.
- by rewrite ltW ?half_gt0 ?half_lt1.
- by apply: bounded1; rewrite gtr0_norm ?half_gt0.
- by rewrite add1 unit1 gt_eqF // addr_gt0 ?half_gt0.
rewrite add1 !invmx_scalar opp1 add1; apply: unbounded1.
rewrite [X in `|X|](_ : _ = - (25%:R / 3%:R)); last by field.
rewrite normrN ger0_norm ?divr_ge0 ?ler0n //; differ 22%N 3%N.
Qed.

(* X = 1, E = -1 *)
Theorem L3_needs_small_proof : L3_needs_small R.
Proof.
exists 1%:M, (- 1)%:M, 1, 1; split; [exact: scalar_above | exact: ler01 | |].
  by apply: bounded1; rewrite normrN normr1.
by rewrite add1 unit1 subrr eqxx.
Qed.

(* X = 1, E = -1/2: the inverses differ by 1, the sharp form says 1/3 *)
Theorem L3_needs_both_proof : L3_needs_both R.
Proof.
exists 1%:M, (- 2%:R^-1)%:M, 1, (2%:R^-1); split; [exact: ltr01 | exact: scalar_above | | |].
- by rewrite ltW ?half_gt0 ?half_lt1.
- by apply: bounded1; rewrite normrN gtr0_norm ?half_gt0.
rewrite add1 !invmx_scalar opp1 add1; apply: unbounded1.
rewrite [X in `|X|](_ : _ = 1); last by field.
rewrite normr1; differ 2%N 3%N.
Qed.

(* G = 1/100 on both sides, mu = 1, k = 1/10 and 0: the channels differ by 5, the bound says 1/10 *)
Theorem L4_needs_floor_proof : L4_needs_floor R.
Proof.
have h : 0 < 100%:R^-1 :> R by rewrite invr_gt0 ltr0n.
exists (100%:R^-1)%:M, (100%:R^-1)%:M, (10%:R^-1)%:M, 0%:M, 1, (10%:R^-1), 0, 0.
split; first exact: ltr01.
- by split; apply: pd1.
- by rewrite lexx opp1 add1 subrr; split=> //; apply: bounded1; rewrite normr0.
- by rewrite opp1 add1 subr0 !nrm1D normr0 lexx gtr0_norm ?invr_gt0 ?ltr0n.
rewrite !channel1 opp1 add1 nrm1D !mul0r minxx addr0 [X in `|X|](_ : _ = 5%:R); last by field.
rewrite ger0_norm ?ler0n //; differ 49%N 10%N.
Qed.

(* Loss(W) = W, W = z q, q = 1/z: the edit does not move with z *)
Lemma constant_edit : gradient (fun z : 'M[R]_1 => inner 1%:M (z *m ((z 0 0)^-1%:M)^T)) 1%:M 0.
Proof.
have one (z : 'M[R]_1) : z 0 0 != 0 -> inner 1%:M (z *m ((z 0 0)^-1%:M)^T) = 1 :> R.
  move=> z0; rewrite {1}(number z) tr_scalar_mx mul1 mulfV //.
  by rewrite /inner tr_scalar_mx mul1 /mxtrace big_ord1 entry1 mulr1.
move=> e e0; exists (2%:R^-1); split=> [|H hH]; first exact: half_gt0.
have n0 : (1%:M + H) 0 0 != 0.
  rewrite mxE entry1; move: hH; rewrite (number H) frob_cV nrm1D entry1; set h := H 0 0 => hH.
  rewrite gt_eqF // -[h]opprK subr_gt0; apply: le_lt_trans (half_lt1 R); apply: le_trans hH.
  by rewrite -normrN ler_norm.
rewrite !one ?entry1 ?oner_eq0 // subrr sub0r normrN /inner trmx0 mul0mx mxtrace0 normr0.
by rewrite mulr_ge0 ?frob_ge0 // ltW.
Qed.

Lemma constant_channel : (1%:M : 'M[R]_1) *m ((1%:M : 'M[R]_1) 0 0)^-1%:M != 0.
Proof. by rewrite entry1 invr1 mul1 mulr1 id_neq0. Qed.

Theorem L5_needs_fixed_proof : L5_needs_fixed R.
Proof.
exists (inner 1%:M), (fun z => (z 0 0)^-1%:M), 1%:M, 1%:M.
by split; [exact: inner_gradient | exact: constant_edit | exact: constant_channel].
Qed.

Theorem X8_needs_fixed_proof : X8_needs_fixed R.
Proof.
exists (inner 1%:M), (fun z => (z 0 0)^-1%:M), 1%:M, 1%:M.
by split; [exact: inner_gradient | exact: constant_edit | exact: constant_channel].
Qed.

(* one layer, J = I: the bound is 0 *)
Theorem T3a_needs_frozen_proof : T3a_needs_frozen R.
Proof.
exists (inner 1%:M), (fun z => (z 0 0)^-1%:M), 1%:M, 1%:M, 0.
split; [exact: inner_gradient | exact: constant_edit |] => s.
by rewrite !mul0r addr0 sub0r nrmN nrm_gt0 constant_channel.
Qed.

(* near z = 1 the request is r = 2 - z, elsewhere r = z: J = -1, though E is small everywhere *)
Theorem J1_needs_fixed_proof : J1_needs_fixed R.
Proof.
pose near (z : 'cV[R]_1) := `|z 0 0 - 1| <= 40%:R^-1.
have t40 : 0 < 40%:R^-1 :> R by rewrite invr_gt0 ltr0n.
exists (fun z => if near z then (z 0 0 / (2%:R - z 0 0) - 1)%:M else 0).
exists (fun z => if near z then 2%:M - z else z), 1%:M, (- 1)%:M, (10%:R^-1).
have big z : near z -> 2%:R^-1 <= 2%:R - z 0 0.
  rewrite /near => h; have /le_trans /(_ h) h1 := ler_norm (z 0 0 - 1).
  rewrite (_ : 2%:R - z 0 0 = 1 - (z 0 0 - 1)); last by ring.
  rewrite ler_subr_addr -ler_subr_addl; apply: le_trans h1 _.
  rewrite (_ : 1 - 2%:R^-1 = 2%:R^-1); last by field.
  by rewrite lef_pinv ?posrE ?ltr0n // ler_nat.
split.
- by rewrite invr_ge0 ler0n invf_lt1 ?ltr0n // ltr1n.
- move=> z; case: ifP => h; last by move=> x; rewrite mul0mx nrm0 mulr_ge0 ?nrm_ge0 // invr_ge0 ler0n.
  have b := big z h; have b0 : 0 < 2%:R - z 0 0 by apply: lt_le_trans b; exact: half_gt0.
  apply: bounded1; rewrite (_ : _ - 1 = 2%:R * (z 0 0 - 1) / (2%:R - z 0 0)); last by field; rewrite gt_eqF.
  rewrite normrM normrM normfV (gtr0_norm b0) gtr0_norm ?ltr0n // ler_pdivr_mulr //.
  apply: le_trans (_ : 10%:R^-1 * 2%:R^-1 <= _); last by rewrite ler_pmul2l // invr_gt0 ltr0n.
  apply: le_trans (_ : 2%:R * 40%:R^-1 <= _); first by rewrite ler_pmul2l ?ltr0n.
  by rewrite (_ : 10%:R^-1 * 2%:R^-1 = 2%:R * 40%:R^-1) //; field.
- move=> z; case: ifP => h; last by rewrite addr0 mul1mx.
  have b0 : 0 < 2%:R - z 0 0 by apply: lt_le_trans (big z h); exact: half_gt0.
  by rewrite [X in 2%:M - X]number opp1 !add1 mul1 [RHS]number; congr (_%:M); field; rewrite gt_eqF.
- move=> e e0; exists (40%:R^-1); split=> // h hh.
  have n1 : near 1%:M by rewrite /near entry1 subrr normr0 ltW.
  have n2 : near (1%:M + h).
    by rewrite /near mxE entry1 addrAC subrr add0r; move: hh; rewrite {1}(number h) nrm1D.
  rewrite n1 n2 (number h) !(add1, opp1, mul1) (_ : _ - _ = 0); last by ring.
  by rewrite nrm1D normr0 mulr_ge0 ?nrm_ge0 // ltW.
rewrite opp1 add1; apply: unbounded1; rewrite -opprD normrN ger0_norm; last by rewrite addr_ge0 ?ler01.
differ 17%N 9%N.
Qed.

(* E = -I *)
Theorem J1_needs_small_proof : J1_needs_small R.
Proof.
exists (- 1)%:M; split; first by apply: bounded1; rewrite normrN normr1.
by rewrite add1 unit1 subrr eqxx.
Qed.

(* g_0 = -g_1, J_1 = I: the sum is 0 *)
Theorem T3b_needs_small_proof : T3b_needs_small R.
Proof.
exists (fun l => if l == ord_max then 1%:M else (- 1)%:M).
have g c : layer_gradient c%:M 1%:M (1%:M : 'cV[R]_1) = c%:M.
  by rewrite /layer_gradient tr_scalar_mx !mul1 !mulr1.
rewrite !mul1 mulr1; split.
- by rewrite big_mkcond big_ord_recl big_ord1 /= !g !nrm1D normrN addr0 mul1r.
- by rewrite eqxx subrr => x; rewrite mul0mx nrm0 mul0r.
- exact: id_neq0.
by rewrite big_ord_recl big_ord1 /= !g add1 dot1 addNr mul0r.
Qed.

(* Gamma = diag(1, 0), q = e2 *)
Theorem T3b_needs_nonzero_proof : T3b_needs_nonzero R.
Proof.
have e : mat2 1 0 0 0 *m vec2 0 1 = 0 :> 'cV[R]_2.
  by rewrite mat2_mul !(mul0r, mulr0, mul1r, addr0); apply/eqP; rewrite vec2_eq0 eqxx.
exists (mat2 1 0 0 0), (vec2 0 1); rewrite e dot0r; split=> //.
  by apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE /= oner_eq0.
by rewrite vec2_eq0 oner_eq0 andbF.
Qed.

(* gamma = 3/5, eps = 4/5 *)
Theorem T3c_needs_circle_proof : T3c_needs_circle R.
Proof.
have [_ h] := T3c_proof R.
have c1 : (3%:R / 5%:R) ^+ 2 + (4%:R / 5%:R) ^+ 2 = 1 :> R by field.
have g01 : 0 <= (3%:R / 5%:R : R) < 1 by apply/andP; split; [rewrite divr_ge0 ?ler0n | rewrite ltr_pdivr_mulr ?ltr0n // mul1r ltr_nat].
have e01 : 0 <= (4%:R / 5%:R : R) < 1 by apply/andP; split; [rewrite divr_ge0 ?ler0n | rewrite ltr_pdivr_mulr ?ltr0n // mul1r ltr_nat].
have [J [Gamma [q [hb hg ht _ hd]]]] := h _ _ g01 e01.
by exists (3%:R / 5%:R), (4%:R / 5%:R), J, Gamma, q; split=> //; apply: hd; rewrite c1.
Qed.

(* each of two layers is asked for all that is missing, and eta = s is small *)
Theorem A1_needs_spread_proof : A1_needs_spread R.
Proof.
move=> e e0; exists e => h z x; exists 1%:M, (1 - e)%:M; split.
- by apply: jacobian_affine => y; rewrite mul1mx; apply/matrixP => i j; rewrite !mxE; move: (z i j) (y i j) (h i j) => a b c; ring.
- by apply: jacobian_affine => y; rewrite mul_scalar_mx; apply/matrixP => i j; rewrite !mxE; move: (z i j) (y i j) (h i j) => a b c; ring.
- by rewrite opp1 add1; apply: bounded1; rewrite opprB addrCA subrr addr0 gtr0_norm.
by rewrite opp1 add1; apply: bounded1; rewrite addrAC subrr sub0r normrN gtr0_norm.
Qed.

(* the recursion with a T that a layer above applies to the stream: T = 2 *)
Theorem A2_needs_identity_proof : A2_needs_identity R.
Proof.
exists 2%:M, (fun=> 2%:R^-1); split=> [l|z h]; first by rewrite half_gt0 half_lt1.
exists (2%:R^-1)%:M; split; last first.
  rewrite /= !subn0 mul1r; apply/eqP => /number_inj/eqP; rewrite lt_eqF //; differ 1%N 4%N.
by apply: jacobian_affine => y; rewrite /= subn0 !mul_scalar_mx; apply/matrixP => i j; rewrite !mxE; move: (z i j) (y i j) (h i j) => a b c; field.
Qed.

(* eta^2 T is small *)
Theorem P13_needs_rate_proof : P13_needs_rate R.
Proof.
move=> T e e0; pose eta := e / (e + T%:R + 1).
have T0 : 0 <= T%:R :> R by rewrite ler0n.
have d0 : 0 < e + T%:R + 1 by rewrite ltr_paddr ?ler01 // ltr_paddr.
have eta0 : 0 < eta by rewrite divr_gt0.
have eta1 : eta < 1 by rewrite ltr_pdivr_mulr // mul1r -addrA ltr_addl ltr_paddl ?ltr01.
exists eta; rewrite eta0 eta1; split=> //.
have [law _] := P13_proof R; rewrite law mul1r.
have bern t x : 0 <= x <= 1 -> 1 - (1 - x) ^+ t <= t%:R * x :> R.
  move=> /andP[x0 x1]; elim: t => [|t IH]; first by rewrite expr0 subrr mul0r.
  have y1 : (1 - x) ^+ t <= 1 by rewrite exprn_ile1 ?subr_ge0 // ler_subl_addr ler_addl.
  rewrite exprS; move: IH y1; move: ((1 - x) ^+ t) => y IH y1.
  rewrite (_ : 1 - _ = (1 - y) + x * y); last by ring.
  by rewrite -addn1 natrD mulrDl mul1r ler_add // ler_pimulr.
apply: le_trans (bern T (eta ^+ 2) _) _; first by rewrite sqr_ge0 exprn_ile1 ?ltW.
apply: le_trans (_ : (e + T%:R + 1) * eta <= _); last by rewrite mulrC divfK ?gt_eqF.
apply: ler_pmul; rewrite ?sqr_ge0 //; first by rewrite -addrA [T%:R + 1]addrC addrA ler_addr addr_ge0 ?ler01 // ltW.
by rewrite expr2 ler_pimulr // ltW.
Qed.

(* two equal layers: the derivative is 2 q *)
Theorem P13_needs_layer_proof : P13_needs_layer R.
Proof.
exists (fun X Y => inner 1%:M X + inner 1%:M Y), 1%:M, 1%:M => z; rewrite tr_scalar_mx mul1 mulr1 !mulmx1; split.
  move=> e e0; exists 1; split=> [|H _]; first exact: ltr01.
  rewrite innerDr (_ : _ - _ = 0) ?normr0 ?mulr_ge0 ?frob_ge0 ?ltW //; ring.
exists (1%:M + 1%:M); split; last by rewrite add1; apply/eqP => /number_inj/eqP; rewrite gt_eqF // ltr_addl ltr01.
move=> e e0; exists 1; split=> [|H _]; first exact: ltr01.
rewrite !mulmx1 !innerDr innerDl (_ : _ - _ = 0) ?normr0 ?mulr_ge0 ?frob_ge0 ?ltW //; ring.
Qed.

(* g_0 = -2, g_1 = 1 *)
Theorem X9_needs_aligned_proof : X9_needs_aligned R.
Proof.
exists (fun l => if l == ord_max then 1%:M else (- 2%:R)%:M), 1%:M, 0.
rewrite nrm1D normr1 expr1n subr0 mulr1 ?eqxx /= ?dot1 mulr1 ltr01 lexx; split=> //.
rewrite big_ord_recl big_ord1 /= add1 dot1; rewrite -subr_gt0 (_ : _ - _ = 1); first exact: ltr01.
by ring.
Qed.

End Fidelity.
