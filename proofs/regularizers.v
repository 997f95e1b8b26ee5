(* Other regularizers: X6. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation drift penalty trap.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

(* two lengths p/l and q/l share a band [theta tau, tau] for some l iff q/p is within theta and 1/theta *)
Lemma window (p q tau theta : R) : 0 < p -> 0 < q -> 0 < tau -> 0 < theta ->
  (exists l, [/\ 0 < l, theta * tau <= p / l <= tau & theta * tau <= q / l <= tau]) <-> theta <= q / p <= theta^-1.
Proof.
move=> p0 q0 t0 h0; rewrite ler_pdivl_mulr // ler_pdivr_mulr // [_^-1 * p]mulrC ler_pdivl_mulr // [q * _]mulrC.
have band x l : 0 < l -> (theta * tau <= x / l <= tau) = (theta * (tau * l) <= x <= tau * l).
  by move=> l0; rewrite ler_pdivl_mulr // ler_pdivr_mulr // mulrA.
split=> [[l [l0]]|/andP[hp hq]].
  rewrite !band // => /andP[p1 p2] /andP[q1 q2].
  by apply/andP; split; [apply: le_trans q1 | apply: le_trans p1]; rewrite ler_wpmul2l ?(ltW h0).
have h1 : theta <= 1.
  rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?ler01 ?(ltW h0) // expr1n -(ler_pmul2r p0) mul1r expr2 -mulrA.
  by apply: le_trans hq; rewrite ler_pmul2l.
have m0 : 0 < Num.max p q by rewrite lt_maxr p0.
exists (Num.max p q / tau); have l0 : 0 < Num.max p q / tau by rewrite divr_gt0.
have e : tau * (Num.max p q / tau) = Num.max p q by rewrite mulrC divfK ?gt_eqF.
rewrite !band // e !le_maxr !lexx orbT !andbT; split=> //.
  by rewrite maxr_pmulr ?(ltW h0) // le_maxl hq andbT ler_pimull ?(ltW p0).
by rewrite maxr_pmulr ?(ltW h0) // le_maxl hp /= ler_pimull ?(ltW q0).
Qed.

Lemma scaled_inverse n (F : 'M[R]_n) l : pd F -> 0 < l -> invmx (l *: F) = l^-1 *: invmx F.
Proof. by move=> pF l0; rewrite invmxZ // unitmxZ ?pd_unit // unitfE gt_eqF. Qed.

Lemma hlenZ n (H : 'M[R]_n) c x : 0 <= c -> hlen H (c *: x) = c * hlen H x.
Proof.
by move=> c0; rewrite /hlen -scalemxAr dotZl dotZr mulrA -expr2 sqrtrM ?sqr_ge0 // sqrtr_sqr ger0_norm.
Qed.

Lemma hlen_gt0 n (H : 'M[R]_n) x : pd H -> x != 0 -> 0 < hlen H x.
Proof. by move=> [_ h] x0; rewrite sqrtr_gt0 h. Qed.

Lemma ellipsoid_hlen n (H : 'M[R]_n) tau x : pd H -> 0 <= tau -> ellipsoid H tau x <-> hlen H x <= tau.
Proof.
move=> pH t0; have [_ h] := pd_psd pH.
by rewrite /ellipsoid -(ler_sq (sqrtr_ge0 _) t0) sqr_sqrtr.
Qed.

Lemma hlen_eigen n (H : 'M[R]_n) c u : 0 < c -> nrm u = 1 -> H *m u = c *: u -> hlen H u = Num.sqrt c.
Proof. by move=> c0 u1 e; rewrite /hlen e dotZr -nrm_sqr u1 expr1n mulr1. Qed.

(* T2a with A = l F - l I *)
Lemma regularized_step n (F : 'M[R]_n) g l : pd F -> 0 < l ->
  let regularized d := dot g d + l / 2%:R * dot d (F *m d) in let s := - (invmx (l *: F) *m g) in
  (forall d, regularized s <= regularized d) /\ forall d, regularized d <= regularized s -> d = s.
Proof.
move=> pF l0 regularized s; pose A := l *: F - l%:M; have eA : A + l%:M = l *: F by rewrite subrK.
have sA : sym A by rewrite /sym /A linearB /= linearZ /= tr_scalar_mx; case: pF => ->.
have pA : pd (A + l%:M) by rewrite eA; apply: pdZ.
have e d : regularized d = surrogate A g l d.
  rewrite /regularized /surrogate /A mulmxBl dotBr mul_scalar_mx -scalemxAl !dotZr.
  by set u := dot d _; set v := dot d d; set w := dot g d; field.
have -> : s = displacement A g l by rewrite /displacement eA.
by have [h1 h2] := T2a_proof g sA pA; split=> d; rewrite !e; [apply: h1 | apply: h2].
Qed.

(* The aligned step d has H d = - (r/s) g, so that (x - d).H(x - d) <= 0 wherever x is as good as d. *)
Lemma aligned_unique n (H : 'M[R]_n) g r : pd H -> g != 0 -> 0 <= r ->
  let d := - ((r / Num.sqrt (dot g (invmx H *m g))) *: (invmx H *m g)) in
  forall x, ellipsoid H r x -> dot g x <= dot g d -> x = d.
Proof.
move=> pH g0 r0; set s := Num.sqrt _ => d x hx better; have uH := pd_unit pH; have [sH _] := pH.
have p0 : 0 < dot g (invmx H *m g) by case: (pd_inv pH) => _; apply.
have s0 : 0 < s by rewrite sqrtr_gt0.
have s2 : dot g (invmx H *m g) = s ^+ 2 by rewrite sqr_sqrtr // ltW.
have Hd : H *m d = - ((r / s) *: g) by rewrite /d mulmxN -scalemxAr mulKVmx.
have gd : dot g d = - (r * s) by rewrite /d dotNr dotZr s2; congr (- _); field; rewrite gt_eqF.
clearbody d; apply/eqP; rewrite -subr_eq0; apply/eqP/(pd_eq0 pH)/eqP; rewrite eq_le.
have [_ ->] := pd_psd pH; rewrite andbT.
have rs : (r / s) * (r * s) = r ^+ 2 by field; rewrite gt_eqF.
have worse : (r / s) * dot g x <= - r ^+ 2.
  by rewrite -rs -mulrN -gd ler_wpmul2l // divr_ge0 // ltW.
rewrite mulmxBr Hd dotBr !dotBl opprB -(sym_dot d x sH) Hd !(dotNr, dotNl, dotZr, dotZl) (dotC x g) (dotC d g) gd.
rewrite [X in X <= _](_ : _ = dot x (H *m x) + (r / s * dot g x) + (r / s * dot g x) + r / s * (r * s)); last by ring.
rewrite rs; apply: le_trans (_ : r ^+ 2 + (- r ^+ 2) + (- r ^+ 2) + r ^+ 2 <= _); last by rewrite subrr add0r addNr.
by rewrite ler_add2r !ler_add.
Qed.

(* Steps along eigenvectors of F have lengths p/l; two of them share a band iff their ratio is within it. *)
Theorem X6_proof : X6 R.
Proof.
move=> n H F top low ue uh pH pF hT hL ne nh ee eh step.
have top0 : 0 < top by apply: pd_eigenvalue pH _; case: hT.
have low0 : 0 < low by apply: pd_eigenvalue pH _; case: hL.
have s0 : 0 < Num.sqrt top by rewrite sqrtr_gt0.
have sl : 0 < Num.sqrt low by rewrite sqrtr_gt0.
have uF := pd_unit pF.
have ue0 : ue != 0 by rewrite -nrm_gt0 ne ltr01.
have uh0 : uh != 0 by rewrite -nrm_gt0 nh ltr01.
have stepE c (u : 'cV[R]_n) l : 0 < l -> step (- (c *: u)) l = (c / l) *: (invmx F *m u).
  by move=> l0; rewrite /step scaled_inverse // mulmxN opprK -scalemxAl -scalemxAr scalerA mulrC.
have inv (u : 'cV[R]_n) f : u != 0 -> F *m u = f *: u -> 0 < f /\ invmx F *m u = f^-1 *: u.
  move=> u0 e; have f0 := pd_eigenvector pF u0 e; split=> //.
  by apply: (canLR (mulKmx uF)); rewrite -scalemxAr e scalerA mulVf ?scale1r // gt_eqF.
split.
- by move=> g l; apply: regularized_step.
- move=> fe fh /(inv _ _ ue0)[fe0 ie] /(inv _ _ uh0)[fh0 ih] a b tau Delta a0 b0 t0 D0.
  have serve l : 0 < l -> (Delta <= nrm (step (- (a *: ue)) l)) = (Delta * (fe * l) <= a) /\
      (ellipsoid H tau (step (- (b *: uh)) l) <-> b * Num.sqrt top <= tau * (fh * l)).
    move=> l0; rewrite !stepE // ie ih !scalerA.
    rewrite nrmZ ne mulr1 ger0_norm ?mulr_ge0 ?invr_ge0 ?(ltW a0) ?(ltW l0) ?(ltW fe0) // -mulrA -invfM.
    rewrite [l * fe]mulrC ler_pdivl_mulr ?mulr_gt0 //; split=> //.
    apply: iff_trans (ellipsoid_hlen _ pH (ltW t0)) _.
    rewrite hlenZ ?mulr_ge0 ?invr_ge0 ?(ltW b0) ?(ltW l0) ?(ltW fh0) // (hlen_eigen top0 nh eh).
    by rewrite -[b / l / fh]mulrA -invfM [l * fh]mulrC mulrAC ler_pdivr_mulr ?mulr_gt0.
  rewrite ler_pdivr_mulr // mulrAC ler_pdivl_mulr ?mulr_gt0 //.
  split=> [[l [l0]]|h].
    have [-> he] := serve l l0 => h1 /he h2.
    rewrite (_ : b * _ = Delta * fe * (b * Num.sqrt top)); last by ring.
    apply: le_trans (_ : _ <= Delta * fe * (tau * (fh * l))) _; first by rewrite ler_wpmul2l // mulr_ge0 // ltW.
    rewrite (_ : Delta * fe * _ = tau * fh * (Delta * (fe * l))); last by ring.
    by rewrite ler_wpmul2l // mulr_ge0 // ltW.
  have l0 : 0 < a / (Delta * fe) by apply: divr_gt0 => //; apply: mulr_gt0.
  have [e1 e2] := serve _ l0; exists (a / (Delta * fe)); split=> //.
    by rewrite e1 mulrA mulrC divfK // gt_eqF ?mulr_gt0.
  apply/e2; rewrite !mulrA ler_pdivl_mulr ?mulr_gt0 //.
  by apply: le_trans h; rewrite le_eqVlt; apply/orP; left; apply/eqP; ring.
- move=> fe fh /(inv _ _ ue0)[fe0 ie] /(inv _ _ uh0)[fh0 ih] a b tau theta a0 b0 t0 h0.
  have p0 : 0 < a * Num.sqrt low / fe by rewrite divr_gt0 ?mulr_gt0.
  have q0 : 0 < b * Num.sqrt top / fh by rewrite divr_gt0 ?mulr_gt0.
  have len c f (u : 'cV[R]_n) d l : 0 < l -> 0 < c -> 0 < f -> 0 < d -> invmx F *m u = f^-1 *: u -> nrm u = 1 -> H *m u = d *: u ->
      hlen H (step (- (c *: u)) l) = c * Num.sqrt d / f / l.
    move=> l0 c0 f0 d0 iu u1 eu; rewrite stepE // iu scalerA hlenZ ?mulr_ge0 ?invr_ge0 ?ltW //.
    by rewrite (hlen_eigen d0 u1 eu); field; rewrite !gt_eqF.
  rewrite sqrtrM ?(ltW top0) // sqrtrV ?(ltW low0) //.
  rewrite (_ : b / a * _ * _ = (b * Num.sqrt top / fh) / (a * Num.sqrt low / fe)); last by field; rewrite !gt_eqF.
  apply: iff_trans (window p0 q0 t0 h0).
  by split=> -[l [l0 h1 h2]]; exists l; move: h1 h2;
    rewrite (len a fe ue low l) // (len b fh uh top l).
- move=> u w u0 w0; pose P := hlen H (invmx F *m u); pose Q := hlen H (invmx F *m w).
  have nz (x : 'cV[R]_n) : x != 0 -> invmx F *m x != 0 by apply: contra_neq => h; rewrite -[x](mulKVmx uF) h mulmx0.
  have P0 : 0 < P by apply: hlen_gt0 => //; apply: nz.
  have Q0 : 0 < Q by apply: hlen_gt0 => //; apply: nz.
  exists (P / Q); split=> [|a b tau theta a0 b0 t0 h0]; first exact: divr_gt0.
  have p0 : 0 < a * P by apply: mulr_gt0.
  have q0 : 0 < b * Q by apply: mulr_gt0.
  have PQ : 0 < P / Q by apply: divr_gt0.
  have e : (b * Q) / (a * P) = (b / a) / (P / Q) by field; rewrite !gt_eqF.
  have A : (theta * (P / Q) <= b / a) = (theta <= (b * Q) / (a * P)) by rewrite e [RHS]ler_pdivl_mulr.
  have B : (b / a <= P / Q / theta) = ((b * Q) / (a * P) <= theta^-1) by rewrite e [RHS]ler_pdivr_mulr // [theta^-1 * _]mulrC.
  rewrite A B.
  apply: iff_trans (window p0 q0 t0 h0).
  have len c (x : 'cV[R]_n) l : 0 < l -> 0 < c -> hlen H (step (- (c *: x)) l) = c * hlen H (invmx F *m x) / l.
    by move=> l0 c0; rewrite stepE // hlenZ ?divr_ge0 ?ltW // mulrAC.
  by split=> -[l [l0 h1 h2]]; exists l; move: h1 h2; rewrite !len.
move=> g r g0 r0 d; have pI := pd_inv pH; have uH := pd_unit pH; have [sI hI] := pI.
set k := dot g (invmx H *m g) in d *; have k0 : 0 < k by apply: hI.
have sk : 0 < Num.sqrt k by rewrite sqrtr_gt0.
have gd : dot g d = - (r * Num.sqrt k).
  rewrite /d dotNr dotZr -/k -{2}[k]sqr_sqrtr ?(ltW k0) //; congr (- _); field; by rewrite gt_eqF.
have hd : dot d (H *m d) = r ^+ 2.
  rewrite {2}/d mulmxN -scalemxAr mulKVmx // dotNr dotZr dotC gd mulrN opprK.
  by rewrite expr2; field; rewrite gt_eqF.
split.
- by rewrite /ellipsoid hd.
- move=> x hx; rewrite gd -[X in _ <= X]opprK ler_opp2 -dotNr.
  have hx' : dot (- x) (H *m - x) <= r ^+ 2 by rewrite mulmxN dotNl dotNr opprK.
  move: (- x) hx' => y hy; apply: le_trans (ler_norm _) _.
  rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?normr_ge0 ?mulr_ge0 ?(ltW sk) // real_normK ?num_real //.
  rewrite exprMn sqr_sqrtr ?(ltW k0) // mulrC.
  have := cauchy_form g (H *m y) pI; rewrite mulKmx // => h; apply: le_trans h _.
  by rewrite -/k ler_pmul2l // dotC.
- exact: aligned_unique.
by rewrite /hlen hd sqrtr_sqr ger0_norm.
Qed.

End Claims.
