(* A solve that is backward stable: what is proved of X4. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ring.
From MetaKE Require Import statements linear spectral eigen attenuation drift trap relative.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Claims.
Variable R : rcfType.

(* eta moves no more than rho, relatively *)
Lemma relative_eta (a b c : R) : 0 <= a -> 0 <= b -> 0 <= c -> `|a - b| <= c * b -> `|a / (1 + a) - b / (1 + b)| <= c * (b / (1 + b)).
Proof.
move=> a0 b0 c0 h; have a1 : 0 < 1 + a by rewrite ltr_paddr ?ltr01.
have b1 : 0 < 1 + b by rewrite ltr_paddr ?ltr01.
have p : 0 < (1 + a) * (1 + b) by rewrite mulr_gt0.
rewrite (_ : _ - _ = (a - b) / ((1 + a) * (1 + b))); last by field; rewrite !gt_eqF.
rewrite normrM normfV (gtr0_norm p) ler_pdivr_mulr //; apply: le_trans h _.
rewrite (_ : _ * ((1 + a) * _) = c * b * (1 + a)); last by field; rewrite gt_eqF.
by rewrite ler_pemulr ?ler_addl // mulr_ge0.
Qed.

(* With W W = G^-1, y = W k and x = W v: rho = y.y, what is computed is y.v, and y = v + f, ||f|| <= e ||v||. *)
Theorem X4_part_proof : X4_part R.
Proof.
move=> n G E k x top low u pG hT hL u0 bE e e1 ex computed; have [sG _] := pG.
have top0 : 0 < top by apply: pd_eigenvalue pG _; case: hT.
have low0 : 0 < low by apply: pd_eigenvalue pG _; case: hL.
have aG : above low G by split=> // z; apply: quad_smallest.
have e0 : 0 <= e by rewrite mulr_ge0 // divr_ge0 // ltW.
have c0 : 0 < 1 - e by rewrite subr_gt0.
have [W [sW WW WGW]] := inverse_root pG.
have uW : W \in unitmx by have := pd_unit (pd_inv pG); rewrite -WW unitmx_mul => /andP[].
pose s := Num.sqrt low^-1; have s0 : 0 <= s by apply: sqrtr_ge0.
have s2 : s * s = low^-1 by rewrite -expr2 sqr_sqrtr // invr_ge0 ltW.
have bW : bounded W s.
  move=> z; rewrite -ler_sq ?mulr_ge0 ?nrm_ge0 // exprMn !nrm_sqr dot_mull sW mulmxA WW expr2 s2.
  apply: le_trans (cauchy_le _ _) _; rewrite -nrm_sqr expr2 mulrCA ler_wpmul2l ?nrm_ge0 //.
  exact: above_inv.
pose y := W *m k; pose v := invmx W *m x; pose f := W *m (E *m x).
have xv : x = W *m v by rewrite mulKVmx.
have yE : y = v + f by rewrite /y /f -ex mulmxDl mulmxDr {1}xv !mulmxA WGW mul1mx.
have rhoE : rho G k = nrm y ^+ 2 by rewrite nrm_sqr /y dot_mull sW mulmxA WW.
have computedE : computed = dot y v by rewrite /computed xv /y dot_mull sW.
have fv : nrm f <= e * nrm v.
  apply: le_trans (bW _) _; apply: le_trans (_ : _ <= s * (u * top * (s * nrm v))) _.
    by rewrite ler_wpmul2l // (le_trans (bE _)) // {1}xv ler_wpmul2l // mulr_ge0 // ltW.
  rewrite [X in X <= _](_ : _ = u * top * (s * s) * nrm v); last by ring.
  by rewrite s2 -!mulrA.
clearbody y v f computed; clear x ex xv.
have short : (1 - e) * nrm v <= nrm y.
  rewrite mulrBl mul1r ler_subl_addr; apply: le_trans (_ : nrm (y - f) <= _); first by rewrite yE addrK.
  by apply: le_trans (nrmB _ _) _; rewrite ler_add2l.
have computed0 : 0 <= computed.
  rewrite computedE yE dotDl -nrm_sqr; apply: le_trans (_ : nrm v ^+ 2 - nrm f * nrm v <= _); last first.
    by rewrite ler_add2l cauchy_ge.
  by rewrite subr_ge0 expr2 ler_wpmul2r ?nrm_ge0 // (le_trans fv) // ler_pimull ?nrm_ge0 // ltW.
have gap : `|computed - rho G k| <= e / (1 - e) * rho G k.
  rewrite rhoE computedE nrm_sqr -dotBr (_ : v - y = - f); last by rewrite yE opprD addrA subrr sub0r.
  rewrite dotNr normrN; apply: le_trans (cauchy_abs _ _) _; rewrite -nrm_sqr expr2 mulrCA ler_wpmul2l ?nrm_ge0 //.
  by apply: le_trans fv _; rewrite -[_ * nrm y]mulrA; apply: ler_wpmul2l => //; rewrite ler_pdivl_mull.
by split=> //; apply: relative_eta; rewrite ?rho_ge0 // divr_ge0 // ltW.
Qed.

End Claims.
