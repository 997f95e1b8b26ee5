(* AlphaEdit: T1e, T1f, X1, P15. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear attenuation.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Suppression.
Variable R : rcfType.

Section Projector.
Variables (m n : nat) (P : 'M[R]_n) (beta : R) (k : 'cV[R]_n) (r : 'cV[R]_m).
Hypotheses (sP : P^T = P) (PP : P *m P = P) (b0 : 0 < beta).
Let kt := P *m k.
Local Notation ploss := (projected_loss P beta k r).
Local Notation pedit := (projected_edit P beta k r).

Lemma pd_beta : pd (beta%:M : 'M[R]_n).
Proof.
split=> [|x x0]; first by rewrite /sym tr_scalar_mx.
by rewrite mul_scalar_mx dotZr mulr_gt0 ?dot_gt0.
Qed.

Lemma rho_beta (x : 'cV[R]_n) : rho beta%:M x = dot x x / beta.
Proof. by rewrite /rho invmx_scalar mul_scalar_mx dotZr mulrC. Qed.

Lemma bk0 : beta + dot kt kt != 0.
Proof. by rewrite gt_eqF // ltr_paddr // dot_ge0. Qed.

Lemma eta_beta : eta beta%:M kt = dot kt kt / (beta + dot kt kt).
Proof.
rewrite /eta rho_beta -[X in X + _](@mulfV _ beta) ?gt_eqF // -mulrDl invfM invrK mulrACA mulVf ?gt_eqF //.
by rewrite mulr1.
Qed.

Lemma pedit_edit : pedit = edit beta%:M kt r.
Proof.
rewrite /edit channelE; last exact: pd_beta.
rewrite rho_beta invmx_scalar mul_scalar_mx scalerA linearZ /= -scalemxAr /projected_edit; congr (_ *: _).
by rewrite -invfM mulrDl mul1r divfK ?gt_eqF.
Qed.

Lemma plossE D : ploss D = loss beta%:M kt r (D *m P).
Proof.
rewrite /projected_loss /loss /cost /kt !mulmxA -(mulmxA D P P) PP; congr (_ + _).
by rewrite mul_mx_scalar -scalemxAl linearZ.
Qed.

Lemma pedit_range : pedit *m P = pedit.
Proof. by rewrite /projected_edit -scalemxAl -mulmxA /kt trmx_mul sP -mulmxA PP. Qed.

Theorem projected_minimizes D : ploss pedit <= ploss D.
Proof. by rewrite !plossE pedit_range pedit_edit edit_minimizes //; apply: pd_beta. Qed.

Theorem projected_unique D : ploss D <= ploss pedit -> D *m P = pedit.
Proof. by rewrite !plossE pedit_range pedit_edit => /(edit_unique pd_beta). Qed.

Theorem projected_attenuation : pedit *m k = (dot kt kt / (beta + dot kt kt)) *: r.
Proof.
rewrite -pedit_range -mulmxA -/kt pedit_edit attenuation ?eta_beta //.
exact: pd_beta.
Qed.

(* T1f *)
Variables (p : nat) (Kp : 'M[R]_(n, p)).
Let H := beta%:M + (P *m Kp) *m (P *m Kp)^T.

Theorem history_attenuates : eta H kt <= eta beta%:M kt.
Proof.
have pb := pd_beta; have ph : psd ((P *m Kp) *m (P *m Kp)^T) by apply: psd_gram.
apply: eta_antitone => //; first exact: pdD.
by rewrite /H addrAC subrr add0r.
Qed.

End Projector.

End Suppression.


Section Claims.
Variable R : rcfType.

Lemma pd_history n p (P : 'M[R]_n) beta (Kp : 'M[R]_(n, p)) : 0 < beta -> pd (history P beta Kp).
Proof. by move=> b0; apply: pdD; [apply: pd_beta | apply: psd_gram]. Qed.

(* The raw key's update is r k^T but for a factor, and r k^T P = r k^T says that P k = k. *)
Lemma raw_key_inside m n (P : 'M[R]_n) beta (k : 'cV[R]_n) (r : 'cV[R]_m) : projector P -> 0 < beta ->
  raw_key_edit beta k r *m P = raw_key_edit beta k r <-> P *m k = k \/ r = 0.
Proof.
move=> [sP _] b0; have raw : raw_key_edit beta k r = (beta + dot k k)^-1 *: (r *m k^T).
  have := @pedit_edit R m n 1%:M beta k r b0; rewrite /projected_edit mul1mx => ->.
  by rewrite /raw_key_edit /edit /channel trmx_mul trmx_inv linearD /= tr_scalar_mx trmx_mul trmxK mulmxA addrC.
have c0 : beta + dot k k != 0 by rewrite gt_eqF // ltr_paddr // dot_ge0.
have kP : k^T *m P = (P *m k)^T by rewrite trmx_mul sP.
rewrite raw -scalemxAl -mulmxA kP; split=> [h|[->|->]] //; last by rewrite !mul0mx.
have {h} outside : r *m (P *m k - k)^T = 0.
  by rewrite linearB /= mulmxBr (can_inj (scalerK (invr_neq0 c0)) h) subrr.
have [->|r0] := eqVneq r 0; [by right | left].
apply/eqP; rewrite -subr_eq0 -nrm_eq0; have /eqP := congr1 (@frob R _ _) outside.
by rewrite frob0 frob_rank1 mulf_eq0 [nrm r == 0]nrm_eq0 (negbTE r0).
Qed.

(* With A = K K^T + K_p K_p^T, P (A P + beta I) = (P A P + beta I) P: the system that ships is invertible, and P passes through it. *)
Lemma shipped m n p q (P : 'M[R]_n) beta (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)) (Kp : 'M[R]_(n, q)) : projector P -> 0 < beta ->
  (K *m K^T + Kp *m Kp^T) *m P + beta%:M \in unitmx /\ shipped_edit P beta K T Kp = batch_edit (history P beta Kp) (P *m K) T.
Proof.
move=> [sP PP] b0; rewrite /shipped_edit /batch_edit; set A := K *m K^T + Kp *m Kp^T; set M := A *m P + beta%:M.
pose S := beta%:M + P *m A *m P.
have held : history P beta Kp + P *m K *m (P *m K)^T = S.
  by rewrite /history /S /A !trmx_mul sP mulmxDr mulmxDl !mulmxA -addrA [X in _ + X]addrC.
have uS : S \in unitmx by rewrite pd_unit // -held; apply: pdD; [apply: pd_history | apply: psd_gram].
have through : P *m M = S *m P.
  by rewrite /M /S mulmxDr mulmxDl mulmxA -(mulmxA _ P P) PP mul_mx_scalar mul_scalar_mx addrC.
have commute : P *m S = S *m P.
  by rewrite /S mulmxDr mulmxDl !mulmxA PP -(mulmxA _ P P) PP mul_mx_scalar mul_scalar_mx.
have uM : M \in unitmx.
  apply: inj_unit => x Mx; have Px : P *m x = 0.
    by apply: (can_inj (mulKmx uS)); rewrite mulmxA -through -(mulmxA P M x) Mx !mulmx0.
  move: Mx; rewrite /M mulmxDl -mulmxA Px mulmx0 add0r mul_scalar_mx => /eqP.
  by rewrite scaler_eq0 gt_eqF //= => /eqP.
split=> //; rewrite held trmx_mul sP mulmxA -!(mulmxA (T *m K^T)); congr (_ *m _).
have -> : P *m invmx M = invmx S *m P by apply: (canRL (mulKmx uS)); rewrite mulmxA -through mulmxK.
by apply: (canLR (mulKmx uS)); rewrite mulmxA -commute mulmxK.
Qed.

(* On matrices with X = X P the problem is ridge regression with key P k. *)
Theorem T1e_proof : T1e R.
Proof.
move=> m n P beta k r hP b0; have [sP PP] := hP; split.
- by split; [apply: pedit_range | apply: projected_attenuation].
- by move=> D; apply: projected_minimizes.
- by move=> D; apply: projected_unique.
- exact: raw_key_inside.
by move=> p q K T Kp; apply: shipped.
Qed.

(* On matrices with X = X P the objective with earlier keys is that of one edit in the geometry that holds them. *)
Lemma history_solves m n p (P : 'M[R]_n) beta (k : 'cV[R]_n) (r : 'cV[R]_m) (Kp : 'M[R]_(n, p)) : projector P -> 0 < beta ->
  let H := history P beta Kp in let X := edit H (P *m k) r in
  [/\ X *m P = X, X *m k = eta H (P *m k) *: r, forall D, history_loss P beta Kp k r X <= history_loss P beta Kp k r D
    & forall D, history_loss P beta Kp k r D <= history_loss P beta Kp k r X -> D *m P = X].
Proof.
move=> [sP PP] b0 H X; have pH : pd H by apply: pd_history.
have commute : P *m H = H *m P.
  rewrite /H /history mulmxDr mulmxDl mul_mx_scalar mul_scalar_mx trmx_mul sP !mulmxA PP.
  by rewrite -[in RHS](mulmxA _ P P) PP.
have inside : X *m P = X.
  have PT (c : 'cV[R]_n) : c^T *m P = (P *m c)^T by rewrite trmx_mul sP.
  rewrite /X /edit -mulmxA PT channelE // -scalemxAr; congr (_ *m (_ *: _)^T).
  apply: (canRL (mulKmx (pd_unit pH))); rewrite mulmxA -commute -mulmxA mulKVmx ?pd_unit //.
  by rewrite mulmxA PP.
have same D : history_loss P beta Kp k r D = loss H (P *m k) r (D *m P).
  rewrite /history_loss plossE // /loss -addrA; congr (_ + _).
  have -> : D *m P *m Kp = D *m P *m (P *m Kp) by rewrite -!mulmxA (mulmxA P P) PP.
  rewrite /cost /H /history; move: (P *m Kp) => Q.
  by rewrite mulmxDr mulmxDl linearD /= (trmx_mul _ Q) !mulmxA.
split=> //.
- by rewrite -{1}inside -mulmxA attenuation.
- by move=> D; rewrite !same inside; apply: edit_minimizes.
by move=> D; rewrite !same inside => /(edit_unique pH).
Qed.

(* Earlier keys only add to the geometry, and rho stays the same only if they do not see P k. *)
Theorem T1f_proof : T1f R.
Proof.
move=> n p P beta k Kp [sP PP] b0; rewrite /projected_eta -eta_beta //; split; last by move=> m r; apply: history_solves.
  exact: history_attenuates.
have pb := pd_beta n b0; have ph := pd_history P Kp b0.
have key : (P *m Kp)^T *m (invmx beta%:M *m (P *m k)) = beta^-1 *: (Kp^T *m (P *m k)).
  by rewrite invmx_scalar mul_scalar_mx -scalemxAr trmx_mul sP -!mulmxA (mulmxA P P) PP.
split=> [e|e]; last first.
  by rewrite /eta; have -> : rho (history P beta Kp) (P *m k) = rho beta%:M (P *m k)
    by apply/rho_history => //; rewrite key e scaler0.
have /(rho_history (P *m Kp) (P *m k) pb) := eta_inj ph pb e.
rewrite key => /eqP; rewrite scaler_eq0 invr_eq0 gt_eqF //= => /eqP //.
Qed.

(* With P = V V^T the system of the projected edit maps V y to V times the system in coordinates. *)
Theorem X1_proof : X1 R.
Proof.
move=> m n d p V beta k r Kp VV b0 P; split.
  by rewrite /P; split; rewrite ?trmx_mul ?trmxK // mulmxA -(mulmxA V) VV mulmx1.
pose A := beta%:M + V^T *m Kp *m Kp^T *m V.
have sP : P^T = P by rewrite /P trmx_mul trmxK.
have PV : P *m V = V by rewrite /P -mulmxA VV mulmx1.
have VP : V^T *m P = V^T by rewrite /P mulmxA VV mul1mx.
have pA : pd (A + V^T *m k *m (V^T *m k)^T).
  rewrite /A -[V^T *m Kp *m _ *m V]mulmxA (_ : Kp^T *m V = (V^T *m Kp)^T); last by rewrite trmx_mul trmxK.
  by apply: pd_held; apply: pdD; [apply: pd_beta | apply: psd_gram].
have pH := pd_held (P *m k) (pd_history P Kp b0).
rewrite /edit -mulmxA -/A -trmx_mul; congr (_ *m _^T).
have : (A + V^T *m k *m (V^T *m k)^T) *m channel A (V^T *m k) = V^T *m k by rewrite mulKVmx ?pd_unit.
move: (channel A _) => y e.
apply: (canLR (mulKmx (pd_unit pH))); rewrite [LHS](_ : _ = V *m ((A + V^T *m k *m (V^T *m k)^T) *m y)).
  2: by rewrite e /P mulmxA.
rewrite !mulmxA; congr (_ *m y).
have eP : V *m V^T = P by []. clearbody P.
rewrite /history /A !trmx_mul !trmxK sP !mulmxDl !mulmxDr !mulmxA -!(mulmxA _ P V) PV eP.
by rewrite mul_scalar_mx mul_mx_scalar.
Qed.

(* In G = beta I + t (I - P) the two parts of k are eigenvectors; insert them in the law of the channel. *)
Theorem P15_proof : P15 R.
Proof.
move=> m n P beta k r [sP PP] b0 gap a b.
pose N := 1%:M - P; pose u := P *m k; pose v := N *m k.
have PN : P *m N = 0 by rewrite /N mulmxBr mulmx1 PP subrr.
have NN : N *m N = N by rewrite {1}/N mulmxBl mul1mx PN subr0.
have sN : N^T = N by rewrite /N linearB /= trmx1 sP.
have kuv : k = u + v by rewrite /u /v /N -mulmxDl addrCA subrr addr0 mul1mx.
have Nu : N *m u = 0 by rewrite /u mulmxA /N mulmxBl mul1mx PP subrr mul0mx.
have Nv : N *m v = v by rewrite /v mulmxA NN.
have Pu : P *m u = u by rewrite /u mulmxA PP.
have ku : dot k u = dot u u by rewrite -[in LHS]Pu -[in LHS]sP -dot_mull.
have kv : dot k v = dot v v by rewrite -[in LHS]Nv -[in LHS]sN -dot_mull.
have a1 : 1 <= a by rewrite /a ler_addl divr_ge0 ?exprn_ge0 ?nrm_ge0 // ltW.
have a0 : 0 < a by apply: lt_le_trans a1; apply: ltr01.
have b1 : 0 <= b by rewrite /b exprn_ge0 ?nrm_ge0.
have law t : 0 <= t -> gap t = (a * (t + beta + b / a))^-1 *: (r *m (v - (b / (a * beta)) *: u)^T).
  move=> t0; have tb : 0 < beta + t by rewrite ltr_paddr.
  pose G := beta%:M + t *: N.
  have pG : pd G.
    apply: pdD; first exact: pd_beta.
    split=> [|x]; first by rewrite /sym linearZ /= sN.
    by rewrite -scalemxAl dotZr mulr_ge0 // -{1}NN -mulmxA -{1}sN -dot_mull dot_ge0.
  have ik : invmx G *m k = beta^-1 *: u + (beta + t)^-1 *: v.
    apply: (canLR (mulKmx (pd_unit pG))); rewrite /G mulmxDl mul_scalar_mx -scalemxAl mulmxDr -!scalemxAr Nu Nv.
    rewrite scaler0 add0r scalerDr !scalerA mulfV ?gt_eqF // scale1r -addrA -scalerDl -mulrDl mulfV ?gt_eqF //.
    by rewrite scale1r.
  rewrite /gap -/G /edit /projected_edit -/u channelE //.
  have -> : rho G k = dot u u / beta + dot v v / (beta + t).
    by rewrite /rho ik dotDr !dotZr ku kv mulrC [_^-1 * dot v v]mulrC.
  have out c (w : 'cV[R]_n) : c *: (r *m w^T) = r *m (c *: w)^T by rewrite linearZ /= -scalemxAr.
  rewrite ik !out -mulmxBr -linearB; congr (_ *m _^T).
  move: a0; rewrite /a /b !nrm_sqr -/u -/v -/N; move: (dot_ge0 u) (dot_ge0 v).
  set p := dot u u; set q := dot v v => p0 q0 a0.
  have d1 : beta + p != 0 by rewrite gt_eqF // ltr_paddr.
  have d2 : beta + t != 0 by rewrite gt_eqF.
  have d3 : (beta + t) * (beta + p) + q * beta != 0.
    by rewrite gt_eqF // ltr_paddr ?mulr_ge0 ?mulr_gt0 ?(ltW b0) // ltr_paddr.
  have d4 : beta != 0 by rewrite gt_eqF.
  apply/colP => i; rewrite !mxE; set x := u i 0; set y := v i 0.
  field.
  by rewrite d1 d2 d4 [t + _]addrC d3.
split=> // ; exists (frob (r *m (v - (b / (a * beta)) *: u)^T)) => t t0.
rewrite law; last exact: ltW.
move: (r *m _) => M; set c := _^-1.
have c0 : 0 < a * (t + beta + b / a).
  by rewrite mulr_gt0 // ltr_paddr ?divr_ge0 ?(ltW a0) // addr_gt0.
have ci : 0 <= c by rewrite invr_ge0; apply: ltW c0.
rewrite frobZ (ger0_norm ci).
rewrite [c * _]mulrC ler_wpmul2l ?frob_ge0 // lef_pinv ?posrE //.
apply: le_trans (_ : t <= a * t) _; first by rewrite ler_pemull // ltW.
by rewrite ler_wpmul2l ?(ltW a0) // -addrA ler_addl addr_ge0 ?(ltW b0) // divr_ge0 // ltW.
Qed.

End Claims.
