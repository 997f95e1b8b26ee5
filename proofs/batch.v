(* Batches: X2, X3, X13, X14, P4. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation drift.

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

Theorem bedit_minimizes D : bloss bedit <= bloss D.
Proof. by rewrite -subr_ge0 bloss_square tr_quad_ge0 //; apply/pd_psd/pd_bheld. Qed.

Theorem bedit_unique D : bloss D <= bloss bedit -> D = bedit.
Proof.
move=> h; apply/eqP; rewrite -subr_eq0; apply/eqP.
apply: (tr_quad_eq0 pd_bheld); rewrite -bloss_square.
by apply/eqP; rewrite subr_eq0 eq_le h bedit_minimizes.
Qed.

(* X14: what it costs is what is missing times what is realized *)
Theorem batch_cost : \tr (bedit *m G *m bedit^T) = \tr ((T - bedit *m K)^T *m (bedit *m K)).
Proof.
have e : bedit *m G = (T - bedit *m K) *m K^T.
  by rewrite mulmxBl -bedit_held mulmxDr mulmxA addrK.
by rewrite e -mulmxA -trmx_mul mxtrace_mulC -mxtrace_tr trmx_mul trmxK.
Qed.

(* and any other edit that realizes the same costs more *)
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

Theorem compensated_realizes : batch_edit G K compensated *m K = T.
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
by rewrite compensated_realizes.
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

Section Claims.
Variable R : rcfType.

Lemma retention_basis n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) U s : pd G -> eigenbasis (gram G K) U s ->
  (forall i, 0 <= s 0 i) /\ eigenbasis (retention G K) U (\row_i (s 0 i / (1 + s 0 i))).
Proof.
move=> pG eS; have s0 := psd_eigenbasis eS (psd_gramS K pG); split=> //.
have [UU e] := eS; split=> //.
have e1 : eigenbasis (1%:M + gram G K) U (\row_i (1 + s 0 i)) by split=> //; apply: (basis_add eS 1).
have h i : (\row_i (1 + s 0 i)) 0 i != 0 by rewrite mxE gt_eqF // ltr_paddr ?ltr01.
have inv : invmx (1%:M + gram G K) = U *m diag_mx (\row_i ((\row_i (1 + s 0 i)) 0 i)^-1) *m U^T.
  by apply: invmx_right; apply: basis_inv e1 _.
rewrite /retention inv {1}e basis_mul //; congr (_ *m diag_mx _ *m _).
by apply/rowP => i; rewrite !mxE.
Qed.

(* Complete the square; D K = T B by the push-through identity, and B is a function of the Gram matrix. *)
Theorem X2_proof : X2 R.
Proof.
move=> m n p G K T pG; split.
- by move=> D; apply: bedit_minimizes.
- by move=> D; apply: bedit_unique.
- exact: batch_law.
- by apply: eigenbasis_exists; have [] := psd_gramS K pG.
by move=> U s; apply: retention_basis.
Qed.

(* the other keys as one matrix *)
Lemma others_gram n p (K : 'M[R]_(n, p)) j (L : 'M[R]_(n, p) := \matrix_(a, i) if i == j then 0 else K a i) :
  other_keys K j = L *m L^T.
Proof.
rewrite gramE (bigD1 j) //= (_ : col j L = 0) ?mul0mx ?add0r; last by apply/colP => a; rewrite !mxE eqxx.
apply: eq_bigr => i ij; rewrite (_ : col i L = col i K) //.
by apply/colP => a; rewrite !mxE (negbTE ij).
Qed.

Lemma gram_ge0 n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) s : pd G -> smallest (gram G K) s -> 0 <= s.
Proof.
move=> pG [es _]; have [sS h] := psd_gramS K pG; have [u [e u1]] := unit_eigenvector sS es.
by have := h u; rewrite e dotZr u1 mulr1.
Qed.

Lemma inv_1gram n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) s : pd G -> smallest (gram G K) s ->
  bounded (invmx (1%:M + gram G K)) (1 + s)^-1.
Proof.
move=> pG h; have s0 := gram_ge0 pG h; have [sS _] := psd_gramS K pG.
apply: above_inv; first by rewrite ltr_paddr ?ltr01.
split=> [|x]; first by apply: sym_add => //; apply: trmx1.
by rewrite mulmxDl mul1mx dotDr mulrDl mul1r ler_add2l; apply: quad_smallest.
Qed.

(* Key j keeps its attenuation in a geometry that holds the other keys; adding keys to a geometry lowers rho. *)
Theorem X3_proof : X3 R.
Proof.
move=> n p G K pG; split.
- exact: crosstalk.
- move=> j; rewrite room_last //; have pO := pd_others K pG j.
  rewrite -/(other_keys K j) in pO *; rewrite others_gram in pO *.
  set L := (X in G + X *m _) in pO *; split=> h.
    move: h => /(eta_inj pO pG)/(rho_history _ _ pG) h i ij.
    have := congr1 (fun v : 'cV[R]_p => v i 0) h; rewrite !mxE => <-.
    by rewrite dotE; apply: eq_bigr => a _; rewrite !mxE (negbTE ij).
  rewrite /eta; have -> : rho (G + L *m L^T) (col j K) = rho G (col j K) => //.
  apply/rho_history => //; apply/colP => i; rewrite !mxE; have [->|ij] := eqVneq i j.
    by apply: big1 => a _; rewrite !mxE eqxx mul0r.
  transitivity (dot (col i K) (invmx G *m col j K)); last exact: h.
  by rewrite dotE; apply: eq_bigr => a _; rewrite !mxE (negbTE ij).
- by move=> q L j; apply: retention_joins.
move=> m T s h; have s0 := gram_ge0 pG h; rewrite batch_missing // mulrC.
have i0 : 0 <= (1 + s)^-1 by rewrite invr_ge0 addr_ge0 ?ler01.
have [s1 _] := pd_inv (pd_1gram K pG).
by apply: frob_mul_bounded => //; rewrite s1; apply: inv_1gram.
Qed.

(* a matrix of independent columns with the same products K K^T *)
Lemma square_root n (W : 'M[R]_n) : pd W -> exists Z : 'M[R]_n, W = Z *m Z^T.
Proof.
move=> pW; have [U [mu [UU eW mu0]]] := spectral_pd pW.
exists (U *m diag_mx (\row_i Num.sqrt (mu 0 i))).
rewrite trmx_mul tr_diag_mx -!mulmxA (mulmxA (diag_mx _)) mulmx_diag {1}eW -mulmxA; congr (_ *m (diag_mx _ *m _)).
by apply/rowP => i; rewrite !mxE -expr2 sqr_sqrtr // ltW.
Qed.

Lemma thin n p (K : 'M[R]_(n, p)) : exists L : 'M[R]_(n, \rank K), K *m K^T = L *m L^T.
Proof.
pose N := row_base K; have pN : pd (N *m N^T).
  have [sN hN] := psd_gram N; split=> // x x0; rewrite -mulmxA -{1}[N]trmxK -dot_mull dot_gt0.
  apply: contra_neq x0 => /(congr1 trmx); rewrite trmx_mul trmxK trmx0 => h.
  have f : row_free N := row_base_free K.
  by apply: (can_inj trmxK); rewrite trmx0; apply: (row_free_inj f); rewrite mul0mx.
have [Z eZ] := square_root pN; exists (col_base K *m Z).
have eK : K = col_base K *m N by rewrite mulmx_base.
rewrite {1 2}eK; move: (col_base K) N eZ {pN eK} => A B eZ.
by rewrite !trmx_mul -!mulmxA (mulmxA B) eZ -!mulmxA.
Qed.

Lemma retention_trace n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) : pd G ->
  \tr (retention G K) = \tr (invmx (G + K *m K^T) *m (K *m K^T)).
Proof. by move=> pG; rewrite retentionE // mxtrace_mulC mulmxA mxtrace_mulC. Qed.

Lemma sum_lt1 r (f : 'I_r -> R) : (0 < r)%N -> (forall i, f i < 1) -> \sum_i f i < r%:R.
Proof.
case: r f => // r f _ h; rewrite big_ord_recl mulrS; apply: ltr_le_add; first exact: h.
by rewrite -[X in _ <= X%:R]card_ord -sumr_const; apply: ler_sum => i _; apply: ltW.
Qed.

Lemma room_rank n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) : pd G -> K != 0 ->
  \sum_j retention G K j j < (\rank K)%:R.
Proof.
move=> pG K0; rewrite -/(\tr (retention G K)) retention_trace //.
have [L ->] := thin K; rewrite -retention_trace //.
have r0 : (0 < \rank K)%N by rewrite lt0n mxrank_eq0.
by apply: sum_lt1 => // i; have /andP[] := crosstalk_lt1 L pG i.
Qed.

(* The trace of B is that of at most rank K fractions below 1. *)
Theorem X13_proof : X13 R.
Proof.
move=> n p G K pG; split.
- by move=> j; rewrite room_last.
- move=> U s eS; have [_ [UU e]] := retention_basis pG eS.
  rewrite -/(\tr (retention G K)) e mxtrace_mulC mulmxA UU mul1mx mxtrace_diag.
  by apply: eq_bigr => i _; rewrite mxE.
- exact: room_rank.
- by rewrite leq_min rank_leq_row rank_leq_col.
move=> p0 n0; rewrite ltr_pmul2r ?invr_gt0 ?ltr0n //.
have [K0|K0] := eqVneq K 0; last by apply: lt_le_trans (room_rank pG K0) _; rewrite ler_nat rank_leq_row.
rewrite big1 ?ltr0n // => j _; rewrite /retention /gram.
by rewrite (_ : _ *m K = 0) ?mul0mx ?mxE // K0 mulmx0.
Qed.

(* The compensated request is (T B^-1) B = T, and the edit it gives is the one of least cost. *)
Theorem P4_proof : P4 R.
Proof.
split=> [m n p G K T pG inj D|m n G k delta pG k0]; last first.
  rewrite attenuation // scalerA mulfV ?scale1r //.
  by rewrite eta_eq0.
split.
- exact: retention_unit.
- exact: compensated_realizes.
- exact: compensated_exact.
by move=> D' h; rewrite /D compensated_exact //; apply: exact_least_cost.
Qed.

End Claims.
