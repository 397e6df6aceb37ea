"""Reading traces that others wrote: sources of records, the shapes of records, and their text as tokens of a model."""
