(* Refutations of the paper's prose (P1, P5, P6, P7, P11, P12), and descent by alignment (X9). *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear attenuation alphaedit spectrum plane.

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
move=> m n G k h z pG; split=> [t|]; first exact: attenuation.
by have /andP[] := eta_range k pG.
Qed.

(* Whatever realizes delta costs at least ||delta||^2/rho, and rho = ||k||^2/c for G = c I. *)
Theorem P5_proof : P5 R.
Proof.
move=> m n k delta k0; split=> [e e0|G pG].
  have c0 : 0 < dot k k / e + 1 by rewrite ltr_paddl ?ltr01 // divr_ge0 ?dot_ge0 // ltW.
  exists (dot k k / e + 1)%:M; split; first exact: pd_beta.
  by rewrite rho_beta ltr_pdivr_mulr // mulrDr mulr1 [e * _]mulrC divfK ?gt_eqF // ltr_addl.
split=> [|D M Dk h]; first by rewrite attenuation // scalerA mulfV ?scale1r // eta_eq0.
apply: lt_le_trans (_ : nrm delta ^+ 2 / rho G k <= _); first by rewrite ltr_pdivl_mulr // rho_gt0.
by rewrite nrm_sqr; apply: execution_cost.
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

(* A key that P kills is not written at all, and no gradient comes back. *)
Theorem P7_proof : P7 R.
Proof.
split=> [m n P beta k r Gamma e|].
  by rewrite /projected_edit /channel e trmx0 !mulmx0 scaler0.
exists (mat2 1 0 0 0), (vec2 0 1); split.
- split; first by rewrite tr_mat2.
  by apply/matrixP => i j; rewrite !mxE sum2 !mxE -!val_eqE; case: i j => -[|[|]] // ? [] [|[|]] // ?;
    rewrite /= !(mulr0, mul0r, mulr1, addr0).
- by apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE /= oner_eq0.
- by rewrite vec2_eq0 oner_eq0 andbF.
by rewrite mat2_mul !mul0r mulr0 !addr0; apply/eqP; rewrite vec2_eq0 eqxx.
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

(* A pull that both gradients share turns them against each other: one layer, gamma = 0, J - I of norm 1/2. *)
Theorem P12_proof : P12 R.
Proof.
exists (mat2 1 2%:R^-1 0 1), 1%:M, (vec2 1 0), (vec2 (-1) (- 4%:R^-1)); rewrite mul1mx; split=> //.
- move=> x; rewrite sub_id2 (vec2E x) mat2_mul !nrm2 !subrr !mul0r !add0r expr0n addr0 sqrtr_sqr normrM.
  rewrite ger0_norm ?invr_ge0 ?ler0n // ler_wpmul2l ?invr_ge0 ?ler0n // -sqrtr_sqr.
  by apply: ler_wsqrtr; rewrite ler_addr sqr_ge0.
- by move=> x; rewrite mul1mx mul1r.
- by rewrite vec2_eq0 oner_eq0.
rewrite /layer_gradient mul1mx tr_mat2 mat2_mul !mulr1 !mulr0 !addr0 !add2 dot2 subrr mul0r !add0r.
rewrite (_ : _ * _ = - (4%:R^-1 * 4%:R^-1)); last by field.
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
