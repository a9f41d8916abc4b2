"""Training on several processes: collectives, and four ways to divide the work.

Chapter:  chapters/06f_scaling_and_distributed.ipynb
"""

from scratchbook.distributed.data_parallel import BucketedGradients, RankBatches
from scratchbook.distributed.pipeline import Stage, gpipe_gradients, gpipe_schedule
from scratchbook.distributed.processes import RanksFailed, join_ranks, run_ranks
from scratchbook.distributed.ring import ring_all_gather, ring_all_reduce, ring_reduce_scatter
from scratchbook.distributed.tensor_parallel import tensor_parallel, whole_weights
from scratchbook.distributed.zero import Zero, zero_bytes

__all__ = [
    "BucketedGradients",
    "RankBatches",
    "RanksFailed",
    "Stage",
    "Zero",
    "gpipe_gradients",
    "gpipe_schedule",
    "join_ranks",
    "ring_all_gather",
    "ring_all_reduce",
    "ring_reduce_scatter",
    "run_ranks",
    "tensor_parallel",
    "whole_weights",
    "zero_bytes",
]
