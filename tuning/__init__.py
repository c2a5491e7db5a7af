"""The search for better parameters of the training."""
