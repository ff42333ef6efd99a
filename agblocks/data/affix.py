"""Constant ends of a library, found without being told."""

from __future__ import annotations

import os
from collections.abc import Sequence


def common_affixes(sequences: Sequence[str]) -> tuple[str, str]:
    """The longest prefix and the longest suffix that all sequences share; they never overlap.

    Two sequences at least must differ, else there is nothing to tell a constant end from an insert by: one
    sequence, or equal ones, give two empty strings.
    Use when: no construct was declared, and adapters have to be taken off before inserts are compared. In a
    small or poor library a base of the insert can be shared by chance.
    """
    if len(set(sequences)) < 2:
        return "", ""
    prefix = os.path.commonprefix(list(sequences))
    suffix = os.path.commonprefix([s[::-1] for s in sequences])[::-1]
    room = min(map(len, sequences)) - len(prefix)
    return prefix, suffix[len(suffix) - room :] if room < len(suffix) else suffix
