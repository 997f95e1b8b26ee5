"""Patches of a model: gate(x) * write(x) at a down-projection, by a hook; and the memories that are built of them."""
