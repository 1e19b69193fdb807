"""Random Noise Augmentation: LLM unlearning that stays robust when a forget-token turns up in a harmless question."""

__version__ = "0.1.0"
NUMERICS = 1  # raised by hand whenever a change alters trained tensors or metrics; part of every key
