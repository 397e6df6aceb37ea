"""Reading the residual stream as next tokens."""
