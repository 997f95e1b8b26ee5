(* Inner products, norms and definiteness of matrices over a real closed field. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Dot.
Variable R : rcfType.


Lemma dotE n (x y : 'cV[R]_n) : dot x y = \sum_i x i 0 * y i 0.
Proof. by rewrite /dot mxE; apply: eq_bigr => i _; rewrite mxE. Qed.

Lemma mul_tr_dot n (x y : 'cV[R]_n) : x^T *m y = (dot x y)%:M.
Proof. by rewrite /dot [LHS]mx11_scalar. Qed.

Lemma dotC n (x y : 'cV[R]_n) : dot x y = dot y x.
Proof. by rewrite !dotE; apply: eq_bigr => i _; rewrite mulrC. Qed.

Lemma dotDr n (x y z : 'cV[R]_n) : dot x (y + z) = dot x y + dot x z.
Proof. by rewrite /dot mulmxDr mxE. Qed.

Lemma dotDl n (x y z : 'cV[R]_n) : dot (y + z) x = dot y x + dot z x.
Proof. by rewrite dotC dotDr !(dotC x). Qed.

Lemma dotZr n a (x y : 'cV[R]_n) : dot x (a *: y) = a * dot x y.
Proof. by rewrite /dot -scalemxAr mxE. Qed.

Lemma dotZl n a (x y : 'cV[R]_n) : dot (a *: x) y = a * dot x y.
Proof. by rewrite dotC dotZr dotC. Qed.

Lemma dotNr n (x y : 'cV[R]_n) : dot x (- y) = - dot x y.
Proof. by rewrite /dot mulmxN mxE. Qed.

Lemma dotNl n (x y : 'cV[R]_n) : dot (- x) y = - dot x y.
Proof. by rewrite dotC dotNr dotC. Qed.

Lemma dotBr n (x y z : 'cV[R]_n) : dot x (y - z) = dot x y - dot x z.
Proof. by rewrite dotDr dotNr. Qed.

Lemma dotBl n (x y z : 'cV[R]_n) : dot (y - z) x = dot y x - dot z x.
Proof. by rewrite dotDl dotNl. Qed.

Lemma dot0l n (x : 'cV[R]_n) : dot 0 x = 0.
Proof. by rewrite /dot trmx0 mul0mx mxE. Qed.

Lemma dot0r n (x : 'cV[R]_n) : dot x 0 = 0.
Proof. by rewrite dotC dot0l. Qed.

Lemma dot_mull m n (A : 'M[R]_(m, n)) x y : dot (A *m x) y = dot x (A^T *m y).
Proof. by rewrite /dot trmx_mul mulmxA. Qed.

Lemma dot_ge0 n (x : 'cV[R]_n) : 0 <= dot x x.
Proof. by rewrite dotE sumr_ge0 // => i _; rewrite -expr2 sqr_ge0. Qed.

Lemma dot_eq0 n (x : 'cV[R]_n) : (dot x x == 0) = (x == 0).
Proof.
apply/idP/eqP => [|->]; last by rewrite dot0l.
rewrite dotE psumr_eq0 => [/allP h|i _]; last by rewrite -expr2 sqr_ge0.
apply/colP => i; rewrite mxE.
have := h i (mem_index_enum i); rewrite /= -expr2 sqrf_eq0.
by move/eqP.
Qed.

Lemma dot_gt0 n (x : 'cV[R]_n) : (0 < dot x x) = (x != 0).
Proof. by rewrite lt_neqAle dot_ge0 andbT eq_sym dot_eq0. Qed.

Lemma cauchy n (x y : 'cV[R]_n) : dot x y ^+ 2 <= dot x x * dot y y.
Proof.
have [->|y0] := eqVneq y 0; first by rewrite !dot0r expr0n mulr0.
have yy : 0 < dot y y by rewrite dot_gt0.
have := dot_ge0 (dot y y *: x - dot x y *: y).
rewrite !(dotBl, dotBr, dotZl, dotZr) (dotC y x) => h.
rewrite -subr_ge0 -(pmulr_rge0 _ yy); move: h; congr (0 <= _); ring.
Qed.

(* Definiteness *)
Definition psd n (G : 'M[R]_n) := sym G /\ forall x, 0 <= dot x (G *m x).

Lemma pd_psd n (G : 'M[R]_n) : pd G -> psd G.
Proof.
move=> [sG pG]; split=> // x.
by have [->|/pG/ltW//] := eqVneq x 0; rewrite dot0l.
Qed.

Lemma pd_eq0 n (G : 'M[R]_n) x : pd G -> dot x (G *m x) = 0 -> x = 0.
Proof.
move=> [_ pG] h; apply/eqP; apply: contraT => /pG.
by rewrite h ltxx.
Qed.

Lemma sym_dot n (G : 'M[R]_n) x y : sym G -> dot (G *m x) y = dot x (G *m y).
Proof. by move=> sG; rewrite dot_mull sG. Qed.

Lemma inj_unit n (G : 'M[R]_n) : (forall x : 'cV_n, G *m x = 0 -> x = 0) -> G \in unitmx.
Proof.
move=> h; rewrite -unitmx_tr -row_free_unit -kermx_eq0.
apply: contraT => /rowV0Pn[v /sub_kermxP vG v0].
have /h : G *m v^T = 0 by rewrite -[G]trmxK -trmx_mul vG trmx0.
by move/(congr1 trmx); rewrite trmxK trmx0 => v00; rewrite v00 eqxx in v0.
Qed.

Lemma pd_unit n (G : 'M[R]_n) : pd G -> G \in unitmx.
Proof.
by move=> pG; apply: inj_unit => x Gx; apply: (pd_eq0 pG); rewrite Gx dot0r.
Qed.

Lemma sym_inv n (G : 'M[R]_n) : sym G -> sym (invmx G).
Proof. by rewrite /sym trmx_inv => ->. Qed.

Lemma pd_inv n (G : 'M[R]_n) : pd G -> pd (invmx G).
Proof.
move=> pG; have uG := pd_unit pG; have [sG gG] := pG.
split=> [|x x0]; first exact: sym_inv.
have -> : dot x (invmx G *m x) = dot (invmx G *m x) (G *m (invmx G *m x)).
  by rewrite mulKVmx // dotC.
apply: gG; apply: contra_neq x0 => h.
by rewrite -[x](mulKVmx uG) h mulmx0.
Qed.

Lemma sym_rank1 n (k : 'cV[R]_n) : sym (k *m k^T).
Proof. by rewrite /sym trmx_mul trmxK. Qed.

Lemma dot_rank1 n (k x : 'cV[R]_n) : dot x (k *m k^T *m x) = dot k x ^+ 2.
Proof. by rewrite -mulmxA mul_tr_dot mul_mx_scalar dotZr expr2 (dotC x). Qed.

Lemma sym_add n (A B : 'M[R]_n) : sym A -> sym B -> sym (A + B).
Proof. by rewrite /sym linearD /= => -> ->. Qed.

Lemma pdD n (A B : 'M[R]_n) : pd A -> psd B -> pd (A + B).
Proof.
move=> [sA pA] [sB pB]; split=> [|x /pA h]; first exact: sym_add.
by rewrite mulmxDl dotDr ltr_paddr.
Qed.

Lemma psd_gram n p (K : 'M[R]_(n, p)) : psd (K *m K^T).
Proof.
split=> [|x]; first by rewrite /sym trmx_mul trmxK.
by rewrite -mulmxA -{1}[K]trmxK -dot_mull dot_ge0.
Qed.

(* The quadratic form of a matrix, row by row *)
Lemma tr_quad m n (G : 'M[R]_n) (X : 'M[R]_(m, n)) :
  \tr (X *m G *m X^T) = \sum_i dot (row i X)^T (G *m (row i X)^T).
Proof.
apply: eq_bigr => i _.
rewrite /dot trmxK mulmxA -!row_mul.
by rewrite !mxE; apply: eq_bigr => j _; rewrite !mxE.
Qed.

Lemma tr_quad_ge0 m n (G : 'M[R]_n) (X : 'M[R]_(m, n)) : psd G -> 0 <= \tr (X *m G *m X^T).
Proof. by move=> [_ h]; rewrite tr_quad sumr_ge0. Qed.

Lemma tr_quad_eq0 m n (G : 'M[R]_n) (X : 'M[R]_(m, n)) : pd G -> \tr (X *m G *m X^T) = 0 -> X = 0.
Proof.
move=> pG; have [_ h] := pd_psd pG.
rewrite tr_quad => /eqP; rewrite psumr_eq0 // => /allP e.
apply/row_matrixP => i; rewrite row0.
have /eqP/(pd_eq0 pG) := e i (mem_index_enum i).
by move/(congr1 trmx); rewrite trmxK trmx0.
Qed.

End Dot.

Section Norm.
Variable R : rcfType.


Lemma nrm_ge0 n (x : 'cV[R]_n) : 0 <= nrm x.
Proof. exact: sqrtr_ge0. Qed.

Lemma nrm_sqr n (x : 'cV[R]_n) : nrm x ^+ 2 = dot x x.
Proof. by rewrite sqr_sqrtr ?dot_ge0. Qed.

Lemma nrm_eq0 n (x : 'cV[R]_n) : (nrm x == 0) = (x == 0).
Proof. by rewrite -sqrf_eq0 nrm_sqr dot_eq0. Qed.

Lemma nrm_gt0 n (x : 'cV[R]_n) : (0 < nrm x) = (x != 0).
Proof. by rewrite lt_neqAle nrm_ge0 andbT eq_sym nrm_eq0. Qed.

Lemma nrm0 n : nrm (0 : 'cV[R]_n) = 0.
Proof. by apply/eqP; rewrite nrm_eq0. Qed.

Lemma nrmN n (x : 'cV[R]_n) : nrm (- x) = nrm x.
Proof. by rewrite /nrm dotNl dotNr opprK. Qed.

Lemma nrmZ n a (x : 'cV[R]_n) : nrm (a *: x) = `|a| * nrm x.
Proof. by rewrite /nrm dotZl dotZr mulrA -expr2 sqrtrM ?sqr_ge0 // sqrtr_sqr. Qed.

Lemma cauchy_abs n (x y : 'cV[R]_n) : `|dot x y| <= nrm x * nrm y.
Proof.
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?mulr_ge0 ?nrm_ge0 //.
by rewrite exprMn !nrm_sqr real_normK ?num_real // cauchy.
Qed.

Lemma cauchy_le n (x y : 'cV[R]_n) : dot x y <= nrm x * nrm y.
Proof. exact: le_trans (ler_norm _) (cauchy_abs _ _). Qed.

Lemma cauchy_ge n (x y : 'cV[R]_n) : - (nrm x * nrm y) <= dot x y.
Proof. by rewrite ler_oppl -dotNl (le_trans (cauchy_le _ _)) ?nrmN. Qed.

Lemma nrmD n (x y : 'cV[R]_n) : nrm (x + y) <= nrm x + nrm y.
Proof.
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?addr_ge0 ?nrm_ge0 //.
rewrite sqrrD !nrm_sqr dotDl !dotDr (dotC y) -subr_ge0.
rewrite (_ : _ - _ = (nrm x * nrm y - dot x y) *+ 2); last by ring.
by rewrite mulrn_wge0 // subr_ge0 cauchy_le.
Qed.

Lemma nrmB n (x y : 'cV[R]_n) : nrm (x - y) <= nrm x + nrm y.
Proof. by rewrite (le_trans (nrmD _ _)) ?nrmN. Qed.


End Norm.

(* Matrices as vectors of their entries *)
Section Frobenius.
Variable R : rcfType.

Definition vecm m n (X : 'M[R]_(m, n)) : 'cV[R]_(m * n) := (mxvec X)^T.

Lemma innerE m n (X Y : 'M[R]_(m, n)) : inner X Y = \sum_i \sum_j X i j * Y i j.
Proof.
rewrite exchange_big; apply: eq_bigr => j _; rewrite mxE.
by apply: eq_bigr => i _; rewrite mxE.
Qed.

Lemma inner_vec m n (X Y : 'M[R]_(m, n)) : inner X Y = dot (vecm X) (vecm Y).
Proof.
rewrite innerE pair_bigA dotE /=.
rewrite (reindex _ (curry_mxvec_bij m n)) /=; apply: eq_bigr => -[i j] _.
by rewrite !mxE /= !mxvecE.
Qed.

Lemma frob_vec m n (X : 'M[R]_(m, n)) : frob X = nrm (vecm X).
Proof. by rewrite /frob inner_vec. Qed.

Lemma vecmD m n (X Y : 'M[R]_(m, n)) : vecm (X + Y) = vecm X + vecm Y.
Proof. by rewrite /vecm !linearD. Qed.

Lemma vecmZ m n a (X : 'M[R]_(m, n)) : vecm (a *: X) = a *: vecm X.
Proof. by rewrite /vecm !linearZ. Qed.

Lemma vecmN m n (X : 'M[R]_(m, n)) : vecm (- X) = - vecm X.
Proof. by rewrite /vecm !linearN. Qed.

Lemma frob_ge0 m n (X : 'M[R]_(m, n)) : 0 <= frob X.
Proof. exact: sqrtr_ge0. Qed.

Lemma frobZ m n a (X : 'M[R]_(m, n)) : frob (a *: X) = `|a| * frob X.
Proof. by rewrite !frob_vec vecmZ nrmZ. Qed.

Lemma frobN m n (X : 'M[R]_(m, n)) : frob (- X) = frob X.
Proof. by rewrite !frob_vec vecmN nrmN. Qed.

Lemma frobD m n (X Y : 'M[R]_(m, n)) : frob (X + Y) <= frob X + frob Y.
Proof. by rewrite !frob_vec vecmD nrmD. Qed.

Lemma frob_sqr m n (X : 'M[R]_(m, n)) : frob X ^+ 2 = inner X X.
Proof. by rewrite frob_vec nrm_sqr inner_vec. Qed.

Lemma frob_sqrT m n (X : 'M[R]_(m, n)) : frob X ^+ 2 = \tr (X *m X^T).
Proof. by rewrite frob_sqr /inner mxtrace_mulC. Qed.

Lemma innerC m n (X Y : 'M[R]_(m, n)) : inner X Y = inner Y X.
Proof. by rewrite !inner_vec dotC. Qed.

Lemma innerDr m n (X Y Z : 'M[R]_(m, n)) : inner X (Y + Z) = inner X Y + inner X Z.
Proof. by rewrite !inner_vec vecmD dotDr. Qed.

Lemma innerDl m n (X Y Z : 'M[R]_(m, n)) : inner (Y + Z) X = inner Y X + inner Z X.
Proof. by rewrite innerC innerDr !(innerC X). Qed.

Lemma innerNr m n (X Y : 'M[R]_(m, n)) : inner X (- Y) = - inner X Y.
Proof. by rewrite !inner_vec vecmN dotNr. Qed.

Lemma innerZr m n a (X Y : 'M[R]_(m, n)) : inner X (a *: Y) = a * inner X Y.
Proof. by rewrite !inner_vec vecmZ dotZr. Qed.

Lemma inner_abs m n (X Y : 'M[R]_(m, n)) : `|inner X Y| <= frob X * frob Y.
Proof. by rewrite inner_vec !frob_vec cauchy_abs. Qed.

Lemma frob0 m n : frob (0 : 'M[R]_(m, n)) = 0.
Proof. by rewrite -(scale0r 0) frobZ normr0 mul0r. Qed.

Lemma frob_eq0 m n (X : 'M[R]_(m, n)) : (frob X == 0) = (X == 0).
Proof.
rewrite frob_vec nrm_eq0; apply/eqP/eqP => [|->]; last by rewrite /vecm linear0 trmx0.
by move/(congr1 trmx); rewrite trmxK trmx0 -(linear0 [linear of @mxvec R m n]) => /(can_inj mxvecK).
Qed.

Lemma inner_cV n (x y : 'cV[R]_n) : inner x y = dot x y.
Proof. by rewrite /inner /dot /mxtrace big_ord1. Qed.

Lemma frob_cV n (x : 'cV[R]_n) : frob x = nrm x.
Proof. by rewrite /frob inner_cV. Qed.

Lemma frob_rank1 m n (x : 'cV[R]_m) (y : 'cV[R]_n) : frob (x *m y^T) = nrm x * nrm y.
Proof.
apply/eqP; rewrite -(@eqr_expn2 _ 2) ?mulr_ge0 ?frob_ge0 ?nrm_ge0 //; apply/eqP.
rewrite frob_sqrT exprMn !nrm_sqr trmx_mul trmxK mulmxA -(mulmxA x) mul_tr_dot mul_mx_scalar -scalemxAl linearZ /=.
by rewrite mxtrace_mulC mul_tr_dot mxtrace_scalar mulr1n mulrC.
Qed.

(* rows at a time *)
Lemma frob_rows m n (X : 'M[R]_(m, n)) : frob X ^+ 2 = \sum_i dot (row i X)^T (row i X)^T.
Proof. by rewrite frob_sqr innerE; apply: eq_bigr => i _; rewrite dotE; apply: eq_bigr => j _; rewrite !mxE. Qed.

Lemma frob_mul_bounded m n p (X : 'M[R]_(m, n)) (A : 'M[R]_(n, p)) c : 0 <= c -> bounded A^T c -> frob (X *m A) <= c * frob X.
Proof.
move=> c0 h; rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?mulr_ge0 ?frob_ge0 // exprMn !frob_rows mulr_sumr.
apply: ler_sum => i _; rewrite row_mul trmx_mul -!nrm_sqr -exprMn ler_pexpn2r ?nnegrE ?mulr_ge0 ?nrm_ge0 //.
Qed.

Lemma bounded_tr m n (A : 'M[R]_(m, n)) c : 0 <= c -> bounded A c -> bounded A^T c.
Proof.
move=> c0 h x; have [->|y0] := eqVneq (A^T *m x) 0; first by rewrite nrm0 mulr_ge0 ?nrm_ge0.
rewrite -(ler_pmul2r (_ : 0 < nrm (A^T *m x))) ?nrm_gt0 // -expr2 nrm_sqr dot_mull trmxK.
by apply: le_trans (cauchy_le _ _) _; rewrite mulrC mulrAC ler_wpmul2r ?nrm_ge0.
Qed.

Lemma bounded_le m n (A : 'M[R]_(m, n)) a b : a <= b -> bounded A a -> bounded A b.
Proof. by move=> ab h x; apply: le_trans (h x) _; rewrite ler_wpmul2r ?nrm_ge0. Qed.

(* a vector of ones shows the norm of a multiple of the identity *)
Lemma scalar_bounded d a e : bounded (a%:M : 'M[R]_d.+1) e -> `|a| <= e.
Proof.
move=> h; pose x : 'cV[R]_d.+1 := const_mx 1.
have x0 : 0 < nrm x.
  by rewrite nrm_gt0; apply/eqP => /colP/(_ 0)/eqP; rewrite !mxE oner_eq0.
by have := h x; rewrite mul_scalar_mx nrmZ ler_pmul2r.
Qed.

End Frobenius.
