"""Importable models by family, with published data to show them on.

``eight_schools``, ``linear``, ``logistic``, ``varying_slopes``, ``survival``, ``hidden_autoregression`` and
``mixture`` hold the models; ``datasets.load(name)`` reads the data.
"""
