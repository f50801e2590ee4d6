"""Thin classes for training loops written by others; each file needs its own library.

``huggingface``: a Trainer for models that return one loss per task. ``lightning``: a callback that logs and
ends epochs. ``sklearn``: an estimator for tables. Accelerate and PEFT need none: ``examples/`` shows them.
"""
