"""Prompts: how a model is asked, the tags around its thinking, and the check that two tokenizers agree."""
