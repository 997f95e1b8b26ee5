(* Every set of premises of statements.v has instances, so that no statement is empty. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation alphaedit drift batch plane proxy allocation.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Satisfiable.
Variable R : rcfType.

(* pd G: T1, T1a, T1d, X2, X3, X13, X14, P1, P3; pd (A + l) and l >= 0 with g != 0: T2a, L1 *)
Theorem definite_satisfiable n c : 0 < c -> pd (c%:M : 'M[R]_n).
Proof. exact: pd_beta. Qed.

Theorem penalised_satisfiable n : exists (A : 'M[R]_n.+1) (g : 'cV[R]_n.+1) (l : R), [/\ sym A, pd (A + l%:M), 0 <= l & g != 0].
Proof.
exists 0, (const_mx 1), 1; split; rewrite ?ler01 ?add0r //; first by rewrite /sym trmx0.
  by apply: definite_satisfiable; apply: ltr01.
by apply/eqP => /colP/(_ 0)/eqP; rewrite !mxE oner_eq0.
Qed.

(* G >= mu I on both sides, with a difference: L3, L4, P10, J1 *)
Theorem floor_satisfiable n mu e : 0 < mu -> 0 <= e ->
  [/\ above mu (mu%:M : 'M[R]_n), above mu ((mu + e)%:M : 'M[R]_n) & bounded ((mu + e)%:M - mu%:M : 'M[R]_n) e].
Proof.
move=> mu0 e0; have up c : mu <= c -> above mu (c%:M : 'M[R]_n).
  move=> h; split=> [|x]; first by rewrite /sym tr_scalar_mx.
  by rewrite mul_scalar_mx dotZr ler_wpmul2r ?dot_ge0.
split; [exact: up | by apply: up; rewrite ler_addl |].
by move=> x; rewrite -raddfB addrAC subrr add0r mul_scalar_mx nrmZ ger0_norm.
Qed.

(* an eigenbasis with a protected part S and a small rest: T1b, T1c *)
Theorem protected_satisfiable (low M : R) : 0 < low -> low <= M -> exists (G U : 'M[R]_2) mu (k : 'cV[R]_2) (S : pred 'I_2),
  [/\ eigenbasis G U mu, pd G, forall i, low <= mu 0 i, forall i, S i -> M <= mu 0 i
    & k != 0 /\ forall i, ~~ S i -> (U^T *m k) i 0 = 0].
Proof.
move=> l0 lM; have M0 := lt_le_trans l0 lM.
exists (mat2 M 0 0 low), 1%:M, (\row_i if i == 0 then M else low), (vec2 1 0), (pred1 0).
split.
- split; rewrite trmx1 ?mulmx1 // mul1mx; apply/matrixP => i j; rewrite !mxE.
  by case: i j => -[|[|]] // ? [] [|[|]] // ?; rewrite -!val_eqE /= ?mulr1n ?mulr0n.
- split=> [|x x0]; first by rewrite /sym tr_mat2.
  apply: lt_le_trans (_ : low * dot x x <= _); first by rewrite mulr_gt0 ?dot_gt0.
  rewrite (vec2E x) mat2_mul !dot2 !mul0r addr0 add0r mulrDr !(mulrCA _ M) !(mulrCA _ low) ler_add2r.
  by rewrite ler_wpmul2r // -expr2 sqr_ge0.
- by move=> i; rewrite mxE; case: eqP.
- by move=> i /eqP ->; rewrite mxE eqxx.
split; first by rewrite vec2_eq0 oner_eq0.
by move=> i /= i0; rewrite trmx1 mul1mx mxE (negbTE i0).
Qed.

(* a projector that keeps something and drops something; orthonormal columns: T1e, T1f, X1, P15, T2d *)
Theorem projector_satisfiable : exists (P : 'M[R]_2) (V : 'M[R]_(2, 1)) (k : 'cV[R]_2),
  [/\ projector P, V^T *m V = 1%:M, P = V *m V^T, P *m k != 0 & (1%:M - P) *m k != 0].
Proof.
exists (mat2 1 0 0 0), (vec2 1 0), (vec2 1 1).
have VV : (vec2 1 0)^T *m vec2 1 0 = 1%:M :> 'M[R]_1 by rewrite mul_tr_dot dot2 mulr1 mulr0 addr0.
have P : mat2 1 0 0 0 = vec2 1 0 *m (vec2 1 0)^T :> 'M[R]_2.
  by apply/matrixP => i j; rewrite !mxE big_ord1 !mxE; case: eqP; case: eqP; rewrite ?mulr1 ?mulr0 ?mul0r.
split=> //.
- by split; rewrite ?tr_mat2 // P mulmxA -(mulmxA (vec2 1 0)) VV mulmx1.
- by rewrite mat2_mul !mul0r !mul1r !addr0 vec2_eq0 oner_eq0.
by rewrite mulmxBl mul1mx mat2_mul !mul0r !mul1r !addr0 opp2 add2 vec2_eq0 subr0 oner_eq0 andbF.
Qed.

(* independent keys: P4, X14 *)
Theorem independent_satisfiable n : independent (1%:M : 'M[R]_n).
Proof. by move=> x; rewrite mul1mx. Qed.

(* unequal extreme eigenvalues with unit eigenvectors: L2, T2b, T2c, X5, X6, X7 *)
Theorem extremes_satisfiable (low top : R) : 0 < low -> low <= top -> exists (H : 'M[R]_2) (ue uh : 'cV[R]_2),
  [/\ pd H, largest H top, smallest H low, nrm ue = 1 /\ nrm uh = 1 & H *m ue = low *: ue /\ H *m uh = top *: uh].
Proof.
move=> l0 lt; have t0 := lt_le_trans l0 lt.
pose H := mat2 top 0 0 low; have sH : sym H by rewrite /sym tr_mat2.
have q x : dot x (H *m x) = top * x 0 0 ^+ 2 + low * x 1 0 ^+ 2.
  by rewrite {1 2}(vec2E x) mat2_mul dot2 !mul0r addr0 add0r; ring.
have n2 (x : 'cV[R]_2) : dot x x = x 0 0 ^+ 2 + x 1 0 ^+ 2 by rewrite {1 2}(vec2E x) dot2 !expr2.
have eh : H *m vec2 1 0 = top *: vec2 1 0 by rewrite mat2_mul scale2 !mul0r !mulr0 !addr0.
have ee : H *m vec2 0 1 = low *: vec2 0 1 by rewrite mat2_mul scale2 !mul0r !mulr0 !add0r.
have u1 : nrm (vec2 1 0 : 'cV[R]_2) = 1 by rewrite nrm2 expr1n expr0n addr0 sqrtr1.
have u2 : nrm (vec2 0 1 : 'cV[R]_2) = 1 by rewrite nrm2 expr1n expr0n add0r sqrtr1.
exists H, (vec2 0 1), (vec2 1 0); split=> //.
- split=> // x x0; apply: lt_le_trans (_ : low * dot x x <= _); first by rewrite mulr_gt0 ?dot_gt0.
  by rewrite q n2 mulrDr ler_add2r ler_wpmul2r ?sqr_ge0.
- split; first by apply: (eigenvector_eigenvalue sH _ eh); rewrite vec2_eq0 oner_eq0.
  move=> b /(unit_eigenvector sH)[u [e n1]].
  have : b * dot u u <= top * dot u u by rewrite -[b * _]dotZr -e q n2 mulrDr ler_add2l ler_wpmul2r ?sqr_ge0.
  by rewrite n1 !mulr1.
split; first by apply: (eigenvector_eigenvalue sH _ ee); rewrite vec2_eq0 oner_eq0 andbF.
move=> b /(unit_eigenvector sH)[u [e n1]].
have : low * dot u u <= b * dot u u by rewrite -[b * _]dotZr -e q n2 mulrDr ler_add2r ler_wpmul2r ?sqr_ge0.
by rewrite n1 !mulr1.
Qed.

(* a law of two keys that are drawn alike, with every function integrable: P8 *)
Theorem expectation_satisfiable : exists E : (bool -> R) -> R, @expectation R bool E (fun=> True).
Proof.
exists (fun f => (f true + f false) / 2%:R); split.
- by split=> //; rewrite -mulr2n mulfV ?pnatr_eq0.
- by move=> f g a _ _; split=> //; field.
by move=> f g _ _ h; rewrite ler_wpmul2r ?invr_ge0 ?ler0n // ler_add.
Qed.

(* a loss with a gradient and allocations with Jacobians: L5, X8, P2, P13, T3a *)
Theorem gradient_satisfiable m n (Gamma X : 'M[R]_(m, n)) : gradient (inner Gamma) X Gamma.
Proof.
move=> e e0; exists 1; split=> [|H _]; first exact: ltr01.
by rewrite innerDr [_ + inner Gamma H]addrC addrK subrr normr0 mulr_ge0 ?frob_ge0 // ltW.
Qed.

Theorem layers_satisfiable L d (n : 'I_L -> nat) (Gamma W : forall l, 'M[R]_(d, n l)) (J : 'I_L -> 'M[R]_d) (z : 'cV[R]_d) :
  gradients (fun X => \sum_l inner (Gamma l) (X l)) W Gamma /\ forall l, jacobian (fun z => J l *m z) z (J l).
Proof.
split=> [e e0|l]; last by apply: jacobian_affine => h; rewrite mulmxDr [_ + J l *m h]addrC addrK.
exists 1; split=> [|X _]; first exact: ltr01.
rewrite -sumrB -sumrB big1 ?normr0 => [|l _]; last by rewrite innerDr innerNr subrr.
by rewrite mulr_ge0 ?(ltW e0) // sumr_ge0 // => l _; apply: frob_ge0.
Qed.

(* two layers whose first is smaller than the last by gamma and whose last is off by eps: T3a, T3b, T3c, X9 *)
Theorem tail_satisfiable (gamma eps : R) : 0 <= gamma -> 0 <= eps ->
  let J (l : 'I_2) : 'M[R]_1 := if l == ord_max then (1 + eps)%:M else (gamma * (1 + eps))%:M in
  let g l := layer_gradient (J l) 1%:M (1%:M : 'cV[R]_1) in
  [/\ \sum_(l | l != ord_max) nrm (g l) <= gamma * nrm (g ord_max), bounded (J ord_max - 1%:M) eps,
      bounded (1%:M : 'M[R]_1) 1 & (1%:M : 'M[R]_1) *m (1%:M : 'cV[R]_1) != 0 /\ g ord_max != 0].
Proof.
move=> g0 e0 J g; have one : nrm (1%:M : 'cV[R]_1) = 1 by rewrite /nrm dotE big_ord1 !mxE mulr1 sqrtr1.
have e1 : 0 < 1 + eps by rewrite ltr_paddr ?ltr01.
have n0 c : 0 <= c -> nrm (c%:M^T *m (1%:M *m 1%:M) : 'cV[R]_1) = c.
  by move=> c0; rewrite tr_scalar_mx !mul1mx mul_scalar_mx nrmZ one mulr1 ger0_norm.
split.
- rewrite big_mkcond big_ord_recl big_ord1 /= addr0 /g /layer_gradient /J /= !n0 ?mulr_ge0 ?(ltW e1) //.
- by move=> x; rewrite /J eqxx -raddfB [1 + eps]addrC addrK mul_scalar_mx nrmZ ger0_norm.
- by move=> x; rewrite !mul1mx mul1r.
split; first by rewrite mul1mx oner_neq0.
by rewrite -nrm_gt0 /g /layer_gradient /J eqxx n0 // ltW.
Qed.

End Satisfiable.
