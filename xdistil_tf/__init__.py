"""Distillation of large pretrained transformers into small, fast students, on TensorFlow."""

__version__ = "0.1.0"
