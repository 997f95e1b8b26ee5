(* One edit: the law of attenuation (T1) and its monotonicity (T1d). *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section OneKey.
Variable R : rcfType.
Variables (m n : nat).
Implicit Types (G : 'M[R]_n) (k : 'cV[R]_n) (r : 'cV[R]_m) (D : 'M[R]_(m, n)).


Lemma pd_held G k : pd G -> pd (G + k *m k^T).
Proof. by move=> pG; apply: pdD => //; apply: psd_gram. Qed.

Lemma rho_ge0 G k : pd G -> 0 <= rho G k.
Proof. by move=> /pd_inv/pd_psd[_]; apply. Qed.

Lemma rho_eq0 G k : pd G -> rho G k = 0 -> k = 0.
Proof. by move=> /pd_inv pG; apply: pd_eq0. Qed.

Lemma rho_gt0 G k : pd G -> k != 0 -> 0 < rho G k.
Proof. by move=> pG k0; rewrite lt_neqAle rho_ge0 // andbT eq_sym; apply: contra_neq k0; apply: rho_eq0. Qed.

Lemma rho1_gt0 G k : pd G -> 0 < 1 + rho G k.
Proof. by move=> pG; rewrite ltr_paddr ?ltr01 ?rho_ge0. Qed.

(* (b) Sherman-Morrison *)
Theorem channelE G k : pd G -> channel G k = (1 + rho G k)^-1 *: (invmx G *m k).
Proof.
move=> pG; have uG := pd_unit pG; have uM := pd_unit (pd_held k pG).
have h0 : 1 + rho G k != 0 by rewrite gt_eqF ?rho1_gt0.
apply: (canLR (mulKmx uM)).
rewrite -scalemxAr mulmxDl mulKVmx // -mulmxA mul_tr_dot -/(rho G k).
have := scalerDl k 1 (rho G k); rewrite scale1r mul_mx_scalar => <-.
by rewrite scalerA mulVf // scale1r.
Qed.

(* (c) the loss is a square about the edit *)
Lemma edit_held G k r : pd G -> edit G k r *m (G + k *m k^T) = r *m k^T.
Proof.
move=> pG; have [sM _] := pd_held k pG; have uM := pd_unit (pd_held k pG).
by rewrite /edit /channel trmx_mul trmx_inv sM -!mulmxA mulVmx // mulmx1.
Qed.

Lemma lossE G k r D : loss G k r D =
  \tr (D *m (G + k *m k^T) *m D^T) - \tr (D *m k *m r^T) *+ 2 + dot r r.
Proof.
have dt (x y : 'cV[R]_m) : dot x y = \tr (y *m x^T).
  by rewrite mxtrace_mulC mul_tr_dot mxtrace_scalar mulr1n.
rewrite /loss /cost !dotBl !dotBr (dotC r) !dt mulmxDr mulmxDl linearD /= trmx_mul !mulmxA.
have -> : \tr (r *m k^T *m D^T) = \tr (D *m k *m r^T).
  by rewrite -[LHS]mxtrace_tr !trmx_mul !trmxK mulmxA.
set a := \tr (D *m k *m r^T); set b := \tr (D *m k *m k^T *m D^T).
set c := \tr (r *m r^T); set d := \tr (D *m G *m D^T); ring.
Qed.

Theorem loss_square G k r D : pd G ->
  loss G k r D - loss G k r (edit G k r) =
  \tr ((D - edit G k r) *m (G + k *m k^T) *m (D - edit G k r)^T).
Proof.
move=> pG; rewrite !lossE; set M := G + _; set S := edit G k r.
have [sM _] : pd M by apply: pd_held.
have SM : S *m M = r *m k^T by apply: edit_held.
have tk E : \tr (r *m k^T *m E^T) = \tr (E *m k *m r^T).
  by rewrite -[LHS]mxtrace_tr !trmx_mul !trmxK mulmxA.
rewrite linearB /= !mulmxBl !mulmxBr !linearB /= SM !tk.
have -> : D *m M *m S^T = D *m k *m r^T.
  by rewrite -mulmxA -{1}sM -trmx_mul SM trmx_mul trmxK mulmxA.
set a := \tr (D *m k *m r^T); set b := \tr (D *m M *m D^T).
set c := \tr (S *m k *m r^T); set d := dot r r; ring.
Qed.

Theorem edit_minimizes G k r D : pd G -> loss G k r (edit G k r) <= loss G k r D.
Proof.
move=> pG; rewrite -subr_ge0 loss_square // tr_quad_ge0 //.
exact/pd_psd/pd_held.
Qed.

Theorem edit_unique G k r D : pd G -> loss G k r D <= loss G k r (edit G k r) -> D = edit G k r.
Proof.
move=> pG h; apply/eqP; rewrite -subr_eq0; apply/eqP.
apply: (tr_quad_eq0 (pd_held k pG)); rewrite -loss_square //.
by apply/eqP; rewrite subr_eq0 eq_le h edit_minimizes.
Qed.

(* (d) attenuation *)
Theorem attenuation G k r : pd G -> edit G k r *m k = eta G k *: r.
Proof.
move=> pG; rewrite /edit channelE // linearZ /= -scalemxAr -scalemxAl -mulmxA.
have [sG _] := pG; rewrite trmx_mul (sym_inv sG) -mulmxA mul_tr_dot.
by rewrite mul_mx_scalar scalerA mulrC.
Qed.

(* (e) the range of eta *)
Theorem eta_range G k : pd G -> 0 <= eta G k < 1.
Proof.
move=> pG; rewrite /eta ltr_pdivr_mulr ?rho1_gt0 // mul1r ltr_addr ltr01 andbT.
by rewrite divr_ge0 ?rho_ge0 // ltW ?rho1_gt0.
Qed.

Theorem eta_eq0 G k : pd G -> (eta G k == 0) = (k == 0).
Proof.
move=> pG; rewrite /eta mulf_eq0 invr_eq0 [X in _ || X]gt_eqF ?rho1_gt0 // orbF.
apply/eqP/eqP => [|->]; first exact: rho_eq0.
by rewrite /rho dot0l.
Qed.

(* T1d *)
Lemma rho_variational G k x : pd G -> dot x k *+ 2 - dot x (G *m x) <= rho G k.
Proof.
move=> pG; have uG := pd_unit pG; have [sG _] := pG; have [_ h] := pd_psd pG.
have := h (x - invmx G *m k).
rewrite mulmxBr mulKVmx // dotBl !dotBr -(sym_dot (invmx G *m k) x sG) mulKVmx //.
rewrite (dotC k) [dot (invmx G *m k) k]dotC -/(rho G k) => e.
rewrite -subr_ge0; move: e; congr (0 <= _); ring.
Qed.

Theorem rho_antitone G1 G2 k : pd G1 -> pd G2 -> psd (G2 - G1) -> rho G2 k <= rho G1 k.
Proof.
move=> p1 p2 [_ h]; have u2 := pd_unit p2.
apply: le_trans (rho_variational k (invmx G2 *m k) p1).
have := h (invmx G2 *m k).
rewrite mulmxBl dotBr mulKVmx // !(dotC _ k) -/(rho G2 k) subr_ge0 => e.
by rewrite mulr2n -addrA ler_addl subr_ge0.
Qed.

Lemma attenuate_le (a b : R) : 0 <= a -> a <= b -> a / (1 + a) <= b / (1 + b).
Proof.
move=> a0 ab; have a1 : 0 < 1 + a by rewrite ltr_paddr ?ltr01.
have b1 : 0 < 1 + b by rewrite ltr_paddr ?ltr01 ?(le_trans a0).
rewrite ler_pdivr_mulr // mulrAC ler_pdivl_mulr // !mulrDr !mulr1 (mulrC b).
by rewrite ler_add2r.
Qed.

Theorem eta_antitone G1 G2 k : pd G1 -> pd G2 -> psd (G2 - G1) -> eta G2 k <= eta G1 k.
Proof. by move=> p1 p2 h; apply: attenuate_le; rewrite ?rho_ge0 ?rho_antitone. Qed.

Lemma pdZ G c : 0 < c -> pd G -> pd (c *: G).
Proof.
move=> c0 [sG pG]; split=> [|x /pG]; first by rewrite /sym linearZ /= sG.
by rewrite -scalemxAl dotZr; apply: mulr_gt0.
Qed.

Theorem eta_scale G k c : 0 < c -> pd G -> eta (c *: G) k = rho G k / (c + rho G k).
Proof.
move=> c0 pG; have uG := pd_unit pG.
have cu : c != 0 by rewrite gt_eqF.
have e : rho (c *: G) k = rho G k / c.
  rewrite /rho; have -> : invmx (c *: G) = c^-1 *: invmx G.
    by rewrite invmxZ // unitmxZ // unitfE.
  by rewrite -scalemxAl dotZr mulrC.
have rc : c + rho G k != 0 by rewrite gt_eqF // ltr_paddr ?rho_ge0.
rewrite /eta e -[X in X + _](mulfV cu) -mulrDl invfM invrK mulrACA mulVf //.
by rewrite mulr1.
Qed.

Theorem eta_strict G k c d : 0 < c -> c < d -> pd G -> k != 0 -> eta (d *: G) k < eta (c *: G) k.
Proof.
move=> c0 cd pG k0; have d0 := lt_trans c0 cd; rewrite !eta_scale //.
have r0 : 0 < rho G k.
  rewrite lt_neqAle rho_ge0 // andbT eq_sym.
  by apply: contra_neq k0 => /rho_eq0 ->.
by rewrite ltr_pmul2l // ltf_pinv ?posrE ?addr_gt0 // ltr_add2r.
Qed.

End OneKey.

Section Claims.
Variable R : rcfType.

(* the law alone needs two inverses, and neither symmetry nor definiteness *)
Theorem law_without_definiteness m n (G : 'M[R]_n) (k : 'cV[R]_n) (r : 'cV[R]_m) :
  G \in unitmx -> 1 + rho G k != 0 -> G + k *m k^T \in unitmx /\ edit G k r *m k = eta G k *: r.
Proof.
move=> uG h0; have uM : G + k *m k^T \in unitmx.
  apply: inj_unit => x; rewrite mulmxDl -mulmxA mul_tr_dot mul_mx_scalar => e.
  have eG : G *m x = - (dot k x *: k) by apply/eqP; rewrite -addr_eq0 e.
  have ex : x = - (dot k x *: (invmx G *m k)) by rewrite -[LHS](mulKmx uG) eG mulmxN scalemxAr.
  have : dot k x * (1 + rho G k) = 0.
    by rewrite mulrDr mulr1 {1}ex dotNr dotZr addNr.
  by move/eqP; rewrite mulf_eq0 (negbTE h0) orbF => /eqP d0; rewrite ex d0 scale0r oppr0.
have c : channel G k = (1 + rho G k)^-1 *: (invmx G *m k).
  apply: (canLR (mulKmx uM)); rewrite -scalemxAr mulmxDl mulKVmx // -mulmxA mul_tr_dot -/(rho G k).
  have := scalerDl k 1 (rho G k); rewrite scale1r mul_mx_scalar => <-.
  by rewrite scalerA mulVf // scale1r.
split=> //; rewrite /edit c linearZ /= -scalemxAr -scalemxAl -mulmxA mul_tr_dot dotC.
by rewrite mul_mx_scalar scalerA mulrC.
Qed.

(* The loss is a square about the edit, and Sherman and Morrison give what the edit does to the key. *)
Theorem T1_proof : T1 R.
Proof.
move=> m n G k r pG; split.
- exact/pd_unit/pd_held.
- by move=> D; apply: edit_minimizes.
- by move=> D; apply: edit_unique.
exact: attenuation.
Qed.

Lemma loewner_psd n (A B : 'M[R]_n) : sym A -> sym B -> loewner A B -> psd (B - A).
Proof.
move=> sA sB h; split=> [|x]; first by rewrite /sym linearB /= sA sB.
by rewrite mulmxBl dotBr subr_ge0 h.
Qed.

(* rho is the largest 2 x.k - x.Gx, which falls as G grows; scaling divides it. *)
Theorem T1d_proof : T1d R.
Proof.
move=> n G1 G2 k p1 p2; split.
- by move=> h; apply: eta_antitone => //; case: p1 p2 => s1 _ [s2 _]; apply: loewner_psd.
- by move=> k0 c d c0 cd; apply: eta_strict.
- exact: eta_range.
exact: eta_eq0.
Qed.

End Claims.

Section History.
Variable R : rcfType.

(* keys added to the geometry leave rho alone only where k is G^-1-orthogonal to all of them *)
Lemma rho_history n p (G : 'M[R]_n) (L : 'M[R]_(n, p)) k : pd G ->
  rho (G + L *m L^T) k = rho G k <-> L^T *m (invmx G *m k) = 0.
Proof.
move=> pG; have uG := pd_unit pG; have [sG _] := pG.
have pH : pd (G + L *m L^T) by apply: pdD => //; apply: psd_gram.
have uH := pd_unit pH; split; last first.
  move=> e; rewrite /rho; congr dot; apply: (canLR (mulKmx uH)).
  by rewrite mulmxDl mulKVmx // -mulmxA e mulmx0 addr0.
pose x := invmx (G + L *m L^T) *m k; pose y := L^T *m x.
have kx : k = G *m x + L *m y by rewrite /y mulmxA -mulmxDl mulKVmx.
have ik : invmx G *m k = x + invmx G *m (L *m y) by rewrite {1}kx mulmxDr mulKmx.
have h : rho G k = rho (G + L *m L^T) k + (dot y y + dot (L *m y) (invmx G *m (L *m y))).
  have -> : rho (G + L *m L^T) k = dot x k by rewrite dotC.
  rewrite /rho ik dotDr (dotC k x); congr (_ + _).
  rewrite {1}kx dotDl; congr (_ + _).
  by rewrite (sym_dot x _ sG) mulKVmx // dotC dot_mull.
move=> e; have : dot y y + dot (L *m y) (invmx G *m (L *m y)) = 0.
  by apply: (addrI (rho (G + L *m L^T) k)); rewrite -h addr0.
move/eqP; rewrite paddr_eq0 ?dot_ge0 //; last by have [_] := pd_psd (pd_inv pG); apply.
rewrite dot_eq0 => /andP[/eqP y0 _].
by rewrite ik y0 mulmx0 mulmx0 addr0 -/y.
Qed.

Lemma eta_inj n (G H : 'M[R]_n) k : pd G -> pd H -> eta G k = eta H k -> rho G k = rho H k.
Proof.
move=> pG pH e; have a : 1 + rho G k != 0 by rewrite gt_eqF // rho1_gt0.
have b : 1 + rho H k != 0 by rewrite gt_eqF // rho1_gt0.
move: e; rewrite /eta => /eqP; rewrite eqr_div // !mulrDr !mulr1 [rho H k * _]mulrC => /eqP.
by move/addIr.
Qed.

End History.
