"""The demonstration: an open and a closed loop on one model, with a page."""
