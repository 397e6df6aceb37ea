"""Training a LoRA through an SAE: plan, objective, packed texts, and the loop."""
