"""The cost of a federated round over the cost of the forward passes that it cannot do without."""
