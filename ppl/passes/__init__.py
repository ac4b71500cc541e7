"""Rewrites of a density into a cheaper one with the same value, one file each."""
