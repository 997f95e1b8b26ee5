(* Curvature: X7. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation drift penalty trap regularizers plane.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

Lemma displacementN n (A : 'M[R]_n) c (u : 'cV[R]_n) l : displacement A (- (c *: u)) l = c *: (invmx (A + l%:M) *m u).
Proof. by rewrite /displacement mulmxN opprK -scalemxAr. Qed.

Lemma shift_eigen n (A : 'M[R]_n) a l (u : 'cV[R]_n) : pd (A + l%:M) -> u != 0 -> A *m u = a *: u ->
  0 < a + l /\ invmx (A + l%:M) *m u = (a + l)^-1 *: u.
Proof.
move=> p u0 e; have e' : (A + l%:M) *m u = (a + l) *: u by rewrite mulmxDl e mul_scalar_mx scalerDl.
have al := pd_eigenvector p u0 e'; split=> //.
by apply: (canLR (mulKmx (pd_unit p))); rewrite -scalemxAr e' scalerA mulVf ?scale1r // gt_eqF.
Qed.

(* between 1/(least + l) and 1/(u.Au + l), for the length of (A + l)^-1 u and its part along u *)
Lemma solve_le n (M : 'M[R]_n) (u : 'cV[R]_n) mu : 0 < mu -> above mu M -> nrm u = 1 -> nrm (invmx M *m u) <= mu^-1.
Proof. by move=> m0 aM u1; apply: le_trans (above_inv m0 aM u) _; rewrite u1 mulr1. Qed.

Lemma solve_ge n (M : 'M[R]_n) (u : 'cV[R]_n) : pd M -> nrm u = 1 -> (dot u (M *m u))^-1 <= dot u (invmx M *m u).
Proof.
move=> pM u1; have u0 : u != 0 by rewrite -nrm_gt0 u1 ltr01.
have q0 : 0 < dot u (M *m u) by have [_] := pM; apply.
have := cauchy_form (invmx M *m u) u pM; rewrite (sym_dot _ _ (sym_inv (proj1 pM))) mulKmx ?pd_unit //.
rewrite mulKVmx ?pd_unit // -nrm_sqr u1 expr1n expr1n [dot (invmx M *m u) u]dotC => h.
by rewrite -[X in X <= _]mul1r ler_pdivr_mulr.
Qed.

Lemma hlen_along n (H : 'M[R]_n) top (u x : 'cV[R]_n) : pd H -> 0 < top -> nrm u = 1 -> H *m u = top *: u ->
  0 <= dot u x -> Num.sqrt top * dot u x <= hlen H x.
Proof.
move=> pH t0 u1 e d0; have [_ hH] := pd_psd pH.
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?sqrtr_ge0 ?mulr_ge0 ?sqrtr_ge0 //.
rewrite exprMn !sqr_sqrtr ?(ltW t0) // -(ler_pmul2l t0).
have := cauchy_form u x pH; rewrite -(sym_dot u x (proj1 pH)) e dotZl dotZr -nrm_sqr u1 expr1n mulr1 exprMn expr2.
by rewrite -mulrA.
Qed.

Lemma hlen_below n (H : 'M[R]_n) top (x : 'cV[R]_n) : pd H -> largest H top -> hlen H x <= Num.sqrt top * nrm x.
Proof.
move=> pH hT; have t0 : 0 < top by apply: pd_eigenvalue pH _; case: hT.
have [_ hH] := pd_psd pH.
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?sqrtr_ge0 ?mulr_ge0 ?sqrtr_ge0 ?nrm_ge0 //.
rewrite exprMn nrm_sqr /hlen [Num.sqrt (dot x (H *m x)) ^+ 2]sqr_sqrtr // [Num.sqrt top ^+ 2]sqr_sqrtr ?(ltW t0) //.
exact: quad_largest (proj1 pH) hT x.
Qed.

(* two dimensions: both parts of (A + l)^-1 u fall as l grows *)
Lemma plane_falls (top low x y q h : R) : 0 < low -> 0 < top -> 0 < x -> 0 < x * y - q ^+ 2 -> 0 < h -> 0 < y ->
  (top * (x + h) ^+ 2 + low * q ^+ 2) / ((x + h) * (y + h) - q ^+ 2) ^+ 2 < (top * x ^+ 2 + low * q ^+ 2) / (x * y - q ^+ 2) ^+ 2.
Proof.
move=> l0 t0 x0 d0 h0 y0; set d := x * y - q ^+ 2 in d0 *; set D := (x + h) * (y + h) - q ^+ 2.
have eD : D = d + (x * h + h * y + h ^+ 2) by rewrite /D /d; ring.
have xh := mulr_gt0 x0 h0; have hy := mulr_gt0 h0 y0; have hh : 0 < h ^+ 2 by rewrite exprn_gt0.
have dD : d < D by rewrite eD ltr_addl !addr_gt0.
have D0 := lt_trans d0 dD.
rewrite ltr_pdivr_mulr ?exprn_gt0 // mulrAC ltr_pdivl_mulr ?exprn_gt0 // !mulrDl.
have first : (x + h) * d < x * D.
  rewrite -subr_gt0 (_ : _ - _ = x ^+ 2 * h + x * h ^+ 2 + h * q ^+ 2); last by rewrite /D /d; ring.
  apply: ltr_paddr; first by apply: mulr_ge0; [apply: ltW | apply: sqr_ge0].
  by apply: addr_gt0; apply: mulr_gt0 => //; apply: exprn_gt0.
clearbody d D; clear eD; have xh0 : 0 <= x + h by rewrite addr_ge0 // ltW.
have xd : 0 <= (x + h) * d by rewrite mulr_ge0 // ltW.
have xD : 0 <= x * D by rewrite mulr_ge0 // ltW.
apply: ltr_le_add.
  rewrite -[top * (x + h) ^+ 2 * _]mulrA -[top * x ^+ 2 * _]mulrA ltr_pmul2l // -!exprMn.
  by rewrite ltr_pexpn2r ?nnegrE.
apply: ler_wpmul2l; first by rewrite mulr_ge0 ?sqr_ge0 // ltW.
by rewrite ler_pexpn2r ?nnegrE ?(ltW d0) ?(ltW D0) // ltW.
Qed.

(* in the plane, with v at a right angle to u *)
Lemma plane_hlen (H A : 'M[R]_2) (u : 'cV[R]_2) top l : pd H -> sym A -> nrm u = 1 -> H *m u = top *: u -> pd (A + l%:M) ->
  let v := vec2 (- u 1 0) (u 0 0) in
  let x := dot v (A *m v) + l in let y := dot u (A *m u) + l in let q := dot v (A *m u) in
  [/\ 0 < dot v (H *m v), 0 < x, 0 < y, 0 < x * y - q ^+ 2
    & hlen H (invmx (A + l%:M) *m u) = Num.sqrt ((top * x ^+ 2 + dot v (H *m v) * q ^+ 2) / (x * y - q ^+ 2) ^+ 2)].
Proof.
move=> pH sA u1 e p v x y q; have [sM hM] := p; have [sH hH] := pH.
have uu : dot u u = 1 by rewrite -nrm_sqr u1 expr1n.
have uv : dot u v = 0 by rewrite {1}(vec2E u) dot2; ring.
have vv : dot v v = 1 by rewrite -uu [in RHS](vec2E u) /v !dot2; ring.
have v0 : v != 0 by rewrite -dot_gt0 vv ltr01.
have u0 : u != 0 by rewrite -dot_gt0 uu ltr01.
have full (w : 'cV[R]_2) : w = dot u w *: u + dot v w *: v.
  rewrite /v; move: (uu) (vec2E u) (vec2E w); move: (u 0 0) (u 1 0) (w 0 0) (w 1 0) => c s c' s' + eu ew.
  rewrite {}eu {}ew !dot2 !scale2 add2 => n1; congr vec2.
    by transitivity ((c * c + s * s) * c'); [rewrite n1 mul1r | ring].
  by transitivity ((c * c + s * s) * s'); [rewrite n1 mul1r | ring].
have ex : x = dot v ((A + l%:M) *m v) by rewrite mulmxDl dotDr mul_scalar_mx dotZr vv mulr1.
have ey : y = dot u ((A + l%:M) *m u) by rewrite mulmxDl dotDr mul_scalar_mx dotZr uu mulr1.
have eq1 : q = dot v ((A + l%:M) *m u) by rewrite mulmxDl dotDr mul_scalar_mx dotZr (dotC v u) uv mulr0 addr0.
have eq2 : q = dot u ((A + l%:M) *m v) by rewrite eq1 -(sym_dot v u sM) dotC.
have x0 : 0 < x by rewrite ex hM.
have y0 : 0 < y by rewrite ey hM.
have det : 0 < x * y - q ^+ 2.
  pose w := x *: u - q *: v; have w0 : w != 0.
    apply/eqP => h; have := congr1 (dot u) h; rewrite dot0r dotBr !dotZr uu uv mulr0 subr0 mulr1 => h'.
    by move: x0; rewrite h' ltxx.
  have := hM _ w0; rewrite /w mulmxBr -!scalemxAr !(dotBl, dotBr, dotZl, dotZr) -ex -ey -eq1 -eq2 => h.
  by rewrite -(pmulr_rgt0 _ x0); move: h; congr (0 < _); ring.
have [Hv0] : 0 < dot v (H *m v) /\ True by rewrite hH.
split=> //; set D := x * y - q ^+ 2 in det *.
have sol : invmx (A + l%:M) *m u = D^-1 *: (x *: u - q *: v).
  apply: (canLR (mulKmx (pd_unit p))); rewrite -scalemxAr mulmxBr -!scalemxAr.
  rewrite [(A + l%:M) *m u]full [(A + l%:M) *m v]full -ex -ey -eq1 -eq2.
  rewrite (_ : _ - _ = D *: u); first by rewrite scalerA mulVf ?scale1r // gt_eqF.
  have -> : D = x * y - q * q by rewrite /D expr2.
  clearbody x y q v; apply/colP => i; rewrite !mxE; ring.
have Huv : dot u (H *m v) = 0 by rewrite -(sym_dot u v sH) e dotZl uv mulr0.
rewrite /hlen sol -scalemxAr dotZl dotZr mulmxBr -!scalemxAr !(dotBl, dotBr, dotZl, dotZr) e !dotZr uu (dotC v u) uv Huv.
congr Num.sqrt; set t := dot v (H *m v); field.
by rewrite gt_eqF.
Qed.

Theorem X7_proof : X7 R.
Proof.
move=> n H top low ue uh pH hT hL ne nh ee eh a b tau Delta a0 b0 t0 D0 serves.
have top0 : 0 < top by apply: pd_eigenvalue pH _; case: hT.
have s0 : 0 < Num.sqrt top by rewrite sqrtr_gt0.
have ue0 : ue != 0 by rewrite -nrm_gt0 ne ltr01.
have uh0 : uh != 0 by rewrite -nrm_gt0 nh ltr01.
have bt l m : (b * Num.sqrt top / tau - m <= l) = (b * Num.sqrt top <= tau * (m + l)).
  by rewrite ler_subl_addl ler_pdivr_mulr // [tau * _]mulrC.
have ad l m : (l <= a / Delta - m) = (Delta * (m + l) <= a) by rewrite ler_subr_addl ler_pdivl_mulr // mulrC.
split.
- move=> Ae Ah floor ae ah sE sHh p eE eHh.
  have S l : floor < l -> (serves Ae Ah l <-> (l <= a / Delta - ae) && (b * Num.sqrt top / tau - ah <= l)).
    move=> fl; have [pe ph] := p l fl; have [e0 ie] := shift_eigen pe ue0 eE; have [h0 ih] := shift_eigen ph uh0 eHh.
    have i1 : nrm (displacement Ae (- (a *: ue)) l) = a / (ae + l).
      by rewrite displacementN ie scalerA nrmZ ne mulr1 ger0_norm // divr_ge0 ?ltW.
    have i2 : hlen H (displacement Ah (- (b *: uh)) l) = b * Num.sqrt top / (ah + l).
      by rewrite displacementN ih scalerA hlenZ ?divr_ge0 ?(ltW b0) ?(ltW h0) // (hlen_eigen top0 nh eh) mulrAC.
    have -> : (l <= a / Delta - ae) = (Delta <= a / (ae + l)) by rewrite ad ler_pdivl_mulr.
    have -> : (b * Num.sqrt top / tau - ah <= l) = (b * Num.sqrt top / (ah + l) <= tau) by rewrite bt ler_pdivr_mulr.
    rewrite -i1 -i2.
    by split=> [[h1 /(ellipsoid_hlen _ pH (ltW t0)) h2]|/andP[h1 h2]]; [rewrite h1 h2 | split=> //; apply/ellipsoid_hlen => //; apply: ltW].
  split=> [[l [fl /(S _ fl)/andP[h1 h2]]]|[h1 h2]]; first by split; [apply: lt_le_trans h1 | apply: le_trans h1].
  by exists (a / Delta - ae); split=> //; apply/(S _ h1); rewrite lexx.
- move=> A least sA hA floor.
  have up l : floor < l -> 0 < least + l /\ above (least + l) (A + l%:M).
    rewrite /floor lt_maxl => /andP[_ ll]; split; first by rewrite -ltr_subl_addl sub0r.
    split=> [|x]; first exact: sym_shift.
    by rewrite mulmxDl dotDr mul_scalar_mx dotZr mulrDl ler_add2r; apply: quad_smallest.
  have P l : floor < l -> pd (A + l%:M) by move=> /up[m0 aM]; apply: above_pd aM.
  have quad l u : nrm u = 1 -> dot u ((A + l%:M) *m u) = dot u (A *m u) + l.
    by move=> u1; rewrite mulmxDl dotDr mul_scalar_mx dotZr -nrm_sqr u1 expr1n mulr1.
  split=> //; split.
    move=> gap [l [fl [h1 /(ellipsoid_hlen _ pH (ltW t0)) h2]]]; have [m0 aM] := up l fl; have p := P l fl.
    have q0 : 0 < dot uh (A *m uh) + l by rewrite -quad //; have [_] := p; apply.
    have l1 : l <= a / Delta - least.
      rewrite ad -ler_pdivl_mulr //; apply: le_trans h1 _.
      by rewrite displacementN nrmZ ger0_norm ?(ltW a0) // ler_wpmul2l ?(ltW a0) // solve_le.
    have l2 : b * Num.sqrt top / tau - dot uh (A *m uh) <= l.
      rewrite bt -ler_pdivr_mulr //; apply: le_trans h2; rewrite displacementN hlenZ ?(ltW b0) // -mulrA ler_wpmul2l ?(ltW b0) //.
      have g := solve_ge p nh; rewrite quad // in g.
      apply: le_trans (hlen_along pH top0 nh eh (le_trans _ g)); last by rewrite invr_ge0 ltW.
      by rewrite ler_wpmul2l // ltW.
    by have := lt_le_trans (le_lt_trans l1 gap) l2; rewrite ltxx.
  move=> gap fl; set l := a / Delta - dot ue (A *m ue) in gap fl *; exists l; split=> //.
  have [m0 aM] := up l fl; have p := P l fl.
  have q0 : 0 < dot ue (A *m ue) + l by rewrite -quad //; have [_] := p; apply.
  split.
    have eD : Delta = a / (dot ue (A *m ue) + l) by rewrite /l addrC subrK invf_div mulrCA mulfV ?mulr1 // gt_eqF.
    rewrite displacementN nrmZ ger0_norm ?(ltW a0) // {1}eD ler_wpmul2l ?(ltW a0) //.
    have g := solve_ge p ne; rewrite quad // in g; apply: le_trans g _.
    by apply: le_trans (cauchy_le _ _) _; rewrite ne mul1r.
  apply/ellipsoid_hlen => //; first exact: ltW.
  rewrite displacementN hlenZ ?(ltW b0) //.
  apply: le_trans (_ : _ <= b * (Num.sqrt top * (least + l)^-1)) _.
    rewrite ler_wpmul2l ?(ltW b0) //; apply: le_trans (hlen_below _ pH hT) _.
    by rewrite ler_wpmul2l ?(ltW s0) // solve_le.
  by rewrite mulrA ler_pdivr_mulr // -bt.
move=> A sA [[al eA]|n2] l1 l2 l12 p1; have p2 := pd_shift sA (ltW l12) p1; cbv zeta beta; rewrite !displacementN.
  have [e1 i1] := shift_eigen p1 uh0 eA; have [e2 i2] := shift_eigen p2 uh0 eA.
  rewrite i1 i2 !scalerA !hlenZ ?divr_ge0 ?(ltW b0) ?(ltW e1) ?(ltW e2) // (hlen_eigen top0 nh eh).
  by rewrite ltr_pmul2r // ltr_pmul2l // ltf_pinv ?posrE // ltr_add2l.
rewrite !hlenZ ?(ltW b0) // ltr_pmul2l //; clear serves hL ee ne ue0 hT.
move: H A ue uh pH sA nh eh p1 p2 uh0; rewrite n2 => H' A' _ u pH sA u1 e p1 p2 _.
have [Hv x1 y1 d1 ->] := plane_hlen pH sA u1 e p1; have [_ x2 y2 d2 ->] := plane_hlen pH sA u1 e p2.
set v := vec2 _ _ in Hv x1 y1 d1 x2 y2 d2 *.
have el : l2 = l1 + (l2 - l1) by rewrite addrC subrK.
have h0 : 0 < l2 - l1 by rewrite subr_gt0.
rewrite ltr_sqrt; last first.
  apply: divr_gt0; last by apply: exprn_gt0.
  by apply: ltr_paddr; [rewrite mulr_ge0 ?sqr_ge0 // ltW | apply: mulr_gt0 => //; apply: exprn_gt0].
by have := plane_falls Hv top0 x1 d1 h0 y1; rewrite -!addrA -el.
Qed.

End Claims.
