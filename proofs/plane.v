(* Vectors and matrices of the plane, for examples. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Plane.
Variable R : rcfType.
Implicit Types (a b c d : R).

Definition vec2 a b : 'cV[R]_2 := \col_i (if i == 0 then a else b).
Definition mat2 a b c d : 'M[R]_2 := \matrix_(i, j) (if i == 0 then if j == 0 then a else b else if j == 0 then c else d).

Lemma sum2 (f : 'I_2 -> R) : \sum_i f i = f 0 + f 1.
Proof. by rewrite big_ord_recl big_ord1; congr (_ + f _); apply: val_inj. Qed.

Lemma vec2E (x : 'cV[R]_2) : x = vec2 (x 0 0) (x 1 0).
Proof.
apply/colP => i; rewrite mxE; case: eqP => [->//|]; case: i => -[|[|]] // h ne; first by case: ne; apply: val_inj.
by congr (x _ 0); apply: val_inj.
Qed.

Lemma dot2 a b c d : dot (vec2 a b) (vec2 c d) = a * c + b * d.
Proof. by rewrite dotE sum2 !mxE. Qed.

Lemma nrm2 a b : nrm (vec2 a b) = Num.sqrt (a ^+ 2 + b ^+ 2).
Proof. by rewrite /nrm dot2 !expr2. Qed.

Lemma add2 a b c d : vec2 a b + vec2 c d = vec2 (a + c) (b + d).
Proof. by apply/colP => i; rewrite !mxE; case: eqP. Qed.

Lemma opp2 a b : - vec2 a b = vec2 (- a) (- b).
Proof. by apply/colP => i; rewrite !mxE; case: eqP. Qed.

Lemma scale2 c a b : c *: vec2 a b = vec2 (c * a) (c * b).
Proof. by apply/colP => i; rewrite !mxE; case: eqP. Qed.

Lemma mat2_mul a b c d x y : mat2 a b c d *m vec2 x y = vec2 (a * x + b * y) (c * x + d * y).
Proof. by apply/colP => i; rewrite mxE sum2 !mxE; case: eqP. Qed.

Lemma tr_mat2 a b c d : (mat2 a b c d)^T = mat2 a c b d.
Proof. by apply/matrixP => i j; rewrite !mxE; case: eqP; case: eqP. Qed.

Lemma sub_id2 a b c d : mat2 a b c d - 1%:M = mat2 (a - 1) b c (d - 1).
Proof.
apply/matrixP => i j; rewrite !mxE -!val_eqE; case: i j => -[|[|]] // hi [] [|[|]] // hj;
  by rewrite /= ?mulr1n ?mulr0n ?subr0.
Qed.

Lemma vec2_eq0 a b : (vec2 a b == 0) = (a == 0) && (b == 0).
Proof.
apply/eqP/andP => [h|[/eqP -> /eqP ->]]; last by apply/colP => i; rewrite !mxE; case: eqP.
have := congr1 (fun v : 'cV[R]_2 => v 0 0) h; have := congr1 (fun v : 'cV[R]_2 => v 1 0) h.
by rewrite !mxE /= => -> ->.
Qed.

End Plane.
