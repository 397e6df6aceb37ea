"""Models and pairs: loading, prompts, tokenizer alignment, and the one table of sites.

Names are imported when they are first used: to list the pairs, no library that runs models is needed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
