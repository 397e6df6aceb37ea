"""The report of a run, its figures and tables, and runs side by side."""
