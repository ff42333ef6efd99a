"""A small study: probes of a small encoder, with and without weights from another assay."""

from __future__ import annotations

from agblocks.studies import load_study, plan

PROBES = """
study: 1
name: probes
about: Which stage of a tiny encoder says most?
data:
  sim: {simulate: {n: 90, length: 40, folds: 5}}
  other: {simulate: {n: 90, length: 40, folds: 5, seed: 3}}
cell:
  data: sim
  recipe: tiny
  fit: ridge
vary:
  tap: [encoder.stage1, encoder.stage3]
  pool:
    mean: {head.pool: mean}
    peak: {head.pool: max}
  fold: ["0", "3"]
controls: [kmer]
reference: {tap: encoder.stage3, pool: mean}
report: {x: tap, line: pool}
"""

TRANSFER = """
study: 1
name: transfer
data:
  sim: {simulate: {n: 90, length: 40, folds: 5}}
  other: {simulate: {n: 90, length: 40, folds: 5, seed: 3}}
pretrain:
  base: {recipe: tiny, data: other, fold: "4", training: {epochs: 1}}
cell:
  data: sim
  recipe: tiny
  set: {encoder.stages: 3}
  transfer: {weights: base, tune: head}
  training: {epochs: 1}
vary:
  tap: [encoder.stage1, encoder.stage3]
  way:
    probe: {fit: ridge}
    frozen: {fit: gradient}
    finetune: {fit: gradient, transfer.tune: full}
  fold: ["0"]
  seed: [0]
controls: [random, kmer, full]
reference: {control: random}
"""


def planned(text=PROBES, *overrides):
    return plan(load_study(text, *overrides))
