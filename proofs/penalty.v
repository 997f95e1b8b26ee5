(* T2a, L1 *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.
Section Penalty.
Variable R : rcfType.
Variables (n : nat) (A : 'M[R]_n) (g : 'cV[R]_n).
Hypothesis sA : sym A.
Local Notation surrogate := (statements.surrogate A g).
Local Notation displacement := (statements.displacement A g).


(* T2a *)
Theorem penalized_step l d : pd (A + l%:M) ->
  surrogate l d - surrogate l (displacement l) =
  dot (d - displacement l) ((A + l%:M) *m (d - displacement l)) / 2%:R.
Proof.
move=> p; set s := displacement l; have [sM _] := p; have u := pd_unit p.
have eg : g = - ((A + l%:M) *m s) by rewrite /s /statements.displacement mulmxN mulKVmx ?opprK.
have q v : surrogate l v = dot g v + dot v ((A + l%:M) *m v) / 2%:R.
  by rewrite /statements.surrogate -addrA mulmxDl mul_scalar_mx dotDr dotZr mulrDl [in RHS]mulrAC.
rewrite !q; clearbody s; set M := A + l%:M in eg q sM *.
rewrite {1 2}eg mulmxBr dotBl !dotBr !dotNl -(sym_dot s d sM).
rewrite [dot d (M *m s)]dotC [dot s (M *m s)]dotC.
by set a := dot d _; set b := dot _ d; set c := dot _ s; field.
Qed.

Theorem step_minimizes l d : pd (A + l%:M) -> surrogate l (displacement l) <= surrogate l d.
Proof.
move=> p; rewrite -subr_ge0 penalized_step // mulr_ge0 ?invr_ge0 ?ler0n //.
by have [_] := pd_psd p; apply.
Qed.

Theorem step_unique l d : pd (A + l%:M) -> surrogate l d <= surrogate l (displacement l) -> d = displacement l.
Proof.
move=> p h; apply/eqP; rewrite -subr_eq0; apply/eqP; apply: (pd_eq0 p).
have e : surrogate l d - surrogate l (displacement l) = 0.
  by apply/eqP; rewrite subr_eq0 eq_le h step_minimizes.
by move/eqP: e; rewrite penalized_step // mulf_eq0 invr_eq0 pnatr_eq0 orbF => /eqP.
Qed.

(* L1: the trust region *)
Theorem trust_region l d : 0 <= l -> pd (A + l%:M) -> nrm d <= nrm (displacement l) ->
  surrogate 0 (displacement l) <= surrogate 0 d.
Proof.
move=> l0 p h; have := step_minimizes d p; rewrite /statements.surrogate !mul0r !addr0.
set s := displacement l; set a := dot g s + _; set b := dot g d + _ => e.
have {}h : l / 2%:R * dot d d <= l / 2%:R * dot s s.
  rewrite ler_wpmul2l ?divr_ge0 ?ler0n // -!nrm_sqr.
  by rewrite ler_pexpn2r ?nnegrE ?nrm_ge0.
by rewrite -(ler_add2r (l / 2%:R * dot s s)) (le_trans e) // ler_add2l.
Qed.

(* L1: a larger penalty is a smaller step *)
Theorem radius_antitone l1 l2 : l1 < l2 -> pd (A + l1%:M) -> pd (A + l2%:M) ->
  nrm (displacement l2) <= nrm (displacement l1).
Proof.
move=> l12 p1 p2; set d1 := displacement l1; set d2 := displacement l2.
have := ler_add (step_minimizes d2 p1) (step_minimizes d1 p2).
rewrite -/d1 -/d2 /statements.surrogate; set a := dot g d1 + _; set b := dot g d2 + _.
rewrite -subr_ge0 [X in 0 <= X](_ : _ = (l2 - l1) / 2%:R * (dot d1 d1 - dot d2 d2)); last first.
  by set x := dot d1 d1; set y := dot d2 d2; field.
rewrite pmulr_rge0 ?divr_gt0 ?subr_gt0 ?ltr0n // subr_ge0 -!nrm_sqr.
by rewrite ler_pexpn2r ?nnegrE ?nrm_ge0.
Qed.

End Penalty.

Section Claims.
Variable R : rcfType.

Lemma sym_shift n (A : 'M[R]_n) l : sym A -> sym (A + l%:M).
Proof. by move=> sA; apply: sym_add => //; rewrite /sym tr_scalar_mx. Qed.

Lemma pd_shift n (A : 'M[R]_n) l1 l2 : sym A -> l1 <= l2 -> pd (A + l1%:M) -> pd (A + l2%:M).
Proof.
move=> sA l12 [_ h]; split=> [|x x0]; first exact: sym_shift.
apply: lt_le_trans (h x x0) _.
by rewrite !mulmxDl !dotDr !mul_scalar_mx !dotZr ler_add2l ler_wpmul2r ?dot_ge0.
Qed.

Lemma stationary n (A : 'M[R]_n) g l : A + l%:M \in unitmx ->
  g + A *m displacement A g l + l *: displacement A g l = 0.
Proof. by move=> u; rewrite -addrA -mul_scalar_mx -mulmxDl /displacement mulmxN mulKVmx // subrr. Qed.

(* The surrogate is a square about the step. *)
Theorem T2a_proof : T2a R.
Proof. by move=> n A g l sA p; split=> d; [apply: step_minimizes | apply: step_unique]. Qed.

(* Two penalties with steps of one length have one step, which then solves two equations that differ by (l2 - l1) d. *)
Lemma radius_strict n (A : 'M[R]_n) g l1 l2 : sym A -> g != 0 -> l1 < l2 -> pd (A + l1%:M) ->
  nrm (displacement A g l2) < nrm (displacement A g l1).
Proof.
move=> sA g0 l12 p1; have p2 := pd_shift sA (ltW l12) p1.
rewrite lt_neqAle radius_antitone // andbT; apply: contra_neq g0 => e.
set d1 := displacement A g l1 in e; set d2 := displacement A g l2 in e.
have ee : dot d2 d2 = dot d1 d1 by rewrite -!nrm_sqr e.
have same : d2 = d1.
  apply: step_unique => //; have := step_minimizes g d1 p2; rewrite -/d1 -/d2 /surrogate ee.
  by rewrite !ler_add2r.
have e1 := stationary g (pd_unit p1); have e2 := stationary g (pd_unit p2); rewrite -/d1 -/d2 same in e1 e2.
have : (l2 - l1) *: d1 = 0.
  by rewrite scalerBl; apply/eqP; rewrite subr_eq0; apply/eqP/(addrI (g + A *m d1)); rewrite e1 e2.
move/eqP; rewrite scaler_eq0 subr_eq0 gt_eqF //= => /eqP d0.
by move: e1; rewrite d0 mulmx0 scaler0 !addr0.
Qed.

(* A point of the ball has no larger penalty, so that the minimizer of the penalized surrogate is best there.
   In one dimension with A = g = 1 no penalty gives the radius 2: R(l) = 1/(1 + l). *)
Theorem L1_proof : L1 R.
Proof.
split=> [n A g sA|]; last first.
  exists 1%:M, 1%:M, 2%:R; split; rewrite ?ltr0n ?oner_neq0 //.
    by split=> [|x x0]; rewrite ?/sym ?trmx1 // mul1mx dot_gt0.
  move=> l l0; have p : 0 < 1 + l by rewrite ltr_paddr ?ltr01.
  rewrite /displacement -raddfD invmx_scalar mul_scalar_mx nrmN nrmZ (_ : nrm _ = 1); last first.
    by rewrite /nrm dotE big_ord1 !mxE mulr1 sqrtr1.
  rewrite mulr1 ger0_norm ?invr_ge0 ?(ltW p) // lt_eqF // (@le_lt_trans _ _ 1) ?ltr1n //.
  by rewrite invf_le1 // ler_addl.
split.
- by move=> l l0 p s; split=> [|d]; [apply: stationary; apply: pd_unit | apply: trust_region].
- move=> l1 l2; rewrite le_eqVlt => /orP[/eqP -> //|l12] p1.
  by apply: radius_antitone => //; apply: pd_shift p1 => //; apply: ltW.
by move=> g0 l1 l2; apply: radius_strict.
Qed.

End Claims.
