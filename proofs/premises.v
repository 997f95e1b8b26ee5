(* The question whether a statement of statements.v has instances, made from the statement itself, so that no premise can be
   left out. `premises_met S` says, for every chain of premises that leads to a conclusion of S: all of them hold at once.
   A `forall` becomes an `exists`, a premise a conjunct, and the conclusion is dropped. Every size is at least N for any given N,
   and every number, vector and matrix is non-zero, as are those of a family. A premise below an `exists` of the
   conclusion has to be met for whatever is found there. *)
From mathcomp Require Import all_ssreflect all_algebra.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory.
Local Open Scope ring_scope.

(* what is asked of an object of type A *)
Ltac nontrivial N A :=
  lazymatch A with
  | nat => constr:(fun x : A => is_true (N <= x)%N)
  | _ -> nat => constr:(fun x : A => forall i, is_true (N <= x i)%N)
  | nat -> _ => constr:(ltac:(first [exact (fun x : A => forall i, is_true (x i != 0)) | exact (fun _ : A => True)]))
  | forall i : ordinal _, _ => constr:(ltac:(first [exact (fun x : A => forall i, is_true (x i != 0)) | exact (fun _ : A => True)]))
  | _ -> _ => constr:(fun _ : A => True)
  | _ => constr:(ltac:(first [exact (fun x : A => is_true (x != 0 :> A)) | exact (fun _ : A => True)]))
  end.

(* lists of propositions: one after another; each below `A /\`, `exists x, c x /\` or `forall x, c x ->`; all at once *)
Ltac append s t :=
  lazymatch s with nil => t | cons ?P ?s => let r := append s t in constr:(cons P r) end.
Ltac below_and A s :=
  lazymatch s with nil => s | cons ?P ?s => let r := below_and A s in constr:(cons (A /\ P) r) end.
Ltac below_exists c s :=
  lazymatch s with
  | fun x => nil => constr:(@nil Prop)
  | fun x : ?A => cons (@?P x) (@?s x) =>
      let r := below_exists c s in
      let h := lazymatch c with fun _ => True => constr:(exists x : A, P x) | _ => constr:(exists x : A, c x /\ P x) end in
      let h := eval cbv beta in h in constr:(cons h r)
  end.
Ltac below_forall c s :=
  lazymatch s with
  | fun x => nil => constr:(@nil Prop)
  | fun x : ?A => cons (@?P x) (@?s x) =>
      let r := below_forall c s in let h := eval cbv beta in (forall x : A, c x -> P x) in constr:(cons h r)
  end.
Ltac all_of s :=
  lazymatch s with
  | nil => constr:(True)
  | cons ?P nil => constr:(P)
  | cons ?P ?s => let r := all_of s in constr:(P /\ r)
  end.

(* the chains of premises of P; `free`: no `exists` stands before them *)
Ltac chains N free P :=
  let P := eval cbv beta zeta in P in
  lazymatch P with
  | ?A /\ ?B => let a := chains N free A in let b := chains N free B in append a b
  | [/\ ?A, ?B & ?C] => chains N free (A /\ (B /\ C))
  | [/\ ?A, ?B, ?C & ?D] => chains N free (A /\ (B /\ (C /\ D)))
  | [/\ ?A, ?B, ?C, ?D & ?E] => chains N free (A /\ (B /\ (C /\ (D /\ E))))
  | exists x : ?A, @?B x =>
      let s := constr:(fun x : A => ltac:(let q := chains N false (B x) in exact (q : seq Prop))) in
      let s := eval cbv beta in s in below_forall B s
  | ?A -> ?B =>
      lazymatch type of A with
      | Prop => let s := chains N free B in lazymatch s with nil => constr:(cons A nil) | _ => below_and A s end
      end
  | forall x : ?A, @?B x =>
      let s := constr:(fun x : A => ltac:(let q := chains N free (B x) in exact (q : seq Prop))) in
      let c := lazymatch free with true => nontrivial N A | false => constr:(fun _ : A => True) end in
      below_exists c s
  | _ => constr:(@nil Prop)
  end.

Ltac premises_met S :=
  let name := lazymatch S with ?f _ => f end in
  let P := eval unfold name in S in
  constr:(forall N : nat, ltac:(let s := chains N true P in let a := all_of s in exact a)).

Notation premises_met S := (ltac:(let P := premises_met S in exact P)) (only parsing).
