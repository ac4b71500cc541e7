"""Benchmarks: one command each, peers side by side, figures as a table and as JSON."""
