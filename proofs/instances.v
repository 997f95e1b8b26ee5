(* Matrices and vectors of every size, for examples: multiples of the identity, columns of ones, a diagonal with two eigenvalues. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation alphaedit drift batch plane proxy allocation.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.
Variable R : rcfType.

(* == The identity, columns of ones, and a diagonal matrix with two eigenvalues == *)

Lemma id_neq0 n : (1%:M : 'M[R]_n.+1) != 0.
Proof. exact: oner_neq0. Qed.

Lemma ones_neq0 m n : (const_mx 1 : 'M[R]_(m.+1, n.+1)) != 0.
Proof. by apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE oner_eq0. Qed.

Lemma scalar_neq0 n c : c != 0 -> (c%:M : 'M[R]_n.+1) != 0.
Proof. by move=> c0; apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE eqxx mulr1n (negbTE c0). Qed.

Lemma scale_neq0 m n a (X : 'M[R]_(m, n)) : a != 0 -> X != 0 -> a *: X != 0.
Proof. by move=> a0 X0; rewrite scaler_eq0 (negbTE a0). Qed.

Lemma two_neq0 : (2%:R : R) != 0. Proof. by rewrite pnatr_eq0. Qed.
Lemma half_neq0 : (2%:R^-1 : R) != 0. Proof. by rewrite invr_eq0 two_neq0. Qed.
Lemma half_gt0 : 0 < (2%:R^-1 : R). Proof. by rewrite invr_gt0 ltr0n. Qed.
Lemma half_lt1 : (2%:R^-1 : R) < 1. Proof. by rewrite invf_lt1 ?ltr0n // ltr1n. Qed.

Lemma scalar_pd n c : 0 < c -> pd (c%:M : 'M[R]_n).
Proof. exact: pd_beta. Qed.

Lemma id_pd n : pd (1%:M : 'M[R]_n).
Proof. by apply: scalar_pd; apply: ltr01. Qed.

Lemma id_two_pd n : pd (1%:M + 1%:M : 'M[R]_n).
Proof. by apply: pdD; [exact: id_pd | apply/pd_psd/id_pd]. Qed.

Lemma scalar_sym n c : sym (c%:M : 'M[R]_n).
Proof. by rewrite /sym tr_scalar_mx. Qed.

Lemma id_orthonormal n : (1%:M : 'M[R]_n)^T *m 1%:M = 1%:M.
Proof. by rewrite trmx1 mulmx1. Qed.

Lemma id_projector n : projector (1%:M : 'M[R]_n).
Proof. by split; rewrite ?trmx1 ?mulmx1. Qed.

Lemma id_independent n : independent (1%:M : 'M[R]_n).
Proof. by move=> x; rewrite mul1mx. Qed.

Lemma scalar_bounded n c b : `|c| <= b -> bounded (c%:M : 'M[R]_n) b.
Proof. by move=> h x; rewrite mul_scalar_mx nrmZ ler_wpmul2r ?nrm_ge0. Qed.

Lemma scalar_above n c mu : mu <= c -> above mu (c%:M : 'M[R]_n).
Proof. by move=> h; split=> [|x]; [exact: scalar_sym | rewrite mul_scalar_mx dotZr ler_wpmul2r ?dot_ge0]. Qed.

Lemma edit_neq0 m n (G : 'M[R]_n) k (r : 'cV[R]_m) : pd G -> k != 0 -> r != 0 -> edit G k r != 0.
Proof.
move=> pG k0 r0; apply: contraTneq isT => D0; have := attenuation k r pG.
by rewrite D0 mul0mx => /esym/eqP; rewrite scaler_eq0 eta_eq0 // (negbTE k0) (negbTE r0).
Qed.

Section Two.
Variables (n : nat) (low top : R).
Hypotheses (l0 : 0 < low) (lt : low <= top).
Definition two_values : 'rV[R]_n.+2 := \row_i (if i == 0 then top else low).
Definition two : 'M[R]_n.+2 := diag_mx two_values.
Definition axis (i : 'I_n.+2) : 'cV[R]_n.+2 := delta_mx i 0.

Lemma two_basis : eigenbasis two 1%:M two_values.
Proof. by split; rewrite ?id_orthonormal // trmx1 mulmx1 mul1mx. Qed.

Lemma two_ge i : low <= two_values 0 i.
Proof. by rewrite mxE; case: eqP. Qed.

Lemma two_le i : two_values 0 i <= top.
Proof. by rewrite mxE; case: eqP. Qed.

Lemma two_sym : sym two.
Proof. exact: tr_diag_mx. Qed.

Lemma two_pd : pd two.
Proof.
split=> [|x x0]; first exact: two_sym.
apply: lt_le_trans (_ : low * dot x x <= _); first by rewrite mulr_gt0 ?dot_gt0.
rewrite (basis_quad two_basis) (basis_norm two_basis) mulr_sumr.
by apply: ler_sum => i _; rewrite ler_wpmul2r ?sqr_ge0 ?two_ge.
Qed.

Lemma two_nonzero : two != 0.
Proof.
apply/eqP => e; have [_ /(_ (const_mx 1) (ones_neq0 _ _))] := two_pd.
by rewrite e mul0mx dot0r ltxx.
Qed.

Lemma two_values_neq0 : two_values != 0.
Proof. by apply/eqP => /matrixP/(_ 0 0)/eqP; rewrite !mxE eqxx gt_eqF // (lt_le_trans l0). Qed.

Lemma axis_neq0 i : axis i != 0.
Proof. by apply/eqP => /matrixP/(_ i 0)/eqP; rewrite !mxE !eqxx oner_eq0. Qed.

Lemma axis_unit i : nrm (axis i) = 1.
Proof.
rewrite /nrm dotE (bigD1 i) //= big1 => [|j /negbTE ji]; rewrite !mxE ?ji ?mul0r //.
by rewrite !eqxx mulr1 addr0 sqrtr1.
Qed.

Lemma two_axis i : two *m axis i = two_values 0 i *: axis i.
Proof. by apply/colP => j; rewrite mul_diag_mx !mxE; case: (j =P i) => [->|]; rewrite /= ?mulr0. Qed.

Lemma two_top : two *m axis 0 = top *: axis 0.
Proof. by rewrite two_axis mxE eqxx. Qed.

Lemma two_low : two *m axis 1 = low *: axis 1.
Proof. by rewrite two_axis mxE. Qed.

Lemma two_largest : largest two top.
Proof.
split; first exact: (eigenvector_eigenvalue two_sym (axis_neq0 _) two_top).
move=> b /(unit_eigenvector two_sym)[u [e n1]].
have : b * dot u u <= top * dot u u.
  rewrite -[b * _]dotZr -e (basis_quad two_basis) (basis_norm two_basis) mulr_sumr.
  by apply: ler_sum => i _; rewrite ler_wpmul2r ?sqr_ge0 ?two_le.
by rewrite n1 !mulr1.
Qed.

Lemma two_smallest : smallest two low.
Proof.
split; first exact: (eigenvector_eigenvalue two_sym (axis_neq0 _) two_low).
move=> b /(unit_eigenvector two_sym)[u [e n1]].
have : low * dot u u <= b * dot u u.
  rewrite -[b * _]dotZr -e (basis_quad two_basis) (basis_norm two_basis) mulr_sumr.
  by apply: ler_sum => i _; rewrite ler_wpmul2r ?sqr_ge0 ?two_ge.
by rewrite n1 !mulr1.
Qed.

End Two.

Lemma id_smallest n : smallest (1%:M : 'M[R]_n.+1) 1.
Proof.
split; first by apply: (eigenvector_eigenvalue (scalar_sym _ _) (ones_neq0 n 0)); rewrite mul1mx scale1r.
move=> b /(unit_eigenvector (scalar_sym _ _))[u [e n1]].
by rewrite -[b]mulr1 -n1 -dotZr -e mul1mx n1.
Qed.

Lemma id_largest n : largest (1%:M : 'M[R]_n.+1) 1.
Proof.
split; first by apply: (eigenvector_eigenvalue (scalar_sym _ _) (ones_neq0 n 0)); rewrite mul1mx scale1r.
move=> b /(unit_eigenvector (scalar_sym _ _))[u [e n1]].
by rewrite -[b]mulr1 -n1 -dotZr -e mul1mx n1.
Qed.

Lemma scalar_basis n c : eigenbasis (c%:M : 'M[R]_n) 1%:M (const_mx c).
Proof. by split; rewrite ?id_orthonormal // trmx1 mulmx1 mul1mx diag_const_mx. Qed.

Lemma id_gram n : gram (1%:M : 'M[R]_n) (1%:M : 'M[R]_n) = 1%:M.
Proof. by rewrite /gram trmx1 !mul1mx invmx1 mulmx1. Qed.

Lemma id_batch_neq0 m n : batch_edit (1%:M : 'M[R]_n.+1) 1%:M (const_mx 1 : 'M[R]_(m.+1, n.+1)) != 0.
Proof.
rewrite /batch_edit !trmx1 !mulmx1 -raddfD /= -[(1 + 1)%:M]scalemx1 invmxZ ?unitmx1 //.
  by rewrite invmx1 -scalemxAr mulmx1 scaler_eq0 invr_eq0 negb_or two_neq0 ones_neq0.
by rewrite unitmxZ ?unitmx1 // unitfE two_neq0.
Qed.

Lemma ones_nrm_gt0 n : 0 < nrm (const_mx 1 : 'cV[R]_n.+1).
Proof. by rewrite nrm_gt0 ones_neq0. Qed.

Lemma layers_gradients L d (n : 'I_L -> nat) (Gamma W : forall l, 'M[R]_(d, n l)) :
  gradients (fun X => \sum_l inner (Gamma l) (X l)) W Gamma.
Proof.
move=> e e0; exists 1; split=> [|X _]; first exact: ltr01.
rewrite -sumrB -sumrB big1 ?normr0 => [|l _]; last by rewrite innerDr innerNr subrr.
by rewrite mulr_ge0 ?(ltW e0) // sumr_ge0 // => l _; apply: frob_ge0.
Qed.

Lemma inner_gradient m n (Gamma X : 'M[R]_(m, n)) : gradient (inner Gamma) X Gamma.
Proof.
move=> e e0; exists 1; split=> [|H _]; first exact: ltr01.
by rewrite innerDr [_ + inner Gamma H]addrC addrK subrr normr0 mulr_ge0 ?frob_ge0 // ltW.
Qed.

Lemma linear_jacobian d (J : 'M[R]_d) z : jacobian (fun z => J *m z) z J.
Proof. by apply: jacobian_affine => h; rewrite mulmxDr [_ + J *m h]addrC addrK. Qed.

End Instances.

(* a stack of layers whose last is (1 + eps) I and whose others add up to gamma of it *)
Section Stack.
Variables (R : rcfType) (L n : nat) (gamma eps : R).
Hypotheses (g0 : 0 < gamma) (e0 : 0 < eps).
Definition stack_scale (l : 'I_L.+2) : R := if l == ord_max then 1 + eps else gamma * (1 + eps) / L.+1%:R.
Definition stack l : 'M[R]_n.+1 := (stack_scale l)%:M.
Definition stack_gradient l := layer_gradient (stack l) (1%:M : 'M[R]_n.+1) (const_mx 1).

Lemma eps1_gt0 : 0 < 1 + eps. Proof. by rewrite ltr_paddr ?ltr01 // ltW. Qed.

Lemma stack_scale_gt0 l : 0 < stack_scale l.
Proof. by rewrite /stack_scale; case: eqP => _; rewrite ?eps1_gt0 // divr_gt0 ?mulr_gt0 ?eps1_gt0 // ltr0n. Qed.

Lemma stack_neq0 l : stack l != 0.
Proof. by rewrite scalar_neq0 // gt_eqF // stack_scale_gt0. Qed.

Lemma stack_nrm l : nrm (stack_gradient l) = stack_scale l * nrm (const_mx 1 : 'cV[R]_n.+1).
Proof. by rewrite /stack_gradient /layer_gradient tr_scalar_mx mul_scalar_mx nrmZ mul1mx gtr0_norm ?stack_scale_gt0. Qed.

Lemma stack_last_neq0 : stack_gradient ord_max != 0.
Proof. by rewrite -nrm_gt0 stack_nrm mulr_gt0 ?stack_scale_gt0 ?ones_nrm_gt0. Qed.

Lemma stack_tail : \sum_(l | l != ord_max) nrm (stack_gradient l) <= gamma * nrm (stack_gradient ord_max).
Proof.
rewrite (eq_bigr (fun=> gamma * (1 + eps) / L.+1%:R * nrm (const_mx 1 : 'cV[R]_n.+1))) => [|l /negbTE h]; last first.
  by rewrite stack_nrm /stack_scale h.
rewrite stack_nrm /stack_scale eqxx sumr_const cardC1 card_ord -mulrnAl -mulr_natr divfK ?pnatr_eq0 //.
by rewrite mulrA.
Qed.

Lemma stack_bounded : bounded (stack ord_max - 1%:M) eps.
Proof. by rewrite /stack /stack_scale eqxx -raddfB /= [1 + eps]addrC addrK; apply: scalar_bounded; rewrite gtr0_norm. Qed.

End Stack.
