"""Importable models by family, with published data to show them on.

``eight_schools``, ``linear``, ``logistic``, ``varying_slopes``, ``survival``, ``hidden_autoregression``, ``mixture``;
``datasets.load(name)`` reads the data.
"""
