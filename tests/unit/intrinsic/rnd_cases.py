"""i-MENTOR's bonus in its two modes, at the size of the tests."""

from intrinsic.parts.error_conditioned import Conditioning
from intrinsic.rnd import RandomNetworkDistillation

TEXTS = ["1+2=3", "2*3=6", "5-4=1", "7-3=4"]


def reference(**settings):
    return RandomNetworkDistillation(Conditioning(mode="reference"), prompt_length=4, response_length=6, **settings)


def fixed(**settings):
    return RandomNetworkDistillation(Conditioning(**settings), width=32)
