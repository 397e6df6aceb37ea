"""The ways to score and to ablate, by name."""

#: Ways to score edges.
METHODS = {
    "eap": "one gradient, at the clean run",
    "eap-ig-inputs": "gradients between the corrupt and the clean embeddings",
    "eap-ig-activations": "gradients between the corrupt and the clean activations of each block's writers",
    "exact": "each edge patched in its own pass",
}
#: Ways to compare the next token of two texts.
METRICS = ("logit-difference", "divergence")
#: What replaces a head's output.
ABLATIONS = {
    "zero": "zeros",
    "mean": "the head's mean output over reference texts",
    "resample": "the head's output at a random token of reference texts",
}
