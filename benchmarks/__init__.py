"""Figures, each beside a physical floor that is measured in the same run: ``python -m benchmarks``."""
