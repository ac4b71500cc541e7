"""Exact inference on arrays: recursions that know nothing of models or samplers."""
