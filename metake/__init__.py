"""Knowledge editing by bi-level optimisation, with its theory checked."""

__version__ = "0.1.0"
