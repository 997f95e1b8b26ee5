(* L3, L4, J1: drift *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear attenuation.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.
Section Inverse.
Variable R : rcfType.

(* L3 *)
Section InversePerturbation.
Variables (n : nat) (X E : 'M[R]_n) (mu e : R).
Hypotheses (mu0 : 0 < mu) (e0 : 0 <= e) (small : e < mu).
Hypotheses (uX : X \in unitmx) (floor : bounded (invmx X) mu^-1) (drift : bounded E e).

Lemma solve_le (x : 'cV_n) : (mu - e) * nrm x <= nrm ((X + E) *m x).
Proof.
have h : mu * nrm x <= nrm (X *m x).
  have := floor (X *m x); rewrite mulKmx // => h.
  by rewrite -ler_pdivl_mull.
rewrite mulrBl ler_subl_addr; apply: (le_trans h).
rewrite mulmxDl; apply: le_trans (_ : _ <= nrm (X *m x + E *m x) + nrm (E *m x)) _.
  by apply: le_trans (nrmB _ _); rewrite addrK.
by rewrite ler_add2l.
Qed.

Lemma perturbed_unit : X + E \in unitmx.
Proof.
apply: inj_unit => x h; have := solve_le x.
rewrite h nrm0 pmulr_rle0 ?subr_gt0 // => x0.
by apply/eqP; rewrite -nrm_eq0 eq_le x0 nrm_ge0.
Qed.

Lemma perturbed_bounded : bounded (invmx (X + E)) (mu - e)^-1.
Proof.
move=> x; rewrite ler_pdivl_mull ?subr_gt0 //.
by have := solve_le (invmx (X + E) *m x); rewrite mulKVmx ?perturbed_unit.
Qed.

Theorem inverse_perturbation : bounded (invmx (X + E) - invmx X) (e / (mu * (mu - e))).
Proof.
move=> x; have uY := perturbed_unit; have d0 : 0 < mu - e by rewrite subr_gt0.
have -> : invmx (X + E) - invmx X = - (invmx (X + E) *m E *m invmx X).
  have -> : invmx (X + E) *m E *m invmx X = invmx (X + E) *m (X + E - X) *m invmx X.
    by rewrite [X + E - X]addrC addKr.
  by rewrite mulmxBr mulVmx // mulmxBl mul1mx mulmxK // opprB.
rewrite mulNmx nrmN -!mulmxA.
apply: le_trans (perturbed_bounded _) _.
rewrite invfM mulrA [_ * (mu - e)^-1]mulrC -!mulrA ler_wpmul2l ?invr_ge0 ?(ltW d0) //.
by apply: le_trans (drift _) _; rewrite ler_wpmul2l.
Qed.

End InversePerturbation.

(* J1: a perturbed identity *)
Theorem perturbed_identity n (E : 'M[R]_n) (e : R) : 0 <= e -> e < 1 -> bounded E e ->
  1%:M + E \in unitmx /\ bounded (invmx (1%:M + E) - 1%:M) (e / (1 - e)).
Proof.
move=> e0 e1 dE.
have fl : bounded (invmx (1%:M : 'M[R]_n)) 1^-1.
  by move=> x; rewrite invmx1 mul1mx invr1 mul1r.
have u1 : (1%:M : 'M[R]_n) \in unitmx by apply: unitmx1.
split; first exact: (perturbed_unit ltr01 e1 u1 fl dE).
have := inverse_perturbation ltr01 e0 e1 u1 fl dE.
by rewrite invmx1 mul1r.
Qed.

End Inverse.

Section Drift.
Variable R : rcfType.
Variable n : nat.
Implicit Types (G X Y S : 'M[R]_n) (k x y : 'cV[R]_n).


Lemma above_pd mu G : 0 < mu -> above mu G -> pd G.
Proof.
move=> mu0 [sG h]; split=> // x x0; apply: lt_le_trans (h x).
by rewrite mulr_gt0 ?dot_gt0.
Qed.

Lemma above_solve mu G x : 0 < mu -> above mu G -> mu * nrm x <= nrm (G *m x).
Proof.
move=> mu0 [_ h]; have [->|x0] := eqVneq x 0; first by rewrite nrm0 mulr0 nrm_ge0.
rewrite -(ler_pmul2r (_ : 0 < nrm x)) ?nrm_gt0 // -mulrA -expr2 nrm_sqr.
by apply: le_trans (h x) _; rewrite mulrC cauchy_le.
Qed.

Lemma above_inv mu G : 0 < mu -> above mu G -> bounded (invmx G) mu^-1.
Proof.
move=> mu0 aG x; rewrite ler_pdivl_mull //.
have := above_solve (invmx G *m x) mu0 aG.
by rewrite mulKVmx // pd_unit //; apply: above_pd aG.
Qed.

Lemma form_bounded S c : sym S -> 0 <= c -> (forall x, `|dot x (S *m x)| <= c * dot x x) -> bounded S c.
Proof.
move=> sS c0 h x.
have pol y : dot (S *m x) y *+ 2 <= c * (dot x x + dot y y).
  have h1 := le_trans (ler_norm _) (h (x + y)).
  have h2 : - dot (x - y) (S *m (x - y)) <= c * dot (x - y) (x - y).
    by apply: le_trans (h _); rewrite -normrN ler_norm.
  have := ler_add h1 h2; rewrite !mulmxDr !mulmxN !(dotDl, dotDr, dotNl, dotNr).
  rewrite -(sym_dot x y sS) (dotC y (S *m x)) (dotC y x) -subr_ge0 => e.
  rewrite -(ler_pmuln2r (isT : (0 < 2)%N)) -subr_ge0; move: e; congr (0 <= _).
  set a := dot x (S *m x); set b := dot (S *m x) y; set d := dot y (S *m y).
  by set p := dot x x; set q := dot y y; set r := dot x y; ring.
have [->|x0] := eqVneq x 0; first by rewrite mulmx0 nrm0 mulr0.
have [->|s0] := eqVneq (S *m x) 0; first by rewrite nrm0 mulr_ge0 ?nrm_ge0.
have nx : 0 < nrm x by rewrite nrm_gt0.
have ns : 0 < nrm (S *m x) by rewrite nrm_gt0.
have := pol ((nrm x / nrm (S *m x)) *: (S *m x)).
rewrite !dotZr dotZl -!nrm_sqr.
rewrite (_ : nrm x / _ * _ = nrm x * nrm (S *m x)); last by field; rewrite gt_eqF.
rewrite (_ : nrm x / _ * _ = nrm x ^+ 2); last by field; rewrite gt_eqF.
rewrite -mulr2n mulrnAr ler_pmuln2r // expr2 mulrA mulrC ler_pmul2r //.
Qed.

(* one side: Y <= X + e *)
Lemma rho_drift mu e X Y k : 0 < mu -> 0 <= e -> above mu X -> above mu Y -> bounded (Y - X) e ->
  rho X k - rho Y k <= e / (mu * (mu + e)) * dot k k.
Proof.
move=> mu0 e0 aX aY dE; have pX := above_pd mu0 aX; have pY := above_pd mu0 aY.
have [sX hX] := aX; have [sY _] := aY; have uX := pd_unit pX.
pose Z := X + e%:M.
have pZ : pd Z.
  apply: pdD => //; split=> [|x]; first by rewrite /sym tr_scalar_mx.
  by rewrite mul_scalar_mx dotZr mulr_ge0 ?dot_ge0.
have uZ := pd_unit pZ.
have YZ : rho Z k <= rho Y k.
  apply: rho_antitone => //; split=> [|x].
    have [sZ _] := pZ; rewrite /sym linearB /=; congr (_ - _); [exact: sZ|exact: sY].
  rewrite (_ : Z - Y = e%:M - (Y - X)); last by rewrite /Z opprB addrCA addrA.
  rewrite mulmxBl dotBr mul_scalar_mx dotZr subr_ge0; apply: le_trans (cauchy_le _ _) _.
  by rewrite -nrm_sqr expr2 mulrCA ler_wpmul2l ?nrm_ge0.
apply: le_trans (_ : _ <= rho X k - rho Z k) _; first by rewrite ler_add2l ler_opp2.
pose x := invmx Z *m k; have kx : k = X *m x + e *: x.
  by rewrite -mul_scalar_mx -mulmxDl mulKVmx.
have -> : rho X k - rho Z k = e * (dot x x + e * dot x (invmx X *m x)).
  have -> : rho Z k = dot k x by [].
  have -> : rho X k = dot k (x + e *: (invmx X *m x)).
    by rewrite /rho; congr (dot k _); rewrite [in LHS]kx mulmxDr mulKmx // -scalemxAr.
  rewrite dotDr addrAC subrr add0r dotZr {1}kx dotDl dotZl.
  by rewrite (sym_dot x _ sX) mulKVmx.
have me : 0 < mu + e by rewrite ltr_paddr.
rewrite mulrAC -mulrA ler_wpmul2l // ler_pdivl_mulr ?mulr_gt0 //.
have l1 : dot x x + e * dot x (invmx X *m x) <= (1 + e / mu) * dot x x.
  rewrite mulrDl mul1r ler_add2l -mulrA ler_wpmul2l //.
  apply: le_trans (cauchy_le _ _) _; rewrite -nrm_sqr expr2 mulrCA ler_wpmul2l ?nrm_ge0 //.
  exact: above_inv.
have l2 : (mu + e) ^+ 2 * dot x x <= dot k k.
  rewrite kx dotDl !dotDr !dotZl !dotZr (dotC (X *m x) x).
  have a1 : mu ^+ 2 * dot x x <= dot (X *m x) (X *m x).
    rewrite -!nrm_sqr -exprMn ler_pexpn2r ?nnegrE ?mulr_ge0 ?nrm_ge0 ?(ltW mu0) //.
    exact: above_solve.
  have a2 : e * (mu * dot x x) <= e * dot x (X *m x) by rewrite ler_wpmul2l.
  apply: le_trans (_ : _ <= mu ^+ 2 * dot x x + e * (mu * dot x x) + (e * (mu * dot x x) + e * (e * dot x x))) _.
    by rewrite le_eqVlt; apply/orP; left; apply/eqP; set p := dot x x; ring.
  by apply: ler_add; rewrite ?ler_add ?ler_add2r.
apply: le_trans l2; rewrite -ler_pdivl_mulr ?mulr_gt0 //; apply: le_trans l1 _.
rewrite le_eqVlt; apply/orP; left; apply/eqP; set p := dot x x; field.
by rewrite !gt_eqF.
Qed.

Theorem inverse_drift mu e X Y : 0 < mu -> 0 <= e -> above mu X -> above mu Y -> bounded (Y - X) e ->
  bounded (invmx Y - invmx X) (e / (mu * (mu + e))).
Proof.
move=> mu0 e0 aX aY dE; have me : 0 < mu + e by rewrite ltr_paddr.
have [sX _] := aX; have [sY _] := aY.
apply: form_bounded => [||x].
- by rewrite /sym linearB /= (sym_inv sX) (sym_inv sY).
- by rewrite divr_ge0 // mulr_ge0 // ltW.
rewrite mulmxBl dotBr -/(rho Y x) -/(rho X x) ler_norml; apply/andP; split.
  by rewrite ler_oppl opprB rho_drift.
by apply: rho_drift => // y; rewrite -opprB mulNmx nrmN.
Qed.

(* L4 *)
Lemma channel_quad G k : pd G -> dot (channel G k) (G *m channel G k) = rho G k / (1 + rho G k) ^+ 2.
Proof.
move=> pG; rewrite channelE // -scalemxAr dotZl dotZr mulKVmx ?pd_unit // dotC -/(rho G k).
by rewrite mulrA -invfM mulrC.
Qed.

Lemma channel_short mu G k : 0 < mu -> above mu G -> nrm (channel G k) <= (2%:R * Num.sqrt mu)^-1.
Proof.
move=> mu0 aG; have pG := above_pd mu0 aG; have [_ h] := aG.
have r0 := rho_ge0 k pG; have r1 := rho1_gt0 k pG.
have s0 : 0 < Num.sqrt mu by rewrite sqrtr_gt0.
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?nrm_ge0 ?invr_ge0 ?mulr_ge0 ?ler0n ?sqrtr_ge0 //.
rewrite nrm_sqr exprVn exprMn sqr_sqrtr ?(ltW mu0) // invfM -ler_pdivr_mulr ?invr_gt0 // invrK mulrC.
apply: le_trans (h _) _; rewrite channel_quad // ler_pdivr_mulr ?exprn_gt0 //.
rewrite -(ler_pmul2l (_ : 0 < 2%:R ^+ 2)) ?exprn_gt0 ?ltr0n // mulrA mulfV ?expf_neq0 ?pnatr_eq0 // mul1r.
rewrite -subr_ge0 [X in 0 <= X](_ : _ = (1 - rho G k) ^+ 2) ?sqr_ge0 //; ring.
Qed.

Theorem channel_drift_geometry mu e G1 G2 k : 0 < mu -> 0 <= e -> above mu G1 -> above mu G2 -> bounded (G2 - G1) e ->
  nrm (channel G1 k - channel G2 k) <= e / (2%:R * mu * Num.sqrt mu).
Proof.
move=> mu0 e0 a1 a2 dE.
have held G : above mu G -> above mu (G + k *m k^T).
  move=> [sG h]; split=> [|x]; first exact/sym_add/sym_rank1.
  by rewrite mulmxDl dotDr dot_rank1 ler_paddr ?sqr_ge0.
have u1 := pd_unit (above_pd mu0 (held _ a1)); have u2 := pd_unit (above_pd mu0 (held _ a2)).
have -> : channel G1 k - channel G2 k = invmx (G1 + k *m k^T) *m ((G2 - G1) *m channel G2 k).
  apply: (canRL (mulKmx u1)); rewrite mulmxBr [X in X - _]mulKVmx //.
  have {1}-> : k = (G2 + k *m k^T) *m channel G2 k by rewrite mulKVmx.
  by rewrite -mulmxBl opprD addrACA subrr addr0.
apply: le_trans (above_inv mu0 (held _ a1) _) _.
rewrite [e / _](_ : _ = mu^-1 * (e * (2%:R * Num.sqrt mu)^-1)); last first.
  by field; rewrite !gt_eqF ?sqrtr_gt0 ?ltr0n.
rewrite ler_wpmul2l ?invr_ge0 ?(ltW mu0) //; apply: le_trans (dE _) _.
by rewrite ler_wpmul2l // channel_short.
Qed.

Lemma cauchy_form G x y : pd G -> dot x (G *m y) ^+ 2 <= dot x (G *m x) * dot y (G *m y).
Proof.
move=> pG; have [sG hG] := pG; have [_ h] := pd_psd pG.
have [->|y0] := eqVneq y 0; first by rewrite mulmx0 !dot0r expr0n mulr0.
have yy := hG _ y0.
have := h (dot y (G *m y) *: x - dot x (G *m y) *: y).
rewrite mulmxBr -!scalemxAr dotBl !dotBr !dotZl !dotZr -(sym_dot y x sG) (dotC (G *m y) x) => e.
rewrite -subr_ge0 -(pmulr_rge0 _ yy); move: e; congr (0 <= _).
by set a := dot x (G *m x); set b := dot x (G *m y); set c := dot y _; ring.
Qed.

Lemma shrink_contracts (p t c : R) : 0 <= p -> 0 <= t -> c ^+ 2 <= p * t ->
  p / (1 + p) ^+ 2 - c / ((1 + p) * (1 + t)) *+ 2 + t / (1 + t) ^+ 2 <= p - c *+ 2 + t.
Proof.
move=> p0 t0 cpt; set a := Num.sqrt p; set b := Num.sqrt t.
have a0 : 0 <= a by apply: sqrtr_ge0.
have b0 : 0 <= b by apply: sqrtr_ge0.
have ep : p = a ^+ 2 by rewrite sqr_sqrtr.
have et : t = b ^+ 2 by rewrite sqr_sqrtr.
have cab : c <= a * b.
  apply: le_trans (ler_norm _) _.
  rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?normr_ge0 ?mulr_ge0 // real_normK ?num_real //.
  by rewrite exprMn -ep -et.
clearbody a b; rewrite {}ep {}et in p0 t0 cpt *.
have A0 : 0 < 1 + a ^+ 2 by rewrite ltr_paddr ?sqr_ge0.
have B0 : 0 < 1 + b ^+ 2 by rewrite ltr_paddr ?sqr_ge0.
have AB : 0 < (1 + a ^+ 2) * (1 + b ^+ 2) by rewrite mulr_gt0.
rewrite -subr_ge0 [X in 0 <= X](_ : _ =
  (a * b - c) * (1 - ((1 + a ^+ 2) * (1 + b ^+ 2))^-1) *+ 2
  + (a - b) ^+ 2 * (1 - ((1 - a * b) / ((1 + a ^+ 2) * (1 + b ^+ 2))) ^+ 2)); last first.
  by field; rewrite !gt_eqF.
have ab0 : 0 <= a * b by rewrite mulr_ge0.
have big : 1 + a * b <= (1 + a ^+ 2) * (1 + b ^+ 2).
  rewrite -subr_ge0 [X in 0 <= X](_ : _ = (a - b) ^+ 2 + a * b + (a * b) ^+ 2); last by ring.
  by rewrite !addr_ge0 ?sqr_ge0.
have one : 1 <= (1 + a ^+ 2) * (1 + b ^+ 2) by rewrite (le_trans _ big) // ler_addl.
apply: addr_ge0.
  by rewrite mulrn_wge0 // mulr_ge0 ?subr_ge0 // invf_le1.
rewrite mulr_ge0 ?sqr_ge0 // subr_ge0 -real_normK ?num_real // expr_le1 ?normr_ge0 //.
rewrite normrM normfV (gtr0_norm AB) ler_pdivr_mulr // mul1r; apply: le_trans big.
by apply: le_trans (ler_norm_sub _ _) _; rewrite normr1 ger0_norm.
Qed.

Theorem channel_drift_key mu G k1 k2 : 0 < mu -> above mu G ->
  nrm (channel G k1 - channel G k2) <= nrm (k1 - k2) / mu.
Proof.
move=> mu0 aG; have pG := above_pd mu0 aG; have pI := pd_inv pG; have [sI _] := pI.
have [sG hG] := aG; have uG := pd_unit pG.
have r1 := rho1_gt0 k1 pG; have r2 := rho1_gt0 k2 pG.
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?nrm_ge0 ?divr_ge0 ?nrm_ge0 ?(ltW mu0) //.
have up : mu * nrm (channel G k1 - channel G k2) ^+ 2 <= mu^-1 * nrm (k1 - k2) ^+ 2.
  rewrite !nrm_sqr; apply: le_trans (hG _) _.
  apply: le_trans (_ : _ <= dot (k1 - k2) (invmx G *m (k1 - k2))) _; last first.
    apply: le_trans (cauchy_le _ _) _; rewrite -nrm_sqr expr2 mulrCA ler_wpmul2l ?nrm_ge0 //.
    exact: above_inv.
  pose c := dot k1 (invmx G *m k2).
  have c2 : dot k2 (invmx G *m k1) = c by rewrite -(sym_dot k2 k1 sI) dotC.
  have := shrink_contracts (rho_ge0 k1 pG) (rho_ge0 k2 pG) (cauchy_form k1 k2 pI).
  rewrite -/c !channelE // mulmxBr -!scalemxAr !mulKVmx // mulmxBr.
  rewrite !(dotBl, dotBr, dotZl, dotZr) !(dotC (invmx G *m _)) -/(rho G k1) -/(rho G k2) -/c c2.
  rewrite (_ : rho G k1 / _ - _ + _ = (1 + rho G k1)^-1 * ((1 + rho G k1)^-1 * rho G k1) - (1 + rho G k1)^-1 * ((1 + rho G k2)^-1 * c) - ((1 + rho G k2)^-1 * ((1 + rho G k1)^-1 * c) - (1 + rho G k2)^-1 * ((1 + rho G k2)^-1 * rho G k2))); last first.
    by set p := rho G k1; set t := rho G k2; field; rewrite !gt_eqF.
  move=> e; apply: le_trans e _; rewrite le_eqVlt; apply/orP; left; apply/eqP.
  by set p := rho G k1; set t := rho G k2; ring.
rewrite -ler_pdivl_mull // mulrA -expr2 in up.
by apply: le_trans up _; rewrite exprMn exprVn mulrC.
Qed.

(* L4 *)
Theorem channel_drift mu e G1 G2 k1 k2 ek B :
  0 < mu -> 0 <= e -> above mu G1 -> above mu G2 -> bounded (G2 - G1) e ->
  nrm (k1 - k2) <= ek -> nrm k2 <= B ->
  nrm (channel G1 k1 - channel G2 k2) <=
  ek / mu + Num.min (e / (2%:R * mu * Num.sqrt mu)) (B * e / (mu * (mu + e))).
Proof.
move=> mu0 e0 a1 a2 dE dk kB.
rewrite -[channel G1 k1](subrK (channel G1 k2)) -addrA; apply: le_trans (nrmD _ _) _.
apply: ler_add.
  by apply: le_trans (channel_drift_key _ _ mu0 a1) _; rewrite ler_pmul2r ?invr_gt0.
rewrite le_minr (channel_drift_geometry _ mu0 e0 a1 a2 dE) /=.
have held G : above mu G -> above mu (G + k2 *m k2^T).
  move=> [sG h]; split=> [|x]; first exact/sym_add/sym_rank1.
  by rewrite mulmxDl dotDr dot_rank1 ler_paddr ?sqr_ge0.
rewrite /channel -mulmxBl -nrmN -mulNmx opprB.
have dM : bounded (G2 + k2 *m k2^T - (G1 + k2 *m k2^T)) e.
  by rewrite opprD addrACA subrr addr0.
apply: le_trans (inverse_drift mu0 e0 (held _ a1) (held _ a2) dM k2) _.
by rewrite -mulrA mulrC ler_wpmul2r // divr_ge0 // mulr_ge0 ?addr_ge0 // ltW.
Qed.

End Drift.

Section Claims.
Variable R : rcfType.

(* The difference of the inverses is a product; where both are above mu it is a form between two ordered matrices,
   and multiples of the identity attain the bound. *)
Theorem L3_proof : L3 R.
Proof.
split=> [n X E mu e aX e0 small dE|n X E mu e mu0 aX aY e0 dE|n mu e mu0 e0].
- have mu0 : 0 < mu by apply: le_lt_trans small.
  have uX := pd_unit (above_pd mu0 aX); have fl := above_inv mu0 aX.
  split; first exact: (perturbed_unit mu0 small uX fl dE).
  exact: (inverse_perturbation mu0 e0 small uX fl dE).
- by apply: inverse_drift => //; rewrite addrAC subrr add0r.
have up c : mu <= c -> above mu (c%:M : 'M[R]_n.+1).
  by move=> h; split=> [|x]; rewrite ?/sym ?tr_scalar_mx // mul_scalar_mx dotZr ler_wpmul2r ?dot_ge0.
exists mu%:M, e%:M; rewrite -raddfD /=; split; [exact: up | by apply: up; rewrite ler_addl | |].
  by move=> x; rewrite mul_scalar_mx nrmZ ger0_norm.
move=> c; rewrite !invmx_scalar -raddfB => /scalar_bounded; apply: le_trans.
have p : 0 < mu + e by rewrite ltr_paddr.
rewrite distrC; apply: le_trans (ler_norm _); rewrite le_eqVlt; apply/orP; left; apply/eqP.
by field; rewrite !gt_eqF.
Qed.

(* First move the key in one geometry, then the geometry under one key. *)
Theorem L4_proof : L4 R.
Proof. by move=> n G1 G2 k1 k2 mu ek eC B *; apply: channel_drift. Qed.

(* r is the inverse, hence its own derivative; then L3 at the identity. *)
Theorem J1_proof : J1 R.
Proof.
move=> n E e e0 e1 dE; have [u b] := perturbed_identity e0 e1 dE; split=> // r h z d d0.
exists 1; split=> [|x _]; first exact: ltr01.
have s y : r y = invmx (1%:M + E) *m y by rewrite -{2}(h y) mulKmx.
by rewrite !s mulmxDr [X in X - _]addrC addrK subrr nrm0 mulr_ge0 ?nrm_ge0 // ltW.
Qed.

End Claims.
