"""``probe demo``: a short run on both bundled pairs."""
