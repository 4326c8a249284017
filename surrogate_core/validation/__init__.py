"""How far a surrogate can be trusted: held-out rows, calibration, gradients, reach of the data, and gates on all."""
