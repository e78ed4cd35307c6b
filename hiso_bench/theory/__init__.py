"""Exact theory of one zeroth-order step on quadratics, in NumPy float64.

These modules are the yardstick the simulation is measured with, so they import nothing of it:

- `moments`: mean and second moment of one step dx, for any H, mu and P;
- `recursion`: the expected loss of every round of a diagonal problem, and the floor it settles on;
- `stability`: the largest mean-square stable learning rate.

Symbols, used everywhere: f(x) = 1/2 x' S x (S the Hessian), g its gradient at x, H the preconditioner,
C = H^{-1}, z = H^{-1/2} w a direction, mu the smoothing radius, P directions a round, eta the learning rate,
m clients, lambda_j = s_j / h_j the eigenvalues of H^{-1/2} S H^{-1/2} for S = diag(s), H = diag(h).
"""
