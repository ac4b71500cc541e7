"""One short script per family of models, on published data: ``python -m examples.eight_schools``."""
