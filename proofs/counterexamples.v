(* What fails without an assumption: per assumption of theory/claims.py an instance that meets the other premises of the claim
   and not its conclusion. `T1_needs_definite` is about the assumption `definite` of T1. `T1_without_symmetric` is what holds
   without something that was assumed. Nothing is proved here. *)
From mathcomp Require Import all_ssreflect all_algebra.
From MetaKE Require Import statements.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Counterexamples.
Variable R : rcfType.

(* == Theorem 1 == *)

Definition T1_needs_definite := exists (G : 'M[R]_1) (k r : 'cV[R]_1),
  [/\ sym G, G + k *m k^T \in unitmx & exists D, loss G k r D < loss G k r (edit G k r)].

Definition T1_without_symmetric := forall m n (G : 'M[R]_n) (k : 'cV[R]_n) (r : 'cV[R]_m), G \in unitmx -> 1 + rho G k != 0 ->
  G + k *m k^T \in unitmx /\ edit G k r *m k = eta G k *: r.

Definition T1_needs_single := exists (G : 'M[R]_1) (K T : 'M[R]_(1, 2)), pd G /\
  forall j, batch_edit G K T *m col j K != eta G (col j K) *: col j T.

Definition T1a_needs_orthonormal := exists (G U : 'M[R]_1) mu k,
  [/\ U \in unitmx, G = U *m diag_mx mu *m invmx U, pd G & rho G k != \sum_i (U^T *m k) i 0 ^+ 2 / mu 0 i].

Definition T1b_needs_share := exists (G U : 'M[R]_1) mu k (S : pred 'I_1) M low e,
  [/\ eigenbasis G U mu, 0 < low /\ forall i, low <= mu 0 i, 0 < M /\ forall i, S i -> M <= mu 0 i,
      0 <= e /\ \sum_(i | ~~ S i) (U^T *m k) i 0 ^+ 2 <= e * nrm k ^+ 2
    & nrm k ^+ 2 * ((1 - e) / M + e / low) < rho G k].

Definition T1b_needs_smallest := exists (G U : 'M[R]_1) mu k (S : pred 'I_1) M low e,
  [/\ eigenbasis G U mu, 0 < low /\ forall i, ~~ S i -> low <= mu 0 i, 0 < M /\ forall i, S i -> M <= mu 0 i,
      0 <= e <= 1 /\ \sum_(i | ~~ S i) (U^T *m k) i 0 ^+ 2 <= e * nrm k ^+ 2
    & nrm k ^+ 2 * ((1 - e) / M + e / low) < rho G k].

Definition T1b_needs_height := exists (G U : 'M[R]_1) mu k (S : pred 'I_1) M low e,
  [/\ eigenbasis G U mu, 0 < low /\ forall i, low <= mu 0 i, 0 < M,
      0 <= e <= 1 /\ \sum_(i | ~~ S i) (U^T *m k) i 0 ^+ 2 <= e * nrm k ^+ 2
    & nrm k ^+ 2 * ((1 - e) / M + e / low) < rho G k].

Definition T1c_needs_inside := exists (G U : 'M[R]_2) mu k (S : pred 'I_2) M,
  [/\ eigenbasis G U mu, pd G, 0 < M /\ forall i, S i -> M <= mu 0 i,
      \sum_(i | ~~ S i) (U^T *m k) i 0 ^+ 2 <= nrm k ^+ 2 / 100%:R
    & nrm k ^+ 2 / (M + nrm k ^+ 2) < eta G k].

Definition T1d_needs_loewner := exists (a b : 'rV[R]_2) k,
  [/\ forall i, 0 < a 0 i, forall i, a 0 i < b 0 (rev_ord i) & eta (diag_mx a) k < eta (diag_mx b) k].

Definition T1d_without_symmetric := forall n (G1 G2 : 'M[R]_n) k, pd G1 -> loewner G1 G2 -> eta G2 k <= eta G1 k.

Definition T1d_needs_nonzero := exists (G : 'M[R]_1) c d,
  [/\ pd G, 0 < c, c < d & eta (d *: G) 0 = eta (c *: G) 0].

Definition T1e_needs_projector := exists (P : 'M[R]_1) beta (k r : 'cV[R]_1), [/\ P^T = P, 0 < beta
  & exists D, projected_loss P beta k r D < projected_loss P beta k r (projected_edit P beta k r)].

Definition T1e_needs_ridge := exists (P : 'M[R]_2) (k : 'cV[R]_2) (r : 'cV[R]_1), [/\ projector P, P *m k != 0
  & exists D, projected_loss P 0 k r D <= projected_loss P 0 k r (projected_edit P 0 k r) /\ D *m P != projected_edit P 0 k r].

Definition T1f_needs_orthogonal := exists (P : 'M[R]_1) beta (k : 'cV[R]_1) (Kp : 'M[R]_1), [/\ projector P, 0 < beta
  & eta (history P beta Kp) (P *m k) < projected_eta P beta k].

Definition X1_needs_orthonormal := exists (V : 'M[R]_1) beta (k r : 'cV[R]_1) (Kp : 'M[R]_1),
  let P := V *m V^T in 0 < beta /\
  edit (history P beta Kp) (P *m k) r != edit (beta%:M + V^T *m Kp *m Kp^T *m V) (V^T *m k) r *m V^T.

Definition P15_needs_limit := exists (P : 'M[R]_1) beta (k r : 'cV[R]_1), [/\ projector P, 0 < beta,
    projected_edit P beta k r *m k = 0 & forall t, 0 <= t -> edit (beta%:M + t *: (1%:M - P)) k r *m k != 0].

Definition X2_needs_definite := exists (G K T : 'M[R]_1), [/\ sym G, G + K *m K^T \in unitmx
  & exists D, batch_loss G K T D < batch_loss G K T (batch_edit G K T)].

Definition X3_needs_orthogonal := exists (G : 'M[R]_1) (K : 'M[R]_(1, 2)), pd G /\
  forall j, retention G K j j < eta G (col j K).

Definition X3_needs_coefficient := exists (G : 'M[R]_1) (K T : 'M[R]_(1, 2)), [/\ pd G, 0 < T 0 0
  & T 0 0 < (batch_edit G K T *m K) 0 0].

Definition X13_needs_definite := exists G K : 'M[R]_1, [/\ sym G, pd (G + K *m K^T)
  & (\rank K)%:R < \sum_j retention G K j j].

Definition X13_needs_remembered := exists (G : 'M[R]_1) (K : 'M[R]_(1, 2)), pd G /\
  (\rank K)%:R < \sum_j eta G (col j K).

Definition X14_needs_definite := exists (G : 'M[R]_2) (k : 'cV[R]_2) (r : 'cV[R]_1), [/\ sym G, G + k *m k^T \in unitmx, k != 0
  & exists D, D *m k = edit G k r *m k /\ cost G D < cost G (edit G k r)].

Definition X14_needs_independent := exists (G : 'M[R]_1) (K X : 'M[R]_(1, 2)), pd G /\
  forall T, batch_edit G K T *m K != X.

Definition X14_needs_soft := exists G K T : 'M[R]_1, [/\ pd G, independent K
  & let D := exact_edit G K T in \sum_j dot (col j T - D *m col j K) (D *m col j K) < cost G D].

Definition P4_needs_independent := exists (G : 'M[R]_1) (K T : 'M[R]_(1, 2)), pd G /\ forall D, D *m K != T.

Definition P8_needs_same := exists (C : 'M[R]_1) lambda k, [/\ pd (lambda *: C), 0 < lambda & 1 / lambda < rho (lambda *: C) k].

Definition P9_needs_fixed := forall M : R, exists (G : 'M[R]_1) mu k, [/\ pd G, M <= mu, G *m k = mu *: k & eta G k = 2%:R^-1].

Definition P10_needs_floor := exists (G1 G2 : 'M[R]_1) k mu eC, [/\ 0 < mu, pd G1 /\ pd G2, 0 <= eC /\ bounded (G2 - G1) eC
  & 3%:R * Num.sqrt 3%:R / 8%:R * (nrm (k - k) / Num.sqrt mu) + eC / (4%:R * mu) < `|eta G1 k - eta G2 k|].

Definition X12_needs_definite := exists (G B : 'M[R]_1) (k r : 'cV[R]_1), [/\ pd G, sym B
  & forall D, exists D', two_sided_loss G B k r D' < two_sided_loss G B k r D].

Definition X12_needs_isotropic := exists (G : 'M[R]_1) (B : 'M[R]_2) (k : 'cV[R]_1) (r : 'cV[R]_2), [/\ pd G, pd B
  & forall D, (forall D', two_sided_loss G B k r D <= two_sided_loss G B k r D') -> forall c, D *m k != c *: r].

(* == Theorem 2 == *)

Definition T2a_needs_convex := exists (A : 'M[R]_1) g l, [/\ sym A, A + l%:M \in unitmx
  & exists d, surrogate A g l d < surrogate A g l (displacement A g l)].

Definition L1_needs_convex := exists (A : 'M[R]_1) g l, [/\ sym A, 0 <= l, A + l%:M \in unitmx
  & let s := displacement A g l in exists d, ball (nrm s) d /\ surrogate A g 0 d < surrogate A g 0 s].

Definition L1_needs_sign := exists (A : 'M[R]_1) g l, [/\ sym A, pd (A + l%:M)
  & let s := displacement A g l in exists d, ball (nrm s) d /\ surrogate A g 0 d < surrogate A g 0 s].

Definition L1_needs_nonzero := exists (A : 'M[R]_1) l1 l2, [/\ sym A, l1 < l2, pd (A + l1%:M)
  & nrm (displacement A 0 l2) = nrm (displacement A 0 l1)].

Definition L2_needs_definite := exists H : 'M[R]_2, [/\ sym H /\ forall x, 0 <= dot x (H *m x), H != 0
  & forall tau r, 0 < tau -> ~ inside (ellipsoid H tau) (ball r)].

Definition T2b_needs_containment := exists (H : 'M[R]_2) tau Delta, [/\ pd H, 0 < tau,
    ~ exists r, Delta <= r /\ inside (ball r) (ellipsoid H tau)
  & exists d, Delta <= nrm d /\ ellipsoid H tau d].

Definition T2b_needs_relative := forall kappa : R, 1 <= kappa -> exists (H1 H2 : 'M[R]_2) top low Delta,
  [/\ pd H1, pd H2, largest H1 1 /\ smallest H1 1, (largest H2 top /\ smallest H2 low) /\ kappa <= top / low
    & (~ exists r, 2%:R <= r /\ inside (ball r) (ellipsoid H1 1)) /\
      0 < Delta /\ exists r, Delta <= r /\ inside (ball r) (ellipsoid H2 1)].

Definition T2c_needs_linear := exists (H Ae Ah : 'M[R]_1) (u : 'cV[R]_1) a b tau Delta,
  let serves Ae Ah l := Delta <= nrm (displacement Ae (- (a *: u)) l) /\ ellipsoid H tau (displacement Ah (- (b *: u)) l) in
  [/\ pd H, nrm u = 1, [/\ 0 < a, 0 < b, 0 < tau & 0 < Delta],
      ~ exists l, 0 < l /\ serves 0 0 l & exists l, 0 < l /\ serves Ae Ah l].

Definition T2c_needs_gradients := forall kappa : R, 1 < kappa -> exists (H1 H2 : 'M[R]_2) (ue uh : 'cV[R]_2) a b,
  let trap H a b := ~ exists l, [/\ 0 < l, 1 <= nrm (displacement 0 (- (a *: ue)) l) & ellipsoid H 1 (displacement 0 (- (b *: uh)) l)] in
  [/\ pd H1 /\ pd H2, largest H1 1 /\ smallest H1 1, largest H2 kappa /\ smallest H2 1,
      [/\ nrm ue = 1, nrm uh = 1, H2 *m ue = ue & H2 *m uh = kappa *: uh]
    & [/\ 0 < a, 0 < b, trap H1 1 2%:R & ~ trap H2 a b]].

(* uh of any length *)
Definition T2c_without_directions := forall n (H : 'M[R]_n) (ue uh : 'cV[R]_n) a b tau Delta, pd H -> nrm ue = 1 ->
  0 < a -> 0 < b -> 0 < tau -> 0 < Delta ->
  (exists l, [/\ 0 < l, Delta <= nrm (displacement 0 (- (a *: ue)) l) & ellipsoid H tau (displacement 0 (- (b *: uh)) l)]) <->
  b * hlen H uh / tau <= a / Delta.

Definition T2d_needs_parallel := exists (v d : 'cV[R]_2) m, [/\ v != 0, 0 < m, m / nrm v <= nrm d & dot v d < m].

Definition T2d_needs_confined := exists (v : 'cV[R]_2) (V : 'M[R]_(2, 1)) m, [/\ v != 0, V^T *m V = 1%:M, 0 < m
  & forall c, nrm (V *m c) <= m / nrm v -> dot v (V *m c) < m].

Definition T2d_needs_linear := exists (f : 'cV[R]_1 -> R) v d m, [/\ gradient f 0 v, v != 0, f d - f 0 = m & nrm d < m / nrm v].

Definition P3_needs_nonzero := forall m n (G : 'M[R]_n) (delta : 'cV[R]_m), pd G -> delta != 0 ->
  rho G 0 = 0 /\ forall D : 'M[R]_(m, n), D *m 0 != delta.

Definition X5_needs_proportional := exists (F H : 'M[R]_2) top low, [/\ pd F, pd H, F *m H = H *m F,
    largest (invmx F *m H) top /\ smallest (invmx F *m H) low & 1 < Num.sqrt (top / low)].

Definition X6_needs_commuting := exists (H F : 'M[R]_2) top low ue uh a b tau Delta,
  let step (g : 'cV[R]_2) l := - (invmx (l *: F) *m g) in
  [/\ [/\ pd H, pd F, nrm ue = 1 & nrm uh = 1], [/\ largest H top, smallest H low, H *m ue = low *: ue & H *m uh = top *: uh],
      [/\ 0 < a, 0 < b, 0 < tau & 0 < Delta],
      exists l, [/\ 0 < l, Delta <= nrm (step (- (a *: ue)) l) & ellipsoid H tau (step (- (b *: uh)) l)]
    & tau * dot uh (F *m uh) / (Delta * dot ue (F *m ue) * Num.sqrt top) < b / a].

Definition X6_needs_linear := exists (H A : 'M[R]_1) g tau d, [/\ pd H, pd A, 0 < tau /\ ellipsoid H tau d,
    forall x, surrogate A g 0 d <= surrogate A g 0 x & hlen H d < tau / 2%:R].

Definition X7_needs_eigenvectors := exists (H A : 'M[R]_2) top low ue uh a b tau Delta,
  let serves l := Delta <= nrm (displacement A (- (a *: ue)) l) /\ ellipsoid H tau (displacement A (- (b *: uh)) l) in
  [/\ [/\ pd H, nrm ue = 1 & nrm uh = 1], [/\ largest H top, smallest H low, H *m ue = low *: ue & H *m uh = top *: uh],
      [/\ 0 < a, 0 < b, 0 < tau & 0 < Delta], forall l, 0 < l -> pd (A + l%:M)
    & (exists l, 0 < l /\ serves l) /\ a / Delta - dot ue (A *m ue) <= 0].

(* == Section 4 and Theorem 3 == *)

Definition L3_needs_floor := exists (X E : 'M[R]_1) mu e, [/\ pd X, 0 <= e < mu, bounded E e, X + E \in unitmx
  & ~ bounded (invmx (X + E) - invmx X) (e / (mu * (mu - e)))].

Definition L3_needs_small := exists (X E : 'M[R]_1) mu e, [/\ above mu X, 0 <= e, bounded E e & X + E \notin unitmx].

Definition L3_needs_both := exists (X E : 'M[R]_1) mu e, [/\ 0 < mu, above mu X, 0 <= e < mu, bounded E e
  & ~ bounded (invmx (X + E) - invmx X) (e / (mu * (mu + e)))].

Definition L4_needs_floor := exists (G1 G2 : 'M[R]_1) k1 k2 mu ek eC B, [/\ 0 < mu, pd G1 /\ pd G2,
    0 <= eC /\ bounded (G2 - G1) eC, nrm (k1 - k2) <= ek /\ nrm k2 <= B
  & ek / mu + Num.min (eC / (2%:R * mu * Num.sqrt mu)) (B * eC / (mu * (mu + eC))) < nrm (channel G1 k1 - channel G2 k2)].

Definition L5_needs_fixed := exists (f : 'M[R]_1 -> R) (q : 'cV[R]_1 -> 'cV[R]_1) z Gamma,
  [/\ gradient f (z *m (q z)^T) Gamma, gradient (fun z => f (z *m (q z)^T)) z 0 & Gamma *m q z != 0].

Definition X8_needs_fixed := exists (f : 'M[R]_1 -> R) (Q : 'M[R]_1 -> 'M[R]_1) Z Gamma,
  [/\ gradient f (Z *m (Q Z)^T) Gamma, gradient (fun Z => f (Z *m (Q Z)^T)) Z 0 & Gamma *m Q Z != 0].

Definition J1_needs_small := exists E : 'M[R]_1, bounded E 1 /\ 1%:M + E \notin unitmx.

Definition J1_needs_fixed := exists (E : 'cV[R]_1 -> 'M[R]_1) (r : 'cV[R]_1 -> 'cV[R]_1) z J e,
  [/\ 0 <= e < 1, forall z, bounded (E z) e, forall z, (1%:M + E z) *m r z = z, jacobian r z J
    & ~ bounded (J - 1%:M) (e / (1 - e))].

Definition T3a_needs_frozen := exists (f : 'M[R]_1 -> R) (q : 'cV[R]_1 -> 'cV[R]_1) z Gamma g,
  [/\ gradient f (z *m (q z)^T) Gamma, gradient (fun z => f (z *m (q z)^T)) z g
    & forall s, 0 * nrm (layer_gradient 1%:M Gamma (q z)) + 0 * s * nrm (q z) < nrm (g - Gamma *m q z)].

Definition T3b_needs_small := exists J : 'I_2 -> 'M[R]_1,
  let g l := layer_gradient (J l) 1%:M (1%:M : 'cV[R]_1) in let proxy : 'cV[R]_1 := 1%:M *m 1%:M in
  [/\ \sum_(l | l != ord_max) nrm (g l) <= 1 * nrm (g ord_max), bounded (J ord_max - 1%:M) 0, proxy != 0
    & dot (\sum_l g l) proxy = 0].

Definition T3b_needs_nonzero := exists (Gamma : 'M[R]_2) (q : 'cV[R]_2),
  [/\ Gamma != 0, q != 0, Gamma *m q = 0 & dot (layer_gradient 1%:M Gamma q) (Gamma *m q) = 0].

Definition T3c_needs_circle := exists (gamma eps : R) (J : 'I_2 -> 'M[R]_2) (Gamma : 'I_2 -> 'M[R]_(2, 1)) (q : 'I_2 -> 'cV[R]_1),
  let g l := layer_gradient (J l) (Gamma l) (q l) in
  [/\ gamma ^+ 2 + eps ^+ 2 = 1, bounded (J ord_max - 1%:M) eps, g ord_max != 0 /\ \sum_l g l != 0,
      \sum_(l | l != ord_max) nrm (g l) <= gamma * nrm (g ord_max) & dot (\sum_l g l) (Gamma ord_max *m q ord_max) <= 0].

Definition A1_needs_spread := forall e : R, 0 < e -> exists s, forall h z : 'cV[R]_1, let x := h + s *: (z - h) in
  exists J1 J2 : 'M[R]_1, [/\ jacobian (fun z => z - h) z J1, jacobian (fun z => z - (h + s *: (z - h))) z J2,
    bounded (J1 - J2) e & bounded (J2 - 1%:M) e].

Definition A2_needs_identity := exists (T : 'M[R]_1) (eta : nat -> R), (forall l, 0 < eta l < 1) /\
  forall (z h : 'cV[R]_1), exists J,
    jacobian (fun z => z - T *m stream 2 eta z h 1) z J /\ J != (missing 2 eta 1)%:M.

Definition P13_needs_rate := forall (T : nat) (e : R), 0 < e -> exists eta, 0 < eta < 1 /\ eta * realized 1 eta T <= e.

Definition P13_needs_layer := exists (f : 'M[R]_1 -> 'M[R]_1 -> R) (q : 'cV[R]_1) Gamma, forall z,
  gradient (f (z *m q^T)) (z *m q^T) Gamma /\
  exists g, gradient (fun z => f (z *m q^T) (z *m q^T)) z g /\ g != Gamma *m q.

Definition X9_needs_aligned := exists (g : 'I_2 -> 'cV[R]_1) proxy eps, [/\ 0 < (1 - eps) * nrm proxy ^+ 2,
    (1 - eps) * nrm proxy ^+ 2 <= dot (g ord_max) proxy & dot (\sum_l g l) proxy < 0].

End Counterexamples.
