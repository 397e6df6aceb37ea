"""What an adapter does: measurements, controls, and objectives side by side."""
