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
Theorem penalised_step l d : pd (A + l%:M) ->
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

Theorem step_minimises l d : pd (A + l%:M) -> surrogate l (displacement l) <= surrogate l d.
Proof.
move=> p; rewrite -subr_ge0 penalised_step // mulr_ge0 ?invr_ge0 ?ler0n //.
by have [_] := pd_psd p; apply.
Qed.

Theorem step_unique l d : pd (A + l%:M) -> surrogate l d <= surrogate l (displacement l) -> d = displacement l.
Proof.
move=> p h; apply/eqP; rewrite -subr_eq0; apply/eqP; apply: (pd_eq0 p).
have e : surrogate l d - surrogate l (displacement l) = 0.
  by apply/eqP; rewrite subr_eq0 eq_le h step_minimises.
by move/eqP: e; rewrite penalised_step // mulf_eq0 invr_eq0 pnatr_eq0 orbF => /eqP.
Qed.

(* L1: the trust region *)
Theorem trust_region l d : 0 <= l -> pd (A + l%:M) -> nrm d <= nrm (displacement l) ->
  surrogate 0 (displacement l) <= surrogate 0 d.
Proof.
move=> l0 p h; have := step_minimises d p; rewrite /statements.surrogate !mul0r !addr0.
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
have := ler_add (step_minimises d2 p1) (step_minimises d1 p2).
rewrite -/d1 -/d2 /statements.surrogate; set a := dot g d1 + _; set b := dot g d2 + _.
rewrite -subr_ge0 [X in 0 <= X](_ : _ = (l2 - l1) / 2%:R * (dot d1 d1 - dot d2 d2)); last first.
  by set x := dot d1 d1; set y := dot d2 d2; field.
rewrite pmulr_rge0 ?divr_gt0 ?subr_gt0 ?ltr0n // subr_ge0 -!nrm_sqr.
by rewrite ler_pexpn2r ?nnegrE ?nrm_ge0.
Qed.

End Penalty.
