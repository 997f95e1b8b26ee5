(* Numbers as matrices of size one, for examples: every expression of statements.v becomes one of numbers. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear eigen attenuation alphaedit plane allocation instances.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Line.
Variable R : rcfType.
Implicit Types a b c d g k r : R.

Lemma mul1 a b : (a%:M : 'M[R]_1) *m b%:M = (a * b)%:M.
Proof. by rewrite scalar_mxM. Qed.

Lemma add1 a b : (a%:M : 'M[R]_1) + b%:M = (a + b)%:M.
Proof. by rewrite raddfD. Qed.

Lemma opp1 a : - (a%:M : 'M[R]_1) = (- a)%:M.
Proof. by rewrite raddfN. Qed.

Lemma scale1 a b : a *: (b%:M : 'M[R]_1) = (a * b)%:M.
Proof. by rewrite scale_scalar_mx. Qed.

Lemma entry1 a (i j : 'I_1) : (a%:M : 'M[R]_1) i j = a.
Proof. by rewrite !ord1 mxE eqxx mulr1n. Qed.

Lemma number (x : 'M[R]_1) : x = (x 0 0)%:M.
Proof. by rewrite [LHS]mx11_scalar. Qed.

Lemma number_inj a b : (a%:M : 'M[R]_1) = b%:M -> a = b.
Proof. by move/matrixP/(_ 0 0); rewrite !entry1. Qed.

Lemma dot1 a b : dot (a%:M : 'cV[R]_1) b%:M = a * b.
Proof. by rewrite /dot tr_scalar_mx mul1 entry1. Qed.

Lemma nrm1D a : nrm (a%:M : 'cV[R]_1) = `|a|.
Proof. by rewrite /nrm dot1 -expr2 sqrtr_sqr. Qed.

Lemma unit1 a : ((a%:M : 'M[R]_1) \in unitmx) = (a != 0).
Proof. by rewrite unitmxE det_scalar expr1 unitfE. Qed.

Lemma rho1 g k : rho (g%:M : 'M[R]_1) k%:M = k * (g^-1 * k).
Proof. by rewrite /rho invmx_scalar mul1 dot1. Qed.

Lemma eta1 g k : eta (g%:M : 'M[R]_1) k%:M = k * (g^-1 * k) / (1 + k * (g^-1 * k)).
Proof. by rewrite /eta rho1. Qed.

Lemma channel1 g k : channel (g%:M : 'M[R]_1) k%:M = ((g + k * k)^-1 * k)%:M.
Proof. by rewrite /channel tr_scalar_mx mul1 add1 invmx_scalar mul1. Qed.

Lemma edit1 g k r : edit (g%:M : 'M[R]_1) k%:M (r%:M : 'cV[R]_1) = (r * ((g + k * k)^-1 * k))%:M.
Proof. by rewrite /edit channel1 tr_scalar_mx mul1. Qed.

Lemma cost1 g d : cost (g%:M : 'M[R]_1) (d%:M : 'M[R]_1) = d * g * d.
Proof. by rewrite /cost tr_scalar_mx !mul1 /mxtrace big_ord1 entry1. Qed.

Lemma loss1 g k r d : loss (g%:M : 'M[R]_1) k%:M r%:M d%:M = (d * k - r) ^+ 2 + d * g * d.
Proof. by rewrite /loss cost1 mul1 opp1 add1 dot1 expr2. Qed.

Lemma surrogate1 a g l d : surrogate (a%:M : 'M[R]_1) g%:M l d%:M = g * d + d * (a * d) / 2%:R + l / 2%:R * (d * d).
Proof. by rewrite /surrogate mul1 !dot1. Qed.

Lemma displacement1 a g l : displacement (a%:M : 'M[R]_1) g%:M l = (- ((a + l)^-1 * g))%:M.
Proof. by rewrite /displacement add1 invmx_scalar mul1 opp1. Qed.

Lemma bounded1 a b : `|a| <= b -> bounded (a%:M : 'M[R]_1) b.
Proof. exact: scalar_bounded. Qed.

Lemma unbounded1 a b : b < `|a| -> ~ bounded (a%:M : 'M[R]_1) b.
Proof. by move=> h /(_ 1%:M); rewrite mul1 !nrm1D !mulr1 normr1 mulr1 leNgt h. Qed.

Lemma sym1 a : sym (a%:M : 'M[R]_1).
Proof. exact: scalar_sym. Qed.

Lemma pd1 a : 0 < a -> pd (a%:M : 'M[R]_1).
Proof. exact: scalar_pd. Qed.

Lemma jacobian1 a (b z : 'cV[R]_1) : jacobian (fun z => a%:M *m z + b) z a%:M.
Proof. by apply: jacobian_affine => h; rewrite mulmxDr opprD addrACA subrr addr0 addrAC subrr add0r. Qed.

End Line.

(* a closed inequality: the difference is the fraction n/d *)
Ltac differ n d := lazymatch goal with |- is_true (?a < ?b) =>
  rewrite -subr_gt0 (_ : b - a = n%:R / d%:R); [by rewrite divr_gt0 ?ltr0n | by field] end.
