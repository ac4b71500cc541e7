"""Adapters: step size, metric and what else is learned while a chain warms up."""
