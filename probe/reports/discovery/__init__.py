"""The report of a discovery: the behaviours found and the evidence for them."""
