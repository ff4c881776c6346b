"""MoCME: multi-modal knowledge graph completion with complementary modality experts, in JAX and Flax."""

__version__ = "0.1.0"
