(* T3b, T3c *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear plane.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Descents.
Variable R : rcfType.

(* T3b *)
Section Descent.
Variables (n : nat) (gL tail gp : 'cV[R]_n) (gamma eps : R).
Let g := gL + tail.
Hypotheses (gamma0 : 0 <= gamma) (small_tail : nrm tail <= gamma * nrm gL).
Hypothesis (near : nrm (gL - gp) <= eps * nrm gp).


Lemma head_le : nrm gL <= (1 + eps) * nrm gp.
Proof.
rewrite -[gL](subrK gp) mulrDl mul1r addrC.
by apply: le_trans (nrmD _ _) _; rewrite ler_add2l.
Qed.

Lemma tail_le : nrm tail <= gamma * (1 + eps) * nrm gp.
Proof. by apply: le_trans small_tail _; rewrite -mulrA ler_wpmul2l ?head_le. Qed.

Theorem proxy_error : nrm (g - gp) <= (gamma * (1 + eps) + eps) * nrm gp.
Proof.
rewrite /g addrAC addrC mulrDl; apply: le_trans (nrmD _ _) _.
by apply: ler_add => //; apply: tail_le.
Qed.

Theorem descent : (1 - (gamma * (1 + eps) + eps)) * nrm gp ^+ 2 <= dot g gp.
Proof.
have := le_trans (cauchy_le (gp - g) gp) (_ : _ <= (gamma * (1 + eps) + eps) * nrm gp * nrm gp).
rewrite dotBl -nrm_sqr => h.
rewrite mulrBl mul1r ler_subl_addr -ler_subl_addl expr2 mulrA -expr2 h //.
by rewrite ler_wpmul2r ?nrm_ge0 // -nrmN opprB proxy_error.
Qed.

Theorem descent_gt0 : gamma * (1 + eps) + eps < 1 -> gp != 0 -> 0 < dot g gp.
Proof.
move=> z gp0; apply: lt_le_trans descent.
by rewrite mulr_gt0 ?subr_gt0 ?exprn_gt0 ?nrm_gt0.
Qed.

End Descent.

(* T3c: angles add *)
(* |g - g_L| <= gamma |g_L| is an angle of at most arcsin gamma, without dividing by a length *)
Lemma cone n (x y : 'cV[R]_n) (c : R) : 0 <= c <= 1 -> nrm (x - y) <= c * nrm y ->
  Num.sqrt (1 - c ^+ 2) * (nrm x * nrm y) <= dot x y.
Proof.
move=> /andP[c0 c1] h; set s := Num.sqrt _.
have s2 : s ^+ 2 = 1 - c ^+ 2.
  by rewrite sqr_sqrtr // subr_ge0 expr_le1.
have h2 : nrm x ^+ 2 + s ^+ 2 * nrm y ^+ 2 <= dot x y *+ 2.
  have : nrm (x - y) ^+ 2 <= (c * nrm y) ^+ 2.
    by rewrite ler_pexpn2r ?nnegrE ?mulr_ge0 ?nrm_ge0.
  rewrite nrm_sqr dotBl !dotBr (dotC y) -!nrm_sqr exprMn s2 -subr_ge0 => e.
  rewrite -subr_ge0; move: e; congr (0 <= _).
  by set p := nrm x; set q := nrm y; set d := dot x y; ring.
have : 0 <= (nrm x - s * nrm y) ^+ 2 by apply: sqr_ge0.
move=> h3; rewrite -(ler_pmuln2r (isT : (0 < 2)%N)); apply: le_trans h2.
rewrite -subr_ge0; move: h3; congr (0 <= _).
by set p := nrm x; set q := nrm y; ring.
Qed.

(* cosines of two angles at y give one of their sum *)
Lemma angles_add n (x y z : 'cV[R]_n) (a b : R) : 0 <= a <= 1 -> 0 <= b <= 1 -> y != 0 ->
  Num.sqrt (1 - a ^+ 2) * (nrm x * nrm y) <= dot x y ->
  Num.sqrt (1 - b ^+ 2) * (nrm z * nrm y) <= dot z y ->
  (Num.sqrt (1 - a ^+ 2) * Num.sqrt (1 - b ^+ 2) - a * b) * (nrm x * nrm z) <= dot x z.
Proof.
move=> /andP[a0 a1] /andP[b0 b1] y0.
set sa := Num.sqrt _; set sb := Num.sqrt _ => hx hz.
have sa0 : 0 <= sa by apply: sqrtr_ge0.
have sb0 : 0 <= sb by apply: sqrtr_ge0.
have ny : 0 < nrm y by rewrite nrm_gt0.
have yy : dot y y != 0 by rewrite dot_eq0.
pose p v := v - (dot v y / dot y y) *: y.
have split2 u v : dot (p u) (p v) = dot u v - dot u y * dot v y / nrm y ^+ 2.
  rewrite /p dotBl !dotBr !dotZl !dotZr (dotC y) nrm_sqr.
  by set d := dot u v; set e := dot u y; set f := dot v y; set w := dot y y; field.
have sin_le v c (s := Num.sqrt (1 - c ^+ 2)) : 0 <= c <= 1 -> s * (nrm v * nrm y) <= dot v y -> nrm (p v) <= c * nrm v.
  move=> /andP[c0 c1] hv.
  rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?mulr_ge0 ?nrm_ge0 // exprMn nrm_sqr split2.
  have s2 : s ^+ 2 = 1 - c ^+ 2 by rewrite sqr_sqrtr // subr_ge0 expr_le1.
  have : (s * (nrm v * nrm y)) ^+ 2 <= dot v y ^+ 2.
    by rewrite ler_pexpn2r ?nnegrE ?mulr_ge0 ?nrm_ge0 ?sqrtr_ge0 // (le_trans _ hv) ?mulr_ge0 ?nrm_ge0 ?sqrtr_ge0.
  rewrite !exprMn s2 mulrA -ler_pdivl_mulr ?exprn_gt0 // -nrm_sqr => e.
  rewrite -subr_ge0 in e; rewrite -expr2 -subr_ge0; move: e; congr (0 <= _).
  by set q := nrm v; set d := _ / _; ring.
have a01 : 0 <= a <= 1 by rewrite a0. have b01 : 0 <= b <= 1 by rewrite b0.
have px := sin_le x a a01 hx; have pz := sin_le z b b01 hz.
have e : dot x z = dot x y * dot z y / nrm y ^+ 2 + dot (p x) (p z) by rewrite split2 addrC subrK.
rewrite e mulrBl; apply: ler_add.
  rewrite ler_pdivl_mulr ?exprn_gt0 //.
  rewrite (_ : _ * _ ^+ 2 = sa * (nrm x * nrm y) * (sb * (nrm z * nrm y))).
    by apply: ler_pmul => //; rewrite mulr_ge0 // mulr_ge0 ?nrm_ge0.
  by set t := nrm x; set u := nrm y; set v := nrm z; ring.
apply: le_trans (cauchy_ge _ _); rewrite ler_opp2.
rewrite (_ : a * b * _ = a * nrm x * (b * nrm z)); last first.
  by set t := nrm x; set v := nrm z; ring.
by apply: ler_pmul => //; rewrite nrm_ge0.
Qed.

Theorem descent_cosine n (g gL gp : 'cV[R]_n) (gamma eps c : R) :
  0 <= gamma <= 1 -> 0 <= eps <= 1 -> 0 < c -> gL != 0 ->
  nrm (g - gL) <= gamma * nrm gL -> nrm (c^-1 *: gL - gp) <= eps * nrm gp ->
  (Num.sqrt (1 - gamma ^+ 2) * Num.sqrt (1 - eps ^+ 2) - gamma * eps) * (nrm g * nrm gp) <= dot g gp.
Proof.
move=> g01 e01 c0 L0 hg hp; apply: (@angles_add _ _ gL) => //; first exact: cone.
have ci : 0 < c^-1 by rewrite invr_gt0.
have := cone e01 hp; rewrite dotZl nrmZ (gtr0_norm ci) -mulrA mulrCA.
by rewrite ler_pmul2l // dotC (mulrC (nrm gL)).
Qed.

Theorem descent_circle n (g gL gp : 'cV[R]_n) (gamma eps c : R) :
  0 <= gamma -> 0 <= eps -> gamma ^+ 2 + eps ^+ 2 < 1 -> 0 < c -> gL != 0 ->
  nrm (g - gL) <= gamma * nrm gL -> nrm (c^-1 *: gL - gp) <= eps * nrm gp -> 0 < dot g gp.
Proof.
move=> g0 e0 circle c0 L0 hg hp.
have g1 : gamma < 1.
  by rewrite -(@expr_lt1 _ 2) // (le_lt_trans _ circle) // ler_addl sqr_ge0.
have e1 : eps < 1.
  by rewrite -(@expr_lt1 _ 2) // (le_lt_trans _ circle) // ler_addr sqr_ge0.
have gn : g != 0.
  apply: contraTneq hg => ->; rewrite sub0r nrmN -ltNge -[X in _ < X]mul1r.
  by rewrite ltr_pmul2r ?nrm_gt0.
have pn : gp != 0.
  apply: contraTneq hp => ->; rewrite subr0 nrm0 mulr0 -ltNge nrm_gt0.
  by rewrite scaler_eq0 invr_eq0 gt_eqF.
apply: lt_le_trans (descent_cosine _ _ c0 L0 hg hp); rewrite ?g0 ?e0 ?ltW //.
have g2 : 0 <= 1 - gamma ^+ 2 by rewrite subr_ge0 expr_le1 // ltW.
have e2 : 0 <= 1 - eps ^+ 2 by rewrite subr_ge0 expr_le1 // ltW.
rewrite mulr_gt0 ?mulr_gt0 ?nrm_gt0 // subr_gt0 -sqrtrM //.
rewrite -(@ltr_pexpn2r _ 2) ?nnegrE ?sqrtr_ge0 ?mulr_ge0 // sqr_sqrtr ?mulr_ge0 //.
rewrite exprMn -subr_gt0; rewrite -subr_gt0 in circle; move: circle; congr (0 < _); ring.
Qed.

End Descents.

Section Claims.
Variable R : rcfType.

Lemma nrm_sum (I : finType) n (P : pred I) (x : I -> 'cV[R]_n) : nrm (\sum_(i | P i) x i) <= \sum_(i | P i) nrm (x i).
Proof.
elim/big_rec2: _ => [|i y v _ h]; first by rewrite nrm0.
by apply: le_trans (nrmD _ _) _; rewrite ler_add2l.
Qed.

(* what separates the last layer's gradient from the proxy *)
Lemma last_gap n (J : 'M[R]_n) (x : 'cV[R]_n) eps : 0 <= eps -> bounded (J - 1%:M) eps -> nrm (J^T *m x - x) <= eps * nrm x.
Proof.
move=> e0 /(bounded_tr e0)/(_ x); rewrite linearB /= trmx1 mulmxBl mul1mx //.
Qed.

(* The last gradient is near the proxy, the others are small beside it; zeta' is the sum of the two errors. *)
Theorem T3b_proof : T3b R.
Proof.
move=> L d n q J Gamma gamma eps s g proxy sigma zeta zeta' g0 e0 tail near bG p0.
have near' : nrm (g ord_max - proxy) <= eps * nrm proxy by apply: last_gap.
have tail' := le_trans (nrm_sum _ _) tail.
have np : 0 < nrm proxy by rewrite nrm_gt0.
have ps : nrm proxy <= s * nrm (q ord_max) by apply: bG.
have sharp : (1 - zeta') * nrm proxy ^+ 2 <= dot (\sum_l g l) proxy.
  by rewrite (bigD1 ord_max) //=; apply: descent.
have z : zeta' <= zeta.
  rewrite ler_add2l /sigma invf_div ler_pemulr // ler_pdivl_mulr ?mul1r //.
have error : nrm (\sum_l g l - proxy) <= zeta' * nrm proxy by rewrite (bigD1 ord_max) //=; apply: proxy_error.
split=> // t zt; split; last by move=> t1; rewrite mulr_gt0 ?subr_gt0 ?exprn_gt0.
  by apply: le_trans error _; rewrite ler_pmul2r.
by apply: le_trans sharp; rewrite ler_pmul2r ?exprn_gt0 // ler_add2l ler_opp2.
Qed.

Lemma bound_circle (gamma eps : R) : 0 <= gamma <= 1 -> 0 <= eps <= 1 ->
  (0 < Num.sqrt ((1 - eps ^+ 2) * (1 - gamma ^+ 2)) - eps * gamma) = (gamma ^+ 2 + eps ^+ 2 < 1).
Proof.
move=> /andP[g0 g1] /andP[e0 e1].
have h : 0 <= (1 - eps ^+ 2) * (1 - gamma ^+ 2) by rewrite mulr_ge0 ?subr_ge0 ?expr_le1.
rewrite subr_gt0 -(@ltr_pexpn2r _ 2) ?nnegrE ?sqrtr_ge0 ?mulr_ge0 // sqr_sqrtr //.
rewrite -subr_gt0 -[RHS]subr_gt0; congr (0 < _); ring.
Qed.

(* in the plane: the last layer turns by arcsin eps, the tail by arcsin gamma, the same way *)
Lemma cosine_attained (gamma eps : R) : 0 <= gamma <= 1 -> 0 <= eps < 1 -> exists (J : 'M[R]_2) (g proxy : 'cV[R]_2),
  [/\ bounded (J - 1%:M) eps, proxy != 0 /\ J^T *m proxy != 0, nrm (g - J^T *m proxy) <= gamma * nrm (J^T *m proxy),
      dot g proxy = (Num.sqrt ((1 - eps ^+ 2) * (1 - gamma ^+ 2)) - eps * gamma) * (nrm g * nrm proxy)
    & 1 <= gamma ^+ 2 + eps ^+ 2 -> dot g proxy <= 0].
Proof.
move=> g01 e01; have [g0 g1] := andP g01; have [e0 e1] := andP e01.
pose se := Num.sqrt (1 - eps ^+ 2); pose sg := Num.sqrt (1 - gamma ^+ 2).
have se2 : se ^+ 2 = 1 - eps ^+ 2 by rewrite sqr_sqrtr // subr_ge0 expr_le1 // ltW.
have sg2 : sg ^+ 2 = 1 - gamma ^+ 2 by rewrite sqr_sqrtr // subr_ge0 expr_le1.
have se0 : 0 < se by rewrite sqrtr_gt0 subr_gt0 expr_lt1.
have sg0 : 0 <= sg by apply: sqrtr_ge0.
have se' : Num.sqrt ((1 - eps ^+ 2) * (1 - gamma ^+ 2)) = se * sg.
  by rewrite sqrtrM // subr_ge0 expr_le1 // ltW.
clearbody se sg.
pose J := mat2 (se * se) (se * eps) (- (se * eps)) (se * se).
pose gL := vec2 (se * se) (se * eps).
pose g := vec2 (sg * se * (sg * se - gamma * eps)) (sg * se * (gamma * se + sg * eps)).
have eL : J^T *m vec2 1 0 = gL by rewrite tr_mat2 mat2_mul !mulr1 !mulr0 !addr0.
have nL : nrm gL = se.
  rewrite nrm2 (_ : _ + _ = se ^+ 2); first by rewrite sqrtr_sqr ger0_norm // ltW.
  transitivity (se ^+ 2 * (se ^+ 2 + eps ^+ 2)); first by ring.
  by rewrite {2}se2 subrK mulr1.
have dg : dot g (vec2 1 0) = sg * se * (sg * se - gamma * eps) by rewrite dot2 mulr1 mulr0 addr0.
have ng : nrm g = sg * se.
  rewrite nrm2 [X in Num.sqrt X](_ : _ = (sg * se) ^+ 2); first by rewrite sqrtr_sqr ger0_norm // mulr_ge0 // ltW.
  transitivity ((sg * se) ^+ 2 * ((sg ^+ 2 + gamma ^+ 2) * (se ^+ 2 + eps ^+ 2))); first by ring.
  by rewrite se2 sg2 !subrK !mulr1.
have n1 : nrm (vec2 1 0 : 'cV[R]_2) = 1 by rewrite nrm2 expr1n expr0n addr0 sqrtr1.
exists J, g, (vec2 1 0); rewrite eL; split.
- move=> x; rewrite sub_id2 (vec2E x) mat2_mul !nrm2.
  move: (x 0 0) (x 1 0) => a b.
  rewrite [X in _ <= X](_ : _ = Num.sqrt (eps ^+ 2 * (a ^+ 2 + b ^+ 2))); last first.
    by rewrite sqrtrM ?sqr_ge0 // sqrtr_sqr ger0_norm.
  apply: ler_wsqrtr.
  have -> : se * se - 1 = - eps ^+ 2 by rewrite -expr2 se2 addrAC subrr add0r.
  rewrite le_eqVlt; apply/orP; left; apply/eqP.
  transitivity (eps ^+ 2 * (se ^+ 2 + eps ^+ 2) * (a ^+ 2 + b ^+ 2)); first by ring.
  by rewrite se2 subrK mulr1.
- by split; rewrite vec2_eq0 ?oner_eq0 // mulf_eq0 orbb gt_eqF.
- rewrite nL opp2 add2 nrm2 [X in _ <= X](_ : _ = Num.sqrt ((gamma * se) ^+ 2)); last first.
    by rewrite sqrtr_sqr ger0_norm // mulr_ge0 // ltW.
  apply: ler_wsqrtr; rewrite le_eqVlt; apply/orP; left; apply/eqP.
  transitivity (se ^+ 2 * (se ^+ 2 + eps ^+ 2) * ((1 - (sg ^+ 2 + gamma ^+ 2)) * (1 - sg ^+ 2) + gamma ^+ 2)).
    by ring.
  by rewrite {2}se2 {1}sg2 !subrK subrr mul0r add0r mulr1 exprMn mulrC.
- by rewrite dg ng n1 se'; ring.
move=> h; rewrite dg mulr_ge0_le0 ?mulr_ge0 ?(ltW se0) //.
have e01' : 0 <= eps <= 1 by rewrite e0 ltW.
have : ~~ (0 < se * sg - eps * gamma) by rewrite -se' bound_circle // -leNgt.
by rewrite -leNgt mulrC [eps * _]mulrC.
Qed.

(* Two angles at the last gradient, arcsin gamma and arcsin eps, add; in the plane they add up exactly, with two layers. *)
Theorem T3c_proof : T3c R.
Proof.
split.
  move=> L d n q J Gamma gamma eps c g proxy g01 e01 c0 gL tail near bound.
  have [g0 g1] := andP g01; have [e0 e1] := andP e01.
  have tail' : nrm (\sum_l g l - g ord_max) <= gamma * nrm (g ord_max).
    by rewrite (bigD1 ord_max) //= addrAC subrr add0r; apply: le_trans (nrm_sum _ _) tail.
  have near' : nrm (c^-1 *: g ord_max - proxy) <= eps * nrm proxy.
    by have := last_gap proxy e0 near; rewrite linearZ /= -scalemxAl.
  split; [|exact: bound_circle|by move=> h; exact: (descent_circle g0 e0 h c0 gL tail' near')].
  rewrite /bound sqrtrM ?subr_ge0 ?expr_le1 // [Num.sqrt _ * _]mulrC [eps * _]mulrC.
  exact: (descent_cosine g01 e01 c0 gL tail' near').
move=> gamma eps /andP[g0 g1] e01; have g01 : 0 <= gamma <= 1 by rewrite g0 ltW.
have [J [g [proxy [near [p0 last0] tail cosine low]]]] := cosine_attained g01 e01; pose rest := g - J^T *m proxy.
exists (fun l => if l == ord_max then J else 1%:M), (fun l => if l == ord_max then proxy else rest), (fun=> 1%:M).
move=> h p; have lift0 : lift 0 0 = ord_max :> 'I_2 by apply: val_inj.
have hL : h ord_max = J^T *m proxy by rewrite /h /layer_gradient eqxx mulmx1.
have h0 : h 0 = rest by rewrite /h /layer_gradient /= trmx1 mul1mx mulmx1.
have pE : p = proxy by rewrite /p eqxx mulmx1.
have sE : \sum_l h l = g by rewrite big_ord_recl big_ord1 lift0 h0 hL subrK.
have gn : g != 0.
  apply: contraTneq tail => ->; rewrite sub0r nrmN -ltNge -subr_gt0 -{1}[nrm _]mul1r -mulrBl.
  by rewrite mulr_gt0 ?subr_gt0 // nrm_gt0.
rewrite sE pE hL eqxx; split=> //.
by rewrite big_mkcond big_ord_recl big_ord1 lift0 eqxx /= addr0 h0.
Qed.

End Claims.
