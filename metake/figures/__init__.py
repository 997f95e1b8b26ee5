"""Figures that check the theory; one function per figure, registered by `shows`."""
