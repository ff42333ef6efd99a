"""Plain modules without registration: what blocks are made of."""

from .activation import ACTIVATIONS, Activation, QuickGELU, activation
from .attention import MultiQueryAttention, PairBias
from .conv import StandardizedConv1d, refresh, same_conv
from .drop import drop_path
from .embedding import OrganismEmbedding, OrganismLinear
from .hookpoint import HookPoint
from .initial import Initial, draw_initial
from .norm import ChannelLayerNorm, Eps, GroupedNorm, LayerNorm, Norm, RMSBatchNorm, Statistics, channel_norm
from .padding import RealTracks, wrong_counts
from .pair import PairMLP, RowAttention, SequenceToPair
from .pool import AttentionPool, MaxPool, MeanPool, sum_pool
from .rest import rest_norms
from .role import role
from .rope import Rope, rotate
from .self_attention import SelfAttention
from .squeeze import SqueezeExcite
from .streaming import attend

__all__ = [
    "ACTIVATIONS", "Activation", "AttentionPool", "ChannelLayerNorm", "Eps", "GroupedNorm", "HookPoint", "Initial",
    "LayerNorm", "MaxPool", "MeanPool", "MultiQueryAttention", "Norm", "OrganismEmbedding", "OrganismLinear",
    "PairBias", "PairMLP", "QuickGELU", "RMSBatchNorm", "RealTracks", "Rope", "RowAttention", "SelfAttention",
    "SequenceToPair", "SqueezeExcite", "StandardizedConv1d", "Statistics", "activation", "attend", "channel_norm",
    "draw_initial", "drop_path", "refresh", "rest_norms", "role", "rotate", "same_conv", "sum_pool", "wrong_counts",
]  # fmt: skip
