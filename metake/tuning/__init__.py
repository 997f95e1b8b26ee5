"""Search of settings, and sweeps over the strength of the constraint."""
