"""Draws of records: the same protocol on several samples of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metake.data.record import Record, end_of_case
from metake.evaluation.protocol import Protocol


def draw_records(records: Sequence[Record], count: int, seed: int, per_subject: int = 1) -> list[Record]:
    """Records of a draw: the first ones for seed 0, as published; a sample in random order for any other seed.

    Args:
        records: records of a file, in its order.
        count: number of records, at most; more if the last case needs them.
        seed: seed of the draw.
        per_subject: if above 1, only subjects with at least this many records, and this many adjacent records of each.

    Returns:
        The records, in the order of editing; those of a case are adjacent.
    """
    groups: list[list[Record]] = []
    for record in records:
        together = groups and record.case is not None and groups[-1][-1].case == record.case
        groups[-1].append(record) if together else groups.append([record])
    if per_subject > 1:
        by_subject: dict[str, list[Record]] = {}
        for record in records:
            by_subject.setdefault(record.request.subject, []).append(record)
        groups = [about[:per_subject] for about in by_subject.values() if len(about) >= per_subject]
    if seed > 0:
        groups = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    drawn = [record for group in groups for record in group]
    return drawn[: end_of_case(drawn, count)]


def draw_protocols(protocol: Protocol, count: int, seeds: int, per_subject: int = 1) -> list[Protocol]:
    """Protocols of several draws of one protocol's records, with the contexts of the draw's seed.

    Contradicting records of one batch raise a `MetakeError`, before any draw is run.

    Args:
        protocol: the protocol, with all records.
        count: records of each draw, at most; more if the last case needs them.
        seeds: number of draws; their seeds are 0, 1, ...
        per_subject: as in `draw_records`.

    Returns:
        One protocol per seed.
    """
    drawn = [
        replace(protocol, records=draw_records(protocol.records, count, seed, per_subject), context_seed=seed)
        for seed in range(seeds)
    ]
    for each in drawn:
        each.check()
    return drawn
