"""Figures that check the theory: one module per theorem, one function per figure."""
