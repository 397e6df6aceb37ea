"""A toolkit that asks what training added to a thinking model: reasoning mechanisms, or only when to use them.

``probe.demo()`` opens a small finished run to look at. Otherwise start with one of these groups of names:

- Circuits: ``load_pair``, ``capture``, ``edit``, ``EdgeLens``, ``attribute``, ``patch``, ``logit_lens``.
- Steering: ``generate_traces``, ``harvest``, ``fit_taxonomy``, ``learn_vectors``, ``evaluate_arm``, ``run``.
- SAE-tuning adapters: ``load_sae``, ``tune``, ``verify``, ``attached``, and the subpackage ``probe.adapters``.

For example, this reads the residual stream that leaves block 2::

    import probe

    pair = probe.load_pair("tiny-rl")
    ids = pair.base.tokenizer("Mia has 22 cards.", return_tensors="pt").input_ids
    with probe.capture(pair.base, "resid_post.2") as acts:
        pair.base.hf(ids)
    acts["resid_post.2"].shape

Each name is imported when it is first used, so ``import probe`` is quick. ``probe/__init__.pyi`` lists all of them.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
