(* Gradients through a closed form: L5, X8, P2, P13, T3a. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation drift batch descent.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Norms.
Variable R : rcfType.

Lemma bounded_frob m n (A : 'M[R]_(m, n)) : bounded A (frob A).
Proof.
move=> x; rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?mulr_ge0 ?frob_ge0 ?nrm_ge0 // exprMn frob_rows nrm_sqr mulr_suml.
rewrite dotE; apply: ler_sum => i _; rewrite -expr2 nrm_sqr.
rewrite (_ : (A *m x) i 0 = dot (row i A)^T x) ?cauchy //.
by rewrite dotE mxE; apply: eq_bigr => j _; rewrite !mxE.
Qed.

Lemma frob_tr m n (A : 'M[R]_(m, n)) : frob A^T = frob A.
Proof. by rewrite /frob /inner trmxK mxtrace_mulC. Qed.

Lemma frob_mul m n p (X : 'M[R]_(m, n)) (A : 'M[R]_(n, p)) : frob (X *m A) <= frob A * frob X.
Proof.
by apply: frob_mul_bounded; rewrite ?frob_ge0 // -frob_tr; apply: bounded_frob.
Qed.

Lemma inner_mul m n p (X : 'M[R]_(m, n)) (H : 'M[R]_(m, p)) (Q : 'M[R]_(n, p)) :
  inner X (H *m Q^T) = inner (X *m Q) H.
Proof. by rewrite /inner trmx_mul mulmxA mxtrace_mulC mulmxA. Qed.

(* a map that moves by a linear image of the displacement carries a gradient back *)
Lemma gradient_linear m n p q (f : 'M[R]_(m, n) -> R) (u : 'M[R]_(p, q) -> 'M[R]_(m, n)) Z
    (A : 'M[R]_(p, q) -> 'M[R]_(m, n)) (Gamma : 'M[R]_(m, n)) (B : 'M[R]_(p, q)) c :
  (forall H, u (Z + H) = u Z + A H) -> 0 <= c -> (forall H, frob (A H) <= c * frob H) ->
  (forall H, inner Gamma (A H) = inner B H) -> gradient f (u Z) Gamma -> gradient (fun Z => f (u Z)) Z B.
Proof.
move=> uA c0 cA AB g e e0; have c1 : 0 < c + 1 by rewrite ltr_paddl ?ltr01.
have [d [d0 h]] := g (e / (c + 1)) (divr_gt0 e0 c1).
exists (d / (c + 1)); split=> [|H hH]; first exact: divr_gt0.
have cH : frob (A H) <= (c + 1) * frob H.
  by apply: le_trans (cA H) _; rewrite ler_wpmul2r ?frob_ge0 // ler_addl ler01.
rewrite uA -AB; apply: le_trans (h (A H) _) _.
  by apply: le_trans cH _; rewrite mulrC -ler_pdivl_mulr.
by rewrite -mulrA ler_pmul2l // ler_pdivr_mull.
Qed.

(* two gradients differ by some D, and both errors at a small multiple of D are below half of what D changes *)
Lemma gradient_unique m n (f : 'M[R]_(m, n) -> R) X G1 G2 : gradient f X G1 -> gradient f X G2 -> G1 = G2.
Proof.
move=> g1 g2; apply/eqP; rewrite -subr_eq0 -frob_eq0; apply/negPn/negP => D0.
set D := G1 - G2 in D0 *; have Dp : 0 < frob D by rewrite lt_neqAle eq_sym D0 frob_ge0.
have e0 : 0 < frob D / 4%:R by rewrite divr_gt0 ?ltr0n.
have [d1 [d10 h1]] := g1 _ e0; have [d2 [d20 h2]] := g2 _ e0.
have m0 : 0 < Num.min d1 d2 by rewrite lt_minr d10.
pose t := Num.min d1 d2 / frob D; have t0 : 0 < t by rewrite divr_gt0.
pose H := t *: D; have fH : frob H = Num.min d1 d2 by rewrite frobZ ger0_norm ?(ltW t0) // divfK.
have l1 : frob H <= d1 by rewrite fH le_minl lexx.
have l2 : frob H <= d2 by rewrite fH le_minl lexx orbT.
have := ler_add (h1 H l1) (h2 H l2); rewrite distrC => /(le_trans (ler_norm_add _ _)).
rewrite [X in `|X| <= _](_ : _ = inner D H); last first.
  rewrite [in RHS]/D innerDl [inner (- G2) H]innerC innerNr [inner H G2]innerC.
  by move: (f _) (f _) (inner _ _) (inner _ _) => a b c g; ring.
rewrite -mulrDl innerZr -frob_sqr ger0_norm; last by apply: mulr_ge0; rewrite ?sqr_ge0 // ltW.
have -> : frob H = t * frob D by rewrite frobZ ger0_norm // ltW.
have p : 0 < t * frob D ^+ 2 by rewrite mulr_gt0 // exprn_gt0.
rewrite [X in _ <= X](_ : _ = t * frob D ^+ 2 / 2%:R); last by field.
by rewrite ler_pdivl_mulr ?ltr0n // ger_pmulr // lern1.
Qed.

End Norms.

Section Claims.
Variable R : rcfType.

Lemma proxy_joint m n p (f : 'M[R]_(m, n) -> R) W (C : 'M[R]_(m, p)) (Q : 'M[R]_(n, p)) Z Gamma :
  gradient f (W + (Z - C) *m Q^T) Gamma -> gradient (fun Z : 'M[R]_(m, p) => f (W + (Z - C) *m Q^T)) Z (Gamma *m Q).
Proof.
apply: (@gradient_linear R m n m p f (fun Z => W + (Z - C) *m Q^T) Z (fun H => H *m Q^T) Gamma _ (frob Q)).
- by move=> H; rewrite (addrAC Z) mulmxDl addrA.
- exact: frob_ge0.
- by move=> H; rewrite -(frob_tr Q); apply: frob_mul.
by move=> H; apply: inner_mul.
Qed.

(* The weights move linearly with z, along q. *)
Theorem L5_proof : L5 R.
Proof.
move=> m n f W c q z Gamma g; split; [exact: proxy_joint | exact: bounded_frob | by move=> s; apply].
Qed.

(* The same for a batch; at the tokens the edits arrive through B, which is symmetric. *)
Theorem X8_proof : X8 R.
Proof.
split=> [m n p f W C Q Z Gamma|m n p f W C Z E G K pG]; first exact: proxy_joint.
have [sM _] := pd_bheld K pG.
have sB : (retention G K)^T = retention G K by rewrite retentionE // !trmx_mul trmxK (sym_inv sM) mulmxA.
have arrives (T : 'M[R]_(m, p)) : batch_edit G K T *m K = T *m retention G K by apply: batch_law.
apply: (@gradient_linear R m p m p f (fun Z => (W + batch_edit G K (Z - C)) *m K) Z (fun H => H *m retention G K) E _
  (frob (retention G K))).
- move=> H; rewrite [Z + H - C]addrAC [LHS]mulmxDl [in RHS]mulmxDl !arrives.
  by rewrite [(Z - C + H) *m _]mulmxDl addrA.
- exact: frob_ge0.
- by move=> H; apply: frob_mul.
by move=> H; rewrite -{1}sB inner_mul.
Qed.

(* The weights see the gradient at the token along k, and k.q = eta. *)
Theorem P2_proof : P2 R.
Proof.
move=> m n G k f W e pG g; suff token : gradient (fun W => f (W *m k)) W (e *m k^T).
  split=> [|Gamma /(gradient_unique token) <-]; first by exists (e *m k^T).
  rewrite -mulmxA mul_tr_dot mul_mx_scalar; congr (_ *: _).
  by rewrite channelE // dotZr mulrC.
apply: (@gradient_linear R m 1 m n f (fun W => W *m k) W (fun H => H *m k) e _ (nrm k)) => //.
- by move=> H; rewrite mulmxDl.
- exact: nrm_ge0.
- by move=> H; rewrite -frob_cV; apply: frob_mul.
by move=> H; have := inner_mul e H k^T; rewrite trmxK.
Qed.

(* The recursion is geometric; the gradients are the square's and L5. *)
Theorem P13_proof : P13 R.
Proof.
split; last split.
- move=> a eta; elim=> [|t IH] /=; first by rewrite mulr0 expr0 subrr.
  have {IH} IH : (1 - a * eta ^+ 2) ^+ t = 1 - eta * realized a eta t by rewrite IH subKr.
  by rewrite exprS IH; ring.
- move=> eta d e e0; pose c := eta ^+ 2 / 2%:R.
  have c0 : 0 <= c by rewrite divr_ge0 ?sqr_ge0 ?ler0n.
  have c1 : 0 < c + 1 by rewrite ltr_paddl ?ltr01.
  exists (e / (c + 1)); split=> [|H]; first exact: divr_gt0.
  have fH : frob H = `|H 0 0| by rewrite /frob innerE !big_ord1 -expr2 sqrtr_sqr.
  rewrite innerE !big_ord1 !mxE fH; set x := H 0 0; set y := d 0 0 => hx.
  rewrite mulr1n [X in `|X|](_ : _ = c * x ^+ 2); last by rewrite /c; field.
  rewrite normrM normrX (ger0_norm c0) expr2 mulrA ler_wpmul2r ?normr_ge0 //.
  apply: le_trans (_ : c * (e / (c + 1)) <= _); first by rewrite ler_wpmul2l.
  rewrite mulrA ler_pdivr_mulr // mulrC ler_pmul2l // ler_addl ler01 //.
by move=> m n f W h q z Gamma; apply: proxy_joint.
Qed.

End Claims.
