"""Exact theory of one zeroth-order step on quadratics, in NumPy float64.

These modules are the yardstick the simulation is measured with, so they import nothing of it:

- `moments`: mean and second moment of one step dx, for any H, mu and P;
- `recursion`: expected loss and gradient norms of every round of a diagonal problem, and the floor they settle on;
- `closed_form`: the recursion solved for all rounds at once, and the best constant step that follows;
- `diagonal`: the step's second moment in O(d), for one client or m of M, that the recursion repeats;
- `matrices`: the same for full matrices: different Hessians, rotated axes, linear terms, sampled clients;
- `stability`: the largest mean-square stable learning rate, with and without momentum;
- `operators`: the maps of second moments as matrices, which `stability` solves in closed form;
- `lyapunov`: the growth rate of single runs, and where almost all of them stop converging;
- `local_steps`: the moments of every client's model when tau > 1, for unequal clients;
- `minibatch`: the recursion of least squares on fresh minibatches, whose noise moves with x;
- `projection`: the recursion of the method that keeps the factor which HiSo's Eq 7 drops;
- `learned`: what the H of HiSo settles on where the gradient stands still, and its scatter;
- `spectra`: families of Hessians, and the numbers that say how hard they are.

Symbols, used everywhere: f(x) = 1/2 x' S x (S the Hessian), g its gradient at x, H the preconditioner,
C = H^{-1}, z = H^{-1/2} w a direction, mu the smoothing radius, P directions a round, eta the learning rate,
m clients, lambda_j = s_j / h_j the eigenvalues of H^{-1/2} S H^{-1/2} for S = diag(s), H = diag(h).
"""
