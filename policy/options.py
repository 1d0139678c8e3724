"""Flags of the policy: which weights are trained, and in which precision they are kept."""

from dataclasses import dataclass

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig
from transformers.utils import is_bitsandbytes_available

from common.errors import UserError, check_number
from common.flags import flag
from policy.precision import DTYPES, check_dtype, half_type

EMBEDDED_NAME, EMBEDDED_IGSM_NAME = "tiny", "tiny_igsm"  # the first was trained on Countdown
EMBEDDED_NAMES = (EMBEDDED_NAME, EMBEDDED_IGSM_NAME)
ALL_LINEAR = "all-linear"


@dataclass
class PolicyOptions:
    """Which weights are trained, and in which precision they are kept."""

    lora: bool = flag(
        False,
        "Train a LoRA adapter instead of all weights; the run ends with adapter and merged model. An adapter in "
        "--model_name is first merged into its base, which the run folder keeps in base/.",
    )
    lora_r: int = flag(16, "Rank of the LoRA adapter, 1 or more.")
    lora_alpha: int = flag(32, "Scale of the LoRA adapter; its output is multiplied by lora_alpha / lora_r.")
    lora_dropout: float = flag(0.0, "Dropout before the LoRA adapter, in [0, 1).")
    lora_target_modules: str = flag(
        ALL_LINEAR, "Modules that get an adapter, separated by commas, or all-linear (all but the output head)."
    )
    load_in_4bit: bool = flag(
        False,
        "Keep the frozen weights in 4 bits (needs CUDA, bitsandbytes and --lora); an adapter in --model_name is merged "
        "before, in --dtype.",
    )
    dtype: str = flag(
        "auto",
        "Precision of the kept weights: float32, bfloat16, float16 (with --lora only), or auto: float32, and for LoRA "
        "on a GPU bfloat16, or float16 where the GPU has no bfloat16.",
    )
    attn_implementation: str = flag(
        "auto",
        "Attention of transformers: eager, sdpa, flash_attention_2, or auto: eager for embedded policies on CPU, else "
        "sdpa.",
    )

    def __post_init__(self):
        check_number("lora_r", self.lora_r, least=1)
        check_number("lora_dropout", self.lora_dropout, least=0, below=1)
        check_dtype(self.dtype, trained=False)
        if self.load_in_4bit:
            self._check_4bit()

    def _check_4bit(self):
        if not self.lora:
            raise UserError("--load_in_4bit freezes the weights; add --lora, whose adapter is what then learns.")
        if not torch.cuda.is_available():
            raise UserError(
                "--load_in_4bit needs a CUDA device and there is none; leave it out (--lora alone works on CPU)."
            )
        if not is_bitsandbytes_available():
            raise UserError("--load_in_4bit needs the package bitsandbytes; install it with pip install bitsandbytes.")

    def weight_dtype(self) -> torch.dtype:
        """The precision that ``dtype`` means on this machine."""
        if self.dtype != "auto":
            return DTYPES[self.dtype]
        return half_type() if self.lora and torch.accelerator.is_available() else torch.float32

    def lora_config(self) -> LoraConfig | None:
        """The adapter to train, or None for full training."""
        if not self.lora:
            return None
        modules = self.lora_target_modules
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=modules if modules == ALL_LINEAR else module_names(modules),
            task_type="CAUSAL_LM",
        )

    def quantization(self) -> BitsAndBytesConfig | None:
        """4-bit NF4 with arithmetic in half precision, or None."""
        if not self.load_in_4bit:
            return None
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=half_type(),
        )


def module_names(text: str) -> list[str]:
    """The parts of ``text`` between its commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
