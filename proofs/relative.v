(* Two ellipsoids: X5. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen trap.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

(* the inverse square root of F *)
Lemma inverse_root n (F : 'M[R]_n) : pd F -> exists W, [/\ sym W, W *m W = invmx F & W *m F *m W = 1%:M].
Proof.
move=> pF; have [U [mu [UU eF mu0]]] := spectral_pd pF; have eB : eigenbasis F U mu by [].
have h i : mu 0 i != 0 by rewrite gt_eqF.
pose w : 'rV[R]_n := \row_i (Num.sqrt (mu 0 i))^-1; pose W := U *m diag_mx w *m U^T.
have sW : sym W by rewrite /sym /W !trmx_mul trmxK tr_diag_mx mulmxA.
have WW : W *m W = invmx F.
  rewrite /W basis_mul // (invmx_right (basis_inv eB h)); congr (_ *m diag_mx _ *m _).
  by apply/rowP => i; rewrite !mxE -invfM -expr2 sqr_sqrtr // ltW.
by exists W; split=> //; apply: mulmx1C; rewrite mulmxA WW mulVmx // pd_unit.
Qed.

(* a matrix and one that is similar to it have the same eigenvalues *)
Lemma similar_eigenvalue n (W H : 'M[R]_n) a : W \in unitmx -> eigenvalue (W *m H *m W) a = eigenvalue (W *m W *m H) a.
Proof.
move=> uW; apply/eigenvalueP/eigenvalueP => -[v e v0].
  exists (v *m invmx W); last by apply: contra_neq v0 => h; rewrite -[v](mulmxKV uW) h mul0mx.
  by rewrite !mulmxA mulmxKV // scalemxAl -e !mulmxA mulmxK.
exists (v *m W); last by apply: contra_neq v0 => h; rewrite -[v](mulmxK uW) h mul0mx.
by rewrite !mulmxA in e *; rewrite e -scalemxAl.
Qed.

Lemma ball_sqr n s (x : 'cV[R]_n) : 0 <= s -> ball s x <-> dot x x <= s ^+ 2.
Proof. by move=> s0; rewrite /ball -nrm_sqr ler_sq ?nrm_ge0. Qed.

(* In coordinates y with x = W y the first ellipsoid is a ball. *)
Theorem X5_proof : X5 R.
Proof.
move=> n F H top low pF pH hT hL tau tau0.
have [W [sW WW WFW]] := inverse_root pF.
have uI : invmx F \in unitmx by rewrite unitmx_inv pd_unit.
have uS V : V *m V = invmx F -> V \in unitmx by move=> e; move: uI; rewrite -e unitmx_mul => /andP[].
have uW := uS _ WW.
have eig V : V *m V = invmx F -> forall a, eigenvalue (V *m H *m V) a = eigenvalue (invmx F *m H) a.
  by move=> e a; rewrite similar_eigenvalue ?uS // e.
pose A := W *m H *m W.
have pA : pd A.
  have [sH hH] := pH; split=> [|x x0]; first by rewrite /sym !trmx_mul sH sW mulmxA.
  rewrite /A -!mulmxA -{1}sW -dot_mull; apply: hH; apply: contra_neq x0 => h.
  by rewrite -[x](mulKmx uW) h mulmx0.
have T : largest A top by split; [rewrite eig // (proj1 hT) | move=> b; rewrite eig //; apply: (proj2 hT)].
have S : smallest A low by split; [rewrite eig // (proj1 hL) | move=> b; rewrite eig //; apply: (proj2 hL)].
have qH y : dot (W *m y) (H *m (W *m y)) = dot y (A *m y) by rewrite dot_mull sW /A !mulmxA.
have qF y : dot (W *m y) (F *m (W *m y)) = dot y y by rewrite dot_mull sW !mulmxA WFW mul1mx.
have top0 : 0 < top by apply: pd_eigenvalue pA _; case: T.
have low0 : 0 < low by apply: pd_eigenvalue pA _; case: S.
have back (P : 'cV[R]_n -> Prop) : (forall x, P x) <-> forall y, P (W *m y).
  by split=> h // x; rewrite -[x](mulKVmx uW).
split.
- move=> s s0; rewrite le_by_sqrt ?(ltW tau0) //.
  apply: iff_trans (ball_inside pA T tau0 s); apply: iff_trans (back _) _.
  split=> h y; have := h y; rewrite /ellipsoid qH qF; last by move=> i /(ball_sqr _ s0).
  by move=> i /(ball_sqr _ s0).
- move=> s s0; rewrite ge_by_sqrt ?(ltW tau0) //.
  apply: iff_trans (ellipsoid_inside pA S tau0 s); apply: iff_trans (back _) _.
  by split=> h y; have := h y; rewrite /ellipsoid qH qF => i /i /(ball_sqr _ s0).
- exact: sqrt_ratio.
- have one : Num.sqrt (top / low) = 1 <-> top = low.
    split=> [e|->]; last by rewrite mulfV ?sqrtr1 // gt_eqF.
    have : top / low = 1 by rewrite -[LHS]sqr_sqrtr ?divr_ge0 ?ltW // e expr1n.
    by move=> /(canRL (mulfVK (lt0r_neq0 low0))); rewrite mul1r.
  apply: (iff_trans one); split=> [e|[c eF]].
    have q x : dot x (A *m x) = top * dot x x.
      apply/eqP; rewrite eq_le; have [sA _] := pA.
      by rewrite (quad_largest sA T) {1}e (quad_smallest sA S).
    have eA : A = top%:M.
      have sD : sym (A - top%:M) by have [sA _] := pA; rewrite /sym linearB /= sA tr_scalar_mx.
      have [U [mu eD]] := eigenbasis_exists sD; have [UU eD'] := eD.
      suff m0 : mu = 0 by apply/eqP; rewrite -subr_eq0 eD' m0 linear0 mulmx0 mul0mx.
      apply/rowP => i; have [ei ui] := basis_col eD i.
      have := congr1 (dot (col i U)) ei; rewrite dotZr ui mulr1 mulmxBl dotBr q mul_scalar_mx dotZr ui subrr mxE.
      by move=> <-.
    exists top^-1; have eH : H = invmx W *m A *m invmx W by rewrite /A !mulmxA mulVmx // mul1mx mulmxK.
    have iWW : invmx W *m invmx W = F.
      by rewrite -[F]invmxK -WW; apply/esym/invmx_right; rewrite mulmxA mulmxK // mulmxV.
    by rewrite eH eA mul_mx_scalar -scalemxAl iWW scalerA mulVf ?scale1r // gt_eqF.
  have uF := pd_unit pF; have n0 : exists v : 'cV[R]_n, v != 0.
    have [u [_ u1]] := unit_eigenvector (proj1 pA) (proj1 T); exists u.
    by rewrite -dot_gt0 u1 ltr01.
  have [v v0] := n0; have c0 : c != 0.
    apply: contra_neq v0 => c0; apply: (pd_eq0 pF); by rewrite eF c0 scale0r mul0mx dot0r.
  have eI : invmx F *m H = (c^-1)%:M.
    have -> : H = c^-1 *: F by rewrite eF scalerA mulVf ?scale1r.
    by rewrite -scalemxAr mulVmx // scalemx1.
  have only a : eigenvalue (invmx F *m H) a -> a = c^-1.
    rewrite eI => /eigenvalueP[w]; rewrite mul_mx_scalar => e w0.
    by apply/esym/eqP; move/eqP: e; rewrite -subr_eq0 -scalerBl scaler_eq0 (negbTE w0) orbF subr_eq0.
  by rewrite (only _ (proj1 hT)) (only _ (proj1 hL)).
by move=> V _ e; apply: eig.
Qed.

End Claims.
