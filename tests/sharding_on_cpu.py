"""FSDP 2 on processes of the CPU: accelerate shards on accelerators alone, though torch does it anywhere."""

from accelerate.state import AcceleratorState, DistributedType, PartialState


def shard_on_cpu() -> None:
    """From now on accelerate takes the settings of its FSDP launch file on CPU processes too."""
    initialise = AcceleratorState.__init__

    def initialise_with_fsdp(self, *args, fsdp_plugin=None, **settings):
        initialise(self, *args, fsdp_plugin=fsdp_plugin, **settings)
        if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
            # As for accelerators, see `AcceleratorState.__init__`.
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = initialise_with_fsdp
