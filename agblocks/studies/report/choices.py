"""One of several figures at a time, by radio buttons that need no script; on paper all of them."""

from __future__ import annotations

from collections.abc import Mapping

from .html import Markup, join, tag


def choices(name: str, question: str, options: Mapping[str, tuple[str, Markup]]) -> Markup:
    """Figures under a row of buttons, the first shown.

    options: key -> (label, figure). One option alone needs no button.
    """
    if len(options) == 1:
        return next(iter(options.values()))[1]
    buttons = [
        tag("label", tag("input", type="radio", name=name, id=f"{name}-{key}", checked=i == 0), said)
        for i, (key, (said, _)) in enumerate(options.items())
    ]
    rules = [f":root:has(#{name}-{key}:checked) .{name}-{key}{{display:block}}" for key in options]
    # Where :has() is not known, all figures stand one below the other.
    style = f"@supports selector(:has(*)){{.for-{name}>*{{display:none}}{''.join(rules)}}}"
    shown = [
        tag("div", tag("h3", said, class_="shown-title"), figure, class_=f"{name}-{key}")
        for key, (said, figure) in options.items()
    ]
    return join([
        tag("style", Markup(style)), tag("fieldset", tag("legend", question), *buttons, class_="choice"),
        tag("div", *shown, class_=f"choices for-{name}"),
    ])  # fmt: skip
