(* The spectrum: T1a, T1b, T1c, P9; the cost of an edit. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation alphaedit.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Suppression.
Variable R : rcfType.

(* T1a *)
Theorem spectral_form n (U : 'M[R]_n) (mu : 'rV[R]_n) (k : 'cV[R]_n) :
  U^T *m U = 1%:M -> (forall i, mu 0 i != 0) ->
  rho (U *m diag_mx mu *m U^T) k = \sum_i ((U^T *m k) i 0) ^+ 2 / mu 0 i.
Proof.
move=> UU mu0; have UU' : U *m U^T = 1%:M by apply: mulmx1C.
pose nu : 'rV[R]_n := \row_i (mu 0 i)^-1.
have dd : diag_mx mu *m diag_mx nu = 1%:M.
  rewrite mulmx_diag; apply/matrixP => i j; rewrite !mxE.
  by case: eqP => // _; rewrite mulfV.
pose V := U *m diag_mx nu *m U^T.
have GV : (U *m diag_mx mu *m U^T) *m V = 1%:M.
  by rewrite /V !mulmxA -[_ *m U^T *m U]mulmxA UU mulmx1 -(mulmxA U) dd mulmx1.
have [uG _] := mulmx1_unit GV.
rewrite /rho; have -> : invmx (U *m diag_mx mu *m U^T) = V by rewrite -[V](mulKmx uG) GV mulmx1.
rewrite /V -!mulmxA -{1}[U]trmxK -dot_mull dotE.
by move: (U^T *m k) => a; apply: eq_bigr => i _; rewrite mul_diag_mx !mxE mulrCA -expr2 mulrC.
Qed.

(* T1b *)
Theorem suppression_bound n (a mu : 'I_n -> R) (S : pred 'I_n) (M low e : R) :
  0 < low -> (forall i, low <= mu i) -> 0 < M -> (forall i, S i -> M <= mu i) -> 0 <= e <= 1 ->
  \sum_(i | ~~ S i) a i ^+ 2 <= e * (\sum_i a i ^+ 2) ->
  (\sum_i a i ^+ 2 / mu i <= (\sum_i a i ^+ 2) * ((1 - e) / M + e / low))%R.
Proof.
move=> l0 hl M0 hM /andP[e0 e1] out.
set N := \sum_i a i ^+ 2.
have N0 : 0 <= N by apply: sumr_ge0 => i _; apply: sqr_ge0.
pose O := \sum_(i | ~~ S i) a i ^+ 2.
have eN : N = \sum_(i | S i) a i ^+ 2 + O by rewrite /N (bigID S).
have bound (P : pred 'I_n) c : 0 < c -> (forall i, P i -> c <= mu i) ->
    \sum_(i | P i) a i ^+ 2 / mu i <= (\sum_(i | P i) a i ^+ 2) / c.
  move=> c0 h; rewrite mulr_suml; apply: ler_sum => i Pi.
  have ci := h i Pi; have m0 := lt_le_trans c0 ci.
  by rewrite ler_wpmul2l ?sqr_ge0 // lef_pinv ?posrE.
have [lM|Ml] := lerP low M.
  rewrite (bigID S) /=; apply: le_trans (ler_add (bound _ _ M0 hM) (bound _ _ l0 (fun i _ => hl i))) _.
  rewrite -/O (_ : \sum_(i | S i) _ = N - O); last by rewrite eN addrK.
  rewrite -subr_ge0 [X in 0 <= X](_ : _ = (e * N - O) * (low^-1 - M^-1)).
    by rewrite mulr_ge0 ?subr_ge0 // lef_pinv ?posrE.
  by set p := low^-1; set q := M^-1; set x := N; set y := O; ring.
apply: le_trans (bound xpredT _ l0 (fun i _ => hl i)) _.
rewrite ler_wpmul2l // -subr_ge0 (_ : _ - _ = (1 - e) * (M^-1 - low^-1)).
  by rewrite mulr_ge0 ?subr_ge0 // lef_pinv ?posrE // ltW.
by set p := low^-1; set q := M^-1; ring.
Qed.

(* the least cost of what an edit realizes *)
Theorem execution_cost m n (G : 'M[R]_n) (k : 'cV[R]_n) (d : 'cV[R]_m) (D : 'M[R]_(m, n)) :
  pd G -> k != 0 -> D *m k = d -> dot d d / rho G k <= \tr (D *m G *m D^T).
Proof.
move=> pG k0 Dk; have [sG _] := pG; have uG := pd_unit pG.
have r0 : rho G k != 0 by apply: contra_neq k0; apply: rho_eq0.
pose x := invmx G *m k; pose D0 := (rho G k)^-1 *: (d *m x^T).
have xG : x^T *m G = k^T by rewrite /x trmx_mul (sym_inv sG) mulmxKV.
have xk : x^T *m k = (rho G k)%:M by rewrite mul_tr_dot dotC.
have D0G : D0 *m G = (rho G k)^-1 *: (d *m k^T) by rewrite /D0 -scalemxAl -mulmxA xG.
have D0k : D0 *m k = d by rewrite /D0 -scalemxAl -mulmxA xk mul_mx_scalar scalerA mulVf ?scale1r.
have [N -> Nk] : exists2 N, D = D0 + N & N *m k = 0.
  by exists (D - D0); rewrite ?mulmxBl ?Dk ?D0k ?subrr // addrC subrK.
have x0 : D0 *m G *m N^T = 0 by rewrite D0G -scalemxAl -mulmxA -trmx_mul Nk trmx0 mulmx0 scaler0.
have x1 : N *m G *m D0^T = 0.
  by rewrite -mulmxA -{1}sG -trmx_mul D0G linearZ /= trmx_mul trmxK -scalemxAr mulmxA Nk mul0mx scaler0.
have c0 : \tr (D0 *m G *m D0^T) = dot d d / rho G k.
  rewrite D0G -scalemxAl -mulmxA -trmx_mul D0k linearZ /= mxtrace_mulC mul_tr_dot.
  by rewrite mxtrace_scalar mulr1n mulrC.
rewrite [(_ + _)^T]linearD /= !mulmxDl !mulmxDr x0 x1 add0r addr0 linearD /= c0 ler_addl.
by apply: tr_quad_ge0; apply: pd_psd.
Qed.

Theorem execution_cost_attained m n (G : 'M[R]_n) (k : 'cV[R]_n) (d : 'cV[R]_m)
    (D := (rho G k)^-1 *: (d *m (invmx G *m k)^T)) :
  pd G -> k != 0 -> D *m k = d /\ \tr (D *m G *m D^T) = dot d d / rho G k.
Proof.
move=> pG k0; have [sG _] := pG; have uG := pd_unit pG.
have r0 : rho G k != 0 by apply: contra_neq k0; apply: rho_eq0.
have Dk : D *m k = d.
  by rewrite /D -scalemxAl -mulmxA mul_tr_dot dotC mul_mx_scalar scalerA mulVf ?scale1r.
have DG : D *m G = (rho G k)^-1 *: (d *m k^T).
  by rewrite /D -scalemxAl -mulmxA trmx_mul (sym_inv sG) mulmxKV.
split=> //; rewrite DG -scalemxAl -mulmxA -trmx_mul Dk linearZ /= mxtrace_mulC mul_tr_dot.
by rewrite mxtrace_scalar mulr1n mulrC.
Qed.

End Suppression.

Section Claims.
Variable R : rcfType.

(* Insert the inverse in the eigenbasis; the basis exists by the spectral theorem. *)
Theorem T1a_proof : T1a R.
Proof.
move=> n G pG; split; first by have [sG _] := pG; have [U [mu [? ?]]] := spectral sG; exists U, mu.
move=> U mu eU k; have mu0 := eigenvalue_pos eU pG; have [UU ->] := eU.
by apply: spectral_form => // i; rewrite gt_eqF.
Qed.

Lemma norm_coordinates n (U : 'M[R]_n) k : U^T *m U = 1%:M -> \sum_i (U^T *m k) i 0 ^+ 2 = nrm k ^+ 2.
Proof.
move=> UU; have UU' : U *m U^T = 1%:M by apply: mulmx1C.
have <- : dot (U^T *m k) (U^T *m k) = nrm k ^+ 2 by rewrite dot_mull trmxK mulmxA UU' mul1mx nrm_sqr.
by rewrite dotE; apply: eq_bigr => i _; rewrite expr2.
Qed.

(* Split the sum of T1a at S: moving weight outside of S to the smallest eigenvalue can only raise it. *)
Theorem T1b_proof : T1b R.
Proof.
move=> n G U mu k S M low e [UU ->] l0 hl M0 hM e01 out.
rewrite spectral_form // => [|i]; last by rewrite gt_eqF // (lt_le_trans l0).
rewrite -(norm_coordinates k UU); apply: (suppression_bound (S := S)) => //.
by rewrite norm_coordinates.
Qed.

Lemma eta_le n (G : 'M[R]_n) k (M : R) : pd G -> 0 < M -> rho G k <= nrm k ^+ 2 / M ->
  eta G k <= nrm k ^+ 2 / (M + nrm k ^+ 2).
Proof.
move=> pG M0 h; apply: le_trans (attenuate_le (rho_ge0 k pG) h) _.
have s0 : 0 <= nrm k ^+ 2 by apply: exprn_ge0; apply: nrm_ge0.
rewrite le_eqVlt; apply/orP; left; apply/eqP; field.
by rewrite !gt_eqF // ltr_paddr.
Qed.

(* T1b with nothing outside; the bound falls like 1/M. *)
Theorem T1c_proof : T1c R.
Proof.
split=> [n G U mu k S M eU pG M0 hM out|n k e e0]; last first.
  have s0 : 0 <= nrm k ^+ 2 by apply: exprn_ge0; apply: nrm_ge0.
  exists (nrm k ^+ 2 / e + 1); split; first by apply: ltr_paddl; rewrite ?ltr01 // divr_ge0 // ltW.
  move=> M hM; have hM' : nrm k ^+ 2 / e < M by apply: lt_le_trans hM; rewrite ltr_addl ltr01.
  have M0 : 0 < M by apply: le_lt_trans hM'; rewrite divr_ge0 // ltW.
  rewrite ler_pdivr_mulr ?ltr_paddr // mulrDr ler_paddr //; first by rewrite mulr_ge0 // ltW.
  by rewrite mulrC -ler_pdivr_mulr // ltW.
apply: eta_le => //; have mu0 := eigenvalue_pos eU pG; have [UU eG] := eU.
rewrite eG spectral_form // => [|i]; last by rewrite gt_eqF.
rewrite -(norm_coordinates k UU) mulr_suml; apply: ler_sum => i _.
case Si : (S i); last by rewrite out ?Si // expr0n !mul0r.
by rewrite ler_wpmul2l ?sqr_ge0 // lef_pinv ?posrE ?hM.
Qed.

(* An eigenvector has rho = ||k||^2/mu; a key of length sqrt mu has 1. *)
Theorem P9_proof : P9 R.
Proof.
split=> [n k|mu mu0]; last first.
  have s2 : Num.sqrt mu ^+ 2 = mu by rewrite sqr_sqrtr // ltW.
  exists mu%:M, (Num.sqrt mu)%:M; split; [exact: pd_beta | by rewrite mul_scalar_mx |].
  by rewrite rho_beta dotE big_ord1 !mxE mulr1n -expr2 s2 mulfV // gt_eqF.
have s0 : 0 <= nrm k ^+ 2 by apply: exprn_ge0; apply: nrm_ge0.
have law (G : 'M[R]_n) mu : pd G -> 0 < mu -> G *m k = mu *: k -> rho G k = nrm k ^+ 2 / mu.
  move=> pG mu0 e; rewrite /rho; have -> : invmx G *m k = mu^-1 *: k.
    apply: (canLR (mulKmx (pd_unit pG))); rewrite -scalemxAr e scalerA mulVf ?scale1r // gt_eqF //.
  by rewrite dotZr -nrm_sqr mulrC.
split=> // e e0; exists (nrm k ^+ 2 / e + 1); split; first by apply: ltr_paddl; rewrite ?ltr01 // divr_ge0 // ltW.
move=> G mu pG hM ek; have hM' : nrm k ^+ 2 / e < mu by apply: lt_le_trans hM; rewrite ltr_addl ltr01.
have M0 : 0 < mu by apply: le_lt_trans hM'; rewrite divr_ge0 // ltW.
by rewrite (law _ _ pG M0 ek) ler_pdivr_mulr // mulrC -ler_pdivr_mulr // ltW.
Qed.

End Claims.
