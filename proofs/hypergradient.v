(* Several layers: the chain rule (T3a), the error of the parallel proxy (X11). *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear descent proxy.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

(* finitely many radii have a common one *)
Lemma common_radius L (P : 'I_L -> R -> Prop) :
  (forall l d d', P l d -> d' <= d -> P l d') -> (forall l, exists d, 0 < d /\ P l d) ->
  exists d, 0 < d /\ forall l, P l d.
Proof.
move=> mono h; have [f fP] := fin_all_exists h.
have fi l : 0 <= (f l)^-1 by rewrite invr_ge0 ltW //; case: (fP l).
have d0 : 0 < 1 + \sum_l (f l)^-1 by rewrite ltr_paddr ?ltr01 // sumr_ge0.
exists (1 + \sum_l (f l)^-1)^-1; split=> [|l]; first by rewrite invr_gt0.
have [f0 Pl] := fP l; apply: mono Pl _; rewrite -[X in _ <= X]invrK lef_pinv ?posrE ?invr_gt0 //.
by rewrite (bigD1 l) //= addrCA ler_addl addr_ge0 ?ler01 // sumr_ge0.
Qed.

Section Chain.
Variables (L d : nat) (n : 'I_L -> nat) (f : (forall l, 'M[R]_(d, n l)) -> R) (W : forall l, 'M[R]_(d, n l)).
Variables (q : forall l, 'cV[R]_(n l)) (phi : 'I_L -> 'cV[R]_d -> 'cV[R]_d) (J : 'I_L -> 'M[R]_d).
Variables (Gamma : forall l, 'M[R]_(d, n l)) (z : 'cV[R]_d).
Let edited z l := W l + phi l z *m (q l)^T.
Let g l := layer_gradient (J l) (Gamma l) (q l).
Hypothesis jac : forall l, jacobian (phi l) z (J l).
Let c := \sum_l (frob (J l) + 1) * nrm (q l).
Let b := \sum_l frob (Gamma l) * nrm (q l).

Let rest l h := phi l (z + h) - phi l z - J l *m h.

Lemma moved l h : edited (z + h) l - edited z l = (J l *m h + rest l h) *m (q l)^T.
Proof.
have -> : J l *m h + rest l h = phi l (z + h) - phi l z by rewrite /rest addrC subrK.
by rewrite /edited opprD addrACA subrr add0r mulmxBl.
Qed.

Lemma moved_le l h e : e <= 1 -> nrm (rest l h) <= e * nrm h ->
  frob (edited (z + h) l - edited z l) <= (frob (J l) + 1) * nrm (q l) * nrm h.
Proof.
move=> e1 hr; rewrite moved frob_rank1 mulrAC ler_wpmul2r ?nrm_ge0 //.
apply: le_trans (nrmD _ _) _; rewrite mulrDl; apply: ler_add; first exact: bounded_frob.
by apply: le_trans hr _; rewrite ler_wpmul2r ?nrm_ge0.
Qed.

Lemma moved_inner l h : inner (Gamma l) (edited (z + h) l - edited z l) = dot (g l) h + dot (Gamma l *m q l) (rest l h).
Proof.
rewrite moved inner_mul inner_cV dotDr; congr (_ + _).
by rewrite /g /layer_gradient [RHS]dot_mull trmxK.
Qed.

Lemma chain_rule : gradients f (edited z) Gamma -> gradient (fun z => f (edited z)) z (\sum_l g l).
Proof.
move=> gf e e0.
have c0 : 0 <= c by apply: sumr_ge0 => l _; rewrite mulr_ge0 ?nrm_ge0 // addr_ge0 ?frob_ge0 ?ler01.
have b0 : 0 <= b by apply: sumr_ge0 => l _; rewrite mulr_ge0 ?nrm_ge0 ?frob_ge0.
have c1 : 0 < c + 1 by rewrite ltr_paddl ?ltr01.
have b1 : 0 < b + 1 by rewrite ltr_paddl ?ltr01.
pose e1 := e / 2%:R / (c + 1); pose e2 := Num.min 1 (e / 2%:R / (b + 1)).
have h2 : 0 < e / 2%:R by rewrite divr_gt0 ?ltr0n.
have e10 : 0 < e1 by rewrite divr_gt0.
have e20 : 0 < e2 by rewrite lt_minr ltr01 divr_gt0.
have e21 : e2 <= 1 by rewrite le_minl lexx.
have [t [t0 hf]] := gf e1 e10.
have [s [s0 hs]] : exists s, 0 < s /\ forall l h, nrm h <= s -> nrm (rest l h) <= e2 * nrm h.
  apply: common_radius => [l x y hx yx h hh|l]; first exact/hx/(le_trans hh).
  exact: jac.
exists (Num.min s (t / (c + 1))); split=> [|h]; first by rewrite lt_minr s0 divr_gt0.
rewrite frob_cV le_minr => /andP[hhs hht].
have near l : frob (edited (z + h) l - edited z l) <= (frob (J l) + 1) * nrm (q l) * nrm h.
  exact: moved_le e21 (hs l h hhs).
have total : \sum_l frob (edited (z + h) l - edited z l) <= c * nrm h.
  by rewrite mulr_suml; apply: ler_sum => l _; apply: near.
have one l : frob (edited (z + h) l - edited z l) <= t.
  apply: le_trans (_ : _ <= c * nrm h) _.
    apply: le_trans (near l) _; rewrite ler_wpmul2r ?nrm_ge0 // /c (bigD1 l) //= ler_addl.
    by apply: sumr_ge0 => i _; rewrite mulr_ge0 ?nrm_ge0 // addr_ge0 ?frob_ge0 ?ler01.
  apply: le_trans (_ : _ <= (c + 1) * nrm h) _; first by rewrite ler_wpmul2r ?nrm_ge0 // ler_addl ler01.
  by rewrite mulrC -ler_pdivl_mulr.
have := hf _ one; under eq_bigr do rewrite moved_inner; rewrite big_split /= => hf'.
have dg : \sum_l dot (g l) h = dot (\sum_l g l) h.
  elim/big_rec2: _ => [|i y v _ ->]; first by rewrite dot0l.
  by rewrite dotDl.
rewrite inner_cV -dg; set A := f _ - f _; set B := \sum_l dot (g l) h; set C := \sum_l dot _ (rest l h) in hf'.
have hC : `|C| <= b * (e2 * nrm h).
  apply: le_trans (ler_norm_sum _ _ _) _; rewrite mulr_suml; apply: ler_sum => l _.
  apply: le_trans (cauchy_abs _ _) _; apply: ler_pmul; rewrite ?nrm_ge0 ?bounded_frob //.
  exact: hs.
have -> : A - B = (A - (B + C)) + C by rewrite opprD addrA subrK.
apply: le_trans (ler_norm_add _ _) _; rewrite (_ : e * nrm h = e / 2%:R * nrm h + e / 2%:R * nrm h); last first.
  by rewrite -mulrDl -mulrDr -mulr2n -[_ *+ 2]mulr_natl mulfV ?pnatr_eq0 // mulr1.
apply: ler_add.
  apply: le_trans hf' _; apply: le_trans (_ : _ <= e1 * (c * nrm h)) _; first by rewrite ler_wpmul2l // ltW.
  rewrite mulrA ler_wpmul2r ?nrm_ge0 // /e1 mulrAC ler_pdivr_mulr // ler_pmul2l // ler_addl ler01 //.
apply: le_trans hC _; rewrite mulrA ler_wpmul2r ?nrm_ge0 //.
apply: le_trans (_ : _ <= b * (e / 2%:R / (b + 1))) _; first by rewrite ler_wpmul2l // le_minl lexx orbT.
by rewrite mulrA ler_pdivr_mulr // mulrC ler_pmul2l // ler_addl ler01.
Qed.

End Chain.

(* The chain rule; the error is what the other layers say and what separates J_L from the identity. *)
Theorem T3a_proof : T3a R.
Proof.
move=> L d n f W q phi J Gamma z edited g proxy jac gf; split; first exact: chain_rule.
move=> gamma eps s tail e0 near bG; rewrite (bigD1 ord_max) //= [g ord_max + _]addrC -addrA.
apply: le_trans (nrmD _ _) _; apply: ler_add; first exact: le_trans (nrm_sum _ _) tail.
apply: le_trans (last_gap proxy e0 near) _; rewrite -mulrA ler_wpmul2l //.
exact: bG.
Qed.

(* Layer by layer, g_l - s_l Gamma'_l q'_l is a sum of four terms; the norm of each is bounded. *)
Theorem X11_part_proof : X11_part R.
Proof.
move=> L d n J Gamma Gamma' q q' moving s e s0 e0 near; cbv zeta; rewrite -sumrB.
apply: le_trans (nrm_sum _ _) _; apply: ler_sum => l _.
rewrite (_ : _ - _ = ((J l - (s l)%:M)^T *m (Gamma l *m q l) + s l *: (Gamma l *m (q l - q' l))
    + s l *: ((Gamma l - Gamma' l) *m q' l)) + moving l); last first.
  rewrite /layer_gradient linearB /= tr_scalar_mx mulmxBl mul_scalar_mx mulmxBr mulmxBl !scalerBr.
  set a := _ *m _; set u := s l *: _; set v := s l *: _; set w := s l *: _.
  by rewrite !addrA !subrK addrAC.
apply: le_trans (nrmD _ _) _; rewrite ler_add2r.
apply: le_trans (nrmD _ _) _; rewrite nrmZ ger0_norm // ler_add2r.
apply: le_trans (nrmD _ _) _; rewrite nrmZ ger0_norm // ler_add2r.
exact: (bounded_tr (e0 l) (near l)).
Qed.

End Claims.
