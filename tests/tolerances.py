"""How close two numbers must be, by what tells them apart."""

ROUNDING = 1e-12  # the same number by a few operations of float64 in another order
SOLVE = 1e-8  # the same number by another factorization of a covariance that is not far from singular
DIFFERENCES = 1e-5  # a derivative against central differences, relative to its size
GRADIENT = 1e-6  # a gradient by hand against automatic differentiation, and sums with as much cancellation
NEARBY = 1e-4  # what is left of the distance between rows that are nearly one, r2 = |a|^2 + |b|^2 - 2ab
REORDERED = 1e-3  # a fit of the same rows in another order, relative to the spread of y: its search stops elsewhere
LIKELIHOOD = 1e-2  # nats of log marginal likelihood that a search for hyperparameters may miss
QUADRATURE = 1e-6  # an integral of a smooth density by 64 nodes
DESCENT = 1e-3  # unit-cube distance from a minimum at which a descent has arrived
