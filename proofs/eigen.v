(* Eigenbases of symmetric matrices, and what the largest and the smallest eigenvalue bound. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Basis.
Variable R : rcfType.
Variables (n : nat) (A U : 'M[R]_n) (mu : 'rV[R]_n).
Hypothesis eA : eigenbasis A U mu.

Lemma basis_unitr : U *m U^T = 1%:M.
Proof. by case: eA => h _; apply: mulmx1C. Qed.

Lemma basis_add c : c%:M + A = U *m diag_mx (\row_i (c + mu 0 i)) *m U^T.
Proof.
have [UU {1}->] := eA; rewrite -[X in X + _]mulmx1 -basis_unitr mulmxA mul_scalar_mx -[c *: U]mul_mx_scalar -mulmxDl -mulmxDr.
congr (_ *m _ *m _); apply/matrixP => i j; rewrite !mxE.
by case: eqP => //=; rewrite ?mulr0n ?addr0 // => _; rewrite !mulr1n.
Qed.

Lemma basis_inv : (forall i, mu 0 i != 0) -> A *m (U *m diag_mx (\row_i (mu 0 i)^-1) *m U^T) = 1%:M.
Proof.
move=> h; have [UU {1}->] := eA.
rewrite !mulmxA -[_ *m U^T *m U]mulmxA UU mulmx1 -(mulmxA U) mulmx_diag.
rewrite (_ : diag_mx _ = 1%:M) ?mulmx1 ?basis_unitr //.
by apply/matrixP => i j; rewrite !mxE; case: eqP => // _; rewrite mulfV.
Qed.

Lemma basis_quad x : dot x (A *m x) = \sum_i mu 0 i * (U^T *m x) i 0 ^+ 2.
Proof.
have [UU {1}->] := eA; rewrite -!mulmxA -{1}[U]trmxK -dot_mull dotE.
move: (U^T *m x) => a; apply: eq_bigr => i _; rewrite mul_diag_mx !mxE mulrCA expr2 //.
Qed.

Lemma basis_norm x : dot x x = \sum_i (U^T *m x) i 0 ^+ 2.
Proof.
have -> : dot x x = dot (U^T *m x) (U^T *m x) by rewrite dot_mull trmxK mulmxA basis_unitr mul1mx.
by rewrite dotE; apply: eq_bigr => i _; rewrite expr2.
Qed.

Lemma basis_col i : A *m col i U = mu 0 i *: col i U /\ dot (col i U) (col i U) = 1.
Proof.
have [UU {1}->] := eA; split; last first.
  have := congr1 (fun M : 'M[R]_n => M i i) UU; rewrite !mxE eqxx mulr1n => <-.
  by rewrite dotE; apply: eq_bigr => j _; rewrite !mxE.
rewrite colE -!mulmxA (mulmxA U^T) UU mul1mx scalemxAr; congr (_ *m _).
by apply/colP => j; rewrite mul_diag_mx !mxE; case: eqP => [->|]; rewrite ?mulr0 ?andbT ?mulr1.
Qed.

Lemma basis_eigenvalue i : eigenvalue A (mu 0 i).
Proof.
have [h n1] := basis_col i; have [sA] : sym A /\ True.
  by have [_ ->] := eA; rewrite /sym !trmx_mul trmxK tr_diag_mx mulmxA.
move=> _; apply/eigenvalueP; exists (col i U)^T.
  by rewrite -{1}sA -trmx_mul h linearZ.
apply/eqP => /(congr1 trmx); rewrite trmxK trmx0 => c0.
by move: n1; rewrite c0 dot0l => /eqP; rewrite eq_sym oner_eq0.
Qed.

End Basis.

Section Extremes.
Variable R : rcfType.

Lemma invmx_right n (M V : 'M[R]_n) : M *m V = 1%:M -> invmx M = V.
Proof. by move=> e; have [u _] := mulmx1_unit e; rewrite -[V](mulKmx u) e mulmx1. Qed.

Lemma basis_mul n (U : 'M[R]_n) (a b : 'rV[R]_n) : U^T *m U = 1%:M ->
  U *m diag_mx a *m U^T *m (U *m diag_mx b *m U^T) = U *m diag_mx (\row_i (a 0 i * b 0 i)) *m U^T.
Proof. by move=> UU; rewrite !mulmxA -[_ *m U^T *m U]mulmxA UU mulmx1 -(mulmxA U) mulmx_diag. Qed.

Lemma eigenbasis_exists n (A : 'M[R]_n) : sym A -> exists U mu, eigenbasis A U mu.
Proof. by move=> /spectral[U [mu [? ?]]]; exists U, mu. Qed.

(* an eigenvalue of a symmetric matrix has a unit vector *)
Lemma unit_eigenvector n (A : 'M[R]_n) a : sym A -> eigenvalue A a -> exists u : 'cV_n, A *m u = a *: u /\ dot u u = 1.
Proof.
move=> sA /eigenvalueP[v vA v0].
have t0 : v^T != 0 by apply: contra_neq v0 => /(congr1 trmx); rewrite trmxK trmx0.
have nt : nrm v^T != 0 by rewrite nrm_eq0.
have tA : A *m v^T = a *: v^T by rewrite -{1}sA -trmx_mul vA linearZ.
exists ((nrm v^T)^-1 *: v^T); split; first by rewrite -scalemxAr tA !scalerA mulrC.
by rewrite dotZl dotZr -nrm_sqr mulrA -expr2 -exprMn mulVf // expr1n.
Qed.

Lemma eigenvector_eigenvalue n (A : 'M[R]_n) a (u : 'cV[R]_n) : sym A -> u != 0 -> A *m u = a *: u -> eigenvalue A a.
Proof.
move=> sA u0 e; apply/eigenvalueP; exists u^T; first by rewrite -{1}sA -trmx_mul e linearZ.
by apply: contra_neq u0 => /(congr1 trmx); rewrite trmxK trmx0.
Qed.

Lemma quad_largest n (A : 'M[R]_n) top : sym A -> largest A top -> forall x, dot x (A *m x) <= top * dot x x.
Proof.
move=> sA [_ h] x; have [U [mu eA]] := eigenbasis_exists sA.
rewrite (basis_quad eA) (basis_norm eA) mulr_sumr; apply: ler_sum => i _.
by rewrite ler_wpmul2r ?sqr_ge0 // h //; apply: basis_eigenvalue eA i.
Qed.

Lemma quad_smallest n (A : 'M[R]_n) low : sym A -> smallest A low -> forall x, low * dot x x <= dot x (A *m x).
Proof.
move=> sA [_ h] x; have [U [mu eA]] := eigenbasis_exists sA.
rewrite (basis_quad eA) (basis_norm eA) mulr_sumr; apply: ler_sum => i _.
by rewrite ler_wpmul2r ?sqr_ge0 // h //; apply: basis_eigenvalue eA i.
Qed.

Lemma pd_eigenvalue n (A : 'M[R]_n) a : pd A -> eigenvalue A a -> 0 < a.
Proof.
move=> [sA pA] /(unit_eigenvector sA)[u [e u1]].
have u0 : u != 0 by rewrite -dot_gt0 u1 ltr01.
by have := pA u u0; rewrite e dotZr u1 mulr1.
Qed.

(* the eigenvalues of an eigenbasis of a definite matrix are positive, and it has one *)
Lemma eigenvalue_pos n (A U : 'M[R]_n) mu : eigenbasis A U mu -> pd A -> forall i, 0 < mu 0 i.
Proof. by move=> eA pA i; apply: pd_eigenvalue pA _; apply: basis_eigenvalue eA i. Qed.

Corollary spectral_pd n (A : 'M[R]_n) : pd A ->
  exists (U : 'M[R]_n) (mu : 'rV[R]_n), [/\ U^T *m U = 1%:M, A = U *m diag_mx mu *m U^T & forall i, 0 < mu 0 i].
Proof.
move=> pA; have [sA _] := pA; have [U [mu eA]] := eigenbasis_exists sA.
by have [UU e] := eA; exists U, mu; split=> //; apply: eigenvalue_pos eA pA.
Qed.

Lemma pd_eigenvector n (A : 'M[R]_n) a (u : 'cV[R]_n) : pd A -> u != 0 -> A *m u = a *: u -> 0 < a.
Proof. by move=> pA u0 e; have [_ h] := pA; have := h u u0; rewrite e dotZr pmulr_lgt0 // dot_gt0. Qed.

Lemma psd_eigenbasis n (A U : 'M[R]_n) mu : eigenbasis A U mu -> psd A -> forall i, 0 <= mu 0 i.
Proof. by move=> eA [_ h] i; have [e u1] := basis_col eA i; have := h (col i U); rewrite e dotZr u1 mulr1. Qed.

(* a symmetric matrix of positive size has a largest and a smallest eigenvalue *)
Lemma largest_exists n (A : 'M[R]_n.+1) : sym A -> exists a, largest A a.
Proof.
move=> sA; have [U [mu eA]] := eigenbasis_exists sA.
case: (arg_maxP (fun i : 'I_n.+1 => mu 0 i) (isT : xpredT ord0)) => i _ hi; exists (mu 0 i); split.
  exact: basis_eigenvalue eA i.
move=> b /(unit_eigenvector sA)[u [e u1]].
have : b * dot u u <= mu 0 i * dot u u.
  rewrite -[b * _]dotZr -e (basis_quad eA) (basis_norm eA) mulr_sumr; apply: ler_sum => j _.
  by apply: ler_wpmul2r; [apply: sqr_ge0 | apply: hi].
by rewrite u1 !mulr1.
Qed.

Lemma smallest_exists n (A : 'M[R]_n.+1) : sym A -> exists a, smallest A a.
Proof.
move=> sA; have [U [mu eA]] := eigenbasis_exists sA.
case: (arg_minP (fun i : 'I_n.+1 => mu 0 i) (isT : xpredT ord0)) => i _ hi; exists (mu 0 i); split.
  exact: basis_eigenvalue eA i.
move=> b /(unit_eigenvector sA)[u [e u1]].
have : mu 0 i * dot u u <= b * dot u u.
  rewrite -[b * _]dotZr -e (basis_quad eA) (basis_norm eA) mulr_sumr; apply: ler_sum => j _.
  by apply: ler_wpmul2r; [apply: sqr_ge0 | apply: hi].
by rewrite u1 !mulr1.
Qed.

Lemma nrm1 n (u : 'cV[R]_n) : nrm u = 1 -> dot u u = 1.
Proof. by move=> h; rewrite -nrm_sqr h expr1n. Qed.

Lemma nrm1_neq0 n (u : 'cV[R]_n) : nrm u = 1 -> u != 0.
Proof. by move=> h; rewrite -nrm_gt0 h ltr01. Qed.

End Extremes.
