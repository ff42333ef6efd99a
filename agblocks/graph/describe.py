"""A resolved recipe in words and as a picture: what `agblocks show` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .resolved import Resolved, ResolvedNode

if TYPE_CHECKING:
    from .cost import Cost


def parameters(resolved: Resolved) -> dict[str, int]:
    """How many parameters each node has, counted on the meta device."""
    from .build import build

    model = build(resolved, device="meta")
    return {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in resolved.nodes}


def table(
    resolved: Resolved, counts: Mapping[str, int] | None = None, inner: bool = True, cost: Cost | None = None
) -> str:
    """One line a node: what it reads, its shape, parameters and receptive field; composites with their sums.

    `inner=False` leaves out the nodes inside composites. With a `cost` a column has multiply-adds for each base.
    """
    counts = counts if counts is not None else parameters(resolved)
    adds = cost.per_base if cost is not None else {}
    rows: list[tuple[str, ...]] = [("node", "block", "reads", "shape", "parameters", "sees", "mult-adds/bp")]
    for name, info in resolved.inputs.items():
        rows.append((f"{name}{'?' * info.optional}", "input", "", info.shape, "", "", ""))
    opened: str | None = None
    for node in resolved.nodes.values():
        top, dot, _ = node.name.partition(".")
        if dot and top != opened:
            rows.append((*_group_row(resolved, counts, top), _number(_within(adds, top))))
        opened = top if dot else None
        if inner or not dot:
            rows.append((*_row(resolved, counts, node, "  " * bool(dot)), _number(adds.get(node.name, 0))))
    return "\n".join(_aligned(rows if cost is not None else [row[:-1] for row in rows]))


def summary(resolved: Resolved, counts: Mapping[str, int] | None = None) -> str:
    """What `agblocks show` prints: name, digest, table, heads, length rules, cost, what was dropped."""
    counts = counts if counts is not None else parameters(resolved)
    cost, costs = _cost(resolved)
    lines = [f"{resolved.name}  {resolved.digest[:12]}  {sum(counts.values()):,} parameters", ""]
    lines += [table(resolved, counts, cost=cost), ""]
    for head, weight in resolved.heads.items():
        lines.append(f"head {head}: {resolved.info(head).shape}{_weight(weight)}; {resolved.rule([head])}")
    for edge in resolved.keep:
        lines.append(f"kept {edge}: {resolved.info(edge).shape}; {resolved.rule([edge])}")
    lines += adapters(resolved)
    lines.append(costs)
    gone = [name for name in resolved.dropped if name.rpartition(".")[0] not in resolved.dropped]
    if gone:
        lines.append(f"not built, as no head reads it: {', '.join(gone)}")
    return "\n".join(lines)


def adapters(resolved: Resolved) -> list[str]:
    """The recipe's adapters, one line each, after a line with their digest; nothing where there is none."""
    head = [f"adapters {resolved.adapters_digest[:12]}"] if resolved.adapters else []
    return [*head, *(f"  {spec}" for spec in resolved.adapters)]


def mermaid(resolved: Resolved, inner: bool = False) -> str:
    """The graph as a Mermaid flowchart; composites as one box unless `inner`."""
    lines = ["flowchart TD"]
    boxes: dict[str, str] = {}
    for name, info in resolved.inputs.items():
        boxes[name] = f'{_id(name)}(["{name}{"?" * info.optional} {info.shape}"])'
    for node in resolved.nodes.values():
        box = _box(node.name, inner)
        info = resolved.info(box) if box in resolved.names else resolved.edges[node.outputs[0]]
        shape = f'["{box}<br/>{info.shape}"]' if box not in resolved.heads else f'[["{box}<br/>{info.shape}"]]'
        boxes[box] = f"{_id(box)}{shape}"
    lines += [f"    {box}" for box in boxes.values()]
    owner = {edge: node.name for node in resolved.nodes.values() for edge in node.outputs}
    arrows = dict.fromkeys(
        (_box(owner.get(edge, edge), inner), _box(node.name, inner))
        for node in resolved.nodes.values()
        for edge in node.inputs.values()
    )
    lines += [f"    {_id(a)} --> {_id(b)}" for a, b in arrows if a != b]
    return "\n".join(lines)


def _box(node: str, inner: bool) -> str:
    return node if inner else node.partition(".")[0]


def _id(name: str) -> str:
    return name.replace("_", "__").replace(".", "_")


def _row(resolved: Resolved, counts: Mapping[str, int], node: ResolvedNode, indent: str) -> tuple[str, ...]:
    changed = ", ".join(f"{k}={v}" for k, v in node.args.items() if v != node.entry.defaults[k])
    block = node.entry.name + (f"({changed if len(changed) < 60 else changed[:57] + '...'})" if changed else "")
    info = resolved.edges[node.outputs[0]]
    reads = ", ".join(node.inputs.values())
    return (indent + node.name, block, reads, info.shape, _number(counts[node.name]), _sees(resolved, node.outputs[0]))


def _group_row(resolved: Resolved, counts: Mapping[str, int], top: str) -> tuple[str, ...]:
    total = sum(n for name, n in counts.items() if name.startswith(f"{top}."))
    if top not in resolved.names:
        return (top, "", "", "", _number(total), "")
    return (top, "", "", resolved.info(top).shape, _number(total), _sees(resolved, resolved.names[top]))


def _sees(resolved: Resolved, edge: str) -> str:
    info = resolved.edges[edge]
    if len(info.axes) < 3 or info.integer:
        return ""
    return f"{info.field.width:,} bp" if info.field else "all"


def _cost(resolved: Resolved) -> tuple[Cost | None, str]:
    """Multiply-adds where they can be counted, and what there is to say of them."""
    from .cost import cost

    try:
        found = cost(resolved)
    except Exception as error:  # whatever a block raises where it is given tensors without memory
        return None, f"multiply-adds not counted: {str(error).strip().splitlines()[0]}"
    where = ", ".join(f"{name} = {length:,}" for name, length in found.lengths.items())
    return found, f"{found.total / found.bases:,.0f} multiply-adds for each base{f', at {where}' if where else ''}"


def _within(counts: Mapping[str, float], top: str) -> float:
    return sum(count for name, count in counts.items() if name.startswith(f"{top}."))


def _number(count: float) -> str:
    return "-" if not count else f"{count:,.0f}" if count >= 10 or count == int(count) else f"{count:.2g}"


def _weight(weight: float) -> str:
    return "" if weight == 1.0 else f", loss weight {weight:g}"


def _aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = {4, 5, 6}
    return [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
