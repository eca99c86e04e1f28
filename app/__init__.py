"""Litepool: Keras and TFLite models over HTTP at the speed of the interpreter."""

__version__ = "0.1.0"
