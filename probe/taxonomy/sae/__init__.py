"""Small top-k SAEs: their settings, initialisation, training and normalisation."""
