"""Where token features for bonuses come from: the generation, a pass over the policy, the policy before training."""

import logging

from torch import Tensor
from transformers import PreTrainedModel

from common.sharding import is_sharded
from policy.capture import GenerationCapture
from policy.features import FROZEN_FEATURES, TOKEN_FEATURES, FeaturePass
from policy.frozen import FrozenPolicy
from policy.precision import Precision
from training.shared_pass import SharedPass, takes_old_logps

logger = logging.getLogger(__name__)


class TokenFeatures:
    """The part of `IntrinsicGRPOTrainer` that reads token features for bonuses."""

    def _frozen_policy(self, model: PreTrainedModel, args, uses_adapter: bool) -> FrozenPolicy | None:
        """The policy before training, for the bonuses that read it; None where none does. To be called before TRL
        prepares ``model``."""
        if not self.bonuses.needs & FROZEN_FEATURES.keys():
            return None
        cast = Precision.of(args).cast
        return FrozenPolicy(model, has_reference=args.beta != 0.0, uses_adapter=uses_adapter, cast=cast)

    def _set_up_features(self, policy: PreTrainedModel, frozen: FrozenPolicy | None, captures: bool) -> None:
        """Set up what reads token features: off the generation, in a pass over ``policy``, off ``frozen``.

        ``captures``: whether they may be read off the generation.
        """
        batch_size, autocast = self.args.per_device_train_batch_size, self.accelerator.autocast
        feature_pass = FeaturePass(policy, self.temperature, batch_size)
        if self.bonuses.needs & {"self_certainty", "frozen_self_certainty"} and not feature_pass.head.is_plain:
            logger.warning("self-certainty goes through the logits, in chunks: this policy has %s", feature_pass.head)
        self._capture = None
        if self._has_other_sampler or is_sharded(policy):  # what is captured has to meet the head's weights again
            captures = False
        names = self.bonuses.needs & TOKEN_FEATURES
        if captures and names:
            self._capture = GenerationCapture(policy, self.temperature, names, self.eos_token_ids)
        read = frozenset() if self._capture else names
        self._shared_pass = SharedPass(feature_pass, read, takes_old_logps(self.args), autocast)
        self._frozen = frozen
        if frozen is not None:
            device = self.accelerator.device
            frozen.attach(policy, self.ref_model, self.temperature, batch_size, device, autocast)

    @property
    def _serves_bonuses(self) -> bool:
        """Whether the reference model's pass over a training batch sees the tokens that the bonuses need it to see."""
        whole_rows = not self.args.mask_truncated_completions
        return self._frozen is not None and self.model.training and whole_rows and self.accelerator.num_processes == 1

    def _features(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        """The token features that some bonus needs: captured in generation, or from one pass over the policy."""
        needs, features = self.bonuses.needs, {}
        if self._capture is not None:
            features = self._capture.features(tokens["completion_ids"], tokens["completion_mask"])
        elif self._shared_pass.names:
            features = self._shared_pass.features(tokens)
        if needs & FROZEN_FEATURES.keys():
            features |= self._frozen(tokens, needs & FROZEN_FEATURES.keys())
        return {name: features[name] for name in features if name in needs}
