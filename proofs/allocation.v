(* MEMIT's allocation under identity transport: A1, A2, J2. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear attenuation alphaedit.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

(* a linear map is its own derivative *)
Lemma jacobian_affine m n (f : 'cV[R]_n -> 'cV[R]_m) z (J : 'M[R]_(m, n)) :
  (forall h, f (z + h) - f z = J *m h) -> jacobian f z J.
Proof.
move=> e d d0; exists 1; split=> [|h _]; first exact: ltr01.
by rewrite e subrr nrm0 mulr_ge0 ?nrm_ge0 // ltW.
Qed.

Lemma stream_missing d n eta (z h : 'cV[R]_d) l : z - stream n eta z h l = missing n eta l *: (z - h).
Proof.
elim: l => [|l IH]; first by rewrite scale1r.
rewrite /= opprD addrA IH !scalerA -scalerBl; congr (_ *: _); ring.
Qed.

Lemma askedE d n eta (z h : 'cV[R]_d) l : asked n eta z h l = (missing n eta l / (n - l)%:R) *: (z - h).
Proof. by rewrite /asked stream_missing scalerA mulrC. Qed.

Lemma asked_jacobian d n eta (z h : 'cV[R]_d) l :
  jacobian (fun z => asked n eta z h l) z (missing n eta l / (n - l)%:R)%:M.
Proof.
apply: jacobian_affine => x; rewrite !askedE -scalerBr mul_scalar_mx; congr (_ *: _).
by rewrite opprB addrA subrK [z + _]addrC addrK.
Qed.

(* The first of n layers is asked for a share 1/n of the residual, whatever the model. *)
Theorem A1_proof : A1 R.
Proof.
move=> d n eta h n0; split=> [z|J eJ eI hJ hI].
  by have := @asked_jacobian _ n eta z h 0; rewrite mul1r subn0.
have n1 : n%:R^-1 <= 1 :> R by rewrite invf_le1 ?ltr0n // ler1n.
have : bounded ((n%:R^-1 - 1)%:M : 'M[R]_d.+1) (eJ + eI).
  move=> x; rewrite (_ : _%:M = (n%:R^-1)%:M - J + (J - 1%:M)); last by rewrite addrA subrK raddfB.
  by rewrite mulmxDl mulrDl; apply: le_trans (nrmD _ _) _; apply: ler_add.
by move/scalar_bounded; rewrite distrC ger0_norm // subr_ge0.
Qed.

Lemma missingE n eta l : missing n eta l = \prod_(i < l) (1 - eta i / (n - i)%:R) :> R.
Proof. by elim: l => [|l IH]; rewrite ?big_ord0 // big_ord_recr /= -IH. Qed.

Section Shares.
Variables (n : nat) (eta : nat -> R).
Hypothesis eta01 : forall l, (l < n)%N -> 0 < eta l < 1.
Local Notation x := (missing n eta).

Lemma share01 l : (l < n)%N -> 0 < 1 - eta l / (n - l)%:R < 1.
Proof.
move=> ln; have /andP[e0 e1] := eta01 ln.
have s1 : 1 <= (n - l)%:R :> R by rewrite ler1n subn_gt0.
have s0 : 0 < (n - l)%:R :> R by apply: lt_le_trans s1; apply: ltr01.
rewrite subr_gt0 ltr_subl_addr ltr_addl ltr_pdivr_mulr // mul1r (lt_le_trans e1) //=.
by rewrite divr_gt0.
Qed.

Lemma missing_gt0 l : (l <= n)%N -> 0 < x l.
Proof. by elim: l => [|l IH] ln /=; rewrite ?ltr01 // mulr_gt0 ?IH 1?ltnW //; have /andP[] := share01 ln. Qed.

(* what is missing falls, what is asked for grows *)
Lemma missing_falls l : (l < n)%N -> x l.+1 < x l.
Proof. by move=> ln; rewrite /= gtr_pmulr ?missing_gt0 1?ltnW //; have /andP[] := share01 ln. Qed.

Lemma asked_grows l : (l.+1 < n)%N -> x l / (n - l)%:R < x l.+1 / (n - l.+1)%:R.
Proof.
move=> ln; have ln' := ltnW ln; have /andP[e0 e1] := eta01 ln'.
have s : (n - l)%:R = (n - l.+1)%:R + 1 :> R by rewrite -subSS subSn // -addn1 natrD.
have t0 : 0 < (n - l.+1)%:R :> R by rewrite ltr0n subn_gt0.
have s0 : 0 < (n - l)%:R :> R by rewrite ltr0n subn_gt0.
rewrite /= -subr_gt0 s; have s1 : 0 < (n - l.+1)%:R + 1 :> R by rewrite addr_gt0 ?ltr01.
rewrite [X in 0 < X](_ : _ = x l * (1 - eta l) / (((n - l.+1)%:R + 1) * (n - l.+1)%:R)); last first.
  by set y := x l; set t := (n - l.+1)%:R; set e := eta l; field; rewrite !gt_eqF.
by rewrite divr_gt0 ?mulr_gt0 ?subr_gt0 ?missing_gt0 // ltnW.
Qed.

End Shares.

Lemma decreasing (f : nat -> R) n : (forall l, (l.+1 < n)%N -> f l < f l.+1) -> forall a b, (a < b)%N -> (b < n)%N -> f a < f b.
Proof.
move=> h a; elim=> // b IH; rewrite ltnS leq_eqVlt => /orP[/eqP -> /h //|ab] bn.
by apply: lt_trans (IH ab (ltnW bn)) (h _ bn).
Qed.

(* By induction over the layers; what is missing falls and what is asked for grows, which bounds the tail. *)
Theorem A2_proof : A2 R.
Proof.
move=> n eta; split.
- by move=> d z h l _; split; [apply: askedE | apply: asked_jacobian].
- move=> d z h; rewrite -missingE scalerBl scale1r -stream_missing.
  by apply/colP => i; rewrite !mxE; ring.
move=> n1 eta01 /=; case: n n1 eta01 => [//|n] n1 eta01; have x0 := missing_gt0 eta01 (leqnSn n).
have c l : (l < n)%N -> missing n.+1 eta n / (n.+1 - l)%:R < missing n.+1 eta l / (n.+1 - l)%:R < missing n.+1 eta n.
  move=> ln; rewrite ltr_pmul2r ?invr_gt0 ?ltr0n ?subn_gt0 ?(ltn_trans ln) //; apply/andP; split.
    rewrite -ltr_opp2; apply: (@decreasing (fun l => - missing n.+1 eta l) n.+1) => // i i1.
    by rewrite ltr_opp2; apply: missing_falls => //; apply: ltnW.
  have -> : missing n.+1 eta n = missing n.+1 eta n / (n.+1 - n)%:R by rewrite subSnn divr1.
  apply: (@decreasing (fun l => missing n.+1 eta l / (n.+1 - l)%:R) n.+1) => // i i1.
  exact: asked_grows.
have strict (f g : 'I_n -> R) : (forall i, f i < g i) -> \sum_i f i < \sum_i g i.
  move: n1; rewrite ltnS => n0 fg; case: n n0 f g fg {c x0 eta01} => // n _ f g fg.
  by rewrite !big_ord_recl; apply: ltr_le_add => //; apply: ler_sum => i _; apply: ltW.
rewrite /=; apply/andP; split; last first.
  rewrite ltr_pdivr_mulr // mulrSr addrK.
  rewrite -[X in X%:R * _]card_ord mulr_natl -sumr_const; apply: strict => i.
  by have /andP[] := c i (ltn_ord i).
rewrite ltr_pdivl_mulr // big_ord_recl invr1 addrC addKr mulr_suml (reindex_inj rev_ord_inj) /=.
apply: strict => i; have /andP[h _] := c i (ltn_ord i); apply: le_lt_trans h.
by rewrite mulrC /bump /= add1n subnSK // subSn // ltnW.
Qed.

(* Two layers with G = k = 1 halve what is asked: no drift, and J_L = 3/4. *)
Theorem J2_proof : J2 R.
Proof.
exists 1%N, 1%:M, 1%:M; split; first by apply: pd_beta; apply: ltr01.
move=> d z h J.
have e : eta (1%:M : 'M[R]_1) 1%:M = 2%:R^-1.
  by rewrite /eta /rho invmx1 mulmx1 dotE big_ord1 !mxE eqxx mulr1 mul1r.
split=> [|s].
  have := @asked_jacobian _ 2 (fun=> eta (1%:M : 'M[R]_1) 1%:M) z h 1.
  by rewrite (_ : _ / _ = 3%:R / 4%:R) // e /= subn0 divr1 mul1r; field.
move=> b; have : bounded ((- 4%:R^-1)%:M : 'M[R]_d.+1) s.
  move=> x; have := b x; rewrite mulmxBl mul1mx !mul_scalar_mx -{2}[x]scale1r -scalerBl.
  by rewrite (_ : _ - 1 = - 4%:R^-1) //; field.
by move/scalar_bounded; rewrite normrN ger0_norm // invr_ge0 ler0n.
Qed.

End Claims.
