"""Choice of the lookup: separability decides, or the reach at both tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metake.calibration.constants import ALIKE, TOLERANCE, TOO_ALIKE
from metake.calibration.locate import locate
from metake.calibration.lookup import LOOKUPS, choose_lookup
from metake.editor import Editor

SHARES = st.floats(0, 1)


def refuse(lookup):
    raise AssertionError(f"the reach at {lookup} was measured")


@given(SHARES, SHARES)
def test_choose_lookup_does_not_measure_the_reach_where_separability_decides(subject, prompt):
    if prompt <= ALIKE or prompt <= subject:
        assert choose_lookup({"subject": subject, "prompt": prompt}, refuse)[0] == "prompt"
    elif prompt > TOO_ALIKE and subject <= ALIKE:
        assert choose_lookup({"subject": subject, "prompt": prompt}, refuse)[0] == "subject"


@given(
    st.one_of(
        st.tuples(st.just(0.05), st.floats(ALIKE, TOO_ALIKE, exclude_min=True)),
        st.tuples(st.just(0.4), st.floats(0.4, 1, exclude_min=True)),
    ),
    SHARES,
    SHARES,
)
def test_choose_lookup_takes_the_one_that_is_reached(alike, at_subject, at_prompt):
    """The subject's, unless the prompt's reaches more than the tolerance above it, or more than twice as much."""
    reached, asked = {"subject": at_subject, "prompt": at_prompt}, []
    lookup, reason = choose_lookup(
        {"subject": alike[0], "prompt": alike[1]}, lambda name: asked.append(name) or reached[name]
    )
    assert lookup == (
        "prompt" if at_prompt > at_subject + TOLERANCE or at_prompt > 2 * at_subject else "subject"
    )
    assert sorted(asked) == sorted(LOOKUPS)
    assert reason.startswith(f"lookup {lookup}: ")
    assert f"{at_prompt:.2f} and {at_subject:.2f}" in reason


def test_locate_measures_no_trial_twice(unchanged, records, statistics, monkeypatch):
    """Two windows at the chosen lookup and one at the other: three trials for a single fact."""
    from metake.calibration import locate as module

    made = []
    measure = module.reach
    monkeypatch.setattr(
        module,
        "reach",
        lambda model, method, *rest: (
            made.append((method.lookup, method.layers)) or measure(model, method, *rest)
        ),
    )
    found = locate(unchanged, [records[1].request], "memit", statistics)
    assert len(made) == len(set(made)) == len(found.windows) + 1
    assert {lookup for lookup, _ in made} == set(LOOKUPS)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_facts_are_edited_as_many_are(unchanged, records, statistics, count):
    """Facts that a batch of 20 reaches at the prompt's last token are reached in a small batch too."""
    requests = [record.request for record in records[3 : 3 + count]]
    method = locate(unchanged, requests, "memit", statistics).method
    with Editor(unchanged, method=method, statistics=statistics, progress=False) as editor:
        assert not editor.edit(requests).failed
