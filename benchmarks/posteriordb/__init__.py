"""Correctness of the default sampler on the posteriors of a posteriordb selection.

Every posterior is written in the language, run with `infer` and no hints, and compared with the
reference draws: Magnusson, Bürkner and Vehtari, "posteriordb: a set of posteriors for Bayesian
inference and probabilistic programming" (2023). The data are not part of this repository; `--pack`
names a folder with one sub-folder per posterior (`data.json`, `reference.npz`).
"""
