(* Refutations of the paper's prose (P1, P5, P6, P7, P11, P12), and descent by alignment (X9). *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear attenuation alphaedit plane.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

(* The share that arrives does not depend on what is asked for. *)
Theorem P1_proof : P1 R.
Proof.
move=> m n G k h z pG t s zh; rewrite attenuation // => /eqP.
rewrite -subr_eq0 -scalerBl scaler_eq0 [X in _ || X]subr_eq0 (negbTE zh) orbF subr_eq0 => /eqP -> //.
Qed.

(* In one dimension the cost is the squared length of the edit times G. *)
Theorem P5_proof : P5 R.
Proof.
move=> m delta M d0; pose N := nrm delta ^+ 2.
have N0 : 0 < N by rewrite exprn_gt0 ?nrm_gt0.
pose g := `|M| / N + 1; have g0 : 0 < g by rewrite ltr_paddl ?ltr01 // divr_ge0 ?normr_ge0 // ltW.
pose k : 'cV[R]_1 := 1%:M; have pG : pd (g%:M : 'M[R]_1) by apply: pd_beta.
have k0 : k != 0 by apply: oner_neq0.
exists g%:M, k; split=> //.
- by rewrite /nrm dotE big_ord1 !mxE mulr1 sqrtr1.
- by rewrite attenuation // scalerA mulfV ?scale1r // eta_eq0.
move=> D; rewrite /k mulmx1 => ->.
rewrite /cost mul_mx_scalar -scalemxAl linearZ /= mxtrace_mulC mul_tr_dot mxtrace_scalar mulr1n -nrm_sqr -/N.
by rewrite mulrDl divfK ?gt_eqF // mul1r; apply: le_lt_trans (ler_norm _) _; rewrite ltr_addl.
Qed.

(* The shape of an edit is r q^T, and q does not move. *)
Theorem P6_proof : P6 R.
Proof.
move=> m n G k h z t zh D q.
have eD : D = (z t - h) *m q^T by [].
have c : cost G D = nrm (z t - h) ^+ 2 * dot q (G *m q).
  rewrite /cost {}eD; move: q (z t - h) => q r; rewrite trmx_mul trmxK -!mulmxA mxtrace_mulC !mulmxA.
  rewrite -[q^T *m G *m q]mulmxA mul_tr_dot mul_scalar_mx -scalemxAl linearZ /= mul_tr_dot.
  by rewrite mxtrace_scalar mulr1n -nrm_sqr mulrC.
have n0 : nrm (z t - h) ^+ 2 != 0 by rewrite expf_neq0 // nrm_eq0 subr_eq0.
by rewrite c eD frob_rank1 exprMn invfM mulrACA mulfV // mul1r.
Qed.

(* A key outside of the range of P is not written at all, and no gradient comes back. *)
Theorem P7_proof : P7 R.
Proof.
exists 2%N, (mat2 1 0 0 0), (vec2 0 1); split.
- split; first by rewrite tr_mat2.
  by apply/matrixP => i j; rewrite !mxE sum2 !mxE -!val_eqE; case: i j => -[|[|]] // ? [] [|[|]] // ?;
    rewrite /= !(mulr0, mul0r, mulr1, addr0).
- by apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE /= oner_eq0.
- by rewrite vec2_eq0 oner_eq0 andbF.
move=> m beta r Gamma b0.
have -> : mat2 1 0 0 0 *m vec2 0 1 = 0 :> 'cV[R]_2.
  by rewrite mat2_mul !mul0r mulr0 !addr0; apply/eqP; rewrite vec2_eq0 eqxx.
have e : mat2 1 0 0 0 *m vec2 0 1 = 0 :> 'cV[R]_2.
  by rewrite mat2_mul !mul0r mulr0 !addr0; apply/eqP; rewrite vec2_eq0 eqxx.
by rewrite /projected_edit /channel e trmx0 !mulmx0 scaler0 mul0mx.
Qed.

(* Adam's first step is nearly the sign of the proxy: g = (1, -2), proxy = (10, 1). *)
Theorem P11_proof : P11 R.
Proof.
exists (vec2 1 (- 2%:R)), (vec2 10%:R 1); split.
- rewrite opp2 add2 !nrm2 ltr_sqrt; last first.
    by rewrite ltr_paddl ?sqr_ge0 // exprn_gt0 ?ltr01.
  rewrite -subr_gt0 [X in 0 < X](_ : _ = 11%:R); last by ring.
  by rewrite ltr0n.
- by rewrite dot2 (_ : _ + _ = 8%:R); [rewrite ltr0n | ring].
move=> a b1 b2 eps a0 h1 h2 /andP[e0 e1].
have step (g : 'cV[R]_2) : adam_step a b1 b2 eps g = vec2 (- (a * g 0 0 / (`|g 0 0| + eps))) (- (a * g 1 0 / (`|g 1 0| + eps))).
  rewrite [LHS]vec2E !mxE; have u1 : 1 - b1 != 0 by rewrite subr_eq0 gt_eqF.
  have u2 : 1 - b2 != 0 by rewrite subr_eq0 gt_eqF.
  by rewrite ![(1 - b1) * _]mulrC !mulfK // ![(1 - b2) * _]mulrC !mulfK // !sqrtr_sqr.
rewrite step dot2 !mxE /= normr1 ger0_norm ?ler0n //.
have p1 : 0 < 1 + eps by rewrite ltr_paddr ?ltr01.
have p2 : 0 < 10%:R + eps by rewrite ltr_paddr // ltr0n.
rewrite (_ : _ + _ = a * (10%:R - 8%:R * eps) / ((1 + eps) * (10%:R + eps))); last first.
  by field; rewrite !gt_eqF.
rewrite divr_gt0 ?mulr_gt0 // subr_gt0; apply: le_lt_trans (_ : 8%:R * 1 < _).
  by rewrite ler_wpmul2l ?ler0n // (le_trans e1) // invf_le1 ?ltr0n // ler1n.
by rewrite mulr1 ltr_nat.
Qed.

(* A pull that both gradients share turns them against each other. *)
Theorem P12_proof : P12 R.
Proof.
exists (vec2 2%:R 1), (vec2 2%:R 0), (vec2 (- 2%:R) (- 2%:R^-1)); split.
- by rewrite vec2_eq0 pnatr_eq0.
- rewrite opp2 add2 !nrm2 subr0 subrr expr0n add0r expr1n addr0 sqrtr1 sqrtr_sqr ger0_norm ?ler0n //.
  by rewrite mulVf ?pnatr_eq0.
rewrite !add2 dot2 subrr mul0r !add0r (_ : _ * _ = - (2%:R^-1 * 2%:R^-1)); last by field.
by rewrite oppr_lt0 mulr_gt0 // invr_gt0 ltr0n.
Qed.

(* A sum of products that are not negative, one of which is positive. *)
Theorem X9_proof : X9 R.
Proof.
move=> L d g proxy eps h p0 last.
have -> : dot (\sum_l g l) proxy = \sum_l dot (g l) proxy.
  elim/big_rec2: _ => [|i y v _ <-]; first by rewrite dot0l.
  by rewrite dotDl.
rewrite (bigD1 ord_max) //= ltr_paddr ?(lt_le_trans p0) //.
by apply: sumr_ge0.
Qed.

End Claims.
