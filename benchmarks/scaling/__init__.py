"""The parts of ``benchmarks/scale.py``: what is measured, and the page that is made of it."""
