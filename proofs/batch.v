(* Batches: X2, X3, X13, X14, P4. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear attenuation.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Batch.
Variable R : rcfType.
Variables (m n p : nat).
Variables (G : 'M[R]_n) (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)).
Hypothesis pG : pd G.
Local Notation gram := (statements.gram G K).
Local Notation retention := (statements.retention G K).
Local Notation bedit := (batch_edit G K T).
Local Notation bloss := (batch_loss G K T).


Lemma psd_cong q (A : 'M[R]_n) (B : 'M[R]_(n, q)) : psd A -> psd (B^T *m A *m B).
Proof.
move=> [sA h]; split=> [|x]; first by rewrite /sym !trmx_mul trmxK sA mulmxA.
by rewrite -!mulmxA -dot_mull h.
Qed.

Lemma psd_gramS : psd gram.
Proof. exact/psd_cong/pd_psd/pd_inv. Qed.

Lemma pd1 q : pd (1%:M : 'M[R]_q).
Proof. by split=> [|x x0]; rewrite ?/sym ?trmx1 // mul1mx dot_gt0. Qed.

Lemma pd_1gram : pd (1%:M + gram).
Proof. exact: pdD (pd1 _) psd_gramS. Qed.

Lemma pd_bheld : pd (G + K *m K^T).
Proof. by apply: pdD => //; apply: psd_gram. Qed.

(* push-through, hence Woodbury *)
Lemma push : (G + K *m K^T) *m (invmx G *m K) = K *m (1%:M + gram).
Proof.
rewrite mulmxDl mulKVmx ?pd_unit // mulmxDr mulmx1 /statements.gram.
by rewrite !mulmxA.
Qed.

Lemma woodbury : invmx (G + K *m K^T) *m K = invmx G *m K *m invmx (1%:M + gram).
Proof.
have uM := pd_unit pd_bheld; have uS := pd_unit pd_1gram.
by apply: (canLR (mulKmx uM)); rewrite mulmxA push mulmxK.
Qed.

(* X2 *)
Theorem batch_law : bedit *m K = T *m retention.
Proof.
by rewrite /batch_edit -!mulmxA woodbury /statements.retention /statements.gram !mulmxA.
Qed.

Lemma bedit_held : bedit *m (G + K *m K^T) = T *m K^T.
Proof. by rewrite /batch_edit mulmxKV // pd_unit //; apply: pd_bheld. Qed.

Lemma blossE D : bloss D =
  \tr (D *m (G + K *m K^T) *m D^T) - \tr (D *m K *m T^T) *+ 2 + \tr (T *m T^T).
Proof.
rewrite /batch_loss /cost linearB /= mulmxBl !mulmxBr !linearB /= mulmxDr mulmxDl linearD /= trmx_mul !mulmxA.
have -> : \tr (T *m K^T *m D^T) = \tr (D *m K *m T^T).
  by rewrite -[LHS]mxtrace_tr !trmx_mul !trmxK mulmxA.
set a := \tr (D *m K *m T^T); set b := \tr (D *m K *m K^T *m D^T).
by set c := \tr (T *m T^T); set d := \tr (D *m G *m D^T); ring.
Qed.

Theorem bloss_square D : bloss D - bloss bedit =
  \tr ((D - bedit) *m (G + K *m K^T) *m (D - bedit)^T).
Proof.
rewrite !blossE; set M := G + _; set S := bedit.
have [sM _] : pd M by apply: pd_bheld.
have SM : S *m M = T *m K^T by apply: bedit_held.
have tk E : \tr (T *m K^T *m E^T) = \tr (E *m K *m T^T).
  by rewrite -[LHS]mxtrace_tr !trmx_mul !trmxK mulmxA.
rewrite linearB /= !mulmxBl !mulmxBr !linearB /= SM !tk.
have -> : D *m M *m S^T = D *m K *m T^T.
  by rewrite -mulmxA -{1}sM -trmx_mul SM trmx_mul trmxK mulmxA.
set a := \tr (D *m K *m T^T); set b := \tr (D *m M *m D^T).
by set c := \tr (S *m K *m T^T); set d := \tr (T *m T^T); ring.
Qed.

Theorem bedit_minimises D : bloss bedit <= bloss D.
Proof. by rewrite -subr_ge0 bloss_square tr_quad_ge0 //; apply/pd_psd/pd_bheld. Qed.

Theorem bedit_unique D : bloss D <= bloss bedit -> D = bedit.
Proof.
move=> h; apply/eqP; rewrite -subr_eq0; apply/eqP.
apply: (tr_quad_eq0 pd_bheld); rewrite -bloss_square.
by apply/eqP; rewrite subr_eq0 eq_le h bedit_minimises.
Qed.

(* X14: what it costs is what is missing times what is realised *)
Theorem batch_cost : \tr (bedit *m G *m bedit^T) = \tr ((T - bedit *m K)^T *m (bedit *m K)).
Proof.
have e : bedit *m G = (T - bedit *m K) *m K^T.
  by rewrite mulmxBl -bedit_held mulmxDr mulmxA addrK.
by rewrite e -mulmxA -trmx_mul mxtrace_mulC -mxtrace_tr trmx_mul trmxK.
Qed.

(* and any other edit that realises the same costs more *)
Theorem batch_least_cost D : D *m K = bedit *m K ->
  \tr (D *m G *m D^T) = \tr (bedit *m G *m bedit^T) + \tr ((D - bedit) *m G *m (D - bedit)^T).
Proof.
move=> h; have [sG _] := pG.
have e : bedit *m G = (T - bedit *m K) *m K^T.
  by rewrite mulmxBl -bedit_held mulmxDr mulmxA addrK.
have [N -> NK] : exists2 N, D = bedit + N & N *m K = 0.
  by exists (D - bedit); rewrite ?mulmxBl ?h ?subrr // addrC subrK.
have x0 : bedit *m G *m N^T = 0 by rewrite e -mulmxA -trmx_mul NK trmx0 mulmx0.
have x1 : N *m G *m bedit^T = 0.
  by rewrite -mulmxA -{1}sG -trmx_mul e trmx_mul trmxK mulmxA NK mul0mx.
rewrite [bedit + N - bedit]addrAC subrr add0r [(_ + _)^T]linearD /= !mulmxDl !mulmxDr x0 x1 add0r addr0.
by rewrite linearD.
Qed.

Lemma retentionE : retention = K^T *m invmx (G + K *m K^T) *m K.
Proof. by rewrite -mulmxA woodbury /statements.retention /statements.gram !mulmxA. Qed.

Lemma retention1 : retention = 1%:M - invmx (1%:M + gram).
Proof.
have uS := pd_unit pd_1gram.
by rewrite /statements.retention -{1}[gram](addKr 1%:M) mulmxDl mulmxV // mulNmx mul1mx addrC.
Qed.

Lemma retention2 : retention = invmx (1%:M + gram) *m gram.
Proof.
have uS := pd_unit pd_1gram.
by rewrite retention1 -{3}[gram](addKr 1%:M) mulmxDr mulVmx // mulmxN mulmx1 addrC.
Qed.

(* what is missing *)
Theorem batch_missing : T - bedit *m K = T *m invmx (1%:M + gram).
Proof. by rewrite batch_law retention1 mulmxBr mulmx1 opprB addrC subrK. Qed.

(* P4 *)
Section Independent.
Hypothesis inj : forall x : 'cV_p, K *m x = 0 -> x = 0.

Lemma pd_gramI : pd gram.
Proof.
have [sS _] := psd_gramS; split=> // x x0.
rewrite /statements.gram -!mulmxA -dot_mull; have [_] := pd_inv pG; apply.
by apply: contra_neq x0; apply: inj.
Qed.

Lemma retention_unit : retention \in unitmx.
Proof.
by rewrite /statements.retention unitmx_mul unitmx_inv (pd_unit pd_gramI) (pd_unit pd_1gram).
Qed.

End Independent.
End Batch.

Section Compensation.
Variable R : rcfType.
Variables (m n p : nat) (G : 'M[R]_n) (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)).
Hypotheses (pG : pd G) (inj : forall x : 'cV_p, K *m x = 0 -> x = 0).
Let S := gram G K.
Local Notation compensated := (T *m invmx (retention G K)).
Local Notation exact_edit := (statements.exact_edit G K T).

Theorem compensated_realises : batch_edit G K compensated *m K = T.
Proof. by rewrite batch_law // mulmxKV // retention_unit. Qed.

Theorem compensated_exact : batch_edit G K compensated = exact_edit.
Proof.
have uS : S \in unitmx by apply: pd_unit; apply: pd_gramI.
have u1 : 1%:M + S \in unitmx by apply: pd_unit; apply: pd_1gram.
have [sG _] := pG; have [sS _] : psd S by apply: psd_gramS.
have [sM _] : pd (G + K *m K^T) by apply: pd_bheld.
have w : K^T *m invmx (G + K *m K^T) = invmx (1%:M + S) *m K^T *m invmx G.
  have s1 : sym (1%:M + S) by apply: sym_add => //; apply: trmx1.
  have := congr1 trmx (woodbury K pG).
  by rewrite !trmx_mul (sym_inv sM) (sym_inv sG) (sym_inv s1) !mulmxA.
rewrite /batch_edit -mulmxA w /statements.exact_edit !mulmxA; congr (_ *m _ *m _).
rewrite -!mulmxA; congr (_ *m _).
apply: (canLR (mulKmx (retention_unit pG inj))).
by rewrite retention2 // -/S mulmxK.
Qed.

(* EMMET: the least-cost edit with D K = T *)
Theorem exact_least_cost D : D *m K = T -> \tr (exact_edit *m G *m exact_edit^T) <= \tr (D *m G *m D^T).
Proof.
move=> h; rewrite -compensated_exact (@batch_least_cost _ _ _ _ _ K compensated pG D).
  by rewrite ler_addl tr_quad_ge0 //; apply: pd_psd.
by rewrite compensated_realises.
Qed.

End Compensation.

Lemma diag_quad (R : rcfType) n p (A : 'M[R]_n) (K : 'M[R]_(n, p)) j :
  (K^T *m A *m K) j j = dot (col j K) (A *m col j K).
Proof.
rewrite -mulmxA mxE dotE; apply: eq_bigr => i _; rewrite !mxE; congr (_ * _).
by apply: eq_bigr => l _; rewrite !mxE.
Qed.

Section Crosstalk.
Variable R : rcfType.
Variables (n p : nat) (G : 'M[R]_n) (K : 'M[R]_(n, p)).
Hypothesis pG : pd G.
Let others j := \sum_(i | i != j) col i K *m (col i K)^T.

Lemma gramE : K *m K^T = \sum_i col i K *m (col i K)^T.
Proof.
apply/matrixP => a b; rewrite !mxE summxE; apply: eq_bigr => i _.
by rewrite !mxE big_ord1 !mxE.
Qed.

Lemma psd_others j : psd (others j).
Proof.
rewrite /others; elim/big_rec: _ => [|i A _ [sA hA]].
  by split=> [|x]; rewrite ?/sym ?trmx0 // mul0mx dot0r.
split=> [|x]; first exact/sym_add/sA/sym_rank1.
by rewrite mulmxDl dotDr addr_ge0 // dot_rank1 sqr_ge0.
Qed.

Lemma pd_others j : pd (G + others j).
Proof. exact: pdD (psd_others j). Qed.

(* X13: what key j keeps is its attenuation in the geometry that holds all others *)
Theorem room_last j : retention G K j j = eta (G + others j) (col j K).
Proof.
have e : G + K *m K^T = G + others j + col j K *m (col j K)^T.
  by rewrite gramE (bigD1 j) //= addrA addrAC.
have -> : retention G K j j = dot (col j K) (channel (G + others j) (col j K)).
  by rewrite retentionE // diag_quad /channel e.
by rewrite channelE ?dotZr 1?mulrC //; apply: pd_others.
Qed.

(* X3 *)
Theorem crosstalk j : retention G K j j <= eta G (col j K).
Proof.
rewrite room_last; apply: eta_antitone => //; first exact: pd_others.
by rewrite addrAC subrr add0r; apply: psd_others.
Qed.

Theorem crosstalk_lt1 j : 0 <= retention G K j j < 1.
Proof. by rewrite room_last; apply: eta_range; apply: pd_others. Qed.

End Crosstalk.

Section Joining.
Variable R : rcfType.
Variables (n p q : nat) (G : 'M[R]_n) (K : 'M[R]_(n, p)) (L : 'M[R]_(n, q)).
Hypothesis pG : pd G.

(* X3: it falls as keys join *)
Theorem retention_joins j : retention G (row_mx K L) (lshift q j) (lshift q j) <= retention G K j j.
Proof.
have ret r (A : 'M[R]_(n, r)) i : retention G A i i = rho (G + A *m A^T) (col i A).
  by rewrite retentionE // diag_quad.
rewrite !ret.
have -> : col (lshift q j) (row_mx K L) = col j K.
  by apply/colP => i; rewrite !mxE (unsplitK (inl _ j)).
apply: rho_antitone; [exact: pd_bheld|exact: pd_bheld|].
rewrite tr_row_mx mul_row_col.
by rewrite opprD addrACA subrr add0r addrAC subrr add0r; apply: psd_gram.
Qed.

End Joining.

(* Eigenbases *)
Section Basis.
Variable R : rcfType.
Variables (n : nat) (A U : 'M[R]_n) (mu : 'rV[R]_n).
Hypothesis eA : eigenbasis A U mu.

Lemma basis_unitr : U *m U^T = 1%:M.
Proof. by case: eA => h _; apply: mulmx1C. Qed.

Lemma basis_add c : c%:M + A = U *m diag_mx (\row_i (c + mu 0 i)) *m U^T.
Proof.
have [UU {1}->] := eA; rewrite -[X in X + _]mulmx1 -basis_unitr mulmxA mul_scalar_mx -[c *: U]mul_mx_scalar -mulmxDl -mulmxDr.
congr (_ *m _ *m _); apply/matrixP => i j; rewrite !mxE.
by case: eqP => //=; rewrite ?mulr0n ?addr0 // => _; rewrite !mulr1n.
Qed.

Lemma basis_inv : (forall i, mu 0 i != 0) -> A *m (U *m diag_mx (\row_i (mu 0 i)^-1) *m U^T) = 1%:M.
Proof.
move=> h; have [UU {1}->] := eA.
rewrite !mulmxA -[_ *m U^T *m U]mulmxA UU mulmx1 -(mulmxA U) mulmx_diag.
rewrite (_ : diag_mx _ = 1%:M) ?mulmx1 ?basis_unitr //.
by apply/matrixP => i j; rewrite !mxE; case: eqP => // _; rewrite mulfV.
Qed.

Lemma basis_quad x : dot x (A *m x) = \sum_i mu 0 i * (U^T *m x) i 0 ^+ 2.
Proof.
have [UU {1}->] := eA; rewrite -!mulmxA -{1}[U]trmxK -dot_mull dotE.
move: (U^T *m x) => a; apply: eq_bigr => i _; rewrite mul_diag_mx !mxE mulrCA expr2 //.
Qed.

Lemma basis_norm x : dot x x = \sum_i (U^T *m x) i 0 ^+ 2.
Proof.
have -> : dot x x = dot (U^T *m x) (U^T *m x) by rewrite dot_mull trmxK mulmxA basis_unitr mul1mx.
by rewrite dotE; apply: eq_bigr => i _; rewrite expr2.
Qed.

Lemma basis_col i : A *m col i U = mu 0 i *: col i U /\ dot (col i U) (col i U) = 1.
Proof.
have [UU {1}->] := eA; split; last first.
  have := congr1 (fun M : 'M[R]_n => M i i) UU; rewrite !mxE eqxx mulr1n => <-.
  by rewrite dotE; apply: eq_bigr => j _; rewrite !mxE.
rewrite colE -!mulmxA (mulmxA U^T) UU mul1mx scalemxAr; congr (_ *m _).
by apply/colP => j; rewrite mul_diag_mx !mxE; case: eqP => [->|]; rewrite ?mulr0 ?andbT ?mulr1.
Qed.

End Basis.
