"""Does the run fit the GPU? By the estimate, before any weight is loaded."""

import torch

from common.devices import GIB
from common.errors import UserError
from intrinsic.base import Bonus
from policy.load import architecture_of
from training.fit.estimate import estimate
from training.fit.out_of_memory import advice, work_of
from training.problems import longest_prompt
from training.run_options import RunConfig, RunOptions

# The estimate takes every prompt and completion as long as they may be, which few batches are. Beyond this many times
# the GPU's memory even ordinary batches do not fit.
HOPELESS = 1.5


def room_warning(options: RunOptions, config: RunConfig, bonuses: list[Bonus], encoder) -> str | None:
    """A warning, with what to change, where the run may need more memory than its GPU has; None where it fits.

    Nothing is said off a GPU, for several processes, and with vLLM, whose memory the estimate does not know. Raises
    `UserError` where the estimate is more than `HOPELESS` times the GPU's memory.
    """
    if config.device.type != "cuda" or config.world_size > 1 or config.use_vllm:
        return None
    card = torch.cuda.get_device_properties(config.device)
    work = work_of(options, config, bonuses, encoder, longest_prompt(options, config))
    peak = estimate(architecture_of(options.model_name), options, work).peak
    if peak <= card.total_memory:
        return None
    flags = advice(options, work, card.total_memory)
    text = (
        f"{options.model_name} is estimated to take up to {peak / GIB:.1f} GiB under these flags, and {card.name} has "
        f"{card.total_memory / GIB:.1f} GiB; take less by, in this order, each on top of those before: {flags}."
    )
    if peak > HOPELESS * card.total_memory:
        raise UserError(text)
    return f"warning: {text}"
