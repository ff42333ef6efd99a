"""Numbers of channels that grow from stage to stage."""

from __future__ import annotations


def geometric_widths(first: int, last: int, steps: int, multiple: int = 1) -> list[int]:
    """`steps` widths from `first` to `last`, each the same factor wider, rounded to multiples of `multiple`.

    One step is `last` alone. Source: the encoders of Enformer (multiples of 128) and Borzoi (of 32).
    Raises ValueError where a width would round to 0 or the last would not be what was asked for.
    """
    if last % multiple:
        raise ValueError(f"{last} channels are no multiple of {multiple}")
    exact = [first * (last / first) ** (i / (steps - 1)) for i in range(steps)] if steps > 1 else [last]
    widths = [round(width / multiple) * multiple for width in exact]
    if not all(widths):
        raise ValueError(f"a width of {min(exact):.0f} channels rounds to no multiple of {multiple}")
    return widths
