"""The report of an adapter and of a study of objectives."""
