(* The spectral theorem for symmetric matrices over a real closed field, which MathComp 1.15 does not have. *)
From mathcomp Require Import all_ssreflect all_algebra complex.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.
Local Open Scope complex_scope.

Section Spectral.
Variable R : rcfType.
Local Notation C := R[i].
Local Notation toC := (real_complex R).

(* a symmetric matrix has a real eigenvector *)
Lemma sym_eigen n (A : 'M[R]_n.+1) : sym A -> exists a (v : 'cV[R]_n.+1), v != 0 /\ A *m v = a *: v.
Proof.
move=> sA.
pose B : 'M[C]_n.+1 := map_mx toC A.
have [lam /eqP/eqP rt] : exists lam : C, root (char_poly B) lam.
  by apply/closed_rootP; rewrite size_char_poly.
have : eigenvalue B lam by rewrite eigenvalue_root_char /root rt.
move=> /eigenvalueP[w wB w0].
pose x : 'rV[R]_n.+1 := map_mx (@complex.Re R) w; pose y : 'rV[R]_n.+1 := map_mx (@complex.Im R) w.
have ex : x *m A = complex.Re lam *: x - complex.Im lam *: y.
  apply/rowP => j; have := congr1 (fun u : 'rV[C]_n.+1 => complex.Re (u 0 j)) wB.
  rewrite !mxE raddf_sum /=; case: (lam) (w 0 j) => [a b] [c d] /= <-.
  by apply: eq_bigr => i _; rewrite !mxE; case: (w 0 i) => [p q] /=; rewrite mulr0 subr0.
have ey : y *m A = complex.Im lam *: x + complex.Re lam *: y.
  apply/rowP => j; have := congr1 (fun u : 'rV[C]_n.+1 => complex.Im (u 0 j)) wB.
  rewrite !mxE raddf_sum /=; case: (lam) (w 0 j) => [a b] [c d] /=; rewrite addrC => <-.
  by apply: eq_bigr => i _; rewrite !mxE; case: (w 0 i) => [p q] /=; rewrite mulr0 add0r.
have xy0 : (x != 0) || (y != 0).
  apply: contraNT w0; rewrite negb_or !negbK => /andP[/eqP x0 /eqP y0].
  apply/eqP/rowP => j; rewrite mxE; apply/eqP; rewrite eq_complex /=.
  have := congr1 (fun u : 'rV[R]_n.+1 => u 0 j) x0; have := congr1 (fun u : 'rV[R]_n.+1 => u 0 j) y0.
  by rewrite !mxE => -> ->; rewrite eqxx.
have eX : A *m x^T = complex.Re lam *: x^T - complex.Im lam *: y^T.
  by have := congr1 trmx ex; rewrite trmx_mul sA linearB !linearZ /=.
have eY : A *m y^T = complex.Im lam *: x^T + complex.Re lam *: y^T.
  by have := congr1 trmx ey; rewrite trmx_mul sA linearD !linearZ /=.
have tr0 (u : 'rV[R]_n.+1) : (u^T == 0) = (u == 0).
  by apply/eqP/eqP => [/(congr1 trmx)|->]; rewrite ?trmxK trmx0.
have im0 : complex.Im lam = 0.
  have := sym_dot x^T y^T sA; rewrite eX eY dotBl dotDr !dotZl !dotZr => h.
  have : complex.Im lam * (dot x^T x^T + dot y^T y^T) = 0.
    have {h} := congr1 (fun t => complex.Re lam * dot x^T y^T - t) h.
    by rewrite subKr opprD addrCA subrr addr0 mulrDr => ->; rewrite subrr.
  move/eqP; rewrite mulf_eq0 => /orP[/eqP//|].
  rewrite paddr_eq0 ?dot_ge0 // !dot_eq0 !tr0 => /andP[x0 y0].
  by move: xy0; rewrite x0 y0.
exists (complex.Re lam); move: eX eY; rewrite im0 !scale0r subr0 add0r => eX eY.
by case/orP: xy0 => h; [exists x^T | exists y^T]; rewrite tr0.
Qed.

(* an orthogonal matrix whose first column is a given unit vector *)
Definition e0 n : 'cV[R]_(1 + n) := delta_mx 0 0.

Lemma householder n (v : 'cV[R]_(1 + n)) : dot v v = 1 ->
  exists H : 'M[R]_(1 + n), [/\ sym H, H *m H = 1%:M & H *m e0 n = v].
Proof.
move=> v1; have [->|ne] := eqVneq v (e0 n).
  by exists 1%:M; rewrite /sym trmx1 !mul1mx.
have e1 : dot (e0 n) (e0 n) = 1 by rewrite /dot /e0 trmx_delta mul_delta_mx mxE !eqxx.
pose u := v - e0 n; pose s := dot u u.
have s0 : s != 0 by rewrite dot_eq0 subr_eq0.
have su : dot u (e0 n) *+ 2 = - s.
  rewrite /s /u !dotBl !dotBr v1 e1 (dotC (e0 n)).
  by set d := dot v (e0 n); ring.
exists (1%:M - (2%:R / s) *: (u *m u^T)).
have uu : (u *m u^T) *m (u *m u^T) = s *: (u *m u^T).
  by rewrite mulmxA -(mulmxA u) mul_tr_dot -/s mul_mx_scalar -scalemxAl.
split.
- by rewrite /sym linearB /= trmx1 linearZ /= trmx_mul trmxK.
- rewrite mulmxBl mul1mx mulmxBr mulmx1 -scalemxAl -scalemxAr uu !scalerA.
  rewrite (_ : 2%:R / s * (2%:R / s) * s = 2%:R / s + 2%:R / s); last by field.
  by rewrite scalerDl opprB addrK subrK.
rewrite mulmxBl mul1mx -scalemxAl -mulmxA mul_tr_dot mul_mx_scalar scalerA.
have -> : 2%:R / s * dot u (e0 n) = -1.
  by rewrite mulrAC mulr_natl su mulNr divff.
by rewrite scaleN1r opprK /u addrC subrK.
Qed.

Theorem spectral n (A : 'M[R]_n) : sym A ->
  exists (U : 'M[R]_n) (mu : 'rV[R]_n), U^T *m U = 1%:M /\ A = U *m diag_mx mu *m U^T.
Proof.
elim: n A => [A _|n IH A sA].
  by exists 1%:M, 0; split; apply/matrixP => -[].
have [a [v [v0 Av]]] := sym_eigen sA.
have vv : 0 < dot v v by rewrite dot_gt0.
pose w := (Num.sqrt (dot v v))^-1 *: v.
have w1 : dot w w = 1.
  by rewrite dotZl dotZr mulrA -expr2 exprVn sqr_sqrtr ?dot_ge0 // mulVf // gt_eqF.
have Aw : A *m w = a *: w by rewrite -scalemxAr Av !scalerA mulrC.
have [H [sH HH He]] := @householder n w w1.
pose B : 'M[R]_(1 + n) := H *m A *m H.
have sB : sym B by rewrite /sym !trmx_mul sH sA mulmxA.
have Be : B *m e0 n = a *: e0 n.
  by rewrite -!mulmxA He Aw -scalemxAr -He mulmxA HH mul1mx.
have lB : lsubmx B = col_mx a%:M 0.
  apply/colP => i; have := congr1 (fun u : 'cV[R]_(1 + n) => u i 0) Be.
  rewrite /e0 -colE !mxE => e; rewrite (_ : lshift n 0 = 0) ?e; last exact: val_inj.
  case: (splitP i) => j ij; rewrite !mxE.
    by rewrite (_ : i = 0) ?ord1 ?eqxx ?mulr1 ?mulr1n //; apply: val_inj; rewrite /= ij ord1.
  rewrite (_ : i == 0 = false) ?mulr0 //.
  by apply/negbTE/eqP => /(congr1 val) /=; rewrite ij.
pose X := usubmx (rsubmx B); pose B' := dsubmx (rsubmx B).
have eB : B = block_mx a%:M X 0 B'.
  by rewrite block_mxEh -lB vsubmxK hsubmxK.
have [_ tX _ tB'] : [/\ a%:M^T = a%:M :> 'M[R]_1, (0 : 'M[R]_(n, 1))^T = X, X^T = 0 & B'^T = B'].
  by apply: eq_block_mx; rewrite -tr_block_mx -eB.
have [U [mu [UU eU]]] := IH B' tB'.
pose W : 'M[R]_(1 + n) := block_mx 1%:M 0 0 U.
have WW : W^T *m W = 1%:M.
  rewrite /W tr_block_mx !trmx0 trmx1 mulmx_block !mulmx0 !mul0mx mulmx1 UU !addr0 add0r.
  by rewrite -scalar_mx_block.
have BW : B = W *m diag_mx (row_mx a%:M mu) *m W^T.
  rewrite eB -tX trmx0 eU /W diag_mx_row tr_block_mx !trmx0 trmx1 !mulmx_block.
  rewrite !mulmx0 !mul0mx !mulmx1 !mul1mx !addr0 !add0r !mul0mx; congr (block_mx _ _ _ _).
  by apply/matrixP => i j; rewrite !ord1 !mxE.
pose m1 : 'rV[R]_(1 + n) := row_mx a%:M mu.
exists (H *m W : 'M[R]_n.+1); exists (m1 : 'rV[R]_n.+1); split.
  by rewrite trmx_mul sH -mulmxA (mulmxA H) HH mul1mx.
have -> : A = H *m B *m H by rewrite !mulmxA HH mul1mx -mulmxA HH mulmx1.
by rewrite trmx_mul sH {1}BW !mulmxA.
Qed.

End Spectral.
