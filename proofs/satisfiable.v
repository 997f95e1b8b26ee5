(* Every claim of statements.v has instances of all its premises, at every size and without zeros (see premises.v):
   multiples of the identity and columns of ones; a diagonal with two eigenvalues where extremes matter. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements premises linear spectral eigen attenuation alphaedit drift batch plane proxy allocation regularizers instances.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Ltac ends := solve [by rewrite ?ltr01 // -?natrX ler1n].
Ltac nonzero := solve [ by do ?apply: leqW | exact: id_neq0 | exact: ones_neq0 | move=> ?; exact: ones_neq0 | move=> ?; exact: id_neq0 | exact: stack_neq0 | exact: oner_neq0 | exact: two_neq0
  | exact: half_neq0 | exact: axis_neq0 | apply: two_nonzero; ends | apply: two_values_neq0; ends | by rewrite pnatr_eq0
  | exact: edit_neq0 (id_pd _ _) (ones_neq0 _ _ _) (ones_neq0 _ _ _) | exact: id_batch_neq0 | by []].
Tactic Notation "put" uconstr(x) := refine (ex_intro _ x _); split; [nonzero | ].
Ltac meet := repeat (split; [solve [ lazymatch goal with
  | |- pd 1%:M => exact: id_pd
  | |- pd (two _ _ _) => apply: two_pd; ends
  | |- largest (two _ _ _) _ => apply: two_largest; ends
  | |- smallest (two _ _ _) _ => apply: two_smallest; ends
  | |- nrm (axis _ _) = 1 => exact: axis_unit
  | |- two _ _ _ *m _ = _ => by rewrite two_axis mxE
  | |- sym _ => exact: scalar_sym
  | |- projector _ => exact: id_projector
  | |- independent _ => exact: id_independent
  | |- _^T *m _ = _ => exact: id_orthonormal
  | |- is_true (_ < _) => first [exact: ltr01 | by rewrite ltr0n]
  | |- is_true (_ <= _) => first [exact: ler01 | by rewrite ler0n]
  | |- is_true _ => nonzero
  | |- axis _ _ = axis _ _ => exact: erefl
  | |- True => exact: I
  | |- pd (1%:M + 1%:M) => exact: id_two_pd
  | |- pd _ => assumption
  end ] | ]).

Section Satisfiable.
Variable R : rcfType.
Let one_le_two : (1 : R) <= 2%:R. Proof. by rewrite ler1n. Qed.
Let one_lt_two : (1 : R) < 2%:R. Proof. by rewrite ltr1n. Qed.
Let two_minus_one : 2%:R - 1 = 1 :> R. Proof. by ring. Qed.
Let one_neq_two : (2%:R == 1 :> R) = false. Proof. by rewrite gt_eqF. Qed.

Theorem T1_satisfiable : premises_met (T1 R).
Proof.
move=> N; put N.+1; put N.+1; put 1%:M; put (const_mx 1); put (const_mx 1); meet.
by put (edit 1%:M (const_mx 1) (const_mx 1)).
Qed.

Theorem T1a_satisfiable : premises_met (T1a R).
Proof. by move=> N; put N.+1; put 1%:M; meet; put 1%:M; put (const_mx 1); apply: scalar_basis. Qed.

Theorem T1b_satisfiable : premises_met (T1b R).
Proof.
move=> N; put N.+2; put (two N 1 2%:R); put 1%:M; put (two_values N 1 2%:R); put (axis R 0); exists (pred1 0).
put 2%:R; put 1; put (2%:R^-1); split; first exact: two_basis; split; first exact: ltr01.
split=> [i|]; first by apply: two_ge; ends.
split; first by rewrite ltr0n.
split=> [i /eqP ->|]; first by rewrite mxE.
split; first by rewrite ltW ?half_gt0 // ltW ?half_lt1.
rewrite big1 => [|i /= i0]; first by rewrite mulr_ge0 ?sqr_ge0 // ltW ?half_gt0.
by rewrite trmx1 mul1mx mxE (negbTE i0) expr0n.
Qed.

Theorem T1c_satisfiable : premises_met (T1c R).
Proof.
move=> N; split.
  put N.+2; put (two N 1 2%:R); put 1%:M; put (two_values N 1 2%:R); put (axis R 0); exists (pred1 0).
  put 2%:R; split; first exact: two_basis; meet; split=> [i /eqP ->|i /= i0]; first by rewrite mxE.
  by rewrite trmx1 mul1mx mxE (negbTE i0).
by put N.+1; put (const_mx 1); put 1; meet => M [M0 _]; exists M.
Qed.

Theorem T1d_satisfiable : premises_met (T1d R).
Proof.
move=> N; split; first by put N.+1; put 1%:M; put 1%:M; put (const_mx 1); meet => x.
by put N.+1; put 1%:M; put 1%:M; put (const_mx 1); meet; put 1; put 2%:R; meet.
Qed.

Theorem T1e_satisfiable : premises_met (T1e R).
Proof.
move=> N; put N.+1; put N.+1; put 1%:M; put 1; put (const_mx 1); put (const_mx 1); meet.
exists (projected_edit 1%:M 1 (const_mx 1) (const_mx 1)); split=> //.
rewrite /projected_edit scaler_eq0 negb_or invr_eq0 gt_eqF ?ltr_paddr ?ltr01 ?dot_ge0 //= mul1mx -frob_eq0 frob_rank1.
by rewrite mulf_neq0 // gt_eqF ?ones_nrm_gt0.
Qed.

Theorem T1f_satisfiable : premises_met (T1f R).
Proof.
move=> N; put N.+1; put N.+1; put 1%:M; put 1; put (const_mx 1); put (const_mx 1); meet; put N.+1; put (const_mx 1).
exists (edit (history 1%:M 1 (const_mx 1 : 'M[R]_N.+1)) (1%:M *m const_mx 1) (const_mx 1)); split=> //; rewrite mul1mx.
by apply: edit_neq0; [exact: pd_history ltr01 | exact: ones_neq0 | exact: ones_neq0].
Qed.

Theorem X1_satisfiable : premises_met (X1 R).
Proof.
move=> N; put N.+1; put N.+1; put N.+1; put N.+1; put 1%:M; put 1; put (const_mx 1); put (const_mx 1); put (const_mx 1).
by meet.
Qed.

Theorem P15_satisfiable : premises_met (P15 R).
Proof.
move=> N; split; put N.+1; put N.+1; put 1%:M; put 1; put (const_mx 1); put (const_mx 1); meet; first by put 1; meet.
by move=> c _; exists 1; apply: ltr01.
Qed.

Theorem X2_satisfiable : premises_met (X2 R).
Proof.
move=> N; split; put N.+1; put N.+1; put N.+1; put 1%:M; put 1%:M; put (const_mx 1); meet.
  by put (batch_edit 1%:M 1%:M (const_mx 1)).
by put 1%:M; put (const_mx 1); rewrite id_gram; apply: scalar_basis.
Qed.

Theorem X3_satisfiable : premises_met (X3 R).
Proof.
move=> N; put N.+1; put N.+1; put 1%:M; put 1%:M; meet; put N.+1; put (const_mx 1); put 1; rewrite id_gram.
exact: id_smallest.
Qed.

Theorem X13_satisfiable : premises_met (X13 R).
Proof.
move=> N; split; [|split]; put N.+1; put N.+1; put 1%:M; put 1%:M; meet; last by [].
  by put 1%:M; put (const_mx 1); rewrite id_gram; apply: scalar_basis.
by nonzero.
Qed.

Theorem X14_satisfiable : premises_met (X14 R).
Proof.
move=> N; split; [|split; [|split]]; put N.+1; put N.+1; put N.+1; put 1%:M; put 1%:M; meet.
- by put (const_mx 1); put (batch_edit 1%:M 1%:M (const_mx 1)).
- by put (const_mx 1); put (const_mx 1); put (edit 1%:M (const_mx 1) (const_mx 1)).
- exact: id_independent.
by put (const_mx 1); put 1; meet => T _; exists T.
Qed.

Theorem P4_satisfiable : premises_met (P4 R).
Proof.
move=> N; split; first put N.+1; put N.+1; put N.+1; put 1%:M.
  by put 1%:M; put (const_mx 1); meet; put (const_mx 1); rewrite mulmx1.
by put (const_mx 1); put (const_mx 1); meet; nonzero.
Qed.

(* two keys that are drawn alike, with every function integrable *)
Theorem P8_satisfiable : premises_met (P8 R).
Proof.
move=> N; pose E (f : bool -> R) := (f true + f false) / 2%:R.
pose k b : 'cV[R]_N.+1 := if b then const_mx 1 else delta_mx 0 0.
pose C : 'M[R]_N.+1 := \matrix_(i, j) E (fun w => k w i 0 * k w j 0).
have h0 : 0 < (2%:R^-1 : R) by apply: half_gt0.
have eC : C = 2%:R^-1 *: (k true *m (k true)^T + k false *m (k false)^T).
  by apply/matrixP => i j; rewrite !mxE !big_ord1 ![_^T _ _]mxE mulrC.
have pC : psd C.
  rewrite eC; have [s1 q1] := psd_gram (k true); have [s2 q2] := psd_gram (k false); split=> [|x].
    by rewrite /sym linearZ /= (sym_add s1 s2).
  by rewrite -scalemxAl dotZr mulmxDl dotDr mulr_ge0 ?addr_ge0 // ltW.
exists bool, E, (fun=> True); put N.+1; exists k; exists C; split.
  by apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE /E /k !mxE !eqxx !mulr1 mulf_eq0 invr_eq0 !(negbTE (two_neq0 R)).
put 1; put 1; split.
  split; first by split=> //; rewrite /E -mulr2n mulfV ?two_neq0.
    by move=> f g a _ _; split=> //; rewrite /E; field.
  by move=> f g _ _ h; rewrite /E ler_wpmul2r ?ler_add // ltW.
split=> [i j|]; first by rewrite mxE.
meet; split=> //; rewrite scale1r addrC; exact: pdD (id_pd _ _) pC.
Qed.

Theorem P9_satisfiable : premises_met (P9 R).
Proof.
move=> N; split; [|split]; last by put 1; apply: ltr01.
  by put N.+1; put (const_mx 1); put 1%:M; put 1; meet; rewrite mul1mx scale1r.
by put N.+1; put (const_mx 1); put 1; meet => M [M0 _]; exists M%:M, M; rewrite mul_scalar_mx; split=> //; apply: scalar_pd.
Qed.

Theorem P10_satisfiable : premises_met (P10 R).
Proof.
move=> N; put N.+1; put 1%:M; exists 2%:M; split; first by rewrite scalar_neq0 ?two_neq0.
put (const_mx 1); put (const_mx 1); put 1; put 1; meet; split; first exact: scalar_above.
split; first exact: scalar_above; meet; rewrite -raddfB /=; apply: scalar_bounded.
by rewrite two_minus_one normr1.
Qed.

Theorem X12_satisfiable : premises_met (X12 R).
Proof.
move=> N; split; put N.+1; put N.+1; put 1%:M; put 1%:M; put (const_mx 1); put (const_mx 1); meet => D _.
  by exists D.
by exists (const_mx 1), 1; rewrite ones_neq0 mul1mx scale1r.
Qed.

Let displacement_neq0 n : displacement (1%:M : 'M[R]_n.+1) (const_mx 1) 1 != 0.
Proof.
rewrite oppr_eq0; apply/eqP => e; have := mulKVmx (pd_unit (id_two_pd R n.+1)) (const_mx 1 : 'cV[R]_n.+1).
by rewrite e mulmx0 => /esym/eqP; rewrite (negbTE (ones_neq0 _ _ _)).
Qed.

Theorem T2a_satisfiable : premises_met (T2a R).
Proof.
move=> N; put N.+1; put 1%:M; put (const_mx 1); put 1; meet.
by exists (displacement 1%:M (const_mx 1) 1).
Qed.

Theorem L1_satisfiable : premises_met (L1 R).
Proof.
move=> N; split; [|split; [|split]]; last by move=> A _ g _ r _; exists 0; apply: lexx.
all: put N.+1; put 1%:M; put (const_mx 1); meet; put 1; meet.
- by exists (displacement 1%:M (const_mx 1) 1); split; [exact: displacement_neq0 | exact: lexx].
- by put 2%:R; split=> //; apply: id_two_pd.
by put 2%:R; split=> //; apply: id_two_pd.
Qed.

Theorem L2_satisfiable : premises_met (L2 R).
Proof.
by move=> N; put N.+2; put (two N 1 2%:R); put 2%:R; put 1; meet; put 1; apply: ltr01.
Qed.

Theorem T2b_satisfiable : premises_met (T2b R).
Proof.
by move=> N; put N.+2; put (two N 1 2%:R); put 2%:R; put 1; meet; put 1; meet; put 1; apply: ltr01.
Qed.

Theorem T2c_satisfiable : premises_met (T2c R).
Proof.
by move=> N; split; put N.+2; put (two N 1 2%:R); put 2%:R; put 1; put (axis R 1); put (axis R 0); meet;
  put 1; put 1; put 1; meet; put 1; apply: ltr01.
Qed.

Let dot_ones n : 1 <= dot (const_mx 1 : 'cV[R]_n.+1) (const_mx 1).
Proof.
rewrite dotE (bigD1 0) //= !mxE mulr1 ler_addl sumr_ge0 // => i _.
by rewrite !mxE mulr1 ler01.
Qed.

Theorem T2d_satisfiable : premises_met (T2d R).
Proof.
move=> N; split; [|split; [|split; [|split]]].
- by put N.+1; put (const_mx 1); put 1; meet; put (const_mx 1); apply: dot_ones.
- by put N.+1; put (const_mx 1); put 1; meet; apply: ler01.
- put N.+2; put (axis R 0); put 1; meet; put (axis R 0).
  by rewrite -nrm_sqr axis_unit expr1n divr1.
- put N.+1; put (const_mx 1); put 1; meet; put N.+1; put 1%:M; meet; rewrite trmx1 !mul1mx; split; first exact: ones_neq0.
  by put (const_mx 1); rewrite mul1mx; apply: dot_ones.
put N.+1; put (const_mx 1); put 1; meet; put N.+1; put 1%:M; meet; rewrite trmx1 !mul1mx; split; first exact: ones_neq0.
exact: ler01.
Qed.

Theorem P3_satisfiable : premises_met (P3 R).
Proof.
move=> N; split.
  put N.+1; put N.+1; put 1%:M; put (const_mx 1); exists (edit (1%:M : 'M[R]_N.+1) (const_mx 1) (const_mx 1 : 'cV_N.+1) *m const_mx 1).
  split; last by meet; put (edit 1%:M (const_mx 1) (const_mx 1)).
  rewrite attenuation; last exact: id_pd.
  by apply: scale_neq0; rewrite ?eta_eq0 ?ones_neq0 //; apply: id_pd.
put N.+2; put N.+1; put 1%:M; put (const_mx 1); put (const_mx 1); meet; put (axis R 0); put (axis R 1); meet.
by put 1; put 1; put 1; put 1; meet; apply: ltr01.
Qed.

Theorem X5_satisfiable : premises_met (X5 R).
Proof.
move=> N; split; [|split; [|split]]; put N.+2; put 1%:M; put (two N 1 2%:R); put 2%:R; put 1; meet;
  rewrite invmx1 mul1mx; meet; put 1; meet; [put 1 | put 1 | put 1%:M | ]; rewrite ?ler01 //.
  by split; [exact: scalar_sym | rewrite mulmx1].
put 1; put 1; put 2%:R; put 1; split; first exact: id_largest; split; first exact: id_smallest; meet.
by apply: two_smallest; ends.
Qed.

Theorem X6_satisfiable : premises_met (X6 R).
Proof.
move=> N; have [_ _ _ _ aligned] := X6_proof (two_pd N ltr01 one_le_two) (id_pd R N.+2) (two_largest N one_le_two)
  (two_smallest N one_le_two) (axis_unit R 1) (axis_unit R 0) (two_low N 1 2%:R) (two_top N 1 2%:R).
split; [|split; [|split; [|split; [|split]]]]; put N.+2; put (two N 1 2%:R); put 1%:M; put 2%:R; put 1; put (axis R 1);
  put (axis R 0); meet.
- put (const_mx 1); put 1; meet; exists (- (invmx (1 *: 1%:M) *m const_mx 1)); split=> //.
  by rewrite scale1r invmx1 mul1mx oppr_eq0 ones_neq0.
- by put 1; put 1; rewrite !mul1mx !scale1r; meet; put 1; put 1; put 1; put 1; meet; apply: ltr01.
- by put 1; put 1; rewrite !mul1mx !scale1r; meet; put 1; put 1; put 1; put 1; meet; apply: ltr01.
- put (const_mx 1); put (const_mx 1); meet => c [c0 _]; exists 1, 1, 1, 1; meet; exact: ltr01.
- put (const_mx 1); put 1; meet; put (axis R 1).
  by rewrite /ellipsoid two_low scale1r -nrm_sqr axis_unit.
put (const_mx 1); put 1; meet; have [inside _ _ h] := aligned _ 1 (ones_neq0 R N.+1 0) ler01.
move: inside h; set d := - _ => inside h; exists d; split=> //.
by apply/eqP => d0; move: h; rewrite d0 /hlen dot0l sqrtr0 => /eqP; rewrite eq_sym oner_eq0.
Qed.

Theorem X7_satisfiable : premises_met (X7 R).
Proof.
move=> N; have p l : 0 < l -> pd (1%:M + l%:M : 'M[R]_N.+2).
  by move=> l0; apply: pdD; [exact: id_pd | apply: pd_psd; exact: scalar_pd].
have floor0 : Num.max 0 (- 1) = 0 :> R by rewrite max_l // oppr_le0 ler01.
have ax i : dot (axis R i : 'cV[R]_N.+2) (1%:M *m axis R i) = 1 by rewrite mul1mx -nrm_sqr axis_unit expr1n.
have r2 : Num.sqrt (2%:R ^+ 2) = 2%:R :> R by rewrite sqrtr_sqr ger0_norm ?ler0n.
have one4 : (1 : R) <= 2%:R ^+ 2 by rewrite -natrX ler1n.
have sm : smallest (1%:M : 'M[R]_N.+2) 1 by apply: id_smallest.
have top0 : (2%:R ^+ 2 : R) != 0 by rewrite expf_neq0 ?two_neq0.
have setting (Q : R -> Prop) : (forall a, 0 < a -> Q a) -> Q 1 /\ Q 3%:R by move=> h; split; apply: h; rewrite ?ltr01 ?ltr0n.
split; [|split; [|split; [|split]]]; put N.+2; exists (two N 1 (2%:R ^+ 2)); (split; first by apply: two_nonzero; ends);
  put (2%:R ^+ 2); put 1; put (axis R 1); put (axis R 0); meet.
- put 1; put 1; put 1; put 1; meet; put 1%:M; put 1%:M; put 1; put 1; put 1; meet.
  split=> [l l1|]; last by rewrite !mul1mx !scale1r.
  by have l0 := lt_trans ltr01 l1; split; apply: p.
- by put 1; put 1; put 1; put 1; meet; put 1%:M; put 1; meet; split=> //; put 1; rewrite floor0; apply: ltr01.
- put 1; put 1; put 1; put 1; meet; put 1%:M; put 1; meet; split=> //.
  by rewrite r2 ax !divr1 mul1r ltr_add2r.
- put 3%:R; put 1; put 1; put 1; meet; put 1%:M; put 1; meet; split=> //.
  by rewrite r2 !ax floor0 !divr1 mul1r ler_add2r ler_nat subr_gt0 ltr1n.
put 1; put 1; put 1; put 1; meet; put 1%:M; meet; split; first by left; exists 1; rewrite mul1mx scale1r.
by put 1; put 2%:R; split=> //; apply: p; apply: ltr01.
Qed.

Theorem L3_satisfiable : premises_met (L3 R).
Proof.
move=> N; split; [|split]; last 1 first.
  put N.+1; put 1; put 1; meet => X _ E [aX aXE bE _]; exists (1 / (1 * (1 + 1))).
  by have [_ h _] := L3_proof R; exact: (h _ _ _ _ _ ltr01 aX aXE ler01 bE).
  put N.+1.
  exists 2%:M; split; first by rewrite scalar_neq0 ?two_neq0.
  put 1%:M; put 2%:R; put 1; split; first exact: scalar_above; meet; split=> //.
  by apply: scalar_bounded; rewrite normr1.
put N.+1; put 1%:M; put 1%:M; put 1; put 1; meet; split; first exact: scalar_above.
split; first by rewrite -raddfD /=; apply: scalar_above; rewrite ler_addl ler01.
by meet; apply: scalar_bounded; rewrite normr1.
Qed.

Theorem L4_satisfiable : premises_met (L4 R).
Proof.
move=> N; put N.+1; put 1%:M; exists 2%:M; split; first by rewrite scalar_neq0 ?two_neq0.
put (const_mx 1); put (const_mx 1); put 1; put 1; put 1; exists (nrm (const_mx 1 : 'cV[R]_N.+1)).
split; first by rewrite gt_eqF ?ones_nrm_gt0.
meet; split; first exact: scalar_above; split; first exact: scalar_above; meet; split; last first.
  by rewrite subrr nrm0 ler01.
by rewrite -raddfB /=; apply: scalar_bounded; rewrite two_minus_one normr1.
Qed.

Theorem L5_satisfiable : premises_met (L5 R).
Proof.
move=> N; put N.+1; put N.+1; exists (inner 1%:M); put (const_mx 1); put (const_mx 1); put (const_mx 1); put (const_mx 1).
put 1%:M; split; first exact: inner_gradient.
by put 1; apply: scalar_bounded; rewrite normr1.
Qed.

Theorem X8_satisfiable : premises_met (X8 R).
Proof.
move=> N; split; put N.+1; put N.+1; put N.+1; exists (inner 1%:M); put (const_mx 1); put (const_mx 1).
  by put (const_mx 1); put (const_mx 1); put 1%:M; apply: inner_gradient.
put (const_mx 1); put 1%:M; put 1%:M; put 1%:M; meet; exact: inner_gradient.
Qed.

Theorem J1_satisfiable : premises_met (J1 R).
Proof.
move=> N; put N.+1; exists (2%:R^-1)%:M; split; first by rewrite scalar_neq0 ?half_neq0.
put (2%:R^-1); split; first by rewrite ltW ?half_gt0.
split; first exact: half_lt1; split; first by apply: scalar_bounded; rewrite gtr0_norm ?half_gt0.
exists (fun z => invmx (1%:M + (2%:R^-1)%:M) *m z) => z; rewrite mulKVmx //; apply: pd_unit.
by apply: pdD; [exact: id_pd | apply/pd_psd/scalar_pd; exact: half_gt0].
Qed.

Let quarter : R := 4%:R^-1.
Let quarter_gt0 : 0 < quarter. Proof. by rewrite invr_gt0 ltr0n. Qed.
Let quarter_neq0 : quarter != 0. Proof. by rewrite gt_eqF. Qed.
Let quarter_ge0 : 0 <= quarter. Proof. exact: ltW. Qed.
Let quarter_le1 : 0 <= quarter <= 1. Proof. by rewrite quarter_ge0 invf_le1 ?ltr0n // ler1n. Qed.
Let id_bounded n : bounded (1%:M : 'M[R]_n) 1. Proof. by apply: scalar_bounded; rewrite normr1. Qed.
Let small : quarter * (1 + quarter) + quarter < 1.
Proof.
rewrite -subr_gt0 (_ : _ - _ = 7%:R / 16%:R); last by rewrite /quarter; field.
by rewrite divr_gt0 ?ltr0n.
Qed.

Theorem T3a_satisfiable : premises_met (T3a R).
Proof.
move=> N; put N.+1; put N.+1; put (fun=> N.+1); exists (fun X => \sum_l inner 1%:M (X l)); put (fun=> const_mx 1).
put (fun=> const_mx 1); exists (fun l z => stack N quarter quarter l *m z).
exists (stack N quarter quarter); split=> [l|]; first exact: stack_neq0.
put (fun=> 1%:M); put (const_mx 1); split=> [l|]; first exact: linear_jacobian.
split; first exact: layers_gradients.
put quarter; put quarter; put 1; split; first exact: stack_tail.
by meet; split=> //; split=> //; apply: stack_bounded.
Qed.

Theorem T3b_satisfiable : premises_met (T3b R).
Proof.
move=> N; put N.+1; put N.+1; put (fun=> N.+1); put (fun=> const_mx 1); exists (stack N quarter quarter).
split=> [l|]; first exact: stack_neq0.
put (fun=> 1%:M); put quarter; put quarter; put 1; do 2 (split=> //).
split; first exact: stack_tail; split; first exact: stack_bounded; split=> //; rewrite mul1mx; split; first exact: ones_neq0.
exists (quarter * (1 + quarter) + quarter); split=> //.
by rewrite gt_eqF // addr_gt0 ?mulr_gt0 ?eps1_gt0.
Qed.

Theorem T3c_satisfiable : premises_met (T3c R).
Proof.
move=> N; split; last first.
  have h : 0 < (4%:R / 5%:R : R) < 1 by apply/andP; split; [rewrite divr_gt0 ?ltr0n | rewrite ltr_pdivr_mulr ?ltr0n // mul1r ltr_nat].
  have [h0 h1] := andP h; exists (4%:R / 5%:R); split; first by rewrite gt_eqF.
  exists (4%:R / 5%:R); split; first by rewrite gt_eqF.
  rewrite h1 ltW //; split=> //; split=> //.
  move=> J _ Gamma _ q _; rewrite -subr_ge0 (_ : _ - _ = 7%:R / 25%:R); last by field.
  by rewrite divr_ge0 ?ler0n.
put N.+1; put N.+1; put (fun=> N.+1); put (fun=> const_mx 1); exists (stack N quarter quarter).
split=> [l|]; first exact: stack_neq0.
put (fun=> 1%:M); put quarter; put quarter; put 1; split=> //; split=> //; meet.
split; first exact: stack_last_neq0; split; first exact: stack_tail.
split; first by rewrite invr1 scale1r; apply: stack_bounded.
rewrite -subr_gt0 (_ : _ - _ = 7%:R / 8%:R); last by rewrite /quarter; field.
by rewrite divr_gt0 ?ltr0n.
Qed.

Theorem A1_satisfiable : premises_met (A1 R).
Proof.
move=> N; put N.+1; put N.+1; exists (fun=> 1); split=> [i|]; first exact: oner_neq0.
put (const_mx 1); meet; put 1%:M; put 1; put 1; split.
  rewrite -raddfB /=; apply: scalar_bounded; rewrite ler0_norm ?subr_le0 ?invf_le1 ?ltr0Sn ?ler1n //.
  by rewrite opprB ler_subl_addr ler_addl invr_ge0 ler0n.
by rewrite subrr => x; rewrite mul0mx nrm0 mulr_ge0 ?ler01 ?nrm_ge0.
Qed.

Theorem A2_satisfiable : premises_met (A2 R).
Proof.
move=> N; split.
  put N.+1; exists (fun=> 1); split=> [i|]; first exact: oner_neq0.
  by put N.+1; put (const_mx 1); put (const_mx 1); put N.
put N.+2; exists (fun=> 2%:R^-1); split=> [i|]; first exact: half_neq0.
by split=> // l _; rewrite half_gt0 half_lt1.
Qed.

Theorem J2_satisfiable : premises_met (J2 R).
Proof.
move=> _ n _ G _ k _; exists 0%N, 0, 0, (`|3%:R / 4%:R - 1|).
by rewrite -raddfB /=; apply: scalar_bounded.
Qed.

Theorem P1_satisfiable : premises_met (P1 R).
Proof.
move=> N; put N.+1; put N.+1; put 1%:M; put (const_mx 1); put (const_mx 1); exists (fun=> const_mx 1).
by split=> [t|]; [exact: ones_neq0 | exact: id_pd].
Qed.

Theorem P2_satisfiable : premises_met (P2 R).
Proof.
move=> N; put N.+1; put N.+1; put 1%:M; put (const_mx 1); exists (inner (const_mx 1)); put (const_mx 1); put (const_mx 1); meet.
have g : gradient (inner (const_mx 1 : 'cV[R]_N.+1)) ((const_mx 1 : 'M[R]_N.+1) *m (const_mx 1 : 'cV[R]_N.+1)) (const_mx 1).
  exact: inner_gradient.
have [[Gamma hG] h] := P2_proof (id_pd R N.+1) g.
split=> //; exists Gamma; split=> //; apply/eqP => G0; have := h _ hG; rewrite G0 mul0mx => /esym/eqP; apply/negP.
by apply: scale_neq0; rewrite ?eta_eq0 ?ones_neq0 //; apply: id_pd.
Qed.

Theorem P5_satisfiable : premises_met (P5 R).
Proof.
move=> N; have p := id_pd R N.+1; split.
  by put N.+1; put N.+1; put (const_mx 1); put (const_mx 1); meet; put 1; apply: ltr01.
pose k : 'cV[R]_N.+1 := const_mx 1; pose delta := edit 1%:M k k *m k.
have d0 : delta != 0.
  rewrite /delta attenuation; last exact: id_pd.
  by apply: scale_neq0; rewrite ?eta_eq0 ?ones_neq0 //; apply: id_pd.
put N.+1; put N.+1; put k; exists delta.
split=> //; meet; put 1%:M; meet; put (edit 1%:M k k).
have n0 : 0 < nrm delta ^+ 2 by rewrite exprn_gt0 // nrm_gt0.
have r1 := rho1_gt0 k p; exists (nrm delta ^+ 2 / (1 + rho 1%:M k)).
split; first by rewrite gt_eqF // divr_gt0.
by split=> //; rewrite mulrAC ltr_pdivr_mulr // ltr_pmul2l // ltr_addr ltr01.
Qed.

Theorem P6_satisfiable : premises_met (P6 R).
Proof.
move=> N; put N.+1; put N.+1; put 1%:M; put (const_mx 1); put (const_mx 1); exists (fun=> const_mx 2%:R).
split=> [t|]; first by apply/eqP => /colP/(_ 0)/eqP; rewrite !mxE (negbTE (two_neq0 R)).
by put N; apply/eqP => /colP/(_ 0)/eqP; rewrite !mxE one_neq_two.
Qed.

Theorem P7_satisfiable : premises_met (P7 R).
Proof.
move=> N; put N.+1; put N.+2; exists (delta_mx 1 1); split.
  by apply/eqP => /matrixP/(_ 1 1)/eqP; rewrite !mxE !eqxx oner_eq0.
put 1; put (axis R 0); put (const_mx 1); put (const_mx 1).
by apply/matrixP => i j; rewrite !mxE big1 // => l _; rewrite !mxE; case: (l =P 0) => [->|_]; rewrite ?andbF ?mul0r ?mulr0.
Qed.

Theorem P11_satisfiable : premises_met (P11 R).
Proof.
move=> _ g _ p _; exists 1, 0, 0, 0; meet.
by rewrite ?ltr01 lexx invr_ge0 ler0n.
Qed.

Theorem P13_satisfiable : premises_met (P13 R).
Proof.
move=> N; put N.+1; put N.+1; exists (inner 1%:M); put (const_mx 1); put (const_mx 1); put (const_mx 1); put (const_mx 1).
by put 1%:M; apply: inner_gradient.
Qed.

Theorem X9_satisfiable : premises_met (X9 R).
Proof.
move=> N; put N.+1; put N.+1; put (fun=> const_mx 1); put (const_mx 1); put (2%:R^-1).
have h : 0 < 1 - 2%:R^-1 :> R by rewrite subr_gt0 half_lt1.
split=> [l|]; first exact: dot_ge0; split; first by rewrite mulr_gt0 ?exprn_gt0 ?ones_nrm_gt0.
by rewrite -nrm_sqr ler_pimull ?sqr_ge0 // ler_subl_addr ler_addl ltW ?half_gt0.
Qed.

End Satisfiable.

(* there are none *)
Theorem P12_satisfiable (R : rcfType) : premises_met (P12 R).
Proof. by []. Qed.

Section Parts.
Variable R : rcfType.

Theorem X4_part_satisfiable : premises_met (X4_part R).
Proof.
move=> N; have le : (1 : R) <= 2%:R by rewrite ler1n.
pose u : R := 8%:R^-1; pose c := u * 2%:R; have u0 : 0 < u by rewrite invr_gt0 ltr0n.
have c0 : 0 < c by rewrite mulr_gt0 ?ltr0n.
have pM : pd (two N 1 2%:R + c%:M) by apply: pdD; [exact: (two_pd N ltr01 le) | apply/pd_psd/scalar_pd].
put N.+2; put (two N 1 2%:R); exists c%:M; split; first by rewrite scalar_neq0 // gt_eqF.
exists ((two N 1 2%:R + c%:M) *m const_mx 1); split.
  apply/eqP => k0; have := mulKmx (pd_unit pM) (const_mx 1 : 'cV[R]_N.+2).
  by rewrite k0 mulmx0 => /esym/eqP; rewrite (negbTE (ones_neq0 _ _ _)).
put (const_mx 1); put 2%:R; put 1; exists u; split; first by rewrite gt_eqF.
meet; split; first exact: ltW; split; first by apply: scalar_bounded; rewrite gtr0_norm.
split=> //; rewrite divr1 -subr_gt0 (_ : _ - _ = 3%:R / 4%:R); last by rewrite /u; field.
by rewrite divr_gt0 ?ltr0n.
Qed.

Theorem X11_part_satisfiable : premises_met (X11_part R).
Proof.
move=> N; put N.+1; put N.+1; put (fun=> N.+1); exists (fun=> 2%:M).
split=> [l|]; first by rewrite scalar_neq0 ?two_neq0.
put (fun=> const_mx 1); put (fun=> const_mx 1); put (fun=> const_mx 1); put (fun=> const_mx 1); put (fun=> const_mx 1).
exists (fun=> 1); split=> [l|]; first exact: oner_neq0.
exists (fun=> 1); split=> [l|]; first exact: oner_neq0.
split=> [l|]; first exact: ler01; split=> l; first exact: ler01.
rewrite -raddfB /=; apply: scalar_bounded; rewrite (_ : 2%:R - 1 = 1) ?normr1 //; ring.
Qed.

End Parts.
