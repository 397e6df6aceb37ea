"""What every page shares: the template environment, styles, scripts, and how numbers are written."""
