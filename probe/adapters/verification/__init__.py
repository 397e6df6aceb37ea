"""What an adapter does: ``verify`` (one adapter), ``study`` (objectives and controls), ``choose`` (a latent)."""
