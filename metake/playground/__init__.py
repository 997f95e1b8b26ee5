"""A page in the browser where facts are edited and the theory's bounds are compared with the solver's results."""
