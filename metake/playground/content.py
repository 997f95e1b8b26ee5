"""What the page shows of a session, as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from metake.methods.base import Method
from metake.methods.lookup_keys import MIN_KEY_COSINE
from metake.playground.choices import Choice, offers
from metake.playground.drawing import WIDTH, svg
from metake.playground.formats import FORMATS
from metake.playground.session import Entry, Plan, Session
from metake.presets import preset_name
from metake.preview import Preview
from metake.report.figures import BLACK, BLUE, GREEN, RED, panels
from metake.words import shown

SETTINGS = (
    "lam",
    "l2",
    "attenuation",
    "lr",
    "steps",
    "meta_lr",
    "meta_steps",
    "contexts",
    "consistent_lookup",
)
LOOKUP = {"subject": "last token of the subject", "prompt": "last token of the prompt"}


def described(session: Session) -> dict[str, Any]:
    """Model, methods and edits of a session.

    Args:
        session: the session.

    Returns:
        Plain values.
    """
    model = session.model
    return {
        "model": model.name,
        "layers": len(model),
        "preset": preset_name(model),
        "methods": [asdict(offer) for offer in offers()],
        "forms": {name: form.summary for name, form in FORMATS.items()},
        **edits(session),
    }


def edits(session: Session) -> dict[str, Any]:
    """Edits that the model holds, with the revision.

    Args:
        session: the session.

    Returns:
        Plain values.
    """
    return {"revision": session.revision, "edits": [_edit(entry) for entry in session.entries]}


def _edit(entry: Entry) -> dict[str, Any]:
    result, request = entry.result, entry.request
    answer = result.answers[0] if result.answers else None
    return {
        "prompt": request.text,
        "subject": request.subject,
        "target": request.target_new,
        "method": _named(entry.choice),
        "success": result.success[0],
        "before": shown(answer.before) if answer else "",
        "after": shown(answer.after, wanted=answer.wanted) if answer else "",
        "realized": float(result.realized_share[0]) if result.stages else None,
        "seconds": result.seconds,
        "reasons": [f"{name}: {reason}" for name, reason in result.failure_reasons.items()],
    }


def _named(choice: Choice) -> str:
    """Method and strength of a choice."""
    strength = "" if choice.strength is None else f", eta {choice.strength:g}"
    return choice.method + strength + (", calibrated settings" if choice.calibrate else "")


def planned(plan: Plan) -> dict[str, Any]:
    """Predicted realization of an edit, its settings and their reasons.

    Args:
        plan: the plan.

    Returns:
        Plain values, with a figure.
    """
    method = plan.editor.method
    found: dict[str, Any] = {
        "method": _named(plan.choice),
        "subject": plan.request.subject,
        "layers": list(method.layers),
        "settings": _settings(method),
        "reasons": list(plan.editor.reasons),
        "notes": [],
        "rows": [],
    }
    preview = plan.preview
    if preview is None:
        found["notes"] = [f"{method.name} does not solve in a geometry, so no attenuation is predicted."]
        return found
    eta, rho, cosine = preview.eta[:, 0], preview.rho[:, 0], preview.cosine[:, 0]
    found["rows"] = [
        {"layer": layer, "eta": float(e), "rho": float(r), "cosine": float(c)}
        for layer, e, r, c in zip(preview.layers, eta, rho, cosine, strict=True)
    ]
    found["settings"] |= {name: f"{value:.4g}" for name, value in preview.constraint.items()}
    found["predicted"] = float(preview.predicted[0])
    found["notes"] = _key_notes(plan, preview)
    found["figure"] = svg(lambda: draw_attenuation(preview))
    return found


def _settings(method: Method) -> dict[str, str]:
    """Settings that determine how strong an edit is and where it is written."""
    found = {name: method.value(name) for name in SETTINGS if method.paths(name)}
    shown = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in found.items()
        if value is not None
    }
    lookup = getattr(method, "lookup", "")
    return ({"keys read at": LOOKUP.get(lookup, lookup)} if lookup else {}) | shown


def _key_notes(plan: Plan, preview: Preview) -> list[str]:
    """Lines on the consistency of the key: the bare prompt's against those in other contexts."""
    if any(preview.moved):
        return [
            f"Inconsistent key at the subject: it is read at the prompt's last token instead (cosine below {MIN_KEY_COSINE})."
        ]
    low = float(preview.cosine.min())
    if preview.inconsistent_subjects:
        return [
            f"Inconsistent key: the key of {plan.request.subject} in the bare prompt differs from its mean key in other contexts "
            f"(cosine {low:.2f}, below {MIN_KEY_COSINE}). The edit may fail in both; begin the prompt with other words."
        ]
    return [
        f"The key is consistent: bare prompt and other contexts have a cosine of at least {low:.2f} at each layer."
    ]


def draw_attenuation(preview: Preview) -> Any:
    """Bars of the predicted attenuation per layer, and the cosine of the key with that in contexts.

    Args:
        preview: preview of one request.

    Returns:
        The figure.
    """
    names = [f"layer {layer}" for layer in preview.layers]
    eta, cosine = preview.eta[:, 0].tolist(), preview.cosine[:, 0].tolist()
    figure, (left, right) = panels(
        1, 2, figsize=(WIDTH, 0.9 + 0.3 * len(names)), width_ratios=(3, 2), sharey=True
    )
    left.barh(names, eta, color=BLUE, height=0.6)
    for i, value in enumerate(eta):
        inside = value > 0.75
        left.text(value - 0.02 if inside else value + 0.02, i, f"{value:.2f}", va="center",
                  ha="right" if inside else "left", color="white" if inside else BLACK)  # fmt: skip
    total = float(preview.predicted[0])
    left.axvline(total, color=GREEN, ls="--", lw=1.2)
    left.set(xlim=(0, 1), xlabel=r"attenuation $\eta$", title=f"all layers: {total:.2f} (dashed)")
    right.plot(cosine, names, "o", color=BLUE)
    right.axvline(MIN_KEY_COSINE, color=RED, ls=":", lw=1.2)
    right.set(
        xlim=(min(-0.05, *cosine), 1.05),
        xlabel="cosine of the key\nwith that in contexts",
        title="left of dotted: inconsistent",
    )
    left.invert_yaxis()
    return figure
