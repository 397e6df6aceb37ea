"""Models and pairs: loading, prompts, tokenizer alignment, and the table of sites.

Names are imported when they are first used, so that listing the pairs needs no library that runs models.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
