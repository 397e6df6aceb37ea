"""Training a LoRA: ``plan`` (which layers), ``objective`` (the loss), ``packing`` (texts), ``tune`` (the loop)."""
