(* The claims of theory/claims.py in general dimension: every definition and statement that a reader has to trust.
   Nothing but MathComp is imported, and nothing is proved here. R is any real closed field, hence in particular the
   real numbers. Columns are vectors; limits and derivatives are stated with epsilon and delta. *)
From mathcomp Require Import all_ssreflect all_algebra.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Statements.
Variable R : rcfType.

(* == Definitions == *)

(* inner product, Euclidean norm, Frobenius norm; `bounded A c` says that the spectral norm of A is at most c *)
Definition dot n (x y : 'cV[R]_n) : R := (x^T *m y) 0 0.
Definition nrm n (x : 'cV[R]_n) : R := Num.sqrt (dot x x).
Definition inner m n (X Y : 'M[R]_(m, n)) : R := \tr (X^T *m Y).
Definition frob m n (X : 'M[R]_(m, n)) : R := Num.sqrt (inner X X).
Definition bounded m n (A : 'M[R]_(m, n)) (c : R) := forall x : 'cV_n, nrm (A *m x) <= c * nrm x.

(* symmetric, definite, G >= mu I, A <= B *)
Definition sym n (G : 'M[R]_n) := G^T = G.
Definition pd n (G : 'M[R]_n) := sym G /\ forall x, x != 0 -> 0 < dot x (G *m x).
Definition above n mu (G : 'M[R]_n) := sym G /\ forall x, mu * dot x x <= dot x (G *m x).
Definition loewner n (A B : 'M[R]_n) := forall x, dot x (A *m x) <= dot x (B *m x).

(* largest and smallest eigenvalue; an orthonormal eigenbasis; orthonormal columns; orthogonal projectors *)
Definition largest n (A : 'M[R]_n) a := eigenvalue A a /\ forall b, eigenvalue A b -> b <= a.
Definition smallest n (A : 'M[R]_n) a := eigenvalue A a /\ forall b, eigenvalue A b -> a <= b.
Definition eigenbasis n (A U : 'M[R]_n) (mu : 'rV[R]_n) := U^T *m U = 1%:M /\ A = U *m diag_mx mu *m U^T.
Definition projector n (P : 'M[R]_n) := P^T = P /\ P *m P = P.
Definition independent n p (K : 'M[R]_(n, p)) := forall x : 'cV_p, K *m x = 0 -> x = 0.

(* G is the gradient of f at X; J is the Jacobian of f at x *)
Definition gradient m n (f : 'M[R]_(m, n) -> R) (X G : 'M[R]_(m, n)) :=
  forall e, 0 < e -> exists d, 0 < d /\
  forall H, frob H <= d -> `|f (X + H) - f X - inner G H| <= e * frob H.
Definition jacobian m n (f : 'cV[R]_n -> 'cV[R]_m) (x : 'cV[R]_n) (J : 'M[R]_(m, n)) :=
  forall e, 0 < e -> exists d, 0 < d /\
  forall h, nrm h <= d -> nrm (f (x + h) - f x - J *m h) <= e * nrm h.

(* realizability (19), attenuation (20), channel (21), edit (17), objective (13) *)
Definition rho n (G : 'M[R]_n) k : R := dot k (invmx G *m k).
Definition eta n (G : 'M[R]_n) k : R := rho G k / (1 + rho G k).
Definition channel n (G : 'M[R]_n) (k : 'cV[R]_n) : 'cV[R]_n := invmx (G + k *m k^T) *m k.
Definition edit m n (G : 'M[R]_n) k (r : 'cV[R]_m) : 'M[R]_(m, n) := r *m (channel G k)^T.
Definition cost m n (G : 'M[R]_n) (D : 'M[R]_(m, n)) : R := \tr (D *m G *m D^T).
Definition loss m n (G : 'M[R]_n) k (r : 'cV[R]_m) D : R := dot (D *m k - r) (D *m k - r) + cost G D.

(* AlphaEdit: objective (27) without and with earlier keys K_p, its update, the geometry that holds earlier keys;
   (31) as printed, with the raw key; what the published code solves for a batch *)
Definition projected_loss m n (P : 'M[R]_n) beta k (r : 'cV[R]_m) (D : 'M[R]_(m, n)) : R :=
  dot (D *m P *m k - r) (D *m P *m k - r) + beta * \tr (D *m P *m (D *m P)^T).
Definition history_loss m n p (P : 'M[R]_n) beta (Kp : 'M[R]_(n, p)) k (r : 'cV[R]_m) (D : 'M[R]_(m, n)) : R :=
  projected_loss P beta k r D + \tr (D *m P *m Kp *m (D *m P *m Kp)^T).
Definition projected_edit m n (P : 'M[R]_n) beta k (r : 'cV[R]_m) : 'M[R]_(m, n) :=
  (beta + dot (P *m k) (P *m k))^-1 *: (r *m (P *m k)^T).
Definition projected_eta n (P : 'M[R]_n) beta k : R := dot (P *m k) (P *m k) / (beta + dot (P *m k) (P *m k)).
Definition history n p (P : 'M[R]_n) beta (Kp : 'M[R]_(n, p)) : 'M[R]_n := beta%:M + P *m Kp *m (P *m Kp)^T.
Definition raw_key_edit m n beta (k : 'cV[R]_n) (r : 'cV[R]_m) : 'M[R]_(m, n) := r *m k^T *m invmx (k *m k^T + beta%:M).
Definition shipped_edit m n p q (P : 'M[R]_n) beta (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)) (Kp : 'M[R]_(n, q)) : 'M[R]_(m, n) :=
  T *m K^T *m P *m invmx ((K *m K^T + Kp *m Kp^T) *m P + beta%:M).

(* batches: keys and residuals are columns of K and T *)
Definition gram n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) := K^T *m invmx G *m K.
Definition retention n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) := gram G K *m invmx (1%:M + gram G K).
Definition batch_edit m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)) := T *m K^T *m invmx (G + K *m K^T).
Definition batch_loss m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)) D : R :=
  \tr ((D *m K - T) *m (D *m K - T)^T) + cost G D.
Definition exact_edit m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)) :=
  T *m invmx (gram G K) *m K^T *m invmx G.
Definition other_keys n p (K : 'M[R]_(n, p)) j : 'M[R]_n := \sum_(i | i != j) col i K *m (col i K)^T.

(* Theorem 2: surrogate (37), displacement (39), ball and ellipsoid *)
Definition surrogate n (A : 'M[R]_n) g l d : R := dot g d + dot d (A *m d) / 2%:R + l / 2%:R * dot d d.
Definition displacement n (A : 'M[R]_n) g l : 'cV[R]_n := - (invmx (A + l%:M) *m g).
Definition ball n r (x : 'cV[R]_n) := nrm x <= r.
Definition ellipsoid n (H : 'M[R]_n) t (x : 'cV[R]_n) := dot x (H *m x) <= t ^+ 2.
Definition inside n (A B : 'cV[R]_n -> Prop) := forall x, A x -> B x.
Definition hlen n (H : 'M[R]_n) (x : 'cV[R]_n) : R := Num.sqrt (dot x (H *m x)).

(* Theorem 3: layers 0..L, L last; gradient of layer l (51) *)
Definition layer_gradient d n (J : 'M[R]_d) (Gamma : 'M[R]_(d, n)) (q : 'cV[R]_n) : 'cV[R]_d := J^T *m (Gamma *m q).

(* == Theorem 1 == *)

Definition T1 := forall m n (G : 'M[R]_n) (k : 'cV[R]_n) (r : 'cV[R]_m), pd G ->
  [/\ G + k *m k^T \in unitmx,
      forall D, loss G k r (edit G k r) <= loss G k r D,
      forall D, loss G k r D <= loss G k r (edit G k r) -> D = edit G k r
    & edit G k r *m k = eta G k *: r].

Definition T1a := forall n (G : 'M[R]_n), pd G -> (exists U mu, eigenbasis G U mu) /\
  forall U mu, eigenbasis G U mu -> forall k, rho G k = \sum_i (U^T *m k) i 0 ^+ 2 / mu 0 i.

Definition T1b := forall n (G U : 'M[R]_n) mu k (S : pred 'I_n) M low e, eigenbasis G U mu ->
  0 < low -> (forall i, low <= mu 0 i) -> 0 < M -> (forall i, S i -> M <= mu 0 i) -> 0 <= e <= 1 ->
  \sum_(i | ~~ S i) (U^T *m k) i 0 ^+ 2 <= e * nrm k ^+ 2 ->
  rho G k <= nrm k ^+ 2 * ((1 - e) / M + e / low).

Definition T1c := (forall n (G U : 'M[R]_n) mu k (S : pred 'I_n) M, eigenbasis G U mu -> pd G ->
    0 < M -> (forall i, S i -> M <= mu 0 i) -> (forall i, ~~ S i -> (U^T *m k) i 0 = 0) ->
    eta G k <= nrm k ^+ 2 / (M + nrm k ^+ 2)) /\
  forall n (k : 'cV[R]_n) e, 0 < e -> exists M0, 0 < M0 /\ forall M, M0 <= M -> nrm k ^+ 2 / (M + nrm k ^+ 2) <= e.

Definition T1d := forall n (G1 G2 : 'M[R]_n) (k : 'cV[R]_n), pd G1 -> pd G2 ->
  [/\ loewner G1 G2 -> eta G2 k <= eta G1 k,
      k != 0 -> forall c d, 0 < c -> c < d -> eta (d *: G1) k < eta (c *: G1) k,
      0 <= eta G1 k < 1 & (eta G1 k == 0) = (k == 0)].

Definition T1e := forall m n (P : 'M[R]_n) beta (k : 'cV[R]_n) (r : 'cV[R]_m), projector P -> 0 < beta ->
  let X := projected_edit P beta k r in
  [/\ X *m P = X /\ X *m k = projected_eta P beta k *: r,
      forall D, projected_loss P beta k r X <= projected_loss P beta k r D,
      forall D, projected_loss P beta k r D <= projected_loss P beta k r X -> D *m P = X,
      raw_key_edit beta k r *m P = raw_key_edit beta k r <-> P *m k = k \/ r = 0
    & forall p q (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)) (Kp : 'M[R]_(n, q)),
        (K *m K^T + Kp *m Kp^T) *m P + beta%:M \in unitmx /\
        shipped_edit P beta K T Kp = batch_edit (history P beta Kp) (P *m K) T].

Definition T1f := forall n p (P : 'M[R]_n) beta (k : 'cV[R]_n) (Kp : 'M[R]_(n, p)), projector P -> 0 < beta ->
  [/\ eta (history P beta Kp) (P *m k) <= projected_eta P beta k,
      eta (history P beta Kp) (P *m k) = projected_eta P beta k <-> Kp^T *m (P *m k) = 0
    & forall m (r : 'cV[R]_m), let X := edit (history P beta Kp) (P *m k) r in
      [/\ X *m P = X, X *m k = eta (history P beta Kp) (P *m k) *: r,
          forall D, history_loss P beta Kp k r X <= history_loss P beta Kp k r D
        & forall D, history_loss P beta Kp k r D <= history_loss P beta Kp k r X -> D *m P = X]].

Definition X1 := forall m n d p (V : 'M[R]_(n, d)) beta (k : 'cV[R]_n) (r : 'cV[R]_m) (Kp : 'M[R]_(n, p)),
  V^T *m V = 1%:M -> 0 < beta -> let P := V *m V^T in projector P /\
  edit (history P beta Kp) (P *m k) r = edit (beta%:M + V^T *m Kp *m Kp^T *m V) (V^T *m k) r *m V^T.

Definition P15 := forall m n (P : 'M[R]_n) beta (k : 'cV[R]_n) (r : 'cV[R]_m), projector P -> 0 < beta ->
  let gap t := edit (beta%:M + t *: (1%:M - P)) k r - projected_edit P beta k r in
  let a := 1 + nrm (P *m k) ^+ 2 / beta in let b := nrm ((1%:M - P) *m k) ^+ 2 in
  (forall t, 0 <= t -> gap t =
     (a * (t + beta + b / a))^-1 *: (r *m ((1%:M - P) *m k - (b / (a * beta)) *: (P *m k))^T)) /\
  exists c, forall t, 0 < t -> frob (gap t) <= c / t.

Definition X2 := forall m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)), pd G ->
  [/\ forall D, batch_loss G K T (batch_edit G K T) <= batch_loss G K T D,
      forall D, batch_loss G K T D <= batch_loss G K T (batch_edit G K T) -> D = batch_edit G K T,
      batch_edit G K T *m K = T *m retention G K,
      exists U s, eigenbasis (gram G K) U s
    & forall U s, eigenbasis (gram G K) U s ->
        (forall i, 0 <= s 0 i) /\ eigenbasis (retention G K) U (\row_i (s 0 i / (1 + s 0 i)))].

Definition X3 := forall n p (G : 'M[R]_n) (K : 'M[R]_(n, p)), pd G ->
  [/\ forall j, retention G K j j <= eta G (col j K),
      forall j, retention G K j j = eta G (col j K) <-> forall i, i != j -> dot (col i K) (invmx G *m col j K) = 0,
      forall q (L : 'M[R]_(n, q)) j, retention G (row_mx K L) (lshift q j) (lshift q j) <= retention G K j j
    & forall m (T : 'M[R]_(m, p)) s, smallest (gram G K) s -> frob (T - batch_edit G K T *m K) <= frob T / (1 + s)].

Definition X13 := forall n p (G : 'M[R]_n) (K : 'M[R]_(n, p)), pd G ->
  [/\ forall j, eta (G + other_keys K j) (col j K) = retention G K j j,
      forall U s, eigenbasis (gram G K) U s -> \sum_j retention G K j j = \sum_i s 0 i / (1 + s 0 i),
      K != 0 -> \sum_j retention G K j j < (\rank K)%:R,
      (\rank K <= minn p n)%N
    & (0 < p)%N -> (0 < n)%N -> (\sum_j retention G K j j) / p%:R < n%:R / p%:R].

Definition X14 := forall m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)), pd G ->
  [/\ forall T : 'M[R]_(m, p), let D := batch_edit G K T in
        cost G D = \sum_j dot (col j T - D *m col j K) (D *m col j K) /\
        forall D', D' *m K = D *m K -> cost G D <= cost G D',
      forall k (r : 'cV[R]_m), let D := edit G k r in
        cost G D = nrm (D *m k) ^+ 2 / rho G k /\ forall D', D' *m k = D *m k -> cost G D <= cost G D',
      (forall D : 'M[R]_(m, n), exists T, batch_edit G K T *m K = D *m K) /\
        (independent K -> forall X : 'M[R]_(m, p), exists T, batch_edit G K T *m K = X)
    & forall (X : 'M[R]_(m, p)) alpha, 0 < alpha ->
        let priced T := frob (batch_edit G K T *m K - X) ^+ 2 + alpha * cost G (batch_edit G K T) in
        exists T, [/\ batch_edit G K T = batch_edit (alpha *: G) K X, forall T', priced T <= priced T'
                    & forall T', priced T' <= priced T -> batch_edit G K T' = batch_edit (alpha *: G) K X]].

Definition P4 := (forall m n p (G : 'M[R]_n) (K : 'M[R]_(n, p)) (T : 'M[R]_(m, p)), pd G -> independent K ->
    let D := batch_edit G K (T *m invmx (retention G K)) in
    [/\ retention G K \in unitmx, D *m K = T, D = exact_edit G K T
      & forall D', D' *m K = T -> cost G D <= cost G D']) /\
  forall m n (G : 'M[R]_n) k (delta : 'cV[R]_m), pd G -> k != 0 -> edit G k ((eta G k)^-1 *: delta) *m k = delta.

(* an expectation: linear and monotone, on some space of functions that holds what is asked for *)
Definition expectation (W : Type) (E : (W -> R) -> R) (L : (W -> R) -> Prop) :=
  [/\ L (fun=> 1) /\ E (fun=> 1) = 1,
      forall f g a, L f -> L g -> L (fun w => a * f w + g w) /\ E (fun w => a * f w + g w) = a * E f + E g
    & forall f g, L f -> L g -> (forall w, f w <= g w) -> E f <= E g].
Definition P8 := forall (W : Type) E L n (k : W -> 'cV[R]_n) (C : 'M[R]_n) lambda beta, @expectation W E L ->
  (forall i j, L (fun w => k w i 0 * k w j 0) /\ E (fun w => k w i 0 * k w j 0) = C i j) ->
  let G := lambda *: C + beta%:M in
  0 < lambda -> 0 <= beta -> pd G -> L (fun w => rho G (k w)) -> L (fun w => eta G (k w)) ->
  let m := E (fun w => rho G (k w)) in m <= n%:R / lambda /\ E (fun w => eta G (k w)) <= m / (1 + m).

Definition P9 :=
  (forall n (k : 'cV[R]_n),
    (forall (G : 'M[R]_n) mu, pd G -> 0 < mu -> G *m k = mu *: k -> rho G k = nrm k ^+ 2 / mu) /\
    forall e, 0 < e -> exists M, 0 < M /\
    forall (G : 'M[R]_n) mu, pd G -> M <= mu -> G *m k = mu *: k -> rho G k <= e) /\
  forall mu, 0 < mu -> exists (G : 'M[R]_1) (k : 'cV[R]_1), [/\ pd G, G *m k = mu *: k & rho G k = 1].

Definition P10 := forall n (G1 G2 : 'M[R]_n) (k1 k2 : 'cV[R]_n) mu eC, 0 < mu -> above mu G1 -> above mu G2 ->
  0 <= eC -> bounded (G2 - G1) eC ->
  `|eta G1 k1 - eta G2 k2| <= 3%:R * Num.sqrt 3%:R / 8%:R * (nrm (k1 - k2) / Num.sqrt mu) + eC / (4%:R * mu).

Definition two_sided_loss m n (G : 'M[R]_n) (B : 'M[R]_m) k (r : 'cV[R]_m) (D : 'M[R]_(m, n)) : R :=
  dot (D *m k - r) (D *m k - r) + \tr (B *m D *m G *m D^T).
Definition X12 := forall m n (G : 'M[R]_n) (B : 'M[R]_m) k (r : 'cV[R]_m), pd G -> pd B ->
  exists D : 'M[R]_(m, n),
  [/\ forall D', two_sided_loss G B k r D <= two_sided_loss G B k r D',
      forall D', two_sided_loss G B k r D' <= two_sided_loss G B k r D -> D' = D
    & forall w b, w != 0 -> B *m w = b *: w -> dot w (D *m k) = rho G k / (b + rho G k) * dot w r].

(* == Theorem 2 == *)

Definition T2a := forall n (A : 'M[R]_n) g l, sym A -> pd (A + l%:M) ->
  (forall d, surrogate A g l (displacement A g l) <= surrogate A g l d) /\
  forall d, surrogate A g l d <= surrogate A g l (displacement A g l) -> d = displacement A g l.

Definition L1 :=
  (forall n (A : 'M[R]_n) g, sym A ->
    [/\ forall l, 0 <= l -> pd (A + l%:M) -> let s := displacement A g l in
          g + A *m s + l *: s = 0 /\ forall d, ball (nrm s) d -> surrogate A g 0 s <= surrogate A g 0 d,
        forall l1 l2, l1 <= l2 -> pd (A + l1%:M) -> nrm (displacement A g l2) <= nrm (displacement A g l1)
      & g != 0 -> forall l1 l2, l1 < l2 -> pd (A + l1%:M) -> nrm (displacement A g l2) < nrm (displacement A g l1)]) /\
  exists (A : 'M[R]_1) g r, [/\ pd A, g != 0, 0 < r & forall l, 0 <= l -> nrm (displacement A g l) != r].

Definition L2 := forall n (H : 'M[R]_n) top low, pd H -> largest H top -> smallest H low -> forall tau, 0 < tau ->
  [/\ forall r, inside (ball r) (ellipsoid H tau) <-> r <= tau / Num.sqrt top,
      forall r, inside (ellipsoid H tau) (ball r) <-> tau / Num.sqrt low <= r
    & (tau / Num.sqrt low) / (tau / Num.sqrt top) = Num.sqrt (top / low)].

Definition T2b := forall n (H : 'M[R]_n) top low, pd H -> largest H top -> smallest H low -> forall tau, 0 < tau ->
  let trap Delta := ~ exists r, Delta <= r /\ inside (ball r) (ellipsoid H tau) in
  (forall Delta, trap Delta <-> tau / Num.sqrt top < Delta) /\
  forall theta, 0 < theta -> (trap (theta * (tau / Num.sqrt low)) <-> theta^-1 < Num.sqrt (top / low)).

Definition T2c := forall n (H : 'M[R]_n) top low ue uh, pd H -> largest H top -> smallest H low ->
  nrm ue = 1 -> nrm uh = 1 -> H *m ue = low *: ue -> H *m uh = top *: uh ->
  forall a b tau, 0 < a -> 0 < b -> 0 < tau ->
  let trap Delta := ~ exists l, [/\ 0 < l, Delta <= nrm (displacement 0 (- (a *: ue)) l)
                                  & ellipsoid H tau (displacement 0 (- (b *: uh)) l)] in
  (forall Delta, 0 < Delta -> (trap Delta <-> a / Delta < b * Num.sqrt top / tau)) /\
  forall theta, 0 < theta -> (trap (theta * (tau / Num.sqrt low)) <-> 1 < theta * (b / a) * Num.sqrt (top / low)).

Definition T2d := forall n (v : 'cV[R]_n) m, v != 0 ->
  [/\ forall d, m <= dot v d -> m / nrm v <= nrm d,
      0 <= m -> exists d, dot v d = m /\ nrm d = m / nrm v,
      forall d, dot v d = m -> nrm d = m / nrm v -> d = (m / nrm v ^+ 2) *: v
    & forall p (V : 'M[R]_(n, p)), V^T *m V = 1%:M -> V^T *m v != 0 ->
        (forall c, m <= dot v (V *m c) -> m / nrm (V^T *m v) <= nrm (V *m c)) /\
        (0 <= m -> exists c, dot v (V *m c) = m /\ nrm (V *m c) = m / nrm (V^T *m v))].

Definition P3 := forall m n (G : 'M[R]_n) (k : 'cV[R]_n) (delta : 'cV[R]_m), pd G -> k != 0 ->
  [/\ 0 < rho G k, forall D, D *m k = delta -> nrm delta ^+ 2 / rho G k <= cost G D,
      exists D, D *m k = delta /\ cost G D = nrm delta ^+ 2 / rho G k
    & forall ue uh : 'cV[R]_m, nrm ue = 1 -> nrm uh = 1 -> forall a b tau Delta, 0 < a -> 0 < b -> 0 < tau -> 0 < Delta ->
        let easy l := displacement 0 (- (a *: ue)) l in let hard l := displacement 0 (- (b *: uh)) l in
        (exists l, [/\ 0 < l, Delta <= nrm (easy l) & exists D, D *m k = hard l /\ cost G D <= tau ^+ 2]) <->
        b / (tau * Num.sqrt (rho G k)) <= a / Delta].

Definition X5 := forall n (F H : 'M[R]_n) top low, pd F -> pd H ->
  largest (invmx F *m H) top -> smallest (invmx F *m H) low -> forall tau, 0 < tau ->
  [/\ forall s, 0 <= s -> (inside (ellipsoid F s) (ellipsoid H tau) <-> s ^+ 2 * top <= tau ^+ 2),
      forall s, 0 <= s -> (inside (ellipsoid H tau) (ellipsoid F s) <-> tau ^+ 2 <= s ^+ 2 * low),
      (tau / Num.sqrt low) / (tau / Num.sqrt top) = Num.sqrt (top / low) /\
        (Num.sqrt (top / low) = 1 <-> exists c, F = c *: H),
      forall W, sym W -> W *m W = invmx F -> forall a, eigenvalue (W *m H *m W) a = eigenvalue (invmx F *m H) a
    & forall topF lowF topH lowH, largest F topF -> smallest F lowF -> largest H topH -> smallest H lowH ->
        let cF := topF / lowF in let cH := topH / lowH in Num.max (cF / cH) (cH / cF) <= top / low <= cF * cH].

Definition X6 := forall n (H F : 'M[R]_n) top low ue uh, pd H -> pd F -> largest H top -> smallest H low ->
  nrm ue = 1 -> nrm uh = 1 -> H *m ue = low *: ue -> H *m uh = top *: uh ->
  let step (g : 'cV[R]_n) l := - (invmx (l *: F) *m g) in
  [/\ forall g l, 0 < l -> let regularized d := dot g d + l / 2%:R * dot d (F *m d) in
        (forall d, regularized (step g l) <= regularized d) /\ forall d, regularized d <= regularized (step g l) -> d = step g l,
      forall fe fh, F *m ue = fe *: ue -> F *m uh = fh *: uh -> forall a b tau Delta,
        0 < a -> 0 < b -> 0 < tau -> 0 < Delta ->
        ((exists l, [/\ 0 < l, Delta <= nrm (step (- (a *: ue)) l) & ellipsoid H tau (step (- (b *: uh)) l)]) <->
         b / a <= tau * fh / (Delta * fe * Num.sqrt top)),
      forall fe fh, F *m ue = fe *: ue -> F *m uh = fh *: uh -> forall a b tau theta,
        0 < a -> 0 < b -> 0 < tau -> 0 < theta ->
        ((exists l, [/\ 0 < l, theta * tau <= hlen H (step (- (a *: ue)) l) <= tau
                      & theta * tau <= hlen H (step (- (b *: uh)) l) <= tau]) <->
         theta <= b / a * Num.sqrt (top / low) * (fe / fh) <= theta^-1),
      forall u w, u != 0 -> w != 0 -> exists c, 0 < c /\ forall a b tau theta,
        0 < a -> 0 < b -> 0 < tau -> 0 < theta ->
        ((exists l, [/\ 0 < l, theta * tau <= hlen H (step (- (a *: u)) l) <= tau
                      & theta * tau <= hlen H (step (- (b *: w)) l) <= tau]) <-> theta * c <= b / a <= c / theta)
    & forall g r, g != 0 -> 0 <= r -> let d := - ((r / Num.sqrt (dot g (invmx H *m g))) *: (invmx H *m g)) in
        [/\ ellipsoid H r d, forall x, ellipsoid H r x -> dot g d <= dot g x,
            forall x, ellipsoid H r x -> dot g x <= dot g d -> x = d & hlen H d = r]].

Definition X7 := forall n (H : 'M[R]_n) top low ue uh, pd H -> largest H top -> smallest H low ->
  nrm ue = 1 -> nrm uh = 1 -> H *m ue = low *: ue -> H *m uh = top *: uh ->
  forall a b tau Delta, 0 < a -> 0 < b -> 0 < tau -> 0 < Delta ->
  let serves Ae Ah l := Delta <= nrm (displacement Ae (- (a *: ue)) l) /\
                        ellipsoid H tau (displacement Ah (- (b *: uh)) l) in
  [/\ forall Ae Ah floor ae ah, sym Ae -> sym Ah -> (forall l, floor < l -> pd (Ae + l%:M) /\ pd (Ah + l%:M)) ->
        Ae *m ue = ae *: ue -> Ah *m uh = ah *: uh ->
        ((exists l, floor < l /\ serves Ae Ah l) <->
         floor < a / Delta - ae /\ b * Num.sqrt top / tau - ah <= a / Delta - ae),
      forall A least, sym A -> smallest A least -> let floor := Num.max 0 (- least) in
        (forall l, floor < l -> pd (A + l%:M)) /\
        (a / Delta - least < b * Num.sqrt top / tau - dot uh (A *m uh) -> ~ exists l, floor < l /\ serves A A l) /\
        (b * Num.sqrt top / tau - least <= a / Delta - dot ue (A *m ue) -> floor < a / Delta - dot ue (A *m ue) ->
         exists l, floor < l /\ serves A A l)
    & forall A, sym A -> (exists al, A *m uh = al *: uh) \/ n = 2%N -> forall l1 l2, l1 < l2 -> pd (A + l1%:M) ->
        let hard l := hlen H (displacement A (- (b *: uh)) l) in hard l2 < hard l1].

(* == Section 4 and Theorem 3 == *)

Definition L3 :=
  [/\ forall n (X E : 'M[R]_n) mu e, above mu X -> 0 <= e -> e < mu -> bounded E e ->
        X + E \in unitmx /\ bounded (invmx (X + E) - invmx X) (e / (mu * (mu - e))),
      forall n (X E : 'M[R]_n) mu e, 0 < mu -> above mu X -> above mu (X + E) -> 0 <= e -> bounded E e ->
        bounded (invmx (X + E) - invmx X) (e / (mu * (mu + e)))
    & forall n mu e, 0 < mu -> 0 <= e -> exists X E : 'M[R]_n.+1, [/\ above mu X, above mu (X + E), bounded E e
        & forall c, bounded (invmx (X + E) - invmx X) c -> e / (mu * (mu + e)) <= c]].

Definition L4 := forall n (G1 G2 : 'M[R]_n) k1 k2 mu ek eC B, 0 < mu -> above mu G1 -> above mu G2 ->
  0 <= eC -> bounded (G2 - G1) eC -> nrm (k1 - k2) <= ek -> nrm k2 <= B ->
  nrm (channel G1 k1 - channel G2 k2) <=
  ek / mu + Num.min (eC / (2%:R * mu * Num.sqrt mu)) (B * eC / (mu * (mu + eC))).

Definition L5 := forall m n (f : 'M[R]_(m, n) -> R) W c q z Gamma, gradient f (W + (z - c) *m q^T) Gamma ->
  [/\ gradient (fun z : 'cV[R]_m => f (W + (z - c) *m q^T)) z (Gamma *m q),
      nrm (Gamma *m q) <= frob Gamma * nrm q
    & forall s, bounded Gamma s -> nrm (Gamma *m q) <= s * nrm q].

Definition X8 :=
  (forall m n p (f : 'M[R]_(m, n) -> R) W (C : 'M[R]_(m, p)) (Q : 'M[R]_(n, p)) Z Gamma,
    gradient f (W + (Z - C) *m Q^T) Gamma -> gradient (fun Z : 'M[R]_(m, p) => f (W + (Z - C) *m Q^T)) Z (Gamma *m Q)) /\
  forall m n p (f : 'M[R]_(m, p) -> R) W (C Z E : 'M[R]_(m, p)) (G : 'M[R]_n) (K : 'M[R]_(n, p)), pd G ->
    gradient f ((W + batch_edit G K (Z - C)) *m K) E ->
    gradient (fun Z => f ((W + batch_edit G K (Z - C)) *m K)) Z (E *m retention G K).

Definition J1 := forall n (E : 'M[R]_n) e, 0 <= e -> e < 1 -> bounded E e ->
  [/\ 1%:M + E \in unitmx,
      forall r : 'cV[R]_n -> 'cV[R]_n, (forall z, (1%:M + E) *m r z = z) -> forall z, jacobian r z (invmx (1%:M + E))
    & bounded (invmx (1%:M + E) - 1%:M) (e / (1 - e))].

(* the gradient of a loss of several weights, layer by layer *)
Definition gradients L d (n : 'I_L -> nat) (f : (forall l, 'M[R]_(d, n l)) -> R) W (Gamma : forall l, 'M[R]_(d, n l)) :=
  forall e, 0 < e -> exists t, 0 < t /\ forall X : (forall l, 'M[R]_(d, n l)), (forall l, frob (X l - W l) <= t) ->
  `|f X - f W - \sum_l inner (Gamma l) (X l - W l)| <= e * \sum_l frob (X l - W l).

Definition T3a := forall L d (n : 'I_L.+1 -> nat) (f : (forall l, 'M[R]_(d, n l)) -> R) W q (phi : 'I_L.+1 -> 'cV[R]_d -> 'cV[R]_d)
    J (Gamma : forall l, 'M[R]_(d, n l)) z,
  let edited z l := W l + phi l z *m (q l)^T in
  let g l := layer_gradient (J l) (Gamma l) (q l) in
  let proxy := Gamma ord_max *m q ord_max in
  (forall l, jacobian (phi l) z (J l)) -> gradients f (edited z) Gamma ->
  gradient (fun z => f (edited z)) z (\sum_l g l) /\
  forall gamma eps s, \sum_(l | l != ord_max) nrm (g l) <= gamma * nrm (g ord_max) ->
    0 <= eps -> bounded (J ord_max - 1%:M) eps -> bounded (Gamma ord_max) s ->
    nrm (\sum_l g l - proxy) <= gamma * nrm (g ord_max) + eps * s * nrm (q ord_max).

Definition T3b := forall L d (n : 'I_L.+1 -> nat) q J (Gamma : forall l, 'M[R]_(d, n l)) gamma eps s,
  let g l := layer_gradient (J l) (Gamma l) (q l) in
  let proxy := Gamma ord_max *m q ord_max in
  let sigma := nrm proxy / (s * nrm (q ord_max)) in
  let zeta := gamma * (1 + eps) + eps / sigma in let zeta' := gamma * (1 + eps) + eps in
  0 <= gamma -> 0 <= eps -> \sum_(l | l != ord_max) nrm (g l) <= gamma * nrm (g ord_max) ->
  bounded (J ord_max - 1%:M) eps -> bounded (Gamma ord_max) s -> proxy != 0 ->
  zeta' <= zeta /\ forall t, zeta' <= t ->
    [/\ nrm (\sum_l g l - proxy) <= t * nrm proxy, (1 - t) * nrm proxy ^+ 2 <= dot (\sum_l g l) proxy
      & t < 1 -> 0 < (1 - t) * nrm proxy ^+ 2].

Definition T3c :=
  (forall L d (n : 'I_L.+1 -> nat) q J (Gamma : forall l, 'M[R]_(d, n l)) gamma eps c,
    let g l := layer_gradient (J l) (Gamma l) (q l) in
    let proxy := Gamma ord_max *m q ord_max in
    0 <= gamma <= 1 -> 0 <= eps <= 1 -> 0 < c -> g ord_max != 0 ->
    \sum_(l | l != ord_max) nrm (g l) <= gamma * nrm (g ord_max) -> bounded (c^-1 *: J ord_max - 1%:M) eps ->
    let bound := Num.sqrt ((1 - eps ^+ 2) * (1 - gamma ^+ 2)) - eps * gamma in
    [/\ bound * (nrm (\sum_l g l) * nrm proxy) <= dot (\sum_l g l) proxy,
        (0 < bound) = (gamma ^+ 2 + eps ^+ 2 < 1)
      & gamma ^+ 2 + eps ^+ 2 < 1 -> 0 < dot (\sum_l g l) proxy]) /\
  forall gamma eps, 0 <= gamma < 1 -> 0 <= eps < 1 ->
    exists (J : 'I_2 -> 'M[R]_2) (Gamma : 'I_2 -> 'M[R]_(2, 1)) (q : 'I_2 -> 'cV[R]_1),
    let g l := layer_gradient (J l) (Gamma l) (q l) in
    let proxy := Gamma ord_max *m q ord_max in
    [/\ bounded (J ord_max - 1%:M) eps, g ord_max != 0 /\ \sum_l g l != 0,
        \sum_(l | l != ord_max) nrm (g l) <= gamma * nrm (g ord_max),
        dot (\sum_l g l) proxy =
          (Num.sqrt ((1 - eps ^+ 2) * (1 - gamma ^+ 2)) - eps * gamma) * (nrm (\sum_l g l) * nrm proxy)
      & 1 <= gamma ^+ 2 + eps ^+ 2 -> dot (\sum_l g l) proxy <= 0].

(* MEMIT's allocation over layers 0..n-1: layer l is asked for 1/(n-l) of what is missing, a share eta_l arrives *)
Fixpoint missing n (eta : nat -> R) l : R := if l is l'.+1 then missing n eta l' * (1 - eta l' / (n - l')%:R) else 1.
Fixpoint stream d n (eta : nat -> R) (z h : 'cV[R]_d) l : 'cV[R]_d :=
  if l is l'.+1 then let x := stream n eta z h l' in x + eta l' *: ((n - l')%:R^-1 *: (z - x)) else h.
Definition asked d n eta (z h : 'cV[R]_d) l : 'cV[R]_d := (n - l)%:R^-1 *: (z - stream n eta z h l).

Definition A1 := forall d n eta (h : 'cV[R]_d.+1), (0 < n)%N ->
  (forall z, jacobian (fun z => asked n eta z h 0) z (n%:R^-1)%:M) /\
  forall (J : 'M[R]_d.+1) eJ eI, bounded ((n%:R^-1)%:M - J) eJ -> bounded (J - 1%:M) eI -> 1 - n%:R^-1 <= eJ + eI.

Definition A2 := forall n eta,
  [/\ forall d (z h : 'cV[R]_d) l, (l < n)%N ->
        asked n eta z h l = (missing n eta l / (n - l)%:R) *: (z - h) /\
        jacobian (fun z => asked n eta z h l) z (missing n eta l / (n - l)%:R)%:M,
      forall d (z h : 'cV[R]_d), stream n eta z h n - h = (1 - \prod_(l < n) (1 - eta l / (n - l)%:R)) *: (z - h)
    & (1 < n)%N -> (forall l, (l < n)%N -> 0 < eta l < 1) ->
        let gamma := (\sum_(l < n.-1) missing n eta l / (n - l)%:R) / missing n eta n.-1 in
        \sum_(l < n) l.+1%:R^-1 - 1 < gamma < n%:R - 1].

(* == Refutations: the statement is the failure of what the prose says == *)

Definition J2 := exists n (G : 'M[R]_n) (k : 'cV[R]_n), pd G /\
  forall d (z h : 'cV[R]_d.+1), let J := (3%:R / 4%:R)%:M in
  jacobian (fun z => asked 2 (fun=> eta G k) z h 1) z J /\ forall e, bounded (J - 1%:M) e -> 4%:R^-1 <= e.

Definition P1 := forall m n (G : 'M[R]_n) (k : 'cV[R]_n) (h : 'cV[R]_m) (z : nat -> 'cV[R]_m), pd G ->
  (forall t, edit G k (z t - h) *m k = eta G k *: (z t - h)) /\ eta G k < 1.

Definition P2 := forall m n (G : 'M[R]_n) (k : 'cV[R]_n) (f : 'cV[R]_m -> R) W e, pd G -> gradient f (W *m k) e ->
  (exists Gamma, gradient (fun W => f (W *m k)) W Gamma) /\
  forall Gamma, gradient (fun W => f (W *m k)) W Gamma -> Gamma *m channel G k = eta G k *: e.

Definition P5 := forall m n (k : 'cV[R]_n) (delta : 'cV[R]_m), k != 0 ->
  (forall e, 0 < e -> exists G : 'M[R]_n, pd G /\ rho G k < e) /\
  forall G : 'M[R]_n, pd G -> edit G k ((eta G k)^-1 *: delta) *m k = delta /\
    forall D M, D *m k = delta -> M * rho G k < nrm delta ^+ 2 -> M < cost G D.

Definition P6 := forall m n (G : 'M[R]_n) (k : 'cV[R]_n) (h : 'cV[R]_m) (z : nat -> 'cV[R]_m) t, z t != h ->
  let D := edit G k (z t - h) in let q := channel G k in cost G D / frob D ^+ 2 = dot q (G *m q) / nrm q ^+ 2.

Definition P7 :=
  (forall m n (P : 'M[R]_n) beta k (r : 'cV[R]_m) (Gamma : 'M[R]_(m, n)), P *m k = 0 ->
     projected_edit P beta k r = 0 /\ Gamma *m channel beta%:M (P *m k) = 0) /\
  exists (P : 'M[R]_2) (k : 'cV[R]_2), [/\ projector P, P != 0, k != 0 & P *m k = 0].

(* the first step of Adam: rate a, decays b1 and b2, guard eps *)
Definition adam_step n a b1 b2 eps (g : 'cV[R]_n) : 'cV[R]_n :=
  \col_i - (a * (((1 - b1) * g i 0) / (1 - b1)) / (Num.sqrt ((1 - b2) * g i 0 ^+ 2 / (1 - b2)) + eps)).
Definition P11 := exists g proxy : 'cV[R]_2, [/\ nrm (g - proxy) < nrm proxy, 0 < dot g proxy
  & forall a b1 b2 eps, 0 < a -> b1 < 1 -> b2 < 1 -> 0 <= eps <= 100%:R^-1 -> 0 < dot g (adam_step a b1 b2 eps proxy)].

Definition P12 := exists (J Gamma : 'M[R]_2) (q pull : 'cV[R]_2),
  [/\ bounded (J - 1%:M) 2%:R^-1, bounded Gamma 1, nrm (Gamma *m q) = nrm q, q != 0
    & dot (layer_gradient J Gamma q + pull) (Gamma *m q + pull) < 0].

Fixpoint realized a eta t : R := if t is t'.+1 then let d := realized a eta t' in d - a * (eta * (eta * d - 1)) else 0.
Definition P13 :=
  (forall a eta t, eta * realized a eta t = 1 - (1 - a * eta ^+ 2) ^+ t) /\
  (forall eta (d : 'M[R]_1), gradient (fun d : 'M[R]_1 => (eta * d 0 0 - 1) ^+ 2 / 2%:R) d (eta * (eta * d 0 0 - 1))%:M) /\
  forall m n (f : 'M[R]_(m, n) -> R) W h q z Gamma, gradient f (W + (z - h) *m q^T) Gamma ->
    gradient (fun z : 'cV[R]_m => f (W + (z - h) *m q^T)) z (Gamma *m q).

Definition X9 := forall L d (g : 'I_L.+1 -> 'cV[R]_d) proxy eps, (forall l, 0 <= dot (g l) proxy) ->
  0 < (1 - eps) * nrm proxy ^+ 2 -> (1 - eps) * nrm proxy ^+ 2 <= dot (g ord_max) proxy -> 0 < dot (\sum_l g l) proxy.

(* == Parts of claims: what of X4 and of X11 is proved == *)

(* a solve that is backward stable: its x solves G + E in place of G *)
Definition X4_part := forall n (G E : 'M[R]_n) (k x : 'cV[R]_n) top low u, pd G -> largest G top -> smallest G low ->
  0 <= u -> bounded E (u * top) -> let e := u * (top / low) in e < 1 -> (G + E) *m x = k -> let computed := dot k x in
  [/\ 0 <= computed, `|computed - rho G k| <= e / (1 - e) * rho G k
    & `|computed / (1 + computed) - eta G k| <= e / (1 - e) * eta G k].

(* Gamma' and q' are taken at the virtual edits; moving l is what flows through channels that move with z *)
Definition X11_part := forall L d (n : 'I_L -> nat) (J : 'I_L -> 'M[R]_d) (Gamma Gamma' : forall l, 'M[R]_(d, n l))
    (q q' : forall l, 'cV[R]_(n l)) (moving : 'I_L -> 'cV[R]_d) s e,
  (forall l, 0 <= s l) -> (forall l, 0 <= e l) -> (forall l, bounded (J l - (s l)%:M) (e l)) ->
  let g := \sum_l (layer_gradient (J l) (Gamma l) (q l) + moving l) in
  let parallel := \sum_l s l *: (Gamma' l *m q' l) in
  nrm (g - parallel) <= \sum_l (e l * nrm (Gamma l *m q l) + s l * nrm (Gamma l *m (q l - q' l)) +
                                s l * nrm ((Gamma l - Gamma' l) *m q' l) + nrm (moving l)).

End Statements.
