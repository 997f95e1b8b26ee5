(* What edits cost, and other geometries: X14, X12, P8, P10. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation spectrum drift batch.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

(* two geometries that differ by a factor reach the same edits *)
Lemma scaled_reach m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) (X : 'M[R]_(m, p)) alpha : pd G -> 0 < alpha ->
  exists T, batch_edit G K T = batch_edit (alpha *: G) K X.
Proof.
move=> pG a0; have paG := pdZ a0 pG; have uG := pd_unit pG; have [sG _] := pG.
have pS : pd (alpha%:M + gram G K).
  apply: pdD; last exact: psd_gramS.
  by split=> [|x x0]; rewrite ?/sym ?tr_scalar_mx // mul_scalar_mx dotZr mulr_gt0 ?dot_gt0.
have push A : pd A -> forall Y : 'M[R]_(m, p), batch_edit A K Y = Y *m (invmx (A + K *m K^T) *m K)^T.
  by move=> pA Y; have [sM _] := pd_inv (pd_bheld K pA); rewrite /batch_edit trmx_mul sM mulmxA.
have w : invmx (alpha *: G + K *m K^T) *m K = invmx G *m K *m invmx (alpha%:M + gram G K).
  apply: (canLR (mulKmx (pd_unit (pd_bheld K paG)))); rewrite mulmxA.
  rewrite (_ : (_ + _) *m (invmx G *m K) = K *m (alpha%:M + gram G K)) ?mulmxK ?pd_unit //.
  by rewrite mulmxDl -scalemxAl mulKVmx // mulmxDr mul_mx_scalar /gram !mulmxA.
exists (X *m (invmx (alpha%:M + gram G K) *m (1%:M + gram G K))^T).
rewrite !push // w woodbury // -mulmxA -trmx_mul; congr (_ *m _^T).
rewrite -!mulmxA; congr (_ *m (_ *m _)).
have comm : (1%:M + gram G K) *m (alpha%:M + gram G K) = (alpha%:M + gram G K) *m (1%:M + gram G K).
  by rewrite !mulmxDl !mulmxDr !mul1mx !mulmx1 mul_scalar_mx mul_mx_scalar addrACA [gram G K + _]addrC addrACA.
apply: (canLR (mulKmx (pd_unit (pd_1gram K pG)))).
apply: (canLR (mulKmx (pd_unit pS))); rewrite mulmxA -comm.
by rewrite -(mulmxA (1%:M + _)) mulmxV ?pd_unit // mulmx1.
Qed.

Lemma priced_loss m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) (X : 'M[R]_(m, p)) alpha D :
  frob (D *m K - X) ^+ 2 + alpha * cost G D = batch_loss (alpha *: G) K X D.
Proof. by rewrite /batch_loss frob_sqrT /cost -scalemxAr -scalemxAl linearZ. Qed.

Lemma trace_columns m p (A B : 'M[R]_(m, p)) : \tr (A^T *m B) = \sum_j dot (col j A) (col j B).
Proof. by apply: eq_bigr => j _; rewrite mxE dotE; apply: eq_bigr => i _; rewrite !mxE. Qed.

(* What B does not see K does not see, since x.Bx is a definite form of K x: the rows of D K are combinations of those of B. *)
Lemma shift_reached m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) (D : 'M[R]_(m, n)) : pd G ->
  exists T, batch_edit G K T *m K = D *m K.
Proof.
move=> pG; have pI := pd_inv (pd_bheld K pG).
have unseen q (Y : 'M[R]_(p, q)) : retention G K *m Y = 0 -> K *m Y = 0.
  rewrite retentionE // -!mulmxA => e; apply: (can_inj (@trmxK _ _ _)); rewrite trmx0; apply: (tr_quad_eq0 pI).
  by rewrite trmxK trmx_mul -!mulmxA e mulmx0 mxtrace0.
have /submxP[T e] : (D *m K <= retention G K)%MS by rewrite submxE -mulmxA unseen ?mulmx0 ?mulmx_coker.
by exists T; rewrite batch_law.
Qed.

(* D G = (T - D K) K^T; what is not seen by the keys only adds cost; and the price scales the geometry. *)
Theorem X14_proof : X14 R.
Proof.
move=> m n p G K pG; split.
- move=> T D; split; last first.
    move=> D' h; rewrite /cost (batch_least_cost pG h) ler_addl.
    exact/tr_quad_ge0/pd_psd.
  rewrite /cost batch_cost // trace_columns; apply: eq_bigr => j _; congr dot.
    by rewrite linearB /= !colE -mulmxA.
  by rewrite !colE mulmxA.
- move=> k r D; have e : cost G D = nrm (D *m k) ^+ 2 / rho G k.
    have [k0|k0] := eqVneq k 0.
      have -> : D = 0 by rewrite /D /edit /channel k0 mulmx0 trmx0 mulmx0.
      by rewrite /cost !mul0mx mxtrace0 nrm0 expr0n mul0r.
    have r0 : rho G k != 0 by apply: contra_neq k0; apply: rho_eq0.
    have eD : D = (rho G k)^-1 *: (D *m k *m (invmx G *m k)^T).
      by rewrite attenuation // -scalemxAl scalerA /D /edit channelE // linearZ /= -scalemxAr /eta mulrA mulVf // mul1r.
    by have [_] := @execution_cost_attained R m n G k (D *m k) pG k0; rewrite -eD nrm_sqr.
  split=> // D' h; have [k0|k0] := eqVneq k 0.
    rewrite e k0 mulmx0 nrm0 expr0n mul0r; exact/tr_quad_ge0/pd_psd.
  by rewrite e nrm_sqr; apply: execution_cost.
- split=> [D|inj X]; first exact: shift_reached.
  by exists (X *m invmx (retention G K)); exact: compensated_realizes.
move=> X alpha a0 priced; have [T eT] := scaled_reach K X pG a0; exists T; rewrite /priced.
have paG := pdZ a0 pG.
split=> // T'; rewrite !priced_loss eT; [exact: bedit_minimizes | exact: bedit_unique].
Qed.

(* Sums over eigenvectors of B: the form is positive, so that the stationary point is the minimum. *)
Lemma two_sided_pd m n (G : 'M[R]_n) (B : 'M[R]_m) (H : 'M[R]_(m, n)) : pd G -> pd B ->
  0 <= \tr (B *m H *m G *m H^T) /\ (\tr (B *m H *m G *m H^T) = 0 -> H = 0).
Proof.
move=> pG pB; have [Z eZ] := square_root pB; have uB := pd_unit pB.
have e : \tr (B *m H *m G *m H^T) = \tr (Z^T *m H *m G *m (Z^T *m H)^T).
  by rewrite eZ -!mulmxA mxtrace_mulC trmx_mul trmxK !mulmxA.
rewrite e; split=> [|/(tr_quad_eq0 pG) h]; first exact/tr_quad_ge0/pd_psd.
by rewrite -[H](mulKmx uB) {2}eZ -mulmxA h !mulmx0.
Qed.

Theorem X12_proof : X12 R.
Proof.
move=> m n G B k r pG pB; have [sG _] := pG; have [sB _] := pB; have uG := pd_unit pG.
set rh := rho G k; have r0 : 0 <= rh by apply: rho_ge0.
have pM : pd (B + rh%:M).
  apply: pdD => //; split=> [|x]; first by rewrite /sym tr_scalar_mx.
  by rewrite mul_scalar_mx dotZr mulr_ge0 ?dot_ge0.
have uM := pd_unit pM; pose y := invmx (B + rh%:M) *m r.
have ey : B *m y + rh *: y = r by rewrite -mul_scalar_mx -mulmxDl mulKVmx.
pose D := y *m (invmx G *m k)^T; exists D.
have Dk : D *m k = rh *: y by rewrite /D -mulmxA mul_tr_dot mul_mx_scalar dotC.
have DG : D *m G = y *m k^T by rewrite /D trmx_mul (sym_inv sG) -!mulmxA mulVmx // mulmx1.
clearbody D; clearbody y.
have square D' : two_sided_loss G B k r D' - two_sided_loss G B k r D =
    dot ((D' - D) *m k) ((D' - D) *m k) + \tr (B *m (D' - D) *m G *m (D' - D)^T).
  have -> : D' = D + (D' - D) by rewrite addrC subrK.
  move: (D' - D) => H; rewrite [D + H - D]addrC addKr.
  have gap : D *m k - r = - (B *m y) by rewrite Dk -ey opprD addrC addrNK.
  have e1 : \tr (B *m D *m G *m H^T) = dot (B *m y) (H *m k).
    by rewrite -(mulmxA B) DG mulmxA -mulmxA -trmx_mul mxtrace_mulC mul_tr_dot mxtrace_scalar mulr1n dotC.
  have e2 : \tr (B *m H *m G *m D^T) = dot (B *m y) (H *m k).
    by rewrite -e1 -[LHS]mxtrace_tr !trmx_mul trmxK sG sB !mulmxA [LHS]mxtrace_mulC !mulmxA.
  rewrite /two_sided_loss mulmxDl [D *m k + _ - r]addrAC gap [(D + H)^T]linearD /= !mulmxDr !mulmxDl !linearD /= e1 e2.
  rewrite !(dotDl, dotDr, dotNl, dotNr) (dotC (H *m k)).
  set a := dot (B *m y) (B *m y); set b := dot (B *m y) _; set c := dot (H *m k) _.
  by set t := \tr (B *m D *m G *m D^T); set u := \tr _; ring.
split.
- by move=> D'; rewrite -subr_ge0 square addr_ge0 ?dot_ge0 //; have [] := two_sided_pd (D' - D) pG pB.
- move=> D' h; have [t0 t1] := two_sided_pd (D' - D) pG pB; apply/eqP; rewrite -subr_eq0; apply/eqP/t1.
  have := square D'; have : two_sided_loss G B k r D' - two_sided_loss G B k r D <= 0 by rewrite subr_le0.
  move=> le0 e; rewrite e in le0; apply/eqP; rewrite eq_le t0 andbT.
  by apply: le_trans le0; rewrite ler_addr dot_ge0.
move=> w b w0 e; have b0 : 0 < b by have [_ h] := pB; have := h w w0; rewrite e dotZr pmulr_lgt0 // dot_gt0.
have : dot w r = (b + rh) * dot w y by rewrite -ey dotDr dotZr -(sym_dot w y sB) e dotZl mulrDl.
rewrite Dk dotZr => ->; field; by rewrite gt_eqF // ltr_paddr.
Qed.

(* Jensen by the tangent at the mean; E rho is a trace. *)
Theorem P8_proof : P8 R.
Proof.
move=> W E L n k C lambda beta [[L1 E1] lin mono] hC G l0 b0 pG Lr Le m.
have same f g : L f -> L g -> (forall w, f w = g w) -> E f = E g.
  by move=> Lf Lg fg; apply/eqP; rewrite eq_le !mono // => w; rewrite fg.
have [z [Lz z0 Ez]] : exists z, [/\ L z, forall w, z w = 0 & E z = 0].
  have [La Ea] := lin _ _ (-1) L1 L1; exists (fun w => -1 * 1 + 1).
  by split=> // [w|]; rewrite ?Ea ?E1 mulr1 addNr.
have pI := pd_inv pG; have [sI hI] := pd_psd pI; have uG := pd_unit pG.
have sums (I : Type) (s : seq I) (f : I -> W -> R) (c : I -> R) : (forall i, L (f i)) ->
    exists g, [/\ L g, forall w, g w = \sum_(i <- s) c i * f i w & E g = \sum_(i <- s) c i * E (f i)].
  move=> Lf; elim: s => [|i s [g [Lg gE Eg]]].
    by exists z; split=> // [w|]; rewrite big_nil.
  have [Lh Eh] := lin _ _ (c i) (Lf i) Lg; exists (fun w => c i * f i w + g w).
  by split=> // [w|]; rewrite big_cons ?gE // Eh Eg.
have mE : m = \tr (invmx G *m C).
  have [g [Lg gE Eg]] := sums _ (index_enum [finType of 'I_n * 'I_n]) (fun p w => k w p.1 0 * k w p.2 0) (fun p => invmx G p.1 p.2) (fun p => (hC p.1 p.2).1).
  have -> : m = E g.
    apply: same => // w; rewrite gE /rho dotE -(pair_bigA _ (fun i j => invmx G i j * (k w i 0 * k w j 0))) /=.
    by apply: eq_bigr => i _; rewrite mxE mulr_sumr; apply: eq_bigr => j _; rewrite mulrCA.
  rewrite Eg -(pair_bigA _ (fun i j => invmx G i j * E (fun w => k w i 0 * k w j 0))) /=.
  apply: eq_bigr => i _; rewrite mxE; apply: eq_bigr => j _; rewrite (hC i j).2; congr (_ * _).
  by rewrite -(hC i j).2 -(hC j i).2; apply: same; [exact: (hC i j).1 | exact: (hC j i).1 | move=> w; rewrite mulrC].
have m0 : 0 <= m by rewrite -Ez; apply: mono => // w; rewrite z0 rho_ge0.
split.
  rewrite ler_pdivl_mulr // mE.
  have eC : lambda *: C = G - beta%:M by rewrite /G addrK.
  have -> : \tr (invmx G *m C) * lambda = n%:R - beta * \tr (invmx G).
    by rewrite mulrC -mxtraceZ scalemxAr eC mulmxBr mulVmx // mul_mx_scalar linearB /= mxtrace1 linearZ.
  rewrite ler_subl_addr ler_addl mulr_ge0 // sumr_ge0 // => i _.
  by have := hI (delta_mx i 0); rewrite -colE dotE (bigD1 i) //= !mxE !eqxx mul1r big1 ?addr0 // => j ji; rewrite !mxE (negbTE ji) mul0r.
have m1 : 0 < 1 + m by rewrite ltr_paddr ?ltr01.
pose s := (1 + m) ^- 2.
have [La Ea] := lin _ _ (m / (1 + m) - s * m) L1 L1.
have [Lt Et] := lin (fun w => rho G (k w)) (fun=> 1) s Lr L1.
have [Lu Eu] := lin (fun=> 1) (fun w => s * rho G (k w) + 1) (m / (1 + m) - s * m - 1) L1 Lt.
have -> : m / (1 + m) = E (fun w => (m / (1 + m) - s * m - 1) * 1 + (s * rho G (k w) + 1)).
  by rewrite Eu Et E1 -/m; ring.
apply: mono => // w; have r1 := rho1_gt0 (k w) pG; rewrite /eta -subr_ge0 /s; set x := rho G (k w) in r1 *.
rewrite [X in 0 <= X](_ : _ = (x - m) ^+ 2 / ((1 + x) * (1 + m) ^+ 2)); last first.
  by field; rewrite !gt_eqF.
by rewrite divr_ge0 ?sqr_ge0 // mulr_ge0 ?exprn_ge0 ?ltW.
Qed.

(* p^2/(1 + p^2) grows by at most 3 sqrt 3/8: the slope at p = 1/sqrt 3. *)
Lemma shrink_slope (p t : R) : 0 <= p -> 0 <= t ->
  `|p ^+ 2 / (1 + p ^+ 2) - t ^+ 2 / (1 + t ^+ 2)| <= 3%:R * Num.sqrt 3%:R / 8%:R * `|p - t|.
Proof.
move=> p0 t0; set c := Num.sqrt _; have c0 : 0 < c by rewrite sqrtr_gt0 ltr0n.
have c2 : c ^+ 2 = 3%:R by rewrite sqr_sqrtr ?ler0n.
have P1 : 0 < 1 + p ^+ 2 by rewrite ltr_paddr ?sqr_ge0 ?ltr01.
have T1 : 0 < 1 + t ^+ 2 by rewrite ltr_paddr ?sqr_ge0 ?ltr01.
rewrite (_ : _ - _ = (p - t) * ((p + t) / ((1 + p ^+ 2) * (1 + t ^+ 2)))); last by field; rewrite !gt_eqF.
rewrite normrM mulrC ler_wpmul2r ?normr_ge0 // ger0_norm ?divr_ge0 ?addr_ge0 ?mulr_ge0 ?(ltW P1) ?(ltW T1) //.
rewrite ler_pdivr_mulr ?mulr_gt0 // -(ler_pmul2l (_ : 0 < 8%:R * c)) ?mulr_gt0 ?ltr0n // -subr_ge0.
rewrite [X in 0 <= X](_ : _ = (c ^+ 2 * p * t - 1) ^+ 2 + 2%:R * (c * p + c * t - 2%:R) ^+ 2 + (c * p - c * t) ^+ 2).
  by rewrite !addr_ge0 ?sqr_ge0 // mulr_ge0 ?sqr_ge0 ?ler0n.
transitivity (3%:R * c ^+ 2 * ((1 + p ^+ 2) * (1 + t ^+ 2)) - 8%:R * c * (p + t)); first by field.
transitivity ((c ^+ 2) ^+ 2 * (p * t) ^+ 2 - 2%:R * c ^+ 2 * (p * t) + 1 + 2%:R * (c ^+ 2 * (p + t) ^+ 2 - 4%:R * c * (p + t) + 4%:R)
    + c ^+ 2 * (p - t) ^+ 2); last by ring.
by rewrite c2; ring.
Qed.

Lemma eta_key n mu (G : 'M[R]_n) k1 k2 : 0 < mu -> above mu G ->
  `|eta G k1 - eta G k2| <= 3%:R * Num.sqrt 3%:R / 8%:R * (nrm (k1 - k2) / Num.sqrt mu).
Proof.
move=> mu0 aG; have pG := above_pd mu0 aG; have pI := pd_inv pG; have [sI hI] := pd_psd pI.
have e k : eta G k = Num.sqrt (rho G k) ^+ 2 / (1 + Num.sqrt (rho G k) ^+ 2) by rewrite sqr_sqrtr // rho_ge0.
rewrite !e; apply: le_trans (shrink_slope (sqrtr_ge0 _) (sqrtr_ge0 _)) _.
have s0 : 0 < Num.sqrt mu by rewrite sqrtr_gt0.
have c0 : 0 <= 3%:R * Num.sqrt 3%:R / 8%:R :> R by rewrite divr_ge0 ?mulr_ge0 ?ler0n ?sqrtr_ge0.
rewrite ler_wpmul2l //.
have up x : Num.sqrt (rho G x) <= nrm x / Num.sqrt mu.
  rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?sqrtr_ge0 ?divr_ge0 ?nrm_ge0 // ?(ltW s0) //.
  rewrite [Num.sqrt (rho G x) ^+ 2]sqr_sqrtr ?rho_ge0 // exprMn exprVn [Num.sqrt mu ^+ 2]sqr_sqrtr ?(ltW mu0) //.
  apply: le_trans (cauchy_le _ _) _; rewrite expr2 -mulrA ler_wpmul2l ?nrm_ge0 // mulrC.
  exact: above_inv.
have tri x y : Num.sqrt (rho G x) <= Num.sqrt (rho G y) + Num.sqrt (rho G (x - y)).
  rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?addr_ge0 ?sqrtr_ge0 // sqrrD !sqr_sqrtr ?rho_ge0 //.
  have cs : dot y (invmx G *m (x - y)) <= Num.sqrt (rho G y) * Num.sqrt (rho G (x - y)).
    apply: le_trans (ler_norm _) _; rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?mulr_ge0 ?sqrtr_ge0 //.
    by rewrite exprMn !sqr_sqrtr ?rho_ge0 // real_normK ?num_real // cauchy_form.
  have -> : rho G x = rho G y + dot y (invmx G *m (x - y)) *+ 2 + rho G (x - y).
    rewrite /rho !(mulmxBr, dotBl, dotBr) -(sym_dot y x sI) (dotC (invmx G *m y) x).
    set a := dot x (invmx G *m x); set b := dot x (invmx G *m y); set d := dot y _; ring.
  by rewrite ler_add2r ler_add2l ler_pmuln2r.
rewrite ler_norml; apply/andP; split.
  rewrite ler_oppl opprB ler_subl_addl; apply: le_trans (tri k2 k1) _; rewrite ler_add2l.
  by apply: le_trans (up _) _; rewrite -nrmN opprB.
by rewrite ler_subl_addl; apply: le_trans (tri k1 k2) _; rewrite ler_add2l.
Qed.

Theorem P10_proof : P10 R.
Proof.
move=> n G1 G2 k1 k2 mu eC mu0 a1 a2 e0 dE.
have -> : eta G1 k1 - eta G2 k2 = (eta G1 k1 - eta G1 k2) + (eta G1 k2 - eta G2 k2) by rewrite addrA subrK.
apply: le_trans (ler_norm_add _ _) _; apply: ler_add; first exact: eta_key.
have p1 := above_pd mu0 a1; have p2 := above_pd mu0 a2.
have ec G : pd G -> eta G k2 = dot k2 (channel G k2) by move=> pG; rewrite channelE // dotZr mulrC.
rewrite !ec //; set q1 := channel G1 k2; set q2 := channel G2 k2.
have e1 : (G1 + k2 *m k2^T) *m q1 = k2 by rewrite mulKVmx // pd_unit //; apply: pd_held.
have e2 : (G2 + k2 *m k2^T) *m q2 = k2 by rewrite mulKVmx // pd_unit //; apply: pd_held.
have s1 : sym (G1 + k2 *m k2^T) by have [] := pd_held k2 p1.
have -> : dot k2 q1 - dot k2 q2 = dot q1 ((G2 - G1) *m q2).
  have A : dot k2 q1 = dot q1 ((G2 + k2 *m k2^T) *m q2) by rewrite e2 dotC.
  have B : dot k2 q2 = dot q1 ((G1 + k2 *m k2^T) *m q2) by rewrite -(sym_dot q1 q2 s1) e1.
  rewrite A B -dotBr -mulmxBl; congr (dot _ (_ *m _)).
  by rewrite opprD addrACA subrr addr0.
apply: le_trans (cauchy_abs _ _) _.
have b1 : nrm q1 <= (2%:R * Num.sqrt mu)^-1 by apply: channel_short.
have b2 : nrm q2 <= (2%:R * Num.sqrt mu)^-1 by apply: channel_short.
apply: le_trans (_ : _ <= (2%:R * Num.sqrt mu)^-1 * (eC * (2%:R * Num.sqrt mu)^-1)) _.
  by apply: ler_pmul; rewrite ?nrm_ge0 //; apply: le_trans (dE _) _; rewrite ler_wpmul2l.
rewrite mulrCA -expr2 exprVn exprMn sqr_sqrtr ?(ltW mu0) // -natrX //.
Qed.

End Claims.
