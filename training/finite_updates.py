"""Optimiser steps with a NaN or infinite gradient: left out one by one, and after several in a row the run stops."""

import logging

import torch
from transformers import TrainerCallback

from common.errors import RunError
from common.sharding import local

logger = logging.getLogger(__name__)


class FiniteUpdates(TrainerCallback):
    """Leaves out an update whose gradient is not finite, which would make every weight NaN for good.

    Raises `RunError` at the third such update in a row. Nothing is done under fp16, whose gradient scaler leaves out
    updates by itself. On several processes all leave out the same update.
    """

    MAX_STREAK = 3

    def __init__(self):
        self.streak = 0

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if args.fp16:
            return
        if self._is_finite(args, model):
            self.streak = 0
            return
        self.streak += 1
        step = state.global_step + 1
        if self.streak >= self.MAX_STREAK:
            raise RunError(
                f"the gradient was NaN or infinite in {self.streak} updates in a row, the last at step {step}; lower "
                "--learning_rate or --ir_weight and go on from an earlier checkpoint with --resume."
            )
        logger.warning("the gradient of step %d is NaN or infinite: its update is left out", step)
        # Without gradients the optimiser changes neither weights nor its moments.
        model.zero_grad(set_to_none=True)

    @staticmethod
    def _is_finite(args, model) -> bool:
        # Of a sharded gradient each process looks at its part.
        gradients = [local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
        broken = (~torch.nn.utils.get_total_norm(gradients).isfinite()).float().to(args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(broken, op=torch.distributed.ReduceOp.MAX)
        return not broken
