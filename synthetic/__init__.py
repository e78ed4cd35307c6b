"""Problems with known eigenvalues, and the experiments that are run on them."""
