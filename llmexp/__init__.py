"""llmexp: which language model, on which deployment stack, should carry your traffic."""

__version__ = "0.1.0"
