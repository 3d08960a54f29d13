"""When requests are sent."""

from llmexp.schedule.offsets import ends, levels, limits, offsets, shard

__all__ = ["ends", "levels", "limits", "offsets", "shard"]
