(* T3b, T3c *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear.

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
