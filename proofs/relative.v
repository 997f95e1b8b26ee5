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

(* In coordinates y with x = W y, F is the identity and H has the eigenvalues of F^-1 H. *)
Lemma coordinates n (F H : 'M[R]_n) top low : pd F -> pd H -> largest (invmx F *m H) top -> smallest (invmx F *m H) low ->
  exists W, let A := W *m H *m W in
  [/\ W \in unitmx /\ W *m W = invmx F, pd A, largest A top, smallest A low
    & forall y, dot (W *m y) (H *m (W *m y)) = dot y (A *m y) /\ dot (W *m y) (F *m (W *m y)) = dot y y].
Proof.
move=> pF [sH hH] hT hL; have [W [sW WW WFW]] := inverse_root pF; exists W => A.
have uW : W \in unitmx by have := pd_unit (pd_inv pF); rewrite -WW unitmx_mul => /andP[].
have eig a : eigenvalue A a = eigenvalue (invmx F *m H) a by rewrite similar_eigenvalue // WW.
split=> //.
- split=> [|x x0]; first by rewrite /sym !trmx_mul sH sW mulmxA.
  rewrite /A -!mulmxA -{1}sW -dot_mull; apply: hH; apply: contra_neq x0 => h.
  by rewrite -[x](mulKmx uW) h mulmx0.
- by split; [rewrite eig (proj1 hT) | move=> b; rewrite eig; apply: (proj2 hT)].
- by split; [rewrite eig (proj1 hL) | move=> b; rewrite eig; apply: (proj2 hL)].
by move=> y; rewrite !dot_mull sW /A !mulmxA WFW mul1mx.
Qed.

(* the forms of F and H lie between multiples of each other, and touch them *)
Lemma relative_forms n (F H : 'M[R]_n) top low : pd F -> pd H -> largest (invmx F *m H) top -> smallest (invmx F *m H) low ->
  [/\ 0 < low, 0 < top, forall x, low * dot x (F *m x) <= dot x (H *m x) <= top * dot x (F *m x),
      exists x, x != 0 /\ dot x (H *m x) = top * dot x (F *m x)
    & exists x, x != 0 /\ dot x (H *m x) = low * dot x (F *m x)].
Proof.
move=> pF pH hT hL; have [W [[uW _] pA T S q]] := coordinates pF pH hT hL; have [sA _] := pA.
have touched a : eigenvalue (W *m H *m W) a -> exists x, x != 0 /\ dot x (H *m x) = a * dot x (F *m x).
  move=> /(unit_eigenvector sA)[y [e y1]]; exists (W *m y); have [-> ->] := q y; rewrite e dotZr; split=> //.
  by apply: contra_eq_neq y1 => h; rewrite -[y](mulKmx uW) h mulmx0 dot0l eq_sym oner_eq0.
split; [by apply: pd_eigenvalue pA _; case: S | by apply: pd_eigenvalue pA _; case: T | | by apply: touched; case: T |
  by apply: touched; case: S].
by move=> x; rewrite -[x](mulKVmx uW); have [-> ->] := q (invmx W *m x); rewrite (quad_largest sA T) (quad_smallest sA S).
Qed.

(* the least and the largest form of a unit vector *)
Lemma extremes n (A : 'M[R]_n) top low : pd A -> largest A top -> smallest A low ->
  [/\ 0 < low, 0 < top, forall x, low * dot x x <= dot x (A *m x) <= top * dot x x,
      exists x, x != 0 /\ dot x (A *m x) = top * dot x x & exists x, x != 0 /\ dot x (A *m x) = low * dot x x].
Proof.
move=> pA hT hL; have [sA _] := pA.
have touched a : eigenvalue A a -> exists x, x != 0 /\ dot x (A *m x) = a * dot x x.
  move=> /(unit_eigenvector sA)[x [e x1]]; exists x; rewrite e dotZr; split=> //.
  by rewrite -dot_gt0 x1 ltr01.
split; [by apply: pd_eigenvalue pA _; case: hL | by apply: pd_eigenvalue pA _; case: hT | | by apply: touched; case: hT |
  by apply: touched; case: hL].
by move=> x; rewrite (quad_largest sA hT) (quad_smallest sA hL).
Qed.

(* products of two of six inequalities *)
Lemma condition_ratio (top low topF lowF topH lowH : R) : 0 < top -> 0 < low -> 0 < topF -> 0 < lowF -> 0 < topH -> 0 < lowH ->
  low * topF <= topH -> lowH <= top * lowF -> topH <= top * topF -> low * lowF <= lowH -> top * lowF <= topH -> lowH <= low * topF ->
  Num.max ((topF / lowF) / (topH / lowH)) ((topH / lowH) / (topF / lowF)) <= top / low <= (topF / lowF) * (topH / lowH).
Proof.
move=> t0 l0 tF lF tH lH i1 i2 i3 i4 i5 i6.
have frac (p q u v x y z w : R) : 0 < q -> 0 < v -> 0 < x -> 0 < y -> x <= z -> y <= w -> p * v = x * y -> u * q = z * w -> p / q <= u / v.
  move=> q0 v0 x0 y0 xz yw e1 e2; rewrite ler_pdivr_mulr // mulrAC ler_pdivl_mulr // e1 e2.
  by apply: ler_pmul xz yw; apply: ltW.
have m p q : 0 < p -> 0 < q -> 0 < p * q :> R by apply: mulr_gt0.
apply/andP; split; last first.
  rewrite mulf_div; apply: (frac _ _ _ _ _ _ _ _ _ _ _ _ i5 i6); rewrite ?m //; ring.
rewrite le_maxl !invf_div !mulf_div; apply/andP; split.
  apply: (frac _ _ _ _ _ _ _ _ _ _ _ _ i1 i2); rewrite ?m //; ring.
apply: (frac _ _ _ _ _ _ _ _ _ _ _ _ i3 i4); rewrite ?m //; ring.
Qed.

(* Test the sandwich of the forms at the eigenvectors of F and of H: low <= hT/fT, hL/fL <= top, and so on. *)
Lemma condition_bounds n (F H : 'M[R]_n) top low topF lowF topH lowH : pd F -> pd H ->
  largest (invmx F *m H) top -> smallest (invmx F *m H) low ->
  largest F topF -> smallest F lowF -> largest H topH -> smallest H lowH ->
  let cF := topF / lowF in let cH := topH / lowH in Num.max (cF / cH) (cH / cF) <= top / low <= cF * cH.
Proof.
move=> pF pH hT hL TF LF TH LH; cbv zeta.
have [l0 t0 sandwich [x [x0 ex]] [y [y0 ey]]] := relative_forms pF pH hT hL.
have [lF tF fF [a [a0 ea]] [b [b0 eb]]] := extremes pF TF LF.
have [lH tH fH [c [c0 ec]] [d [d0 ed]]] := extremes pH TH LH.
have chain (p q : R) v : v != 0 -> p * dot v v <= dot v (H *m v) -> dot v (H *m v) <= q * dot v v -> p <= q.
  by move=> v0 h1 /(le_trans h1); rewrite ler_pmul2r ?dot_gt0.
have i1 : low * topF <= topH.
  by apply: (chain _ _ a) => //; [rewrite -mulrA -ea; have /andP[] := sandwich a | have /andP[] := fH a].
have i2 : lowH <= top * lowF.
  by apply: (chain _ _ b) => //; [have /andP[] := fH b | rewrite -mulrA -eb; have /andP[] := sandwich b].
have i3 : topH <= top * topF.
  apply: (chain _ _ c) => //; rewrite ?ec //; rewrite -ec; have /andP[_ h] := sandwich c; apply: le_trans h _.
  by rewrite -mulrA ler_pmul2l //; have /andP[] := fF c.
have i4 : low * lowF <= lowH.
  apply: (chain _ _ d) => //; rewrite ?ed //; rewrite -ed; have /andP[h _] := sandwich d; apply: le_trans h.
  by rewrite -mulrA ler_pmul2l //; have /andP[] := fF d.
have i5 : top * lowF <= topH.
  apply: (chain _ _ x) => //; last by have /andP[] := fH x.
  by rewrite ex -mulrA ler_pmul2l //; have /andP[] := fF x.
have i6 : lowH <= low * topF.
  apply: (chain _ _ y) => //; first by have /andP[] := fH y.
  by rewrite ey -mulrA ler_pmul2l //; have /andP[] := fF y.
exact: condition_ratio.
Qed.

(* In the coordinates of the lemma the first ellipsoid is a ball. *)
Theorem X5_proof : X5 R.
Proof.
move=> n F H top low pF pH hT hL tau tau0.
have [W [[uW WW] pA T S q]] := coordinates pF pH hT hL; set A := W *m H *m W in pA T S q.
have uI : invmx F \in unitmx by rewrite unitmx_inv pd_unit.
have eig V : V *m V = invmx F -> forall a, eigenvalue (V *m H *m V) a = eigenvalue (invmx F *m H) a.
  by move=> e a; rewrite similar_eigenvalue ?e //; move: uI; rewrite -e unitmx_mul => /andP[].
have qH y : dot (W *m y) (H *m (W *m y)) = dot y (A *m y) by have [] := q y.
have qF y : dot (W *m y) (F *m (W *m y)) = dot y y by have [] := q y.
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
- split; first exact: sqrt_ratio.
  have one : Num.sqrt (top / low) = 1 <-> top = low.
    split=> [e|->]; last by rewrite mulfV ?sqrtr1 // gt_eqF.
    have : top / low = 1 by rewrite -[LHS]sqr_sqrtr ?divr_ge0 ?ltW // e expr1n.
    by move=> /(canRL (mulfVK (lt0r_neq0 low0))); rewrite mul1r.
  apply: (iff_trans one); split=> [e|[c eF]].
    have flat x : dot x (A *m x) = top * dot x x.
      apply/eqP; rewrite eq_le; have [sA _] := pA.
      by rewrite (quad_largest sA T) {1}e (quad_smallest sA S).
    have eA : A = top%:M.
      have sD : sym (A - top%:M) by have [sA _] := pA; rewrite /sym linearB /= sA tr_scalar_mx.
      have [U [mu eD]] := eigenbasis_exists sD; have [UU eD'] := eD.
      suff m0 : mu = 0 by apply/eqP; rewrite -subr_eq0 eD' m0 linear0 mulmx0 mul0mx.
      apply/rowP => i; have [ei ui] := basis_col eD i.
      have := congr1 (dot (col i U)) ei; rewrite dotZr ui mulr1 mulmxBl dotBr flat mul_scalar_mx dotZr ui subrr mxE.
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
- by move=> V _ e; apply: eig.
by move=> *; apply: condition_bounds hT hL _ _ _ _.
Qed.

End Claims.
