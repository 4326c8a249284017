"""How far a surrogate can be trusted: cross-validation, metrics of prediction and uncertainty, gates."""
