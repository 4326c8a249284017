"""What other libraries expect of a model, around a surrogate."""
