"""Random Noise Augmentation: LLM unlearning that stays robust when a forget-token turns up in a harmless question."""

__version__ = "0.1.0"
NUMERICS = 2
